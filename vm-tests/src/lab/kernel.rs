//! Stock Debian kernels: fetched as packages, unpacked, and made bootable without being installed.
//!
//! The image is booted unpacked (the ELF inside `vmlinuz`, through QEMU's PVH entry): it is the same
//! kernel, and emulated XZ decompression would cost seconds at every boot. The modules become a disk of
//! their own, so that one root image serves every kernel.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::cache::{Cache, Recipe};
use super::host::{self, Step, program, run};
use super::initramfs;

/// The kernel that the demo and the tests use unless they name another.
pub const DEFAULT_RELEASE: &str = "6.1.0-50-amd64";

const INIT_SOURCE: &str = include_str!("../../guest/init.c");
const FORMAT: &str = "kernel-1";

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
        let dir = cache.entry(&format!("kernel-{release}"), &recipe, |dir| build(dir, release))?;
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
        let recipe = Recipe::of(["headers-2", &self.release]);
        let dir = cache
            .entry(&format!("headers-{}", self.release), &recipe, |dir| build_headers(dir, &self.release))?;
        let tree = dir.join(format!("usr/src/linux-headers-{}", self.release));
        Ok(tree)
    }
}

fn build(dir: &Path, release: &str) -> Result<()> {
    let step = Step::begin(&format!("preparing kernel {release}"));
    let unpacked = dir.join("package");
    fetch_and_unpack(&[&format!("linux-image-{release}")], &unpacked)?;
    fs::rename(unpacked.join(format!("boot/vmlinuz-{release}")), dir.join("vmlinuz"))?;
    fs::rename(unpacked.join(format!("boot/config-{release}")), dir.join("config"))?;
    run(program("depmod").arg("-b").arg(&unpacked).arg(release))?;
    fs::rename(unpacked.join(format!("lib/modules/{release}")), dir.join("modules"))?;
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

fn common_headers(release: &str) -> Result<String> {
    let abi = release
        .strip_suffix("-amd64")
        .ok_or_else(|| anyhow!("{release} is not the release of a Debian amd64 kernel"))?;
    Ok(format!("linux-headers-{abi}-common"))
}

fn build_headers(dir: &Path, release: &str) -> Result<()> {
    let step = Step::begin(&format!("fetching headers of {release}"));
    let common = common_headers(release)?;
    let abi: Vec<&str> = release.splitn(3, '.').collect();
    let kbuild = format!("linux-kbuild-{}.{}", abi[0], abi[1]);
    fetch_and_unpack(&[&format!("linux-headers-{release}"), &common, &kbuild], dir)?;
    // As packaged it names /usr/src, where nothing is installed.
    let makefile = format!("include $(dir $(lastword $(MAKEFILE_LIST)))../{common}/Makefile\n");
    fs::write(dir.join(format!("usr/src/linux-headers-{release}/Makefile")), makefile)?;
    step.end();
    Ok(())
}

/// Downloads packages with apt and unpacks them into `target`, without installing them.
fn fetch_and_unpack(packages: &[&str], target: &Path) -> Result<()> {
    host::refresh_apt_lists()?;
    let debs = tempfile::tempdir_in(target.parent().unwrap_or(target))?;
    run(program("apt-get")
        .args(["-o", "APT::Sandbox::User=root", "download"])
        .args(packages)
        .current_dir(debs.path()))
    .context("apt has no such package for this machine; the lab needs Debian 12's package sources")?;
    fs::create_dir_all(target)?;
    for deb in fs::read_dir(debs.path())? {
        run(program("dpkg-deb").arg("-x").arg(deb?.path()).arg(target))?;
    }
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
    if !payload.starts_with(b"\xfd7zXZ\0") {
        bail!("the kernel image is not compressed with XZ as Debian's are");
    }
    let mut elf = Vec::new();
    liblzma::read::XzDecoder::new(payload).read_to_end(&mut elf)?;
    ensure!(elf.starts_with(b"\x7fELF"), "the kernel image does not hold an ELF file");
    Ok(elf)
}
