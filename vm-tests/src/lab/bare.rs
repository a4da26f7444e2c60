//! A bare Debian in a directory that is the root of namespaces of its own: files and packages are its own, kernel and network
//! are this host's. It starts in a second, and nothing boots in it.
//!
//! Its packages come from the servers that mmdebstrap knows, fetched in the way that this host's apt is told to. It needs root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::cache::{Cache, Recipe};
use super::host::{self, Step, program, run};
use crate::product::workspace;

/// The script that enters it, in the workspace.
const ENTER: &str = "vm-tests/guest/bare.sh";

/// The system; it vanishes when dropped.
#[derive(Debug)]
pub struct Bare {
    root: TempDir,
    archives: PathBuf,
    _turn: File,
}

impl Bare {
    /// Makes one of a suite that has apt and these packages, from an image in the cache. Waits while another one of the suite exists.
    ///
    /// # Errors
    /// When this is not root, or the image cannot be made.
    pub fn debian(cache: &Cache, suite: &str, packages: &[&str]) -> Result<Self> {
        ensure!(host::is_root(), "a bare system can be made by root only; run this as root");
        let turn = File::create(cache.lock_file(&format!("bare-{suite}-turn")))?;
        turn.lock().with_context(|| format!("waiting for another bare {suite} to go"))?;
        let recipe = Recipe::of(packages.iter().chain([&suite]));
        let image = cache.entry("bare", &recipe, |dir| bootstrap(dir, suite, packages))?;
        let root = tempfile::Builder::new().prefix("bare-").tempdir_in(cache.machines())?;
        let mut unpack = program("tar");
        unpack.arg("-xpf").arg(image.join("root.tar")).arg("--numeric-owner").arg("-C").arg(root.path());
        run(&mut unpack)?;
        fs::write(root.path().join("etc/apt/apt.conf.d/99host"), ways_to_servers()?)?;
        // It will not live long enough to need its files on a disk.
        fs::write(root.path().join("etc/dpkg/dpkg.cfg.d/99bare"), "force-unsafe-io\n")?;
        Ok(Self { root, archives: cache.directory(&format!("bare-archives-{suite}"))?, _turn: turn })
    }

    /// Its root, as this host sees it.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// A command that runs a shell's script in it. `binds` are seen there under the same names as here; `environment` is all that
    /// is set but `HOME` and `LANG`.
    pub fn command(&self, binds: &[PathBuf], environment: &[(&str, &str)], script: &str) -> Result<Command> {
        let binds: Vec<String> = binds.iter().map(|dir| dir.display().to_string()).collect();
        let mut command = program("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh"]).arg(workspace()?.join(ENTER));
        command.arg(self.root.path());
        command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(["sh", "-c", script]);
        command.env("BINDS", binds.join("\n")).env("ARCHIVES", &self.archives);
        Ok(command)
    }

    /// Runs a script in it as root, and returns what it prints.
    ///
    /// # Errors
    /// When it fails; the message has the end of its stderr.
    pub fn sh(&self, script: &str) -> Result<String> {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let environment = [("PATH", path), ("DEBIAN_FRONTEND", "noninteractive")];
        let out = run(&mut self.command(&[], &environment, script)?)?;
        Ok(String::from_utf8_lossy(&out).trim_end().to_owned())
    }
}

fn bootstrap(dir: &Path, suite: &str, packages: &[&str]) -> Result<()> {
    let step = Step::begin(&format!("making a bare Debian {suite}"));
    let mut make = program("mmdebstrap");
    make.args(["--quiet", "--variant=apt", "--format=tar", "--aptopt=Apt::Install-Recommends \"false\""]);
    if !packages.is_empty() {
        make.arg(format!("--include={}", packages.join(",")));
    }
    run(make.arg(suite).arg(dir.join("root.tar")))?;
    step.end();
    Ok(())
}

/// This host's settings of how apt reaches servers and when it believes them, without those of what it fetches.
fn ways_to_servers() -> Result<String> {
    let all = run(program("apt-config").arg("dump"))?;
    let ours = [
        "Acquire::http",
        "Acquire::https",
        "Acquire::Retries",
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
        "Acquire::Max-FutureTime",
    ];
    let all = String::from_utf8_lossy(&all).into_owned();
    let lines = all.lines().filter(|line| {
        ours.iter().any(|option| line.strip_prefix(option).is_some_and(|rest| rest.starts_with([':', ' '])))
    });
    Ok(lines.map(|line| format!("{line}\n")).collect())
}
