//! The adapter against a program that answers with what docker 26.1.5 answered. The real one is asked in a machine
//! (`vm-tests`, `engines::docker`).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use system::clock::Uninterrupted;

use super::*;
use crate::model::{ContainerStatus, NetworkPlace, ObstacleKind};

/// `docker container inspect web`, of a container of a compose project that restarts always.
const INSPECTED: &str = include_str!("inspected.json");
const ID: &str = "b76e8104af1cb71acb5dba93b72818b50ed3065e33cd3d30be103c7cfc0c60a2";

/// A docker with one container, whose first process is a `sleep`.
const DOCKER: &str = r#"#!/bin/sh
here=$(dirname "$0")
[ "$1 $2" = "--host unix://$here/docker.sock" ] || exit 125
shift 2
[ "$1" = image ] && { echo '["sha256:aa"]'; exit; }
[ "$1" = container ] && shift
command=$1; shift
for name; do :; done
echo "$command" >>"$here/log"
case $command in
    ps) case $* in *'name=^/other$'*) ;; *) echo b76e8104af1cb71acb5dba93b72818b50ed3065e33cd3d30be103c7cfc0c60a2 ;; esac ;;
    inspect) [ "$name" != other ] || exit 1; set -- $(cat "$here/state"); sed "s|@LAYER@|$here/layer|;s|@STATUS@|$1|;s|@PID@|$2|" "$here/inspected" ;;
    start) setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo "running $!" >"$here/state" ;;
    stop) kill -9 "$(cut -d' ' -f2 "$here/state")"; echo "exited 0" >"$here/state" ;;
    exec) exit 7 ;;
esac
"#;

/// With the container `web`, which runs, and something that is taken for the daemon.
struct Place {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a process to be seen by its name")]
        let daemon = std::process::Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let place = Self { directory, daemon };
        fs::create_dir_all(place.path("layer/diff")).unwrap();
        fs::write(place.path("docker"), DOCKER).unwrap();
        fs::set_permissions(place.path("docker"), fs::Permissions::from_mode(0o755)).unwrap();
        place.says(INSPECTED);
        fs::write(place.path("state"), "exited 0").unwrap();
        fs::write(place.path("docker.pid"), place.daemon.id().to_string()).unwrap();
        place.docker().command().args(["start", "--", "web"]).output().unwrap();
        fs::remove_file(place.path("log")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn says(&self, json: &str) {
        fs::write(self.path("inspected"), json).unwrap();
    }

    fn docker(&self) -> Docker {
        Docker {
            program: self.path("docker"),
            socket: self.path("docker.sock"),
            pid_file: self.path("docker.pid"),
            daemon: "sleep",
            patience: Patience::default(),
        }
    }

    fn terms(&self, json: &str) -> Terms {
        self.says(json);
        self.docker().terms(&self.docker().inspect(&web()).unwrap().unwrap()).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        fs::read_to_string(self.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let state = fs::read_to_string(self.path("state")).unwrap_or_default();
        if let Some(pid) =
            state.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0)
        {
            let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn web() -> WorkloadId {
    "docker:web".parse().unwrap()
}

fn kinds(terms: &Terms) -> Vec<ObstacleKind> {
    terms.obstacles.iter().map(|obstacle| obstacle.kind).collect()
}

#[test]
fn a_container_is_known_by_its_name_with_its_labels_files_and_network() {
    let place = Place::new();
    let listing = place.docker().list().unwrap();
    let [found] = &listing.containers[..] else { panic!("{listing:?}") };
    assert_eq!((found.id.to_string().as_str(), found.status), ("docker:web", ContainerStatus::Running));
    assert_eq!(found.annotations["com.docker.compose.project"], "shop");
    assert_eq!(found.rootfs, place.path("layer/merged"));
    assert_eq!(found.bundle, Path::new(containerd::TASKS).join("moby").join(ID));
    assert!(
        matches!(&found.network, NetworkPlace::Engine(path) if path.to_string_lossy().contains("docker/netns"))
    );
    assert!(found.started.is_some());
    assert_eq!(place.docker().inspect(&"docker:other".parse().unwrap()).unwrap(), None);
}

#[test]
fn its_group_is_the_one_that_docker_made_and_not_one_that_it_made_below() {
    let group = format!("/system.slice/docker-{ID}.scope");
    for below in ["", "/init.scope", "/a/b"] {
        let found = own_cgroup(Path::new(&format!("{group}{below}")), ID);
        assert_eq!(found.as_deref(), Some(Path::new(&group)), "{below}");
    }
    assert_eq!(own_cgroup(Path::new("/user.slice/session-1.scope"), ID), None);
}

#[test]
fn it_stops_and_starts_by_docker_and_what_is_so_already_is_left() {
    let place = Place::new();
    let before = place.docker().inspect(&web()).unwrap().unwrap();
    assert_eq!(place.docker().start(&before).unwrap(), before.init.unwrap());
    place.docker().stop(&web(), Duration::ZERO).unwrap();
    place.docker().stop(&web(), Duration::ZERO).unwrap();
    let again = place.docker().start(&before).unwrap();
    assert_ne!(Some(again), before.init);
    let changes: Vec<String> =
        place.asked().into_iter().filter(|word| !matches!(word.as_str(), "ps" | "inspect")).collect();
    assert_eq!(changes, ["stop", "start"]);
    let ended = place.docker().exec(&web(), &["x".to_owned()], Duration::from_secs(60), &Uninterrupted);
    assert!(matches!(ended, Ok(ExecOutcome::Exited { status: 7, .. })), "{ended:?}");
}

#[test]
fn a_daemon_that_does_not_run_is_not_woken() {
    let place = Place::new();
    fs::remove_file(place.path("docker.pid")).unwrap();
    assert_eq!(place.docker().inspect(&web()).unwrap(), None);
    let listing = place.docker().list().unwrap();
    assert!(listing.containers.is_empty() && listing.unreadable[0].why.contains("does not run"));
    // A number that another process has by now is no daemon.
    fs::write(place.path("docker.pid"), std::process::id().to_string()).unwrap();
    assert_eq!(place.docker().inspect(&web()).unwrap(), None);
    assert!(place.asked().is_empty(), "{:?}", place.asked());
}

#[test]
fn dockers_terms_are_told() {
    let place = Place::new();
    let plain = place.terms(INSPECTED);
    assert_eq!(kinds(&plain), [ObstacleKind::NoCheckpoints]);
    assert!(plain.obstacles.iter().all(|obstacle| !obstacle.forbids_restart()));
    assert!(plain.changes[0].contains("in the network shop_default, now "), "{:?}", plain.changes);
    for (from, to, kind) in [
        ("\"AutoRemove\": false", "\"AutoRemove\": true", ObstacleKind::RemovedWhenEnded),
        ("\"tier\": \"web\"", "\"com.docker.swarm.task.id\": \"x\"", ObstacleKind::Supervised),
    ] {
        assert!(INSPECTED.contains(from), "{from}");
        let terms = place.terms(&INSPECTED.replace(from, to));
        assert_eq!(kinds(&terms), [ObstacleKind::NoCheckpoints, kind], "{to}");
        assert!(terms.obstacles[1].forbids_restart());
    }
    let told =
        |json: String, what: &str| place.terms(&json).changes.iter().any(|change| change.contains(what));
    assert!(told(INSPECTED.replace("\"always\"", "\"unless-stopped\""), "after a power cut"));
    assert!(!told(INSPECTED.to_owned(), "after a power cut"));
    let guest = INSPECTED
        .replace(ID, "0123456789abcdef")
        .replace("\"/web\"", "\"/sidecar\"")
        .replace("\"NetworkMode\": \"shop_default\"", &format!("\"NetworkMode\": \"container:{ID}\""));
    let both = format!("{},{}", INSPECTED.trim().trim_end_matches(']'), guest.trim().trim_start_matches('['));
    assert!(told(both, "the network of sidecar, which shares it"));
}

#[test]
fn what_is_kept_by_another_storage_driver_is_told_and_hides_nothing() {
    let place = Place::new();
    place.says(&INSPECTED.replace("\"Driver\": \"overlay2\"", "\"Driver\": \"overlayfs\""));
    let listing = place.docker().list().unwrap();
    assert!(listing.containers.is_empty());
    let told = &listing.unreadable[0];
    assert!(told.to_string().contains("docker:web") && told.why.contains("overlayfs"), "{told}");
}

#[test]
fn nobody_gets_a_checkpoint_of_it() {
    let place = Place::new();
    let images = CheckpointDir::new(place.path("images"));
    let error = place.docker().checkpoint(&web(), &images, DumpBase::Nothing).unwrap_err();
    assert!(matches!(error, RuntimeError::NoCheckpoints { .. }), "{error}");
    place.docker().settled(&web()).unwrap();
}

#[test]
fn what_a_container_was_made_from_is_named_by_digests() {
    let place = Place::new();
    place.says(INSPECTED);
    let image = place.docker().image(&web()).unwrap().unwrap();
    assert_eq!(image.name.as_deref(), Some("greet:1"));
    assert_eq!(image.id, "sha256:0e29d288fbecf135983aa88db61ce06cacad83c8c34540e96fc3a67ef6627625");
    assert_eq!((image.digest, image.layers), (None, vec!["sha256:aa".to_owned()]));
}
