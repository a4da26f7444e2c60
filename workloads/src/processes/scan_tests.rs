//! On real processes: programs that are copied, started, and changed on disk.

#![expect(clippy::disallowed_methods, reason = "real processes are looked at")]

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command};

use manifests::Sha256;

use super::*;

/// A copy of `sleep` that runs.
struct Running {
    child: Child,
    program: PathBuf,
    _directory: tempfile::TempDir,
}

impl Running {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("sleeper");
        fs::copy("/bin/sleep", &program).unwrap();
        let child = Command::new(&program).arg("60").spawn().unwrap();
        let running = Self { child, program, _directory: directory };
        // `spawn` returns before the new program is mapped.
        while !mapping::files(&mapping::read(running.pid()).unwrap()).any(|one| one.path() == running.program)
        {
        }
        running
    }

    fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    /// What is found about this process.
    fn found(&self, wanted: &[FileIdentity]) -> Vec<StaleFile> {
        Look::default().process(self.pid(), &wanted.iter().collect()).unwrap().into_iter().collect()
    }

    /// Puts another file in its place, as package managers do.
    fn replace(&self, with: &str) {
        let new = self.program.with_extension("new");
        fs::copy(with, &new).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, &self.program).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_program_that_is_what_its_path_says_is_not_stale() {
    assert_eq!(Running::new().found(&[]), []);
}

#[test]
fn a_replaced_program_is_told_with_both_builds() {
    let running = Running::new();
    running.replace("/bin/cat");
    let [StaleFile { path, why: Why::Replaced { runs: Some(runs), on_disk: Some(on_disk) } }] =
        &running.found(&[])[..]
    else {
        panic!("{:?}", running.found(&[]))
    };
    assert_eq!(path, &running.program);
    assert_ne!(runs, on_disk);
}

#[test]
fn the_same_build_installed_once_more_is_not_stale() {
    let running = Running::new();
    running.replace("/bin/sleep");
    assert_eq!(running.found(&[]), []);
}

#[test]
fn a_deleted_program_is_told() {
    let running = Running::new();
    fs::remove_file(&running.program).unwrap();
    assert!(matches!(&running.found(&[])[..], [StaleFile { why: Why::Deleted { .. }, .. }]));
}

#[test]
fn a_file_at_fault_is_found_by_digest_and_build_id_whatever_its_path() {
    let running = Running::new();
    let build_id = buildid::read(&File::open("/bin/sleep").unwrap()).unwrap().unwrap();
    for identity in
        [FileIdentity::BuildId(build_id), FileIdentity::Sha256(Sha256::of(&fs::read("/bin/sleep").unwrap()))]
    {
        let found = running.found(std::slice::from_ref(&identity));
        assert_eq!(found, [StaleFile { path: running.program.clone(), why: Why::AtFault { identity } }]);
    }
    let other = FileIdentity::Sha256(Sha256::of(b"another file"));
    assert_eq!(running.found(&[other]), []);
}

#[test]
fn the_whole_host_is_looked_at_and_this_process_is_found() {
    let running = Running::new();
    running.replace("/bin/cat");
    let scan = scan(&[]).unwrap();
    assert!(scan.processes >= 2);
    let found = scan.stale.iter().find(|stale| stale.pid == running.pid()).unwrap();
    assert_eq!(found.comm, "sleeper");
}
