//! A newcomer's machine: a bare Debian 12 with Rust and gcc and nothing else, on which the lab has never run.
//!
//! It is a [bare system](crate::lab::bare) that has Rust's toolchain, the fetched crates and this workspace of this host.
//! Nothing of this host's files is changed but for the lab's cache and Cargo's target directory.

pub mod stories;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::lab::bare::Bare;
use crate::lab::cache::Cache;
use crate::lab::host::{self, built, program, run};
use crate::product::{self, GUEST_GLIBC_MINOR, workspace};

const SUITE: &str = "bookworm";
/// Beside apt and what every Debian has.
const PACKAGES: &[&str] = &["ca-certificates", "gcc", "libc6-dev"];

/// The machine; it vanishes when dropped.
#[derive(Debug)]
pub struct Newcomer {
    system: Bare,
    target: Target,
}

/// Where the lab's cache is there, unless somebody says otherwise: below root's home.
const CACHE: &str = "/root/.cache/update-lab";

/// Where Cargo puts what it builds there.
#[derive(Debug)]
pub enum Target {
    /// The directory that this workspace's own builds use, so that what is built already is not built again.
    Shared(PathBuf),
    /// One that was empty at first, on this host.
    Fresh(TempDir),
}

impl Target {
    /// The shared directory, unless what this host builds would not start on Debian 12.
    ///
    /// # Errors
    /// If this host's C library cannot be told.
    pub fn shared(cache: &Cache) -> Result<Self> {
        let dir = if product::glibc_minor()? > GUEST_GLIBC_MINOR {
            cache.directory("newcomer-target")?
        } else {
            product::target_directory()?
        };
        Ok(Self::Shared(dir))
    }

    /// An empty directory.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn fresh(cache: &Cache) -> Result<Self> {
        Ok(Self::Fresh(tempfile::tempdir_in(cache.machines())?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Shared(dir) => dir,
            Self::Fresh(dir) => dir.path(),
        }
    }
}

impl Newcomer {
    /// Makes the machine, from an image in the cache. Waits while another one exists.
    ///
    /// # Errors
    /// When this is not root, or the image cannot be made.
    pub fn arrive(cache: &Cache, target: Target) -> Result<Self> {
        Ok(Self { system: Bare::debian(cache, SUITE, PACKAGES)?, target })
    }

    /// Brings this host's built things of a kind along, for a story that is not about making them.
    ///
    /// # Errors
    /// If they cannot be linked.
    pub fn bring(&self, cache: &Cache, kind: &str) -> Result<()> {
        let theirs = self.system.path().join(CACHE.trim_start_matches('/'));
        fs::create_dir_all(&theirs)?;
        for entry in cache.entries(kind)? {
            run(program("cp").args(["-al"]).arg(entry).arg(&theirs))?;
        }
        Ok(())
    }

    /// Runs a script in the workspace there, and returns what it prints.
    ///
    /// # Errors
    /// When it fails; the message has the end of its stderr.
    pub fn sh(&self, script: &str) -> Result<String> {
        let out = run(&mut self.command(script)?)?;
        Ok(String::from_utf8_lossy(&out).trim_end().to_owned())
    }

    /// Runs a script in the workspace there, while what it prints passes through.
    ///
    /// # Errors
    /// When it fails.
    pub fn watch(&self, script: &str) -> Result<()> {
        let status = self.command(script)?.stdin(Stdio::null()).status().context("starting unshare")?;
        ensure!(status.success(), "`{script}` failed on the newcomer's machine ({status})");
        Ok(())
    }

    /// Name and version of each package that is installed there.
    ///
    /// # Errors
    /// When dpkg cannot tell.
    pub fn packages(&self) -> Result<Vec<(String, String)>> {
        let list = self.sh("dpkg-query -W -f '${binary:Package} ${Version} ${db:Status-Status}\\n'")?;
        let fields = list.lines().filter_map(|line| line.strip_suffix(" installed")?.split_once(' '));
        Ok(fields.map(|(name, version)| (name.to_owned(), version.to_owned())).collect())
    }

    fn command(&self, script: &str) -> Result<Command> {
        let rust = rust()?;
        let cargo_home = host::cargo_home()?;
        let workspace = workspace()?;
        let mut binds = vec![workspace.clone(), rust.clone()];
        // A target directory outside of the workspace, and Cargo's settings and crates without its programs.
        binds.extend(Some(self.target.path().to_owned()).filter(|dir| !dir.starts_with(&workspace)));
        binds.extend(
            ["registry", "git"].map(|dir| cargo_home.join(dir)).into_iter().filter(|dir| dir.is_dir()),
        );
        fs::create_dir_all(self.target.path())?;
        let path =
            format!("{}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", rust.display());
        let (cargo_home, target) =
            (cargo_home.display().to_string(), self.target.path().display().to_string());
        let environment = [
            ("PATH", path.as_str()),
            ("CARGO_HOME", &cargo_home),
            ("CARGO_NET_OFFLINE", "true"),
            ("CARGO_TARGET_DIR", &target),
            ("CARGO_TERM_COLOR", "never"),
        ];
        self.system.command(&binds, &environment, &format!("cd '{}' && {script}", workspace.display()))
    }
}

/// The toolchain that this workspace is built with.
fn rust() -> Result<PathBuf> {
    let compiler = std::env::var_os("RUSTC").map_or_else(|| program("rustc"), |path| built(Path::new(&path)));
    let mut compiler = compiler;
    let root = run(compiler.args(["--print", "sysroot"]).current_dir(workspace()?))?;
    Ok(PathBuf::from(String::from_utf8(root)?.trim()))
}
