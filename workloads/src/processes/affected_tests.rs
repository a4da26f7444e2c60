//! On real processes and mappings of this one.

use std::fs::{self, File};

use manifests::Sha256;

use super::*;
use crate::files::buildid;
use crate::processes::specimens::{self, Running};

fn own() -> Pid {
    Pid(std::process::id())
}

fn by_digest(content: &[u8]) -> Wanted {
    FileIdentity::Sha256(Sha256::of(content)).into()
}

#[test]
fn a_deleted_library_is_known_by_the_bytes_that_are_mapped() {
    let running = Running::new();
    let by_build_id = buildid::read(&File::open(&running.program).unwrap()).unwrap().unwrap();
    let digest = fs::read(&running.program).unwrap();
    fs::remove_file(&running.program).unwrap();
    fs::write(&running.program, "something else").unwrap();
    for wanted in [FileIdentity::BuildId(by_build_id).into(), by_digest(&digest)] {
        let found = look_at(&[vec![running.pid()]], &[wanted], Onlooker::NOBODY).unwrap();
        let [Mapped { matches, unknown }] = &found[..] else { panic!("{found:?}") };
        assert_eq!(unknown, &[]);
        let [Match { path, processes, .. }] = &matches[..] else { panic!("{matches:?}") };
        assert_eq!((path.as_path(), &processes[..]), (&*running.program, &[running.pid()][..]));
    }
}

#[test]
fn trouble_with_one_container_is_that_containers() {
    let running = Running::new();
    let (_directory, path, file) = specimens::file(b"leased");
    let _mapped = specimens::Mapped::shared(&file);
    specimens::lease(&file);
    let wanted = [by_digest(&fs::read("/bin/sleep").unwrap())];
    let groups = [vec![own()], vec![running.pid()]];
    let found = look_at(&groups, &wanted, Onlooker::NOBODY).unwrap();
    let unknown: Vec<_> =
        found[0].unknown.iter().map(|one| (one.pid, one.file.clone(), one.reason)).collect();
    let would_block = Reason::Unreadable { errno: nix::libc::EWOULDBLOCK };
    assert_eq!(unknown, [(own(), Some(SeenPath::from(&*path)), would_block)]);
    assert_eq!((found[1].matches.len(), &found[1].unknown[..]), (1, &[][..]));
}

#[test]
fn a_page_of_a_huge_sparse_file_is_told_apart_by_its_size_or_is_unknown() {
    let (_directory, path, file) = specimens::file(b"data");
    // 8 TiB where the file system has such files.
    let size = [8_u64 << 40, 16 << 30].into_iter().find(|size| file.set_len(*size).is_ok()).unwrap();
    let _mapped = specimens::Mapped::shared(&file);
    let unsized_file = by_digest(b"library");
    let found = look_at(&[vec![own()]], std::slice::from_ref(&unsized_file), Onlooker::NOBODY).unwrap();
    let unknown: Vec<_> = found[0].unknown.iter().map(|one| (one.file.clone(), one.reason)).collect();
    assert_eq!(unknown, [(Some(SeenPath::from(&*path)), Reason::TooLarge { size })]);
    let sized = Wanted { size: Some(7), ..unsized_file };
    let found = look_at(&[vec![own()]], &[sized], Onlooker::NOBODY).unwrap();
    assert_eq!(found, [Mapped::default()]);
}

#[test]
fn a_container_of_which_the_group_cannot_be_told_is_unknown() {
    let mut container: Container = serde_json::from_value(serde_json::json!({
        "id": "web", "status": "running", "init": own(), "bundle": "/", "rootfs": "/", "annotations": {},
        "cgroup": null, "cgroup_driver": "cgroupfs", "network": {"kind": "host"},
    }))
    .unwrap();
    let found = mapped(std::slice::from_ref(&container), &[by_digest(b"x")], Onlooker::NOBODY).unwrap();
    assert_eq!(found[0].unknown[0].reason, Reason::NoGroup);
    container.init = None;
    assert_eq!(mapped(&[container], &[by_digest(b"x")], Onlooker::NOBODY).unwrap(), [Mapped::default()]);
}
