//! On real processes of this machine; what needs a container or an old kernel is in the VM tests.

use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::*;

struct Running(Child);

impl Running {
    fn process(&self) -> Process {
        procfs::describe(Pid(self.0.id())).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeper(stdin: Stdio, stdout: Stdio) -> Running {
    let mut command = Command::new("sleep");
    Running(command.arg("60").stdin(stdin).stdout(stdout).stderr(Stdio::null()).spawn().unwrap())
}

fn look(child: &Running) -> (descriptors::View, Vec<Obstacle>) {
    let mut found = Vec::new();
    let view = descriptors::look(
        &[child.process()],
        &crate::model::RuntimeName::DEFAULT,
        &surroundings::Bundle::default(),
        &mut found,
    );
    // Test runners leak descriptors of their own into children.
    found.retain(|one| ["descriptor 0", "descriptor 1", "descriptor 2"].contains(&one.place.as_str()));
    (view, found)
}

#[test]
fn a_process_with_its_streams_on_null_has_no_obstacle() {
    let (_, found) = look(&sleeper(Stdio::null(), Stdio::null()));
    assert_eq!(found, []);
}

#[test]
fn a_file_that_another_process_deleted_while_it_is_open_is_judged_by_its_links() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    std::fs::write(&one, "x").unwrap();
    let child = sleeper(Stdio::from(std::fs::File::open(&one).unwrap()), Stdio::null());
    std::fs::hard_link(&one, &two).unwrap();
    std::fs::remove_file(&one).unwrap();
    assert_eq!(
        look(&child).1.iter().map(|one| one.kind).collect::<Vec<_>>(),
        [ObstacleKind::DeletedButLinked]
    );
    std::fs::remove_file(&two).unwrap();
    assert_eq!(look(&child).1, [], "a small deleted file travels along");
}

#[test]
fn a_pipe_to_the_outside_is_seen_and_the_holder_named() {
    let (_, found) = look(&sleeper(Stdio::null(), Stdio::piped()));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, ObstacleKind::ForeignPipe);
    assert!(found[0].found.contains(&format!("(pid {})", std::process::id())), "{}", found[0].found);
}

#[test]
fn a_socket_whose_peer_is_outside_is_seen() {
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let child = sleeper(Stdio::from(std::os::fd::OwnedFd::from(theirs)), Stdio::null());
    let (view, mut found) = look(&child);
    assert_eq!(found, []);
    sockets::look(Pid(std::process::id()), &view, &mut found);
    assert_eq!(found.iter().map(|one| one.kind).collect::<Vec<_>>(), [ObstacleKind::ForeignUnixPeer]);
}

#[test]
fn a_process_in_another_time_than_the_first_one_is_seen_and_all_in_one_are_fine() {
    let elsewhere = std::thread::scope(|scope| {
        let inside = || {
            let time = CloneFlags::from_bits_retain(nix::libc::CLONE_NEWTIME);
            unshare(time).expect("a time namespace for children, as root");
            sleeper(Stdio::null(), Stdio::null())
        };
        scope.spawn(inside).join().unwrap()
    });
    let here = sleeper(Stdio::null(), Stdio::null());
    for (process, init, expected) in [(&elsewhere, &here, 1), (&here, &elsewhere, 1), (&here, &here, 0)] {
        let mut found = Vec::new();
        tasks::look(&process.process(), Pid(init.0.id()), &mut found);
        let kinds: Vec<ObstacleKind> = found.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, vec![ObstacleKind::SecondTimeNamespace; expected], "{found:?}");
    }
    // All of a container that came back is in a time of its own.
    assert_eq!(tasks::in_another_time(&elsewhere.process(), Pid(elsewhere.0.id())), None);
}

#[test]
fn a_stopped_container_cannot_be_checkpointed() {
    let container = Container {
        id: "web-1".parse().unwrap(),
        status: ContainerStatus::Stopped,
        init: None,
        started: None,
        bundle: "/b".into(),
        rootfs: "/b/rootfs".into(),
        annotations: Default::default(),
        cgroup: None,
        cgroup_driver: crate::model::CgroupDriver::Cgroupfs,
        network: crate::model::NetworkPlace::Host,
    };
    assert!(judge(&container).iter().any(|one| one.kind == ObstacleKind::NotRunning));
}
