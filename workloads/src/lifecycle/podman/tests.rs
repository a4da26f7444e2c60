//! The adapter against a program that answers with what podman 5.4.2 answered, and does to a container's directory what
//! podman did to it. The real one is asked in a machine (`vm-tests`, `engines`).

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;

use super::*;
use crate::criu::images::specimen;
use crate::model::{ContainerStatus, NetworkPlace, ObstacleKind};

/// `podman container inspect web`, of a container with a restart policy on podman's own bridge.
const INSPECTED: &str = include_str!("inspected.json");

/// A podman with one container, whose first process is a `sleep`. Where there is a pipe `hold-COMMAND`, that command
/// waits until somebody has opened and closed it.
const PODMAN: &str = r#"#!/bin/sh
here=$(dirname "$0")
bundle=$here/bundle
[ "$1" = image ] && { echo '["sha256:aa","sha256:bb"]'; exit; }
[ "$1" = container ] && shift
command=$1 words="$*"; shift
for name; do :; done
state() { cat "$here/state"; }
log() { echo "$words" >>"$here/log"; }
runs() { setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo "running $! $1" >"$here/state"; }
ends() { kill -9 "$(state | cut -d' ' -f2)" 2>/dev/null; echo "exited 0 $1" >"$here/state"; }
if [ -p "$here/hold-$command" ]; then cat "$here/hold-$command"; fi
case $command in
    ps) echo 4a566762fd18 ;;
    exists) [ "$name" = web ] ;;
    network) echo '[{"name": "podman", "driver": "bridge"}]' ;;
    inspect)
        [ "$name" = web ] || [ "$name" = 4a566762fd18 ] || exit 125
        set -- $(state)
        sed "s|@BUNDLE@|$bundle|;s|@LAYER@|$here/layer|;s|@STATUS@|$1|;s|@PID@|$2|;s|@STOPPED@|$3|" "$here/inspected" ;;
    checkpoint)
        log
        case $words in
            *--pre-checkpoint*) mkdir -p "$bundle/pre-checkpoint"; echo pages >"$bundle/pre-checkpoint/pages-1.img"; exit ;;
            *--with-previous*) mkdir -p "$bundle/checkpoint"; ln -s ../pre-checkpoint "$bundle/checkpoint/parent" ;;
        esac
        mkdir -p "$bundle/checkpoint"
        cp "$here"/images/* "$bundle/checkpoint"
        for file in devshm-checkpoint.tar network.status dump.log; do echo "$file" >"$bundle/$file"; done
        cp "$here"/work/stats-dump "$bundle"
        ends false ;;
    restore)
        log
        [ -e "$bundle/network.status" ] && [ -e "$bundle/checkpoint/pstree.img" ] || exit 125
        [ ! -L "$bundle/checkpoint/parent" ] || [ -e "$bundle/checkpoint/parent/pages-1.img" ] || exit 125
        rm -rf "$bundle"/*checkpoint* "$bundle/network.status"
        runs "$(state | cut -d' ' -f3)"
        [ ! -e "$here/report" ] || cat "$here/report" ;;
    start) log; runs false ;;
    stop) log; ends true ;;
    init) log; echo "initialized 0 false" >"$here/state" ;;
    cleanup) log; set -- $(state); echo "exited 0 $3" >"$here/state" ;;
    *) log ;;
esac
"#;

const LONG: Duration = Duration::from_secs(60);

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// With the container `web`, which runs.
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["images", "work", "bundle", "layer/diff"] {
            fs::create_dir_all(place.path(name)).unwrap();
        }
        fs::write(place.path("inspected"), INSPECTED).unwrap();
        fs::write(place.path("state"), "exited 0 false").unwrap();
        specimen::write(&place.path("images"), &place.path("work"));
        fs::write(place.path("podman"), PODMAN).unwrap();
        fs::set_permissions(place.path("podman"), fs::Permissions::from_mode(0o755)).unwrap();
        place.podman(LONG).command().args(["start", "--", "web"]).output().unwrap();
        fs::remove_file(place.path("log")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The adapter of a new process, which remembers nothing.
    fn podman(&self, long: Duration) -> Podman {
        let patience = Patience { long, ..Patience::default() };
        Podman { patience, ..Podman::run_by(self.path("podman"), self.path("helpers")) }
    }

    fn container(&self) -> Container {
        self.podman(LONG).inspect(&id()).unwrap().unwrap()
    }

    fn images(&self) -> CheckpointDir {
        CheckpointDir::new(self.path("checkpoint"))
    }

    fn checkpoint(&self) {
        self.podman(LONG).pre_dump(&id(), &self.images()).unwrap();
        self.podman(LONG).checkpoint(&id(), &self.images(), DumpBase::PreDump).unwrap();
    }

    /// What podman was asked for, a word each.
    fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    fn left_in_bundle(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("bundle")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pid) = self.podman(LONG).inspect(&id()).unwrap().and_then(|found| found.init) {
            let _ = kill(nix::unistd::Pid::from_raw(pid.0 as i32), Signal::SIGKILL);
        }
    }
}

fn id() -> WorkloadId {
    "podman:web".parse().unwrap()
}

#[test]
fn a_container_is_known_by_its_name_with_its_labels_files_group_and_network() {
    let place = Place::new();
    let listing = place.podman(LONG).list().unwrap();
    let [found] = &listing.containers[..] else { panic!("{listing:?}") };
    assert_eq!((found.id.to_string().as_str(), found.status), ("podman:web", ContainerStatus::Running));
    assert_eq!(found.annotations["tier"], "web");
    assert_eq!(found.annotations["io.container.manager"], "libpod");
    assert_eq!((&found.bundle, &found.rootfs), (&place.path("bundle"), &place.path("layer/merged")));
    let group = found.cgroup.as_ref().unwrap().to_str().unwrap();
    assert!(group.starts_with("/machine.slice/libpod-") && group.ends_with(".scope"), "{group}");
    assert!(matches!(&found.network, NetworkPlace::Engine(path) if path.starts_with("/run/netns")));
    assert!(found.started.is_some());
    assert_eq!(place.podman(LONG).inspect(&"podman:other".parse().unwrap()).unwrap(), None);
}

#[test]
fn a_checkpoint_is_ours_and_podman_gets_it_back_for_the_restore() {
    let place = Place::new();
    place.checkpoint();
    assert_eq!(place.left_in_bundle(), <[String; 0]>::default(), "podman would write over what lies there");
    assert_eq!(fs::read_link(place.images().full().join("parent")).unwrap(), Path::new("../pre"));
    assert!(place.images().full().join("parent/pages-1.img").exists());
    let restored = place.podman(LONG).restore(&place.container(), &place.images()).unwrap();
    assert_eq!(place.container().init, Some(restored.init));
    assert!(place.images().pre().join("pages-1.img").exists(), "it can be restored once more");
    assert_eq!(place.asked(), ["checkpoint", "checkpoint", "restore"]);
}

/// What podman 5.4.2 prints after a restore.
const REPORT: &str = r#"{
    "podman_restore_duration": 9152332,
    "container_statistics": [
        {
            "Id": "855df1ec7e5e98e993cba15378859d677a64a6a96b4ba4c210992619299c1f07",
            "runtime_restore_duration": 4752294,
            "criu_statistics": {
                "forking_time": 76,
                "restore_time": 2871397,
                "pages_restored": 31
            }
        }
    ]
}
"#;

#[test]
fn a_process_that_ends_as_soon_as_it_is_back_is_not_missing_if_criu_says_that_all_came_back() {
    let place = Place::new();
    let sleeper = specimen::add_living(&place.path("images"), "sleep");
    place.checkpoint();
    let restore = || place.podman(LONG).restore(&place.container(), &place.images());
    for report in [
        "4a566762fd18\n".to_owned(),
        REPORT.replace("\"restore_time\": 2871397,", ""),
        REPORT.replace("criu_statistics", "statistics"),
    ] {
        fs::write(place.path("report"), report).unwrap();
        let error = restore().unwrap_err();
        assert!(
            matches!(&error, RuntimeError::NotAlive { missing, .. } if *missing == [sleeper.to_string()]),
            "{}",
            error.with_causes()
        );
        place.podman(LONG).stop(&id(), Duration::ZERO).unwrap();
    }
    fs::write(place.path("report"), REPORT).unwrap();
    let restored = restore().unwrap();
    assert_eq!(restored.ended, [sleeper.to_string()]);
    assert_eq!(place.container().init, Some(restored.init));
}

#[test]
fn a_restart_policy_that_a_stop_suspends_is_in_force_again_after_the_way_back() {
    let place = Place::new();
    let before = place.container();
    place.checkpoint();
    place.podman(LONG).start(&before).unwrap();
    place.podman(LONG).stop(&id(), Duration::ZERO).unwrap();
    assert!(place.podman(LONG).known(&id()).unwrap().restart_is_suspended());
    place.podman(LONG).restore(&before, &place.images()).unwrap();
    assert!(!place.podman(LONG).known(&id()).unwrap().restart_is_suspended());
    let asked = place.asked();
    assert_eq!(asked[2..], ["start", "stop", "cleanup", "init", "cleanup", "restore"]);
}

#[test]
fn a_health_check_that_the_restore_leaves_out_is_set_again() {
    let place = Place::new();
    let check = r#""Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5000000000}, "Umask""#;
    fs::write(place.path("inspected"), INSPECTED.replacen("\"Umask\"", check, 1)).unwrap();
    place.checkpoint();
    place.podman(LONG).restore(&place.container(), &place.images()).unwrap();
    let log = fs::read_to_string(place.path("log")).unwrap();
    let last: Vec<&str> = log.lines().skip(3).collect();
    assert_eq!(
        last,
        ["update --health-interval 6000000000ns -- web", "update --health-interval 5000000000ns -- web"]
    );
}

#[test]
fn a_dump_that_ended_before_its_images_were_taken_over_is_found_by_whoever_comes_next() {
    let place = Place::new();
    let container = place.container();
    fresh_directory(&full_work(&place.images())).unwrap();
    note_boot(&full_work(&place.images())).unwrap();
    place.podman(LONG).dump(&id(), "checkpoint", &place.path("bundle"), &[]).unwrap();
    let content = place.podman(LONG).content(&id(), &place.images()).unwrap();
    assert!(content.connections.is_empty() && place.images().full().join("pstree.img").exists());
    place.podman(LONG).restore(&container, &place.images()).unwrap();
}

#[test]
fn a_container_that_runs_has_no_checkpoint_that_could_be_taken_for_its_own() {
    let place = Place::new();
    let error = place.podman(LONG).content(&id(), &place.images()).unwrap_err();
    assert!(matches!(error, RuntimeError::Incomplete { .. }), "{error}");
}

#[test]
fn a_slow_dump_is_waited_for_and_nothing_is_done_meanwhile() {
    let place = Place::new();
    let container = place.container();
    nix::unistd::mkfifo(&place.path("hold-checkpoint"), Mode::S_IRWXU).unwrap();
    let brief = place.podman(Duration::from_millis(50));
    let error = brief.checkpoint(&id(), &place.images(), DumpBase::Nothing).unwrap_err();
    assert!(error.is_under_way(), "{error}");
    for refusal in [brief.start(&container).unwrap_err(), brief.stop(&id(), Duration::ZERO).unwrap_err()] {
        assert!(refusal.is_under_way(), "{refusal}");
    }
    thread::scope(|scope| {
        let settled = scope.spawn(|| place.podman(LONG).settled(&id()));
        drop(File::options().write(true).open(place.path("hold-checkpoint")).unwrap());
        fs::remove_file(place.path("hold-checkpoint")).unwrap();
        settled.join().unwrap().unwrap();
    });
    place.podman(LONG).content(&id(), &place.images()).unwrap();
}

#[test]
fn podmans_terms_are_told() {
    let place = Place::new();
    let terms = |json: String| {
        fs::write(place.path("inspected"), json).unwrap();
        place.podman(LONG).terms(&place.container()).unwrap()
    };
    let kinds = |terms: &Terms| -> Vec<ObstacleKind> {
        let of_host = |kind: &ObstacleKind| *kind != ObstacleKind::MissingProgram;
        terms.obstacles.iter().map(|obstacle| obstacle.kind).filter(of_host).collect()
    };
    let plain = terms(INSPECTED.to_owned());
    assert_eq!(kinds(&plain), []);
    assert!(plain.changes[0].contains("in the network podman, now 10.88.0.2"), "{:?}", plain.changes);
    let fixed = INSPECTED.replace("\"IPAMConfig\": null", r#""IPAMConfig": {"IPv4Address": "10.88.0.2"}"#);
    assert!(!terms(fixed).changes[0].contains("address"));
    for (from, to, kind) in [
        ("\"Pod\": \"\"", "\"Pod\": \"0123456789abcdef\"", ObstacleKind::SharedNamespaces),
        (
            "\"NetworkMode\": \"bridge\"",
            "\"NetworkMode\": \"container:0123\"",
            ObstacleKind::SharedNamespaces,
        ),
        ("\"AutoRemove\": false", "\"AutoRemove\": true", ObstacleKind::RemovedWhenEnded),
        ("\"tier\": \"web\"", "\"PODMAN_SYSTEMD_UNIT\": \"web.service\"", ObstacleKind::Supervised),
    ] {
        assert!(INSPECTED.contains(from), "{from}");
        assert_eq!(kinds(&terms(INSPECTED.replace(from, to))), [kind], "{to}");
    }
}

#[test]
fn what_is_kept_by_another_storage_driver_is_told_and_hides_nothing() {
    let place = Place::new();
    fs::write(place.path("inspected"), INSPECTED.replace("\"Driver\": \"overlay\"", "\"Driver\": \"vfs\""))
        .unwrap();
    let listing = place.podman(LONG).list().unwrap();
    assert!(listing.containers.is_empty());
    assert!(
        listing.unreadable[0].to_string().contains("podman:web") && listing.unreadable[0].why.contains("vfs")
    );
    fs::write(place.path("inspected"), INSPECTED).unwrap();
}

#[test]
fn what_a_container_was_made_from_is_named_by_digests() {
    let place = Place::new();
    let image = place.podman(LONG).image(&id()).unwrap().unwrap();
    assert_eq!(image.name.as_deref(), Some("localhost/greet:1"));
    assert_eq!(image.id, "sha256:b3e17d8ae56f7822a95ee89161d9377ee44021a24288c8e670aa138e5e6df4e1");
    let digest = "sha256:ec15167ba8a66988187bdf9865e659e593a726fb5d941728293f5315b33768d1";
    assert_eq!(image.digest.as_deref(), Some(digest));
    assert_eq!(image.layers, ["sha256:aa", "sha256:bb"]);
    assert_eq!(place.podman(LONG).image(&"podman:other".parse().unwrap()).unwrap(), None);
}
