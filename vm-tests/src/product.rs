//! What is tested: `update`, `update-transport`, `patch-tools` and the programs of a fleet, built here and installed in a guest as the
//! packages that users get.
//!
//! The programs are linked statically for users: a host's agent needs none of the libraries that it may be
//! about to replace, and it starts faster. For tests they are so only where the host's C library is newer
//! than that of the guest (Debian 12), in which they would not start otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::lab::cache::Recipe;
use crate::lab::control::Guest;
use crate::lab::host::{self, Step, program, run};
use crate::packages::release::Release;
use crate::packages::{Compression, PACKAGES, Workshop};

/// Version of the C library in the guest: 2.36, of Debian 12.
pub(crate) const GUEST_GLIBC_MINOR: u32 = 36;
/// What the workspace is built with for tests.
pub(crate) const TEST_FEATURES: &str = "updater/power-cuts";
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Has the compiler link a program with all of its libraries.
const STATIC: &str = "-C target-feature=+crt-static";

/// Installs what was pushed into a guest.
const INSTALL: &str = "dpkg --install /root/packages/*.deb >/dev/null && rm -r /root/packages && sync";

/// The packages of a host that is looked after by hand.
const OF_A_HOST: [&str; 2] = ["update", "patch-tools"];

/// What the programs are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// As the workspace's tests are built; and `update` can be told to announce its step boundaries (feature
    /// `power-cuts`), which it does not do by itself.
    Tests,
    /// As users get them: optimised, and without shared libraries.
    Release,
}

/// All that is built, at once: alone, some would have their dependencies with other features than the tests, and all of
/// those would be compiled twice.
const CRATES: [&str; 5] = ["updater", "patch-tools", "update-transport", "update-agent", "controller"];

/// The built programs, on this host.
#[derive(Debug, Clone)]
pub struct Product {
    /// The `update` program.
    pub update: PathBuf,
    /// The `patch-tools` program.
    pub patch_tools: PathBuf,
    /// The `update-transport` program, which `update` starts from beside itself.
    pub transport: PathBuf,
    /// The `update-agent` program, for hosts in a fleet.
    pub agent: PathBuf,
    /// The `update-controller` program, for nobody's host.
    pub controller: PathBuf,
}

impl Product {
    /// Builds the programs with Cargo as they are in this workspace.
    ///
    /// # Errors
    /// If Cargo fails.
    pub fn build(build: Build) -> Result<Self> {
        let step = Step::begin("building update, patch-tools and the others");
        let mut cargo = match build {
            Build::Tests => cargo_build_beside_tests()?,
            Build::Release => cargo_build_of(&CRATES)?,
        };
        let mut flags = "";
        if build == Build::Release || glibc_minor()? > GUEST_GLIBC_MINOR {
            flags = STATIC;
            cargo.args(["--target", TARGET]).env("RUSTFLAGS", flags);
        }
        if build == Build::Release {
            for_release(&mut cargo, flags)?;
        }
        let messages = built(cargo).context("building update, patch-tools and the others")?;
        step.end();
        Ok(Self {
            update: executable(&messages, "update")?,
            patch_tools: executable(&messages, "patch-tools")?,
            transport: executable(&messages, "update-transport")?,
            agent: executable(&messages, "update-agent")?,
            controller: executable(&messages, "update-controller")?,
        })
    }

    /// Builds one program of one package of the workspace, as users get it.
    ///
    /// # Errors
    /// If Cargo fails.
    pub fn one_for_users(package: &str, name: &str) -> Result<PathBuf> {
        let mut cargo = cargo_build_of(&[package])?;
        cargo.args(["--target", TARGET, "--bin", name]);
        for_release(&mut cargo, STATIC)?;
        executable(&built(cargo).with_context(|| format!("building {name}"))?, name)
    }

    /// Builds `update-sign-pkcs11`, which is linked with this host's C library, since it loads others.
    ///
    /// # Errors
    /// If Cargo fails.
    pub fn signer(build: Build) -> Result<PathBuf> {
        let mut cargo = match build {
            Build::Tests => cargo_build_beside_tests()?,
            Build::Release => cargo_build()?,
        };
        cargo.args(["-p", "update-sign-pkcs11"]);
        if build == Build::Release {
            for_release(&mut cargo, "")?;
        }
        executable(&built(cargo).context("building update-sign-pkcs11")?, "update-sign-pkcs11")
    }

    /// What [`Self::install`] brings to a machine.
    pub(crate) fn recipe(&self) -> Result<Recipe> {
        let mut recipe = Recipe::of(["product-2", INSTALL]);
        for program in [&self.update, &self.patch_tools, &self.transport] {
            // Cargo writes a program when it changes, and only then.
            let file = fs::metadata(program)?;
            recipe.add(format!("{} {} {:?}", program.display(), file.len(), file.modified()?));
        }
        for (from, below) in files_under(&workspace()?.join("dist"))? {
            recipe.add(below);
            recipe.add(fs::read(from)?);
        }
        Ok(recipe)
    }

    /// Installs the agent in a machine that is managed already.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn install_agent(&self, guest: &Guest) -> Result<()> {
        self.install_packages(guest, &["update-agent"])
    }

    /// Installs the packages of a host that is looked after by hand.
    ///
    /// # Errors
    /// If they cannot be made, or dpkg does not take them.
    pub fn install(&self, guest: &Guest) -> Result<()> {
        self.install_packages(guest, &OF_A_HOST)
    }

    fn install_packages(&self, guest: &Guest, names: &[&str]) -> Result<()> {
        let room = tempfile::tempdir()?;
        let (workshop, release) = (Workshop::open(self, Build::Tests)?, Release::current()?);
        for package in PACKAGES.iter().filter(|package| names.contains(&package.name)) {
            let deb = workshop.deb(package, &release, Compression::Quick, room.path())?;
            guest.push(&deb, &format!("/root/packages/{}.deb", package.name))?;
        }
        guest.sh(INSTALL)?;
        Ok(())
    }
}

/// The root of the source tree that this program was built from.
pub fn workspace() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .filter(|root| root.join("Cargo.toml").is_file())
        .map(Path::to_owned)
        .ok_or_else(|| anyhow!("the source tree is no longer at {}", here.display()))
}

/// `cargo build` in this workspace, which will say in JSON what it built; to be told of what.
pub(crate) fn cargo_build() -> Result<Command> {
    let mut cargo = host::cargo();
    cargo.args(["build", "--locked", "--quiet", "--message-format=json-render-diagnostics"]);
    cargo.current_dir(workspace()?);
    Ok(cargo)
}

fn cargo_build_of(packages: &[&str]) -> Result<Command> {
    let mut cargo = cargo_build()?;
    cargo.args(packages.iter().flat_map(|package| ["-p", package]));
    Ok(cargo)
}

/// `cargo build` of the programs in the shape of the tests, so that nothing is compiled for it alone. More packages can be
/// added to it.
pub(crate) fn cargo_build_beside_tests() -> Result<Command> {
    let mut cargo = cargo_build_of(&CRATES)?;
    cargo.args(["--features", TEST_FEATURES]);
    Ok(cargo)
}

/// Where Cargo puts what it builds.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let directory = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(workspace()?.join(directory))
}

/// Has a build optimise, and leave no trace of where on this machine it was done.
fn for_release(cargo: &mut Command, flags: &str) -> Result<()> {
    // Of two that fit, the compilers take the last.
    let names = [
        (workspace()?, "/build/update"),
        (target_directory()?, "/build/target"),
        (host::cargo_home()?, "/build/cargo"),
    ];
    let remap = |option: &str| -> String {
        names.iter().map(|(from, to)| format!(" {option}={}={to}", from.display())).collect()
    };
    cargo.arg("--release").env("RUSTFLAGS", format!("{flags}{}", remap("--remap-path-prefix")));
    cargo.env("CFLAGS", remap("-ffile-prefix-map"));
    Ok(())
}

/// Runs a [`cargo_build`]; its messages, for [`executable`].
pub(crate) fn built(mut cargo: Command) -> Result<String> {
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting cargo")?;
    ensure!(output.status.success(), "cargo could not build it");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn executable(messages: &str, name: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| anyhow!("cargo did not say where it put {name}"))
}

/// y of this host's glibc 2.y.
pub(crate) fn glibc_minor() -> Result<u32> {
    let text = String::from_utf8(run(program("getconf").arg("GNU_LIBC_VERSION"))?)?;
    text.trim()
        .strip_prefix("glibc 2.")
        .and_then(|minor| minor.split('.').next()?.parse().ok())
        .ok_or_else(|| anyhow!("this host's C library is `{}`, not glibc 2", text.trim()))
}

/// Files under `root`, each with its path from there.
pub(crate) fn files_under(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let below = path.strip_prefix(root)?.display().to_string();
                found.push((path, below));
            }
        }
    }
    found.sort();
    Ok(found)
}
