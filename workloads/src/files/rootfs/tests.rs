//! On real overlay mounts; these tests need root, as the program does.

mod tree;

use std::os::unix::fs::symlink;

use manifests::Sha256;

use super::*;
use crate::criu::images::FilePlace;

/// A bundle with an overlay root: `base` below, `upper` above.
struct Bundle {
    directory: tempfile::TempDir,
}

impl Bundle {
    fn plain() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bundle = Self { directory };
        for name in ["rootfs", "base", "upper", "fix", "store"] {
            fs::create_dir(bundle.path(name)).unwrap();
        }
        bundle
    }

    fn overlay() -> Self {
        let bundle = Self::plain();
        bundle.write("base/lib.so", "old");
        bundle.write("base/kept", "kept");
        bundle.write("upper/data", "one");
        fs::set_permissions(bundle.path("upper"), fs::Permissions::from_mode(0o751)).unwrap();
        OverlayMounts.switch(&bundle.rootfs(), &bundle.original()).unwrap();
        bundle
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    fn original(&self) -> Topology {
        Topology::Overlay(Overlay {
            lower: vec![self.path("base")],
            upper: Some(self.path("upper")),
            work: Some(self.path("work")),
            options: vec![],
            flags: vec!["nosuid".into()],
        })
    }

    fn fix(&self, implicit: &[&str]) -> Layer {
        Layer {
            root: self.path("fix"),
            directories: implicit.iter().map(PathBuf::from).collect(),
            implicit: implicit.iter().map(PathBuf::from).collect(),
            ..Layer::default()
        }
    }

    fn fresh(&self, tag: &str) -> FreshUpper {
        FreshUpper {
            upper: self.path(&format!("store/{tag}/upper")),
            work: self.path(&format!("store/{tag}/work")),
        }
    }

    fn trial(&self, layer: &Layer, tag: &str) -> Topology {
        let now = OverlayMounts.current(&self.rootfs()).unwrap();
        let fresh = self.fresh(tag);
        OverlayMounts.prepare(&self.rootfs(), std::slice::from_ref(layer), &fresh).unwrap();
        now.trial(&self.rootfs(), std::slice::from_ref(&layer.root), &fresh).unwrap()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        OverlayMounts::unmount_overlays(&self.rootfs()).unwrap();
    }
}

#[test]
fn a_trial_shows_the_fix_and_going_back_shows_the_old_files_unchanged() {
    let bundle = Bundle::overlay();
    let before = tree::tree(&bundle.path("upper")).unwrap();
    bundle.write("fix/lib.so", "new");
    let trial = bundle.trial(&bundle.fix(&[]), "t1");

    assert_eq!(OverlayMounts.switch(&bundle.rootfs(), &trial).unwrap(), Switched::Changed);
    assert_eq!(bundle.read("rootfs/lib.so").as_deref(), Some("new"));
    assert_eq!(bundle.read("rootfs/data").as_deref(), Some("one"));
    assert_eq!(fs::metadata(bundle.rootfs()).unwrap().mode() & 0o7777, 0o751, "the root keeps its mode");
    bundle.write("rootfs/data", "two");
    fs::remove_file(bundle.path("rootfs/kept")).unwrap();

    let back = bundle.original().with_new_work(&bundle.path("work-2"));
    assert_eq!(OverlayMounts.switch(&bundle.rootfs(), &back).unwrap(), Switched::Changed);
    assert_eq!(bundle.read("rootfs/lib.so").as_deref(), Some("old"));
    assert_eq!(bundle.read("rootfs/data").as_deref(), Some("one"));
    assert_eq!(bundle.read("rootfs/kept").as_deref(), Some("kept"));
    assert_eq!(tree::tree(&bundle.path("upper")).unwrap(), before);
}

#[test]
fn switching_twice_changes_nothing_the_second_time() {
    let bundle = Bundle::overlay();
    let trial = bundle.trial(&bundle.fix(&[]), "t1");
    OverlayMounts.switch(&bundle.rootfs(), &trial).unwrap();
    assert_eq!(OverlayMounts.switch(&bundle.rootfs(), &trial).unwrap(), Switched::AlreadySo);
    let Topology::Overlay(shown) = OverlayMounts.current(&bundle.rootfs()).unwrap() else { panic!("plain") };
    assert_eq!(shown.flags, ["nosuid"], "mount flags survive");
}

#[test]
fn a_plain_root_is_stacked_upon_and_comes_back_bare() {
    let bundle = Bundle::plain();
    bundle.write("rootfs/lib.so", "old");
    bundle.write("fix/lib.so", "new");
    let trial = bundle.trial(&bundle.fix(&[]), "t1");
    OverlayMounts.switch(&bundle.rootfs(), &trial).unwrap();
    assert_eq!(bundle.read("rootfs/lib.so").as_deref(), Some("new"));
    bundle.write("rootfs/made", "during the trial");

    assert_eq!(OverlayMounts.switch(&bundle.rootfs(), &Topology::Plain).unwrap(), Switched::Changed);
    assert_eq!(bundle.read("rootfs/lib.so").as_deref(), Some("old"));
    assert_eq!(bundle.read("rootfs/made"), None);
    assert_eq!(OverlayMounts.switch(&bundle.rootfs(), &Topology::Plain).unwrap(), Switched::AlreadySo);
}

#[test]
fn a_second_fix_stacks_on_a_committed_first_one_and_can_stay_without_it() {
    let bundle = Bundle::plain();
    bundle.write("rootfs/lib.so", "old");
    bundle.write("fix/lib.so", "new");
    let first = bundle.trial(&bundle.fix(&[]), "t1");
    OverlayMounts.switch(&bundle.rootfs(), &first).unwrap();
    bundle.write("rootfs/data", "kept");

    bundle.write("fix2/other.so", "newer");
    let layer = Layer { root: bundle.path("fix2"), ..Layer::default() };
    let second = bundle.trial(&layer, "t2");
    OverlayMounts.switch(&bundle.rootfs(), &second).unwrap();
    assert_eq!(bundle.read("rootfs/lib.so").as_deref(), Some("new"));
    assert_eq!(bundle.read("rootfs/other.so").as_deref(), Some("newer"));
    assert_eq!(bundle.read("rootfs/data").as_deref(), Some("kept"));

    let without = second.without(&[bundle.path("fix")], &bundle.path("store/t3/work")).unwrap();
    OverlayMounts.switch(&bundle.rootfs(), &without).unwrap();
    assert_eq!(bundle.read("rootfs/lib.so").as_deref(), Some("old"));
    assert_eq!(bundle.read("rootfs/data").as_deref(), Some("kept"));
}

#[test]
fn directories_that_a_layer_only_implies_keep_their_owner_and_mode() {
    let bundle = Bundle::plain();
    bundle.write("rootfs/var/lib/app/state", "x");
    std::os::unix::fs::chown(bundle.path("rootfs/var/lib/app"), Some(1000), Some(1001)).unwrap();
    fs::set_permissions(bundle.path("rootfs/var/lib/app"), fs::Permissions::from_mode(0o1770)).unwrap();
    bundle.write("fix/var/lib/app/lib.so", "new");
    let trial = bundle.trial(&bundle.fix(&["var", "var/lib", "var/lib/app"]), "t1");
    // Interrupted and done again.
    bundle.trial(&bundle.fix(&["var", "var/lib", "var/lib/app"]), "t1");
    OverlayMounts.switch(&bundle.rootfs(), &trial).unwrap();
    let shown = fs::metadata(bundle.path("rootfs/var/lib/app")).unwrap();
    assert_eq!((shown.uid(), shown.gid(), shown.mode() & 0o7777), (1000, 1001, 0o1770));
    assert_eq!(bundle.read("rootfs/var/lib/app/lib.so").as_deref(), Some("new"));
    assert_eq!(bundle.read("rootfs/var/lib/app/state").as_deref(), Some("x"));
}

#[test]
fn a_layer_that_would_hide_a_link_to_a_directory_is_reported() {
    let bundle = Bundle::plain();
    bundle.write("rootfs/usr/lib/a.so", "x");
    symlink("usr/lib", bundle.path("rootfs/lib")).unwrap();
    let conflicts =
        OverlayMounts.conflicts(&bundle.rootfs(), &bundle.fix(&["lib", "usr", "usr/lib", "new"])).unwrap();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(
        conflicts[0].to_string(),
        "the layer has a directory at /lib, the container has a symbolic link"
    );
}

#[test]
fn an_upper_directory_with_data_in_it_is_not_used_again() {
    let bundle = Bundle::plain();
    bundle.write("store/t1/upper/data", "somebody's");
    let error = OverlayMounts.prepare(&bundle.rootfs(), &[bundle.fix(&[])], &bundle.fresh("t1")).unwrap_err();
    assert!(matches!(error, RootfsError::NotEmpty { .. }), "{error}");
}

#[test]
fn a_missing_layer_is_found_before_anything_is_unmounted() {
    let bundle = Bundle::overlay();
    let trial = bundle.trial(&Layer { root: bundle.path("gone"), ..Layer::default() }, "t1");
    let error = OverlayMounts.switch(&bundle.rootfs(), &trial).unwrap_err();
    assert!(matches!(error, RootfsError::Missing { .. }), "{error}");
    assert_eq!(bundle.read("rootfs/lib.so").as_deref(), Some("old"));
}

#[test]
fn a_tree_digest_sees_every_kind_of_change() {
    let bundle = Bundle::plain();
    let directory = bundle.path("base");
    bundle.write("base/a", "one");
    symlink("a", directory.join("link")).unwrap();
    let digest = || tree::tree(&directory).unwrap();
    let mut seen = vec![digest()];
    assert_eq!(seen[0], digest());
    let mut changed = |what: &str, change: &dyn Fn()| {
        change();
        let now = digest();
        assert!(!seen.contains(&now), "{what} is not seen");
        seen.push(now);
    };
    changed("content of the same size", &|| bundle.write("base/a", "two"));
    changed("mode", &|| {
        fs::set_permissions(directory.join("a"), fs::Permissions::from_mode(0o4755)).unwrap()
    });
    changed("owner", &|| std::os::unix::fs::chown(directory.join("a"), Some(7), None).unwrap());
    changed("an attribute", &|| xattr::set(directory.join("a"), "user.x", b"1").unwrap());
    changed("a new name", &|| fs::hard_link(directory.join("a"), directory.join("b")).unwrap());
    changed("a link's target", &|| {
        fs::remove_file(directory.join("link")).unwrap();
        symlink("b", directory.join("link")).unwrap();
    });
    changed("an empty directory", &|| fs::create_dir(directory.join("d")).unwrap());
    changed("opaqueness", &|| xattr::set(directory.join("d"), "trusted.overlay.opaque", b"y").unwrap());
}

#[test]
fn file_records_follow_links_inside_the_root_only() {
    let bundle = Bundle::plain();
    bundle.write("outside", "secret");
    bundle.write("rootfs/usr/lib/a.so", "inside");
    symlink("/usr/lib", bundle.path("rootfs/lib")).unwrap();
    symlink(bundle.path("outside"), bundle.path("rootfs/escape")).unwrap();
    let file = |path: &str, place| CheckpointedFile { path: path.into(), place, size: None };
    let records = OverlayMounts
        .file_records(
            &bundle.rootfs(),
            &[
                file("/lib/a.so", FilePlace::Root),
                file("/escape", FilePlace::Root),
                file("/gone", FilePlace::Root),
                file("/volume/x", FilePlace::Volume { mountpoint: "/volume".into() }),
            ],
        )
        .unwrap();
    let digests: Vec<_> = records.iter().map(|one| (one.path.to_string(), one.sha256.is_some())).collect();
    let expected = [("/lib/a.so", true), ("/escape", false), ("/gone", false)];
    assert_eq!(digests, expected.map(|(path, there)| (path.to_owned(), there)));
    assert_eq!(records[0].sha256, Some(Sha256::of(b"inside")));
}
