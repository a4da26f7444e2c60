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

/// All names of a tree, those of directories after those of what is in them: the order in which a removal goes.
fn in_order_of_removal(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            paths.extend(in_order_of_removal(&path));
        }
        paths.push(path);
    }
    paths
}

#[test]
fn a_layer_of_which_any_part_is_missing_is_none_and_is_unpacked_again() {
    let archive = Forge::new()
        .file("usr/lib/a.so", b"first")
        .file("usr/lib/b.so", b"second")
        .file("etc/.wh.removed", b"")
        .symlink("usr/lib/c.so", "b.so")
        .end();
    let digest = Sha256::of(&archive);
    let place = Place::new();
    let whole = place.unpack(&archive, LayerFormat::Tar).unwrap();
    let steps = in_order_of_removal(&whole.root).len();
    assert_eq!(steps, 7);
    for cut in 1..=steps {
        for path in in_order_of_removal(&whole.root).iter().take(cut) {
            match path.symlink_metadata().unwrap().is_dir() {
                true => fs::remove_dir(path).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
        assert_eq!(place.store().get(&digest).unwrap(), None, "{cut} names are gone");
        assert_eq!(place.unpack(&archive, LayerFormat::Tar).unwrap(), whole);
        assert_eq!(place.store().get(&digest).unwrap(), Some(whole.clone()), "{cut} names were gone");
    }
    fs::write(whole.root.join("usr/lib/a.so"), b"fir").unwrap();
    assert_eq!(place.store().get(&digest).unwrap(), None, "a file is shorter");
}

#[test]
fn a_removal_that_is_stopped_anywhere_leaves_no_layer() {
    in_memory("16m", |root| {
        let place = Place::at(root);
        let archive = Forge::new().file("a/b/c/file", b"1").file("a/d/file", b"2").file("e", b"3").end();
        let digest = Sha256::of(&archive);
        let layer = place.unpack(&archive, LayerFormat::Tar).unwrap().root;
        for stop in ["a", "a/b", "a/b/c", "a/d"] {
            place.unpack(&archive, LayerFormat::Tar).unwrap();
            // A directory that something is mounted on cannot be removed.
            let options = Some("size=64k");
            let held = layer.join(stop);
            nix::mount::mount(Some("tmpfs"), &held, Some("tmpfs"), nix::mount::MsFlags::empty(), options)
                .unwrap();
            system::durable::remove(&layer).unwrap_err();
            assert_eq!(place.store().get(&digest).unwrap(), None, "stopped at {stop}");
            assert!(!layer.exists(), "stopped at {stop}");
            let doomed = place.layers().join(format!(".removing-{digest}"));
            nix::mount::umount(&doomed.join(stop)).unwrap();
        }
        place.unpack(&archive, LayerFormat::Tar).unwrap();
        assert_eq!(place.names_in_layers().len(), 1, "the rest is gone");
    });
}
