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
fn what_lives_in_another_time_than_the_first_process_is_seen() {
    let own = Pid(std::process::id());
    // A thread, which is in no group's list of processes: other tests look through the group of this one.
    let (thread, another) = std::thread::scope(|scope| {
        let inside = || {
            let thread = procfs::describe(Pid(nix::unistd::gettid().as_raw().cast_unsigned())).unwrap();
            let before = tasks::in_another_time(&thread, own);
            assert_eq!(before, None, "all in one time");
            let time = CloneFlags::from_bits_retain(nix::libc::CLONE_NEWTIME);
            unshare(time).expect("a time namespace for children, as root");
            let mut found = Vec::new();
            tasks::look(&thread, own, &mut found);
            (thread, found)
        };
        scope.spawn(inside).join().unwrap()
    });
    assert_eq!(another.iter().map(|one| one.kind).collect::<Vec<_>>(), [ObstacleKind::SecondTimeNamespace]);
    assert_eq!(another[0].process.as_ref().unwrap().pid, thread.pid);
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
