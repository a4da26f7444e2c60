//! Making containers anew, against a program that keeps containers as podman's answers about them. The real one is asked in a
//! machine (`vm-tests`, `engines::images`).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use manifests::Sha256;

use super::*;
use crate::images::specimen::{Packed, Specimen, layer};
use crate::lifecycle::Patience;

const INSPECTED: &str = include_str!("inspected.json");

/// Each container is a file with its answer; what is made is like `web`, from the image that was asked for, and with whatever
/// `drift` changes (an expression for sed).
const PODMAN: &str = r#"#!/bin/sh
here=$(dirname "$0")
for last; do :; done
case "$1 $2" in
    "container inspect") [ -e "$here/containers/$last" ] || exit 125; cat "$here/containers/$last"; exit ;;
    "container exists") [ -e "$here/containers/$last" ]; exit ;;
    "image exists") grep -qx "$last" "$here/images"; exit ;;
    "image inspect") cat "$here/layers"; exit ;;
    "update --help") echo "--restart string"; exit ;;
esac
echo "$*" >>"$here/log"
set_name() { sed -i "s|\"Name\": \"$1\",|\"Name\": \"$2\",|" "$here/containers/$2"; }
case $1 in
    create)
        name=; while [ "$1" != -- ]; do [ "$1" != --name ] || name=$2; shift; done
        sed -f "$here/as-new" "$here/containers/web" | sed "s|\"Image\": \"[0-9a-f]*\"|\"Image\": \"$2\"|" >"$here/containers/$name"
        set_name web "$name"
        sed -i "$(cat "$here/drift")" "$here/containers/$name" ;;
    rename) mv "$here/containers/$3" "$here/containers/$4"; set_name "$3" "$4" ;;
    update) sed -i "/RestartPolicy/{n;s|\"Name\": \"[a-z-]*\"|\"Name\": \"$3\"|}" "$here/containers/$last" ;;
    rm) rm "$here/containers/$last" ;;
    load) cat >"$here/loaded"; cat "$here/next-id" >>"$here/images" ;;
    *) exit 125 ;;
esac
"#;

/// What podman says otherwise of a container that was made and not started.
const AS_NEW: &str = r#"s|4a566762fd18ec82fd821728a39500e04222e9270a2f5b3c3902194384da4dfa|0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef|
s|4a566762fd18|0123456789ab|
s|"Status": "[a-z]*"|"Status": "created"|
s|"IPAddress": "[0-9.]*"|"IPAddress": ""|
s|"Hostname": ".*"|"Hostname": ""|
/RestartPolicy/{n;s|"Name": "[a-z-]*"|"Name": "no"|}
/container=podman/d
/HOSTNAME=/d
s|"HOME=/",|"HOME=/"|
"#;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("containers")).unwrap();
        let web = INSPECTED
            .replace("@BUNDLE@", "/bundle")
            .replace("@LAYER@", "/layer")
            .replace("@STATUS@", "running")
            .replace("@PID@", "0")
            .replace("@STOPPED@", "false");
        fs::write(place.path("containers/web"), web).unwrap();
        fs::write(place.path("as-new"), AS_NEW).unwrap();
        fs::write(place.path("images"), "").unwrap();
        place.drift("");
        fs::write(place.path("podman"), PODMAN).unwrap();
        fs::set_permissions(place.path("podman"), fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn drift(&self, sed: &str) {
        fs::write(self.path("drift"), sed).unwrap();
    }

    fn podman(&self) -> Podman {
        Podman { patience: Patience::default(), ..Podman::run_by(self.path("podman"), self.path("helpers")) }
    }

    /// What changes something, a word each.
    fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
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
    "podman:web".parse().unwrap()
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
fn a_container_is_known_with_what_made_it_and_what_is_not_kept() {
    let place = Place::new();
    fs::write(place.path("layers"), "[]").unwrap();
    let recreation = place.podman().recreation(&web()).unwrap();
    assert_eq!((recreation.restart.as_str(), &recreation.unmet[..]), ("always", &[][..]));
    assert!(recreation.image.unwrap().id.starts_with("sha256:b3e17d8a"));
    assert!(recreation.changes.iter().any(|change| change.contains("outside of its volumes")));
    let answer = fs::read_to_string(place.path("containers/web")).unwrap();
    fs::write(place.path("containers/web"), answer.replace("\"CreateCommand\"", "\"Forgotten\"")).unwrap();
    let unmet = place.podman().recreation(&web()).unwrap().unmet;
    assert!(unmet[0].contains("no command line"), "{unmet:?}");
}

#[test]
fn a_copy_from_its_own_image_comes_first_and_then_the_new_one() {
    let place = Place::new();
    place.podman().create(&web(), &other(), &replacement()).unwrap();
    assert_eq!(place.asked(), ["create", "rm", "create"]);
    assert_eq!(place.containers(), ["web", "web-new"]);
    let log = fs::read_to_string(place.path("log")).unwrap();
    let last = log.lines().last().unwrap();
    let image = other().sha256().to_string();
    assert_eq!(
        last,
        format!("create --label tier=web --memory 256m --restart no --pull never --name web-new -- {image}")
    );
    // Once more: what is left of it goes first.
    place.podman().create(&web(), &other(), &replacement()).unwrap();
    assert_eq!(place.containers(), ["web", "web-new"]);
}

#[test]
fn what_a_copy_would_lose_is_named_and_nothing_stays() {
    for (drift, field) in [
        ("s|\"Memory\": 268435456|\"Memory\": 0|", "HostConfig.Memory"),
        ("s|\"tier\": \"web\"|\"tier\": \"db\"|", "Config.Labels.tier"),
        ("s|\"ReadonlyRootfs\": false|\"ReadonlyRootfs\": true|", "HostConfig.ReadonlyRootfs"),
        ("s|\"NetworkMode\": \"bridge\"|\"NetworkMode\": \"host\"|", "HostConfig.NetworkMode"),
        ("s|\"PATH=[^\"]*\"|\"PATH=/bin\"|", "Config.Env.0"),
    ] {
        let place = Place::new();
        place.drift(drift);
        let error = place.podman().create(&web(), &other(), &replacement()).unwrap_err();
        assert!(error.to_string().contains(&format!("{field} would be")), "{drift}: {error}");
        assert_eq!(place.containers(), ["web"], "{drift}");
    }
}

#[test]
fn two_exchange_their_names_with_one_policy_and_back() {
    let place = Place::new();
    let podman = place.podman();
    podman.create(&web(), &other(), &replacement()).unwrap();
    podman.exchange(&web(), &replacement()).unwrap();
    let policy =
        |name: &str| podman.known(&format!("podman:{name}").parse().unwrap()).unwrap().restart_words();
    assert_eq!(place.containers(), ["web", "web-old"]);
    assert_eq!((policy("web"), policy("web-old")), ("always".to_owned(), "no".to_owned()));
    podman.put_back(&web(), &replacement()).unwrap();
    assert_eq!(place.containers(), ["web", "web-new"]);
    assert_eq!((policy("web"), policy("web-new")), ("always".to_owned(), "no".to_owned()));
    for _ in 0..2 {
        podman.remove(&"podman:web-new".parse().unwrap()).unwrap();
    }
    assert_eq!(place.containers(), ["web"]);
}

#[test]
fn an_image_is_taken_in_once_and_has_to_be_that() {
    let place = Place::new();
    let specimen = Specimen::of("web", &[layer(b"its files", Packed::Gzip)]);
    let archive = ImageArchive::open(&specimen.archive(), &specimen.image).unwrap();
    fs::write(place.path("next-id"), format!("{}\n", bare(&specimen.image))).unwrap();
    let layers: Vec<String> = archive.diff_ids().map(|layer| layer.to_string()).collect();
    fs::write(place.path("layers"), serde_json::to_vec(&layers).unwrap()).unwrap();
    for _ in 0..2 {
        place.podman().load(&NAME, &archive).unwrap();
    }
    assert_eq!(place.asked(), ["load"]);
    let loaded = fs::File::open(place.path("loaded")).unwrap();
    assert_eq!(ImageArchive::open(&loaded, &specimen.image).unwrap().manifest(), specimen.manifest);

    fs::write(place.path("layers"), "[\"sha256:other\"]").unwrap();
    let error = place.podman().load(&NAME, &archive).unwrap_err();
    assert!(
        matches!(&error, RuntimeError::NotTheImage { found, .. } if found == &["sha256:other"]),
        "{error}"
    );
}

#[test]
fn volumes_without_names_are_this_containers() {
    let nameless = "0".repeat(64);
    let answer = serde_json::json!({ "Mounts": [
        { "Type": "volume", "Name": "data", "Destination": "/data" },
        { "Type": "volume", "Name": nameless, "Destination": "/cache" },
        { "Type": "bind", "Source": "/srv", "Destination": "/srv" },
    ] });
    assert_eq!(nameless_volumes(&answer), [format!("{nameless}:/cache")]);
}
