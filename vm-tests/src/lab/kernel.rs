//! Stock Debian kernels of any suite: fetched as packages, unpacked, and made bootable without being installed.
//!
//! The image is booted unpacked (the ELF inside `vmlinuz`, through QEMU's PVH entry): it is the same
//! kernel, and emulated XZ decompression would cost seconds at every boot. The modules become a disk of
//! their own, so that one root image serves every kernel.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::apt::Apt;
use super::cache::{Cache, Recipe};
use super::host::{Step, program, run};
use super::initramfs;

const INIT_SOURCE: &str = include_str!("../../guest/init.c");
const FORMAT: &str = "kernel-2";

/// A kernel's files in the cache.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `uname -r`, like `6.1.0-50-amd64`.
    pub release: String,
    dir: PathBuf,
}

impl Kernel {
    /// Fetches and prepares the kernel package of `release`, or finds it in the cache.
    pub fn prepare(cache: &Cache, release: &str) -> Result<Self> {
        let recipe = Recipe::of([FORMAT, release, INIT_SOURCE]);
        let dir = cache.entry(&format!("kernel-{release}"), &recipe, |dir| build(cache, dir, release))?;
        Ok(Self { release: release.to_owned(), dir })
    }

    /// The unpacked image (ELF).
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// The image as packaged.
    pub fn vmlinuz(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The kernel's configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config")
    }

    /// Directory with the modules (`kernel/`, `modules.dep`, ...).
    pub fn modules(&self) -> PathBuf {
        self.dir.join("modules")
    }

    /// ext4 image of [`Self::modules`].
    pub fn modules_disk(&self) -> PathBuf {
        self.dir.join("modules.ext4")
    }

    /// The lab's initramfs for this kernel.
    pub fn initramfs(&self) -> PathBuf {
        self.dir.join("initramfs.cpio")
    }

    /// Fetches the headers of this kernel, so that `make -C <this> M=DIR modules` works.
    pub fn headers(&self, cache: &Cache) -> Result<PathBuf> {
        let recipe = Recipe::of(["headers-3", &self.release]);
        let dir = cache.entry(&format!("headers-{}", self.release), &recipe, |dir| {
            build_headers(cache, dir, &self.release)
        })?;
        let tree = dir.join(format!("usr/src/linux-headers-{}", self.release));
        Ok(tree)
    }
}

fn build(cache: &Cache, dir: &Path, release: &str) -> Result<()> {
    let step = Step::begin(&format!("preparing kernel {release}"));
    let unpacked = dir.join("package");
    let apt = Apt::open(cache)?;
    apt.unpack(&image_packages(&apt, release)?, &unpacked)?;
    // The part of the merged /usr that older packages do not name.
    let beneath = unpacked.join("usr/lib/modules").join(release);
    let modules = unpacked.join("lib/modules").join(release);
    if beneath.is_dir() {
        fs::create_dir_all(unpacked.join("lib/modules"))?;
        fs::rename(&beneath, &modules)?;
    }
    for name in ["vmlinuz", "config"] {
        let in_boot = unpacked.join(format!("boot/{name}-{release}"));
        let beside_modules = modules.join(name);
        let found = if in_boot.is_file() { in_boot } else { beside_modules };
        fs::rename(&found, dir.join(name))
            .with_context(|| format!("the packages of {release} have no {name}"))?;
    }
    run(program("depmod").arg("-b").arg(&unpacked).arg(release))?;
    fs::rename(&modules, dir.join("modules"))?;
    fs::remove_dir_all(&unpacked)?;

    fs::write(dir.join("vmlinux"), unpack_image(&fs::read(dir.join("vmlinuz"))?)?)?;
    let init = dir.join("init");
    compile_static(INIT_SOURCE, &init)?;
    initramfs::write(&init, &dir.join("modules"), &dir.join("initramfs.cpio"))?;
    run(program("mke2fs")
        .args(["-q", "-t", "ext4", "-m", "0", "-N", "8192", "-O", "^has_journal", "-L", "modules", "-d"])
        .arg(dir.join("modules"))
        .arg(dir.join("modules.ext4"))
        .arg("640M"))?;
    step.end();
    Ok(())
}

/// The packages that hold image, configuration and modules: one up to 6.12; from 7.0 on three, of which
/// `linux-image` is none.
fn image_packages(apt: &Apt, release: &str) -> Result<Vec<String>> {
    let binary = format!("linux-binary-{release}");
    if !apt.versions(&binary)?.is_empty() {
        return Ok(vec![binary, format!("linux-base-{release}"), format!("linux-modules-{release}")]);
    }
    Ok(vec![format!("linux-image-{release}")])
}

/// The version of the package that holds a kernel's image, like `6.12.107-1`.
pub fn image_version(apt: &Apt, release: &str) -> Result<String> {
    let package = image_packages(apt, release)?.swap_remove(0);
    let versions = apt.versions(&package)?;
    versions.into_iter().next().with_context(|| format!("no suite has a package {package}"))
}

fn build_headers(cache: &Cache, dir: &Path, release: &str) -> Result<()> {
    let step = Step::begin(&format!("fetching headers of {release}"));
    let apt = Apt::open(cache)?;
    let headers = format!("linux-headers-{release}");
    let mut packages = apt.dependencies(&headers)?;
    packages.retain(|name| name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-"));
    let common = packages.iter().find(|name| name.ends_with("-common")).cloned();
    let common = common.with_context(|| format!("{headers} depends on no package of common headers"))?;
    packages.push(headers);
    apt.unpack(&packages, dir)?;
    // As packaged it names /usr/src, where nothing is installed.
    let makefile = format!("include $(dir $(lastword $(MAKEFILE_LIST)))../{common}/Makefile\n");
    fs::write(dir.join(format!("usr/src/linux-headers-{release}/Makefile")), makefile)?;
    step.end();
    Ok(())
}

/// Compiles one C file into a static program, which then runs in any guest.
pub fn compile_static(source: &str, target: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("source.c");
    fs::write(&file, source)?;
    run(program("gcc").args(["-static", "-O2", "-s", "-Wall", "-o"]).arg(target).arg(&file))?;
    Ok(())
}

/// Takes the ELF kernel out of a bzImage.
///
/// Offsets are those of the x86 boot protocol (Documentation/arch/x86/boot.rst): `setup_sects` at
/// 0x1f1, `payload_offset` at 0x248 and `payload_length` at 0x24c, counted from the protected-mode code.
fn unpack_image(bzimage: &[u8]) -> Result<Vec<u8>> {
    ensure!(bzimage.get(0x202..0x206) == Some(b"HdrS"), "the kernel image has no boot protocol header");
    let word = |at: usize| {
        let bytes = bzimage.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let setup_sectors = match bzimage[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let payload = word(0x248).zip(word(0x24c)).and_then(|(offset, length)| {
        let start = (setup_sectors + 1) * 512 + offset;
        bzimage.get(start..start + length)
    });
    let payload = payload.ok_or_else(|| anyhow!("the kernel image is shorter than its header says"))?;
    let mut elf = Vec::new();
    match payload {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            liblzma::read::XzDecoder::new(payload).read_to_end(&mut elf)?;
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            // One frame, behind which the build puts four bytes of size; its window has 128 MiB.
            let mut frame = zstd::Decoder::with_buffer(payload)?.single_frame();
            frame.window_log_max(27)?;
            frame.read_to_end(&mut elf)?;
        }
        _ => bail!("the kernel image is compressed neither with XZ nor with zstd, as Debian's are"),
    }
    ensure!(elf.starts_with(b"\x7fELF"), "the kernel image does not hold an ELF file");
    Ok(elf)
}
