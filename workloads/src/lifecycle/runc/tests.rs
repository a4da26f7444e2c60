//! The adapter against a program that behaves like runc and CRIU do when they are slow, hang, or die.

use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::thread;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::Mode;

use system::process::ProcessIdentity;

use super::*;
use crate::criu::images::specimen;
use crate::lifecycle::error::AfterFailure;
use crate::lifecycle::missing;
use crate::model::NetworkPlace;

/// A runc for one container, whose first process is a `sleep`. Where there is a pipe `hold-COMMAND`, that command
/// waits until somebody has opened and closed it; where there is a file `die-COMMAND` as well, runc itself is killed
/// at once and the rest goes on without it, as CRIU does. Where there is a file `ends`, what is started ends at once.
const RUNC: &str = r#"#!/bin/sh
here=$(dirname "$0")
while :; do case $1 in
    --root) root=$2; shift 2 ;;
    --log | --log-format) shift 2 ;;
    *) break ;;
esac; done
command=$1; shift
while [ $# -gt 0 ]; do case $1 in
    --image-path) images=$2; shift 2 ;;
    --work-path) work=$2; shift 2 ;;
    --bundle | --parent-path | --format) shift 2 ;;
    --pre-dump) command=pre-dump; shift ;;
    --) id=$2; signal=$3; break ;;
    *) shift ;;
esac; done
state=$root/$id
started() {
    setsid sleep 1000 </dev/null >/dev/null 2>&1 &
    mkdir -p "$state"
    echo $! >"$state/pid"
    echo '{}' >"$state/state.json"
    if [ -e "$here/ends" ]; then kill -9 $!; wait; fi
}
act() {
    echo "$command begins" >>"$here/log"
    if [ -p "$here/hold-$command" ]; then cat "$here/hold-$command"; fi
    case $command in
        checkpoint)
            cp "$here"/images/* "$images"
            cp "$here"/work/stats-dump "$work"
            kill -9 "$(cat "$state/pid")"
            rm -r "$state" ;;
        restore)
            started
            if [ -e "$here/work/stats-restore" ]; then cp "$here"/work/stats-restore "$work"; fi ;;
        run) started ;;
        delete) kill -9 "$(cat "$state/pid")" 2>/dev/null; rm -rf "$state" ;;
        kill) kill -"$signal" "$(cat "$state/pid")" ;;
    esac
    echo "$command ends" >>"$here/log"
}
if [ "$command" = state ]; then
    pid=$(cat "$state/pid") status=running
    case $(cut -d' ' -f3 "/proc/$pid/stat" 2>/dev/null) in "" | Z) pid=0 status=stopped ;; esac
    echo "{\"id\":\"$id\",\"pid\":$pid,\"status\":\"$status\",\"bundle\":\"$here\",\"rootfs\":\"$here/rootfs\"}"
elif [ -e "$here/die-$command" ]; then
    act &
    kill -9 $$
else
    act
fi
"#;

/// What no test waits for.
const LONG: Duration = Duration::from_secs(60);
/// What every held command outlasts.
const BRIEF: Duration = Duration::from_millis(50);

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// With the container `web`, which runs.
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["images", "work", "root/web"] {
            fs::create_dir_all(place.path(name)).unwrap();
        }
        fs::write(place.path("config.json"), r#"{"ociVersion": "1.0.2"}"#).unwrap();
        specimen::write(&place.path("images"), &place.path("work"));
        let program = place.path("runc");
        fs::write(&program, RUNC).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        place.runc(LONG).start(&place.container()).unwrap();
        fs::remove_file(place.path("log")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The adapter of a new process, which remembers nothing.
    fn runc(&self, long: Duration) -> Runc {
        Runc::new(self.path("root"))
            .run_by(self.path("runc"), self.path("helpers"))
            .with_patience(Patience { long, ..Patience::default() })
    }

    fn checkpoint(&self, long: Duration) -> Result<CheckpointStats, RuntimeError> {
        self.runc(long).checkpoint(&id(), &self.images(), DumpBase::Nothing)
    }

    fn images(&self) -> CheckpointDir {
        CheckpointDir::new(self.path("checkpoint"))
    }

    fn container(&self) -> Container {
        Container {
            id: id(),
            status: ContainerStatus::Running,
            init: None,
            started: None,
            bundle: self.path(""),
            rootfs: self.path("rootfs"),
            annotations: Default::default(),
            cgroup: None,
            cgroup_driver: CgroupDriver::Cgroupfs,
            network: NetworkPlace::Host,
        }
    }

    fn init(&self) -> Option<Pid> {
        self.runc(LONG).inspect(&id()).unwrap().and_then(|found| found.init)
    }

    fn hold(&self, command: &str) {
        nix::unistd::mkfifo(&self.path(&format!("hold-{command}")), Mode::S_IRWXU).unwrap();
    }

    /// Lets a held command go on, this time and from now on.
    fn release(&self, command: &str) {
        let pipe = self.path(&format!("hold-{command}"));
        let opened = File::options().write(true).open(&pipe).unwrap();
        fs::remove_file(&pipe).unwrap();
        drop(opened);
    }

    fn log(&self) -> Vec<String> {
        fs::read_to_string(self.path("log")).unwrap().lines().map(str::to_owned).collect()
    }

    fn helper(&self) -> ProcessIdentity {
        serde_json::from_slice(&fs::read(self.path("helpers/web")).unwrap()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pid) = self.init() {
            let _ = kill(nix::unistd::Pid::from_raw(pid.0 as i32), Signal::SIGKILL);
        }
    }
}

fn id() -> WorkloadId {
    "web".parse().unwrap()
}

#[test]
fn a_slow_dump_is_waited_for_and_what_it_wrote_is_whole() {
    let place = Place::new();
    place.hold("checkpoint");
    let error = place.checkpoint(BRIEF).unwrap_err();
    assert!(error.is_under_way(), "{error}");
    thread::scope(|scope| {
        let settled = scope.spawn(|| place.runc(LONG).settled(&id()));
        place.release("checkpoint");
        settled.join().unwrap().unwrap();
    });
    assert_eq!(place.log(), ["checkpoint begins", "checkpoint ends"], "nobody did anything meanwhile");
    assert_eq!(place.init(), None);
    place.runc(LONG).restore(&place.container(), &place.images()).unwrap();
    assert!(place.init().is_some());
}

#[test]
fn nothing_is_done_to_a_container_whose_dump_hangs() {
    let place = Place::new();
    let before = place.init();
    place.hold("checkpoint");
    place.checkpoint(BRIEF).unwrap_err();
    fs::write(place.images().full().join("pages-1.img"), "half").unwrap();

    let (runc, container, images) = (place.runc(BRIEF), place.container(), place.images());
    let refusals = [
        runc.settled(&id()).unwrap_err(),
        runc.pre_dump(&id(), &images).unwrap_err(),
        runc.checkpoint(&id(), &images, DumpBase::Nothing).unwrap_err(),
        runc.content(&id(), &images).unwrap_err(),
        runc.restore(&container, &images).unwrap_err(),
        runc.start(&container).unwrap_err(),
        runc.stop(&id(), Duration::ZERO).unwrap_err(),
    ];
    for refusal in refusals {
        assert!(refusal.is_under_way() && refusal.to_string().contains("still runs"), "{refusal}");
    }
    assert_eq!(place.log(), ["checkpoint begins"]);
    assert_eq!(place.init(), before);
    assert!(images.full().join("pages-1.img").exists(), "its images are still being written");

    // An operator ends it.
    killpg(nix::unistd::Pid::from_raw(place.helper().pid.cast_signed()), Signal::SIGKILL).unwrap();
    place.runc(LONG).settled(&id()).unwrap();
    assert!(!place.path("helpers/web").exists());
    place.runc(LONG).stop(&id(), Duration::ZERO).unwrap();
}

#[test]
fn a_dump_that_outlives_its_runc_is_waited_for() {
    let place = Place::new();
    place.hold("checkpoint");
    fs::write(place.path("die-checkpoint"), "").unwrap();
    let error = place.checkpoint(BRIEF).unwrap_err();
    assert!(error.is_under_way(), "runc is dead, the dump is not: {error}");
    assert!(place.init().is_some());
    thread::scope(|scope| {
        // A process that comes later, for example after this one was killed.
        let later = scope.spawn(|| place.checkpoint(LONG));
        place.release("checkpoint");
        later.join().unwrap().unwrap();
    });
    assert_eq!(place.log(), ["checkpoint begins", "checkpoint ends"], "it had succeeded");
    place.runc(LONG).content(&id(), &place.images()).unwrap();
}

#[test]
fn a_runc_that_dies_with_its_dump_leaves_the_container_running() {
    let place = Place::new();
    let before = place.init();
    place.hold("checkpoint");
    thread::scope(|scope| {
        let dump = scope.spawn(|| place.checkpoint(LONG));
        while !place.path("helpers/web").exists() {}
        killpg(nix::unistd::Pid::from_raw(place.helper().pid.cast_signed()), Signal::SIGKILL).unwrap();
        let error = dump.join().unwrap().unwrap_err();
        assert!(
            matches!(error, RuntimeError::Criu { state: AfterFailure::StillRunning, .. }),
            "{}",
            error.with_causes()
        );
    });
    assert_eq!(place.init(), before);
    assert!(!place.path("helpers/web").exists());
}

#[test]
fn a_slow_restore_is_not_a_failed_one() {
    let place = Place::new();
    place.checkpoint(LONG).unwrap();
    place.hold("restore");
    let error = place.runc(BRIEF).restore(&place.container(), &place.images()).unwrap_err();
    assert!(error.is_under_way(), "{error}");
    assert!(place.runc(BRIEF).start(&place.container()).unwrap_err().is_under_way());
    thread::scope(|scope| {
        let again = scope.spawn(|| place.runc(LONG).restore(&place.container(), &place.images()));
        place.release("restore");
        again.join().unwrap().unwrap();
    });
    let log = place.log();
    assert_eq!(&log[2..], ["restore begins", "restore ends"], "one restore, and nothing was deleted");
    assert!(place.init().is_some());
}

#[test]
fn a_start_that_hangs_is_ended_and_known_to_have_ended() {
    let place = Place::new();
    place.runc(LONG).stop(&id(), Duration::ZERO).unwrap();
    place.hold("run");
    let error = place.runc(BRIEF).start(&place.container()).unwrap_err();
    assert!(matches!(&error, RuntimeError::Refused { source: CommandError::Killed { .. }, .. }), "{error}");
    // Nobody reads the pipe any more, so nobody waits to go on.
    let opened = File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(place.path("hold-run"));
    assert_eq!(opened.unwrap_err().raw_os_error(), Some(nix::libc::ENXIO));
    fs::remove_file(place.path("hold-run")).unwrap();
    place.runc(LONG).start(&place.container()).unwrap();
}

#[test]
fn a_process_that_came_back_is_known_by_its_number_whatever_it_calls_itself() {
    let living = [procfs::describe(Pid(std::process::id())).unwrap()];
    let named = |pid, comm: &[u8]| CheckpointedProcess { pid, comm: comm.into() };
    for name in [&b"keeper of five "[..], b"abcdefghijklmn\xc3", b"another"] {
        assert!(missing(&[named(living[0].inner, name)], &living).is_empty());
    }
    assert_eq!(missing(&[named(u32::MAX, b"keeper of five ")], &living), ["4294967295 (keeper of five )"]);
}

#[test]
fn a_process_that_ends_as_soon_as_it_is_back_is_not_missing_from_its_container() {
    let place = Place::new();
    let sleeper = specimen::add_living(&place.path("images"), "sleep");
    place.checkpoint(LONG).unwrap();
    let restored = place.runc(LONG).restore(&place.container(), &place.images()).unwrap();
    assert_eq!(restored.ended, [sleeper.to_string()]);
    assert_eq!(place.init(), Some(restored.init));
    let again = place.runc(LONG).restore(&place.container(), &place.images()).unwrap();
    assert_eq!((again.init, again.ended), (restored.init, restored.ended), "twice is once");
}

#[test]
fn a_process_is_missing_if_criu_did_not_write_that_all_came_back_in_this_restore() {
    let place = Place::new();
    let sleeper = specimen::add_living(&place.path("images"), "sleep");
    place.checkpoint(LONG).unwrap();
    place.runc(LONG).restore(&place.container(), &place.images()).unwrap();
    place.runc(LONG).stop(&id(), Duration::ZERO).unwrap();
    let lacks = |why: &str| {
        let error = place.runc(LONG).restore(&place.container(), &place.images()).unwrap_err();
        let RuntimeError::NotAlive { found, missing, .. } = &error else { panic!("{why}: {error}") };
        assert_eq!((found.as_str(), &missing[..]), ("running", &[sleeper.to_string()][..]), "{why}");
    };

    let written = place.images().work().join("restore");
    let boot = fs::read(written.join("boot-id")).unwrap();
    let stats = fs::read(place.path("work/stats-restore")).unwrap();
    fs::remove_file(place.path("work/stats-restore")).unwrap();
    lacks("what an earlier restore wrote is gone");
    fs::write(written.join("stats-restore"), &stats[..stats.len() - 1]).unwrap();
    lacks("half of it is nothing");
    fs::write(written.join("stats-restore"), &stats).unwrap();
    fs::write(written.join("boot-id"), "another boot\n").unwrap();
    lacks("what was written before a reboot is of other processes");
    fs::write(written.join("boot-id"), boot).unwrap();
    place.runc(LONG).restore(&place.container(), &place.images()).unwrap();
}

#[test]
fn a_container_whose_first_process_ends_as_soon_as_it_is_back_has_not_come_back() {
    let place = Place::new();
    place.checkpoint(LONG).unwrap();
    fs::write(place.path("ends"), "").unwrap();
    let error = place.runc(LONG).restore(&place.container(), &place.images()).unwrap_err();
    assert!(
        matches!(&error, RuntimeError::NotAlive { found, missing, .. } if found == "stopped" && missing.is_empty()),
        "{}",
        error.with_causes()
    );
}

#[test]
fn a_checkpoint_of_which_any_image_is_missing_is_not_complete() {
    let place = Place::new();
    place.checkpoint(LONG).unwrap();
    let images: Vec<PathBuf> =
        fs::read_dir(place.images().full()).unwrap().map(|image| image.unwrap().path()).collect();
    assert_eq!(images.len(), 3);
    for image in images {
        let aside = place.path("aside");
        fs::rename(&image, &aside).unwrap();
        let error = place.runc(LONG).restore(&place.container(), &place.images()).unwrap_err();
        assert!(matches!(error, RuntimeError::Incomplete { .. }), "{}", error.with_causes());
        fs::rename(&aside, &image).unwrap();
    }
    assert_eq!(place.log(), ["checkpoint begins", "checkpoint ends"], "nobody was asked to restore it");
    place.runc(LONG).restore(&place.container(), &place.images()).unwrap();
}
