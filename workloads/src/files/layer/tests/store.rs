//! The store around a layer: repeats, crashes, records, several unpacks at once.

use std::fs;
use std::os::unix::fs::MetadataExt;

use manifests::{LayerFormat, Sha256};

use crate::files::layer::tests::forge::Forge;
use crate::files::layer::tests::{Place, in_memory};
use crate::files::layer::{LayerError, LayerStore, Layers};

#[test]
fn unpacking_again_is_success_and_touches_nothing() {
    let place = Place::new();
    let archive = Forge::new().dir("a/").file("a/b", b"1").file(".wh.c", b"").end();
    let digest = Sha256::of(&archive);
    assert_eq!(place.store().get(&digest).unwrap(), None);
    let first = place.unpack(&archive, LayerFormat::Tar).unwrap();
    let stat = || {
        let (layer, file) =
            (fs::metadata(&first.root).unwrap(), fs::metadata(first.root.join("a/b")).unwrap());
        (layer.ino(), layer.ctime_nsec(), file.ctime_nsec())
    };
    let before = stat();
    // Not even the payload is looked at any more.
    let again = place.store().unpack(&digest, &place.payload(b"no archive"), LayerFormat::Tar).unwrap();
    assert_eq!(again, first);
    assert_eq!(place.store().get(&digest).unwrap(), Some(first.clone()));
    assert_eq!(stat(), before);
}

#[test]
fn what_a_crash_left_is_removed_by_the_next_unpack_of_any_layer() {
    let place = Place::new();
    let archive = Forge::new().file("a", b"1").end();
    let digest = Sha256::of(&archive).to_string();
    for name in [".incoming-0123", &format!(".incoming-{digest}")] {
        let leftover = place.layers().join(name);
        fs::create_dir_all(leftover.join("deep/er")).unwrap();
        fs::write(leftover.join("a"), "half").unwrap();
        std::os::unix::fs::symlink("/", leftover.join("deep/root")).unwrap();
    }
    fs::create_dir(place.layers().join("kept")).unwrap();
    fs::create_dir(place.layers().join(".records")).unwrap();
    for name in [".incoming-x", "collected"] {
        fs::write(place.layers().join(".records").join(name), "{}").unwrap();
    }
    let before = place.outside();
    place.unpack(&archive, LayerFormat::Tar).unwrap();
    assert_eq!(fs::read(place.layer(&archive).join("a")).unwrap(), b"1");
    let mut names = place.names_in_layers();
    names.sort();
    assert_eq!(names, [digest.as_str(), "kept"]);
    assert_eq!(place.records(), 1);
    assert_eq!(place.outside(), before);
}

#[test]
fn a_record_without_its_layer_is_no_layer() {
    let place = Place::new();
    let archive = Forge::new().file("a", b"1").end();
    let layer = place.unpack(&archive, LayerFormat::Tar).unwrap();
    fs::remove_dir_all(&layer.root).unwrap();
    assert_eq!(place.store().get(&Sha256::of(&archive)).unwrap(), None);
    assert_eq!(place.unpack(&archive, LayerFormat::Tar).unwrap(), layer);
}

#[test]
fn a_lost_or_damaged_record_is_written_again_beside_the_same_layer() {
    let place = Place::new();
    let archive = Forge::new().file("a/b", b"1").end();
    let digest = Sha256::of(&archive);
    let layer = place.unpack(&archive, LayerFormat::Tar).unwrap();
    let inode = fs::metadata(&layer.root).unwrap().ino();
    let record = place.layers().join(".records").join(digest.to_string());
    fs::write(&record, "{\"directories\":").unwrap();
    assert!(matches!(place.store().get(&digest), Err(LayerError::Record { .. })));
    assert_eq!(place.unpack(&archive, LayerFormat::Tar).unwrap(), layer);
    fs::remove_file(&record).unwrap();
    assert_eq!(place.unpack(&archive, LayerFormat::Tar).unwrap(), layer);
    assert_eq!(place.store().get(&digest).unwrap().as_ref(), Some(&layer));
    assert_eq!(fs::metadata(&layer.root).unwrap().ino(), inode);
    assert_eq!(place.names_in_layers().len(), 1);
}

#[test]
fn a_refused_layer_can_be_followed_by_a_good_one_of_the_same_name() {
    let place = Place::new();
    let good = Forge::new().file("a", b"1").end();
    let bad = Forge::new().file("a", b"1").kind("b", b'6').end();
    let digest = Sha256::of(&good);
    place.store().unpack(&digest, &place.payload(&bad), LayerFormat::Tar).unwrap_err();
    assert!(place.names_in_layers().is_empty());
    place.store().unpack(&digest, &place.payload(&good), LayerFormat::Tar).unwrap();
}

#[test]
fn several_unpacks_at_once_wait_for_each_other() {
    in_memory("64m", |root| {
        let place = Place::at(root);
        let archives: Vec<_> = (0..8_u8)
            .map(|index| Forge::new().file("content", &vec![index / 2; 100_000]).end())
            .map(|archive| (place.payload(&archive), archive))
            .collect();
        std::thread::scope(|scope| {
            for (payload, archive) in &archives {
                let store = place.store();
                scope.spawn(move || {
                    let layer = store.unpack(&Sha256::of(archive), payload, LayerFormat::Tar).unwrap();
                    assert_eq!(fs::read(layer.root.join("content")).unwrap().len(), 100_000);
                });
            }
        });
        // Each layer was asked for twice.
        assert_eq!((place.names_in_layers().len(), place.records()), (4, 4));
    });
}

#[test]
fn a_store_that_cannot_be_made_is_named() {
    let place = Place::new();
    let store = LayerStore::new(place.root.join("canary/file/layers"));
    let payload = place.payload(&Forge::new().end());
    let error = store.unpack(&Sha256::of(b""), &payload, LayerFormat::Tar).unwrap_err();
    assert!(matches!(error, LayerError::Store { doing: "make", .. }), "{error}");
}
