//! What is tested: `update`, `update-transport`, `patch-tools` and the programs of a fleet, built here and installed in a guest as a
//! package would do it.
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

/// Version of the C library in the guest: 2.36, of Debian 12.
pub(crate) const GUEST_GLIBC_MINOR: u32 = 36;
/// What the workspace is built with for tests.
pub(crate) const TEST_FEATURES: &str = "updater/power-cuts";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Makes the copied files take effect in a guest.
const INSTALL: &str = "set -e; systemd-sysusers; systemctl daemon-reload
    for preset in /usr/lib/systemd/system-preset/*-update.preset; do
        sed -n 's/^enable //p' $preset | xargs systemctl --quiet enable --now
    done; sync";

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
const PACKAGES: [&str; 5] = ["updater", "patch-tools", "update-transport", "update-agent", "controller"];

fn push_program(guest: &Guest, from: &Path, name: &str) -> Result<()> {
    let small = tempfile::tempdir()?;
    let stripped = small.path().join(name);
    run(program("strip").arg("-o").arg(&stripped).arg(from))?;
    guest.push(&stripped, &format!("/usr/bin/{name}"))
}

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
            Build::Release => cargo_build_of(&PACKAGES)?,
        };
        if build == Build::Release {
            cargo.arg("--release");
        }
        if build == Build::Release || glibc_minor()? > GUEST_GLIBC_MINOR {
            cargo.args(["--target", TARGET]).env("RUSTFLAGS", "-C target-feature=+crt-static");
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

    /// What lies in `/usr/bin` of a host, by its names there.
    fn programs(&self) -> [(&Path, &'static str); 3] {
        [(&self.update, "update"), (&self.patch_tools, "patch-tools"), (&self.transport, "update-transport")]
    }

    /// What [`Self::install`] brings to a machine.
    pub(crate) fn recipe(&self) -> Result<Recipe> {
        let mut recipe = Recipe::of(["product-1", INSTALL]);
        for (program, _) in self.programs() {
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
        push_program(guest, &self.agent, "update-agent")
    }

    /// Installs the programs and what is under `dist/`, and enables the units that the preset names.
    pub fn install(&self, guest: &Guest) -> Result<()> {
        for (from, name) in self.programs() {
            push_program(guest, from, name)?;
        }
        let dist = workspace()?.join("dist");
        for (from, below) in files_under(&dist)? {
            guest.push(&from, &format!("/{below}"))?;
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
    let mut cargo = cargo_build_of(&PACKAGES)?;
    cargo.args(["--features", TEST_FEATURES]);
    Ok(cargo)
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
fn files_under(root: &Path) -> Result<Vec<(PathBuf, String)>> {
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
