//! The root file system of lab machines: a small Debian of each release, made once and never written again.
//!
//! Machines write to a layer of their own on top of it (see [`super::disk`]). The image holds no kernel
//! modules; those come on a second disk with the kernel.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::cache::{Cache, Recipe};
use super::distribution::Distribution;
use super::host::{self, Step, program, run};
use super::kernel::compile_static;

const CUSTOMIZE: &str = include_str!("../../guest/customize.sh");
const RUNNER_SOURCE: &str = include_str!("../../guest/runner.c");
/// Size of the root file system as the guest sees it; the file is sparse.
const SIZE: &str = "8G";

/// Unpacks, adapts and packs again, as one process that is root or believes it.
const SCRIPT: &str = r#"set -e
mkdir root
tar -xpf "$DEBIAN" -C root --numeric-owner
sh -c "$CUSTOMIZE" customize "$PWD/root"
mke2fs -q -t ext4 -L root -d root root.ext4 "$SIZE"
rm -rf root
"#;

/// The root image and the keys that open it.
#[derive(Debug, Clone)]
pub struct Image {
    dir: PathBuf,
    keys: PathBuf,
}

impl Image {
    /// Builds the image, or finds it in the cache.
    pub fn prepare(cache: &Cache, distribution: Distribution) -> Result<Self> {
        let keys = cache.entry("keys", &Recipe::of(["1"]), make_keys)?;
        let packages = distribution.packages();
        let made_of = Recipe::of(packages.iter().chain([&distribution.suite()]));
        let debian = cache.entry("debian", &made_of, |dir| bootstrap(dir, distribution))?;
        let mut recipe = Recipe::of([SIZE, SCRIPT, CUSTOMIZE, RUNNER_SOURCE]);
        recipe.add(debian.as_os_str().as_encoded_bytes());
        recipe.add(fs::read(keys.join("id_ed25519.pub"))?);
        let dir = cache.entry("root", &recipe, |dir| build(dir, &debian, &keys))?;
        Ok(Self { dir, keys })
    }

    /// Raw ext4 image. Read only.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("root.ext4")
    }

    /// Private key that root's ssh login accepts.
    pub fn login_key(&self) -> PathBuf {
        self.keys.join("id_ed25519")
    }

    /// Name of the cache entry: changes when the image changes.
    pub fn identity(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

fn make_keys(dir: &Path) -> Result<()> {
    for name in ["id_ed25519", "host_ed25519"] {
        run(program("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"])
            .arg(dir.join(name)))?;
    }
    Ok(())
}

fn bootstrap(dir: &Path, distribution: Distribution) -> Result<()> {
    let step = Step::begin(&format!("making the guest's root of {distribution} (downloads about 100 MB)"));
    let mut bootstrap = program("mmdebstrap");
    bootstrap.args([
        "--quiet",
        "--variant=essential",
        "--format=tar",
        "--aptopt=Acquire::Languages \"none\"",
        "--aptopt=Apt::Install-Recommends \"false\"",
    ]);
    for excluded in ["doc", "man", "locale", "info", "lintian"] {
        bootstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{excluded}/*"));
    }
    bootstrap.arg(format!("--include={}", distribution.packages().join(",")));
    // Without a mirror mmdebstrap takes Debian's own, with updates and security.
    run(bootstrap.arg(distribution.suite()).arg(dir.join("root.tar")))?;
    step.end();
    Ok(())
}

fn build(dir: &Path, debian: &Path, keys: &Path) -> Result<()> {
    let step = Step::begin("making the guest's root disk");
    let runner = dir.join("lab-runner");
    compile_static(RUNNER_SOURCE, &runner)?;
    let mut pack = if host::is_root() { program("sh") } else { program("fakeroot") };
    if !host::is_root() {
        pack.arg("sh");
    }
    run(pack
        .args(["-c", SCRIPT])
        .current_dir(dir)
        .env("CUSTOMIZE", CUSTOMIZE)
        .env("DEBIAN", debian.join("root.tar"))
        .env("SIZE", SIZE)
        .env("RUNNER", &runner)
        .env("KEYS", keys))?;
    step.end();
    Ok(())
}
