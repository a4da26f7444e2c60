//! What the guests run: a server with a library that has versions, livepatches for stock functions, containers.
//!
//! Everything is compiled from `fixtures/` by this machine's gcc and, for kernel modules, by the kernel's own
//! build system from the headers package; it is built once and kept in the lab's cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::lab::cache::Recipe;
use crate::lab::host::{Step, find_program, program, run};
use crate::lab::kernel::{DEFAULT_RELEASE, compile_static};
use crate::lab::machine::Machine;

const GREETD: &str = include_str!("../../demo/greetd.c");
const LIBGREET: &str = include_str!("../../demo/libgreet.c");
const GREETC: &str = include_str!("../../demo/greetc.c");
const GREET_ONCE: &str = include_str!("../../demo/greet-once.c");
const LIVEPATCH_CMDLINE: &str = include_str!("../../demo/livepatch-cmdline.c");
const LIVEPATCH_VERSION: &str = include_str!("../../demo/livepatch-version.c");
const GUEST_SETUP: &str = include_str!("../../demo/guest-setup.sh");

/// Build-ids are given to the linker, so that manifests can name them without reading the libraries.
const VULNERABLE: &str = "6772656574000000000000000000000000000001";
const FIXED: &str = "6772656574000000000000000000000000000002";
const BROKEN: &str = "6772656574000000000000000000000000000003";

/// The built fixtures, in the cache.
#[derive(Debug, Clone)]
pub struct Fixtures {
    dir: PathBuf,
    recipe: String,
    /// Livepatch of `cmdline_proc_show`: /proc/cmdline says `livepatched`.
    pub livepatch_cmdline: PathBuf,
    /// Livepatch of `version_proc_show`: /proc/version says `livepatched`.
    pub livepatch_version: PathBuf,
    /// The fixed libgreet as an OCI layer, tar with zstd.
    pub layer_fixed: PathBuf,
    /// The broken libgreet as an OCI layer, tar with zstd.
    pub layer_broken: PathBuf,
    /// GNU build-id of the vulnerable libgreet.
    pub vulnerable_build_id: String,
    /// GNU build-id of the fixed libgreet.
    pub fixed_build_id: String,
}

impl Fixtures {
    /// Build them, or find them in the cache.
    ///
    /// # Errors
    /// If a compiler fails or a package cannot be fetched.
    pub fn build(lab: &Lab) -> Result<Self> {
        let recipe = Recipe::of([
            "fixtures-1",
            GREETD,
            LIBGREET,
            GREETC,
            GREET_ONCE,
            LIVEPATCH_CMDLINE,
            LIVEPATCH_VERSION,
            GUEST_SETUP,
            DEFAULT_RELEASE,
        ]);
        let headers = lab.kernel(DEFAULT_RELEASE)?.headers(lab.cache())?;
        let dir = lab.cache().entry("fixtures", &recipe, |dir| build(dir, &headers))?;
        Ok(Self {
            recipe: recipe.digest(),
            livepatch_cmdline: dir.join("livepatch-cmdline.ko"),
            livepatch_version: dir.join("livepatch-version.ko"),
            layer_fixed: dir.join("libgreet-fixed.tar.zst"),
            layer_broken: dir.join("libgreet-broken.tar.zst"),
            vulnerable_build_id: VULNERABLE.to_owned(),
            fixed_build_id: FIXED.to_owned(),
            dir,
        })
    }

    /// What decides the outcome of [`Fixtures::install`].
    pub fn identity(&self) -> Vec<u8> {
        self.recipe.clone().into_bytes()
    }

    /// Bring a guest to running containers, with clients at hand.
    ///
    /// # Errors
    /// If the guest cannot be brought there.
    pub fn install(&self, machine: &Machine) -> Result<()> {
        let guest = machine.guest();
        guest.push(&self.dir.join("greetc"), "/usr/bin/greetc")?;
        guest.push(&self.dir.join("greet-once"), "/usr/bin/greet-once")?;
        guest.push(&self.dir.join("rootfs.tar"), "/root/rootfs.tar")?;
        guest.write_file("/root/guest-setup.sh", GUEST_SETUP.as_bytes(), 0o755)?;
        machine.sh("/root/guest-setup.sh")?;
        let answer = machine.sh(
            "for i in $(seq 30); do printf 'hit\\n' | timeout 10 greet-once 10.77.0.2 7000 && break; sleep 1; done",
        )?;
        anyhow::ensure!(answer.contains("greeting=vulnerable"), "the container does not answer: {answer:?}");
        Ok(())
    }
}

fn build(dir: &Path, headers: &Path) -> Result<()> {
    let step = Step::begin("building fixtures");
    compile_static(GREETC, &dir.join("greetc"))?;
    compile_static(GREET_ONCE, &dir.join("greet-once"))?;
    for (version, build_id) in [("vulnerable", VULNERABLE), ("fixed", FIXED), ("broken", BROKEN)] {
        library(dir, version, build_id)?;
    }
    for version in ["fixed", "broken"] {
        layer(dir, version)?;
    }
    rootfs(dir)?;
    modules(dir, headers)?;
    step.end();
    Ok(())
}

fn library(dir: &Path, version: &str, build_id: &str) -> Result<()> {
    let usr = dir.join(version).join("usr/lib");
    fs::create_dir_all(&usr)?;
    fs::write(dir.join("libgreet.c"), LIBGREET)?;
    run(program("gcc")
        .args(["-shared", "-fPIC", "-O2", "-s", "-Wl,-soname,libgreet.so.1"])
        .arg(format!("-DGREETING=\"{version}\""))
        .arg(format!("-Wl,--build-id=0x{build_id}"))
        .arg("-o")
        .arg(usr.join("libgreet.so.1"))
        .arg(dir.join("libgreet.c")))
    .map(drop)
}

/// The same bytes each time: names sorted, no owner, no time.
fn tar(of: &Path, what: &str, target: &Path) -> Result<()> {
    run(program("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-C"])
        .arg(of)
        .arg("-cf")
        .arg(target)
        .arg(what))
    .map(drop)
}

fn layer(dir: &Path, version: &str) -> Result<()> {
    let plain = dir.join(format!("libgreet-{version}.tar"));
    tar(&dir.join(version), "usr", &plain)?;
    run(program("zstd").args(["-q", "--rm"]).arg(&plain)).map(drop)
}

fn rootfs(dir: &Path) -> Result<()> {
    let root = dir.join("rootfs");
    for directory in ["usr/bin", "usr/lib", "var/lib/greetd", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib"), ("bin", "usr/bin")] {
        std::os::unix::fs::symlink(target, root.join(link))?;
    }
    let vulnerable = dir.join("vulnerable/usr/lib/libgreet.so.1");
    fs::copy(&vulnerable, root.join("usr/lib/libgreet.so.1"))?;
    fs::write(dir.join("greetd.c"), GREETD)?;
    run(program("gcc")
        .args(["-O2", "-s", "-Wall", "-o"])
        .arg(root.join("usr/bin/greetd"))
        .arg(dir.join("greetd.c"))
        .arg(&vulnerable))?;
    for library in ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"] {
        let name = Path::new(library).file_name().context("a library's name")?;
        fs::copy(library, root.join("usr/lib").join(name)).with_context(|| format!("copying {library}"))?;
    }
    let busybox = find_program("busybox").context("busybox is not installed")?;
    fs::copy(busybox, root.join("usr/bin/busybox"))?;
    for name in ["sh", "true", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.join("usr/bin").join(name))?;
    }
    tar(&root, ".", &dir.join("rootfs.tar"))
}

fn modules(dir: &Path, headers: &Path) -> Result<()> {
    let source = dir.join("modules");
    fs::create_dir_all(&source)?;
    fs::write(source.join("livepatch-cmdline.c"), LIVEPATCH_CMDLINE)?;
    fs::write(source.join("livepatch-version.c"), LIVEPATCH_VERSION)?;
    fs::write(source.join("Makefile"), "obj-m := livepatch-cmdline.o livepatch-version.o\n")?;
    run(program("make")
        .arg("-C")
        .arg(headers)
        .arg(format!("M={}", source.display()))
        .args(["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]))?;
    for name in ["livepatch-cmdline.ko", "livepatch-version.ko"] {
        run(program("strip").arg("--strip-debug").arg(source.join(name)))?;
        fs::rename(source.join(name), dir.join(name))?;
    }
    Ok(())
}
