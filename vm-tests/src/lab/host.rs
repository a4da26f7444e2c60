//! What the lab needs on the machine that it runs on, and how that gets there.
//!
//! As root missing packages are installed with `apt-get`; anyone else is told the exact command.
//! Nothing here knows what the tools are used for.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// A program, or a file that shows that a package is there, and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// A program's name, or an absolute path.
    pub probe: &'static str,
    /// The package to install when the probe fails.
    pub package: &'static str,
}

const fn need(probe: &'static str, package: &'static str) -> Need {
    Need { probe, package }
}

/// What building images and fixtures and running machines takes. `gcc-12` is the compiler of Debian 12's
/// kernels, and the kernel's own build tools need `libelf1`.
pub const NEEDS: &[Need] = &[
    need("qemu-system-x86_64", "qemu-system-x86"),
    need("qemu-img", "qemu-utils"),
    need("mmdebstrap", "mmdebstrap"),
    need("mke2fs", "e2fsprogs"),
    need("depmod", "kmod"),
    need("setpriv", "util-linux"),
    need("ssh-keygen", "openssh-client"),
    need("gcc", "gcc"),
    need("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    need("gcc-12", "gcc-12"),
    need("/usr/lib/x86_64-linux-gnu/libelf.so.1", "libelf1"),
    need("make", "make"),
    need("zstd", "zstd"),
    need("strip", "binutils"),
    need("busybox", "busybox-static"),
];

/// What building the root image takes besides, when not root.
pub const NEEDS_WITHOUT_ROOT: &[Need] = &[need("fakeroot", "fakeroot"), need("newuidmap", "uidmap")];

/// Finds a program in `PATH` and in the directories that only root's `PATH` has.
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// A command for a program that [`require`] has made sure of. It and its children find root's programs.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(find_program(name).unwrap_or_else(|| PathBuf::from(name)));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"));
    command
}

/// True when this process may install packages.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Installs whichever of `needs` are missing.
///
/// # Errors
/// When packages are missing and this is not root, or apt cannot install them.
pub fn require(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<&str> =
        needs.iter().filter(|need| find_program(need.probe).is_none()).map(|need| need.package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install --yes --no-install-recommends {}", missing.join(" "));
    if !is_root() {
        bail!("the lab needs packages that are not installed; run: sudo {install}");
    }
    refresh_apt_lists()?;
    let step = Step::begin(&format!("installing {}", missing.join(" ")));
    run(program("sh").arg("-c").arg(&install).env("DEBIAN_FRONTEND", "noninteractive"))?;
    step.end();
    Ok(())
}

/// Fetches the package lists if this machine has none.
pub fn refresh_apt_lists() -> Result<()> {
    let lists = Path::new("/var/lib/apt/lists");
    let have = std::fs::read_dir(lists)
        .map(|entries| entries.flatten().any(|e| e.file_name().to_string_lossy().contains("_Packages")))
        .unwrap_or(false);
    if have {
        return Ok(());
    }
    if !is_root() {
        bail!("this machine has no package lists; run: sudo apt-get update");
    }
    let step = Step::begin("fetching package lists");
    run(program("apt-get").arg("update"))?;
    step.end();
    Ok(())
}

/// Runs a command to its end, quietly, and returns its stdout.
///
/// # Errors
/// When it cannot be started or fails; the message has the command and the end of its stderr.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let shown = show(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("`{shown}` could not be started"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let mut lines: Vec<&str> = stderr.lines().rev().take(15).collect();
        lines.reverse();
        bail!("`{shown}` failed ({}):\n{}", output.status, lines.join("\n"));
    }
    Ok(output.stdout)
}

fn show(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let _ = write!(line, " {}", arg.to_string_lossy());
    }
    line
}

/// A step that takes long enough to be announced: says what begins and how long it took, on stderr.
#[derive(Debug)]
pub struct Step {
    what: String,
    begun: Instant,
}

impl Step {
    /// Announces `what`.
    pub fn begin(what: &str) -> Self {
        eprintln!("lab: {what} ...");
        Self { what: what.to_owned(), begun: Instant::now() }
    }

    /// Reports the time taken.
    pub fn end(self) {
        eprintln!("lab: {} took {:.1} s", self.what, self.begun.elapsed().as_secs_f64());
    }
}
