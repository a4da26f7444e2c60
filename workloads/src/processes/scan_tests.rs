//! On real processes: programs that are copied, started, and changed on disk.

#![expect(clippy::disallowed_methods, reason = "real processes are looked at")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use manifests::{FileIdentity, Sha256};

use super::*;
use crate::files::buildid;
use crate::processes::program::{Interpreter, Linked};
use crate::processes::specimens::{self, Code, Running, link_statically};
use crate::processes::unknown::Reason;

/// What is found about one process.
fn seen(pid: Pid, wanted: &[Wanted]) -> Seen {
    look_at(&[pid], wanted, Onlooker::NOBODY).unwrap().remove(0)
}

fn found(running: &Running, wanted: &[Wanted]) -> Vec<(SeenPath, Why)> {
    let seen = seen(running.pid(), wanted);
    assert_eq!(seen.unknown, [].into());
    seen.files.into_iter().collect()
}

fn sleep_by_digest() -> Wanted {
    FileIdentity::Sha256(Sha256::of(&fs::read("/bin/sleep").unwrap())).into()
}

#[test]
fn a_program_that_is_what_its_path_says_is_not_stale() {
    assert_eq!(found(&Running::new(), &[]), []);
}

#[test]
fn a_replaced_program_is_told_with_both_builds() {
    let running = Running::new();
    running.replace("/bin/cat");
    let [(path, Why::Replaced { runs: Some(runs), on_disk: Some(on_disk) })] = &found(&running, &[])[..]
    else {
        panic!("{:?}", found(&running, &[]))
    };
    assert_eq!(path.as_path(), running.program);
    assert_ne!(runs, on_disk);
}

#[test]
fn the_same_build_installed_once_more_is_not_stale() {
    let running = Running::new();
    running.replace("/bin/sleep");
    assert_eq!(found(&running, &[]), []);
}

#[test]
fn a_program_that_maps_nothing_but_itself_is_known_by_its_own_build() {
    let running = Running::linked_statically("one/main/package/content", Code::FromFile);
    let seen = seen(running.pid(), &[]);
    let program = seen.program.unwrap();
    assert_eq!(program.path.as_path(), running.program);
    assert_eq!(program.linked, Linked::ByGo);
    assert_eq!(program.build.as_ref().unwrap().to_string(), "go:one/main/package/content");
    assert_eq!(seen.not_proven, [NotProven::Linked].into());
    let again = running.directory.path().join("again");
    link_statically("one/main/package/content", &again);
    running.replace(again.to_str().unwrap());
    assert_eq!(found(&running, &[]), [], "the same build, installed once more");
    link_statically("two/main/package/content", &again);
    running.replace(again.to_str().unwrap());
    let [(path, Why::Replaced { runs: Some(runs), on_disk: Some(on_disk) })] = &found(&running, &[])[..]
    else {
        panic!("{:?}", found(&running, &[]))
    };
    assert_eq!(path.as_path(), running.program);
    assert_eq!(runs.to_string(), "go:one/main/package/content");
    assert_eq!(on_disk.to_string(), "go:two/main/package/content");
    let stale = scan(&[], Onlooker::NOBODY).unwrap().stale;
    let stale = stale.iter().find(|stale| stale.pid == running.pid()).unwrap();
    assert!(stale.files[0].is_program && stale.program.as_ref() == Some(&*program), "{stale:?}");
}

#[test]
fn what_a_program_without_libraries_says_of_its_linker_is_not_needed() {
    let running = Running::linked_statically("", Code::InMemory);
    let seen = seen(running.pid(), &[]);
    let program = seen.program.unwrap();
    assert_eq!((program.linked, &program.build), (Linked::Statically, &None));
    assert_eq!(seen.not_proven, [NotProven::Linked, NotProven::Memory].into());
}

#[test]
fn an_interpreter_is_told_and_a_program_that_maps_what_it_runs_has_no_remark() {
    let sleeper = Running::new();
    let plain = seen(sleeper.pid(), &[]);
    assert_eq!(plain.not_proven, [].into());
    // Any program may be called so: that there is a remark is all that depends on it.
    let called = Running::called("python3.99");
    assert_eq!(seen(called.pid(), &[]).not_proven, [NotProven::Read(Interpreter::Python)].into());
    let opaque = scan(&[], Onlooker::NOBODY).unwrap().opaque;
    let opaque = opaque.iter().find(|opaque| opaque.pid == called.pid()).unwrap();
    assert_eq!(opaque.program.as_ref().unwrap().path.as_path(), called.program);
    let program = opaque.program.as_ref().unwrap();
    assert_eq!((program.linked, &program.build), (Linked::Dynamically, &plain_build("/bin/sleep")));
}

fn plain_build(path: &str) -> Option<crate::model::Build> {
    buildid::read(&File::open(path).unwrap()).unwrap().map(crate::model::Build::Gnu)
}

#[test]
fn a_deleted_program_is_told() {
    let running = Running::new();
    fs::remove_file(&running.program).unwrap();
    assert!(matches!(&found(&running, &[])[..], [(_, Why::Deleted { .. })]));
}

#[test]
fn what_is_under_the_path_now_is_not_waited_for_if_it_is_no_file() {
    let running = Running::new();
    fs::remove_file(&running.program).unwrap();
    nix::unistd::mkfifo(&running.program, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(&found(&running, &[])[..], [(_, Why::Replaced { on_disk: None, .. })]));
}

#[test]
fn a_file_at_fault_is_found_by_digest_and_build_id_whatever_its_path() {
    let running = Running::new();
    let build_id = buildid::read(&File::open("/bin/sleep").unwrap()).unwrap().unwrap();
    for wanted in [FileIdentity::BuildId(build_id).into(), sleep_by_digest()] {
        let identity = wanted.identity.clone();
        let expected = [(SeenPath::from(&*running.program), Why::AtFault { identity })];
        assert_eq!(found(&running, &[wanted]), expected);
    }
    let other = FileIdentity::Sha256(Sha256::of(b"another file"));
    assert_eq!(found(&running, &[other.into()]), []);
}

#[test]
fn a_size_that_is_given_is_that_of_the_file_sought() {
    let running = Running::new();
    let size = fs::metadata("/bin/sleep").unwrap().len();
    let of_size = |size| Wanted { size: Some(size), ..sleep_by_digest() };
    assert_eq!(found(&running, &[of_size(size)]).len(), 1);
    assert_eq!(found(&running, &[of_size(size + 1)]), []);
}

#[test]
fn names_are_bytes_and_none_of_them_is_taken_for_a_remark_of_the_kernel() {
    for name in [
        &b"new\nline"[..],
        b"back\\slash",
        b"back\\012slash",
        b"gone (deleted)",
        b" lead",
        b"trail ",
        b"lat\xefn",
        "abcdefghijklmn\u{f6}".as_bytes(),
    ] {
        let running = Running::called(OsStr::from_bytes(name));
        assert_eq!(found(&running, &[]), [], "{}", SeenPath::from(name));
        let [(path, Why::AtFault { .. })] = &found(&running, &[sleep_by_digest()])[..] else {
            panic!("{}", SeenPath::from(name))
        };
        assert_eq!(path.as_path(), running.program);
        running.replace("/bin/cat");
        let [(path, Why::Replaced { .. })] = &found(&running, &[])[..] else {
            panic!("{}", SeenPath::from(name))
        };
        assert_eq!(path.as_path(), running.program);
    }
}

#[test]
fn a_process_is_listed_whatever_it_calls_itself() {
    for name in
        [&b"lat\xefn"[..], "abcdefghijklmn\u{f6}".as_bytes(), b"\x1b[31m\nx ", b"keeper of five tasks"]
    {
        let running = Running::called(OsStr::from_bytes(name));
        running.replace("/bin/cat");
        let scan = scan(&[], Onlooker::NOBODY).unwrap();
        let found = scan.stale.iter().find(|stale| stale.pid == running.pid()).unwrap();
        assert_eq!(found.comm.as_bytes(), &name[..name.len().min(15)]);
    }
}

/// A directory with all that `sleep` needs, to be a root.
fn jail() -> tempfile::TempDir {
    let jail = tempfile::tempdir().unwrap();
    let needed = Command::new("ldd").arg("/bin/sleep").output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    let libraries = needed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/sleep"]) {
        let copy = jail.path().join(file.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
    jail
}

/// Runs `sleep` of the jail, by this program.
fn jailed(by: &str, jail: tempfile::TempDir) -> Running {
    let mut words = by.split(' ');
    let child = Command::new(words.next().unwrap())
        .args(words)
        .args([jail.path(), Path::new("/bin/sleep"), Path::new("600")])
        .spawn()
        .unwrap();
    let program = jail.path().join("bin/sleep");
    let running = Running::started(child, program, jail);
    while fs::read(format!("/proc/{}/comm", running.pid())).unwrap() != b"sleep\n" {}
    running
}

#[test]
fn paths_of_a_process_in_another_root_begin_where_the_kernel_says() {
    for by in ["chroot", "unshare --mount chroot"] {
        let running = jailed(by, jail());
        assert_eq!(found(&running, &[]), [], "{by}");
        running.replace("/bin/cat");
        assert!(matches!(&found(&running, &[])[..], [(_, Why::Replaced { .. })]), "{by}");
    }
}

#[test]
fn one_process_that_cannot_be_read_is_counted_and_named_and_all_others_are_told() {
    let running = Running::new();
    running.replace("/bin/cat");
    let (_directory, path, file) = specimens::file(b"leased");
    let _mapped = specimens::Mapped::shared(&file);
    specimens::lease(&file);
    let build_id = buildid::read(&File::open("/bin/sleep").unwrap()).unwrap().unwrap();
    let scan = scan(&[FileIdentity::BuildId(build_id).into()], Onlooker::NOBODY).unwrap();
    let unknown = scan.unknown.iter().find(|unknown| unknown.pid == Pid(std::process::id())).unwrap();
    assert_eq!(unknown.file, Some(SeenPath::from(&*path)));
    assert_eq!(unknown.reason, Reason::Unreadable { errno: nix::libc::EWOULDBLOCK });
    assert!(scan.unreadable >= 1);
    let stale = scan.stale.iter().find(|stale| stale.pid == running.pid()).unwrap();
    assert_eq!(stale.files.len(), 2, "{stale:?}");
}
