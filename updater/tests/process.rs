//! The built program as somebody who is not root runs it.

#![expect(clippy::disallowed_methods, reason = "the program is run")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

/// `nobody` on Debian; any id but root's would do.
const NOBODY: u32 = 65534;

/// A directory that everybody can enter, with a copy of the program in it.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self { directory };
        fs::copy(env!("CARGO_BIN_EXE_update"), place.path("update")).unwrap();
        fs::write(place.path("update.yaml"), format!("store: {}\n", place.path("store").display())).unwrap();
        fs::set_permissions(place.path("update.yaml"), fs::Permissions::from_mode(0o644)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the program as nobody, or as who runs the tests if that is not root.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = as_nobody(Command::new(self.path("update")));
        command.args(arguments).arg("--config").arg(self.path("update.yaml")).output().unwrap()
    }
}

/// A command that nobody runs, or who runs the tests if that is not root.
fn as_nobody(mut command: Command) -> Command {
    command.current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

#[test]
fn whoever_is_not_root_is_refused_by_every_command_that_touches_the_host_and_told_why() {
    let place = Place::new();
    for arguments in [
        &["apply", "m.json"][..],
        &["plan", "m.json"],
        &["rollback"],
        &["resume", "--boot"],
        &["status"],
        &["history"],
        &["show", "20261122"],
    ] {
        let output = place.run(arguments);
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {words}");
        assert!(words.contains("needs root") && words.contains("next:     run it as root"), "{words}");
        assert!(!place.path("store").exists(), "{arguments:?} made the store");
    }
}

#[test]
fn a_program_that_is_not_root_reads_the_same_as_json() {
    let output = Place::new().run(&["status", "--json"]);
    let failure: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(failure["exit"], 3);
    assert_eq!(failure["expected"], "effective user 0");
    assert_eq!(failure["state"], "nothing was changed");
}

#[test]
fn looking_needs_no_root() {
    let place = Place::new();
    let mut own = as_nobody(Command::new("sleep")).arg("600").spawn().unwrap();
    let output = place.run(&["scan", "--json"]);
    own.kill().unwrap();
    own.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let unknown = found["unknown"].as_array().unwrap();
    assert!(unknown.iter().all(|entry| entry["pid"] != own.id()), "it was not looked at whole: {unknown:?}");
    assert!(found["processes"].as_u64().unwrap() >= 1, "{found}");
    assert_eq!(place.run(&["verify", "/none"]).status.code(), Some(3));
    assert_eq!(place.run(&["no-such-command"]).status.code(), Some(2));
}
