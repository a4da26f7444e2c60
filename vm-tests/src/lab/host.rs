//! Starts programs on the machine that the lab runs on: those that [`super::needs`] declares, by name, and those
//! that this workspace has built, by path.
//!
//! Nothing here knows what the programs are used for.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::cache::Cache;
pub use super::install::refresh_lists as refresh_apt_lists;
use super::needs::is_declared;
pub use super::steps::Step;
use super::steps::fetched;

/// Finds a program in `PATH`, in the directories that only root's `PATH` has, and among those that the lab has
/// unpacked beside what is installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return find_file(name);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .chain(Cache::default_tools())
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// A file by its path, or one of those by a path with `*` for a directory.
fn find_file(path: &str) -> Option<PathBuf> {
    let Some((above, below)) = path.split_once("/*/") else {
        return Some(PathBuf::from(path)).filter(|path| path.exists());
    };
    let directories = std::fs::read_dir(above).into_iter().flatten().flatten();
    directories.map(|entry| entry.path().join(below)).find(|path| path.exists())
}

/// A command for a declared program. It and its children find root's programs.
///
/// # Panics
/// If the program is not declared: a machine on which it is missing would fail half-way, where nobody looks.
pub fn program(name: &str) -> Command {
    assert!(
        is_declared(name),
        "the lab starts `{name}`, which lab/needs.rs does not declare: add it there with its Debian package"
    );
    let mut command = Command::new(find_program(name).unwrap_or_else(|| PathBuf::from(name)));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"));
    command
}

/// A command for a program that was built or made here.
pub fn built(path: &Path) -> Command {
    Command::new(path)
}

/// The Cargo that runs us, else that in `PATH`; by whichever way we were started, it finds the same built.
pub fn cargo() -> Command {
    let mut cargo =
        std::env::var_os("CARGO").map_or_else(|| program("cargo"), |cargo| built(Path::new(&cargo)));
    // What Cargo and the runner of tests tell their children. A build script that asks for it (as ring's does) would run again,
    // and all that depends on it be compiled again, for each of us that is started another way.
    let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CFG_", "CARGO_FEATURE_", "OUT_DIR"];
    for (name, _) in std::env::vars_os() {
        if told.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Where Cargo keeps what it has fetched.
pub fn cargo_home() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    let found = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    found.context("neither CARGO_HOME nor HOME is set")
}

/// True when this process may install packages.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Runs a command to its end, quietly, and returns its stdout.
///
/// # Errors
/// When it cannot be started or fails; the message has the command and the end of its stderr.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let shown = show(command);
    let begun = Instant::now();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("`{shown}` could not be started"))?;
    if is_download(command) {
        fetched(begun.elapsed());
    }
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let mut lines: Vec<&str> = stderr.lines().rev().take(15).collect();
        lines.reverse();
        bail!("`{shown}` failed ({}):\n{}", output.status, lines.join("\n"));
    }
    Ok(output.stdout)
}

/// True for a command that only waits for package servers.
fn is_download(command: &Command) -> bool {
    let is_apt = Path::new(command.get_program()).file_name().is_some_and(|name| name == "apt-get");
    is_apt
        && command.get_args().any(|arg| ["update", "download", "--download-only"].iter().any(|a| arg == *a))
}

fn show(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let _ = write!(line, " {}", arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_declared_is_not_started() {
        let refused = std::panic::catch_unwind(|| program("cowsay")).unwrap_err();
        let said = refused.downcast_ref::<String>().expect("a message");
        assert!(said.contains("`cowsay`") && said.contains("needs.rs"), "{said}");
    }

    #[test]
    fn a_file_below_a_directory_of_any_version_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let pattern = format!("{}/*/bin/initdb", directory.path().display());
        assert_eq!(find_program(&pattern), None);
        for version in ["13", "15/bin"] {
            std::fs::create_dir_all(directory.path().join(version)).unwrap();
        }
        assert_eq!(find_program(&pattern), None);
        let file = directory.path().join("15/bin/initdb");
        std::fs::write(&file, "").unwrap();
        assert_eq!(find_program(&pattern), Some(file));
    }

    #[test]
    fn the_error_of_a_command_has_its_last_words() {
        let error = run(program("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn only_waiting_for_servers_counts_as_download() {
        assert!(is_download(program("apt-get").args(["download", "linux-image-amd64"])));
        assert!(!is_download(program("apt-get").args(["install", "qemu-utils"])));
    }
}
