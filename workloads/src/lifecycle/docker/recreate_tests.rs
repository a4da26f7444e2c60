//! Making docker's containers anew, against a command line and an interface that keep containers as docker's answers about
//! them. The real ones are asked in a machine (`vm-tests`, `engines::images`).

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use manifests::Sha256;

use super::*;
use crate::lifecycle::Patience;

const INSPECTED: &str = include_str!("inspected.json");

/// Each container is a file with its answer.
const DOCKER: &str = r#"#!/bin/sh
here=$(dirname "$0")
shift 2
for last; do :; done
case "$1 $2" in
    "container inspect") [ -e "$here/containers/$last" ] || exit 1; cat "$here/containers/$last"; exit ;;
    "image inspect") case $* in *json*.Config*) echo '{"Cmd": ["/usr/bin/greetd"]}' ;; *) echo '["sha256:aa"]' ;; esac; exit ;;
    "ps --all") exit ;;
esac
echo "$1" >>"$here/log"
set_name() { sed -i "s|\"Name\": \"/$1\",|\"Name\": \"/$2\",|" "$here/containers/$2"; }
case $1 in
    rename) mv "$here/containers/$3" "$here/containers/$4"; set_name "$3" "$4" ;;
    update) sed -i "/RestartPolicy/{n;s|\"Name\": \"[a-z-]*\"|\"Name\": \"$3\"|;n;s|\"Name\": \"[a-z-]*\"|\"Name\": \"$3\"|}" "$here/containers/$last" ;;
    rm) rm "$here/containers/$last" ;;
    *) exit 125 ;;
esac
"#;

/// A docker with the container `web`, whose interface makes others like it.
struct Place {
    directory: tempfile::TempDir,
    /// What the interface was asked for.
    requests: mpsc::Receiver<(String, Value)>,
}

/// Reads one request, and answers it.
fn serve(mut stream: UnixStream, here: &Path, drift: fn(&mut Value)) -> (String, Value) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(found) = line.strip_prefix("Content-Length: ") {
            length = found.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let path = first.split(' ').nth(1).unwrap().to_owned();
    if let Some(name) = path.strip_prefix("/containers/create?name=") {
        let web = fs::read_to_string(here.join("containers/web")).unwrap();
        let id = "b76e8104af1cb71acb5dba93b72818b50ed3065e33cd3d30be103c7cfc0c60a2";
        let mut made: Value = serde_json::from_str(
            &web.replace(id, &"0123456789abcdef".repeat(4)).replace(&id[..12], "0123456789ab"),
        )
        .unwrap();
        made[0]["Name"] = format!("/{name}").into();
        made[0]["Image"] = body["Image"].clone();
        made[0]["State"]["Status"] = "created".into();
        made[0]["HostConfig"]["RestartPolicy"] = body["HostConfig"]["RestartPolicy"].clone();
        drift(&mut made[0]);
        fs::write(here.join("containers").join(name), serde_json::to_string_pretty(&made).unwrap()).unwrap();
    }
    stream
        .write_all(b"HTTP/1.0 201 Created\r\nContent-Type: application/json\r\n\r\n{\"Id\":\"0123\"}")
        .unwrap();
    (path, body)
}

impl Place {
    fn new(drift: fn(&mut Value)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let here: PathBuf = directory.path().to_owned();
        fs::create_dir(here.join("containers")).unwrap();
        let web = INSPECTED.replace("@LAYER@", "/layer").replace("@STATUS@", "running").replace("@PID@", "0");
        fs::write(here.join("containers/web"), web).unwrap();
        fs::write(here.join("docker"), DOCKER).unwrap();
        fs::set_permissions(here.join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
        // This very process is taken for the daemon.
        fs::write(here.join("docker.pid"), std::process::id().to_string()).unwrap();
        let listener = UnixListener::bind(here.join("docker.sock")).unwrap();
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if sender.send(serve(stream.unwrap(), &here, drift)).is_err() {
                    break;
                }
            }
        });
        Self { directory, requests }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn docker(&self) -> Docker {
        let comm = fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned();
        Docker {
            program: self.path("docker"),
            socket: self.path("docker.sock"),
            pid_file: self.path("docker.pid"),
            daemon: Box::leak(comm.into_boxed_str()),
            patience: Patience::default(),
        }
    }

    fn containers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("containers")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn web() -> WorkloadId {
    "docker:web".parse().unwrap()
}

fn replacement() -> Replacement {
    Replacement {
        trial: "web-new".parse().unwrap(),
        aside: "web-old".parse().unwrap(),
        restart: "always".to_owned(),
    }
}

fn other() -> ImageDigest {
    Sha256::of(b"another image").into()
}

#[test]
fn a_copy_from_its_own_image_comes_first_and_then_the_new_one_by_dockers_interface() {
    let place = Place::new(|_| ());
    place.docker().create(&web(), &other(), &replacement()).unwrap();
    assert_eq!(place.containers(), ["web", "web-new"]);
    let requests: Vec<(String, Value)> = place.requests.try_iter().collect();
    let [(path, own), (again, new)] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((path.as_str(), again), ("/containers/create?name=web-new", path));
    assert_eq!(own["Image"], "sha256:0e29d288fbecf135983aa88db61ce06cacad83c8c34540e96fc3a67ef6627625");
    assert_eq!(new["Image"], other().to_string().as_str());
    assert_eq!(new["HostConfig"]["Memory"], 268_435_456);
    assert_eq!(new["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!(new["Labels"]["com.docker.compose.service"], "web");
    assert_eq!(new["NetworkingConfig"]["EndpointsConfig"]["shop_default"], json!({}));
    assert!(new.get("Cmd").is_none() && new.get("Hostname").is_none(), "these are the image's and docker's");
}

#[test]
fn what_a_copy_would_lose_is_named_and_nothing_stays() {
    type Drift = fn(&mut Value);
    let drifts: [(Drift, &str); 4] = [
        (|made| made["HostConfig"]["Memory"] = 0.into(), "HostConfig.Memory"),
        (|made| made["Config"]["Labels"]["tier"] = "db".into(), "Config.Labels.tier"),
        (|made| made["Mounts"][0]["RW"] = false.into(), "Mounts./data.RW"),
        (|made| made["NetworkSettings"]["Networks"] = json!({}), "NetworkSettings.shop_default.Joined"),
    ];
    for (drift, field) in drifts {
        let place = Place::new(drift);
        let error = place.docker().create(&web(), &other(), &replacement()).unwrap_err();
        assert!(error.to_string().contains(&format!("{field} would be")), "{field}: {error}");
        assert_eq!(place.containers(), ["web"], "{field}");
    }
}

#[test]
fn two_exchange_their_names_with_one_policy_and_back() {
    let place = Place::new(|_| ());
    let docker = place.docker();
    docker.create(&web(), &other(), &replacement()).unwrap();
    docker.exchange(&web(), &replacement()).unwrap();
    let policy =
        |name: &str| docker.known(&format!("docker:{name}").parse().unwrap()).unwrap().restart_words();
    assert_eq!(place.containers(), ["web", "web-old"]);
    assert_eq!((policy("web"), policy("web-old")), ("always".to_owned(), "no".to_owned()));
    docker.put_back(&web(), &replacement()).unwrap();
    assert_eq!(place.containers(), ["web", "web-new"]);
    assert_eq!((policy("web"), policy("web-new")), ("always".to_owned(), "no".to_owned()));
    for _ in 0..2 {
        docker.remove(&"docker:web-new".parse().unwrap()).unwrap();
    }
    assert_eq!(place.containers(), ["web"]);
}

#[test]
fn a_daemon_that_does_not_run_is_not_woken_to_exchange_anything() {
    let place = Place::new(|_| ());
    fs::remove_file(place.path("docker.pid")).unwrap();
    for error in [
        place.docker().exchange(&web(), &replacement()).unwrap_err(),
        place.docker().put_back(&web(), &replacement()).unwrap_err(),
        place.docker().remove(&web()).unwrap_err(),
    ] {
        assert!(matches!(error, RuntimeError::EngineDown { .. }), "{error}");
    }
    assert!(!place.path("log").exists());
}

#[test]
fn links_are_not_taken_again_by_docker_and_so_not_by_us() {
    let place = Place::new(|_| ());
    let recreation = |json: &str| {
        fs::write(place.path("containers/web"), json).unwrap();
        place.docker().recreation(&web()).unwrap()
    };
    let answer = fs::read_to_string(place.path("containers/web")).unwrap();
    let plain = recreation(&answer);
    assert_eq!((plain.restart.as_str(), &plain.unmet[..]), ("always", &[][..]));
    let linked = recreation(&answer.replacen("\"Links\": null", "\"Links\": [\"/db:/web/db\"]", 1));
    assert!(linked.unmet[0].contains("--link"), "{linked:?}");
}
