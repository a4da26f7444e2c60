//! Layers as they should be: every attribute kept, and an overlay that shows what the specification says.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use manifests::LayerFormat;
use nix::mount::{MsFlags, mount};

use crate::files::layer::tests::forge::{Forge, Head};
use crate::files::layer::tests::{Place, in_memory, zstd};

/// The paths as text.
fn text(paths: &[PathBuf]) -> Vec<&str> {
    paths.iter().map(|path| path.to_str().unwrap()).collect()
}

#[test]
fn owners_modes_times_and_attributes_are_kept() {
    // VFS_CAP_REVISION_2 with CAP_NET_BIND_SERVICE permitted and effective (linux/capability.h).
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Forge::new()
        .entry(&Head { name: b"bin/", flag: b'5', mode: 0o1777, mtime: 1_000, ..Head::default() }, b"")
        .pax(&[("mtime", b"1600000000.25"), ("uid", b"70000"), ("SCHILY.xattr.user.note", b"\0\xff")])
        .entry(&Head { name: b"bin/su", size: 3, mode: 0o104_755, gid: 5, ..Head::default() }, b"elf")
        .pax(&[("SCHILY.xattr.security.capability", &capability)])
        .file("bin/ping", b"p")
        .entry(
            &Head { name: b"bin/link", flag: b'2', link: b"su", uid: 7, mtime: 99, ..Head::default() },
            b"",
        )
        .hard_link("bin/su2", "./bin/su")
        .end();
    let place = Place::new();
    let unpacked = place.unpack(&archive, LayerFormat::Tar).unwrap();
    let layer = place.layer(&archive);
    assert_eq!((unpacked.entries, unpacked.bytes, &unpacked.root), (5, 4, &layer));
    assert_eq!(text(&unpacked.directories), ["bin"]);
    assert_eq!(text(&unpacked.privileged), ["bin/ping", "bin/su", "bin/su2"]);
    assert!(unpacked.implicit.is_empty() && unpacked.removed.is_empty());

    let su = fs::metadata(layer.join("bin/su")).unwrap();
    assert_eq!((su.mode(), su.uid(), su.gid(), su.nlink()), (0o104_755, 70_000, 5, 2));
    assert_eq!((su.mtime(), su.mtime_nsec()), (1_600_000_000, 250_000_000));
    assert_eq!(su.ino(), fs::metadata(layer.join("bin/su2")).unwrap().ino());
    assert_eq!(xattr::get(layer.join("bin/su"), "user.note").unwrap().unwrap(), b"\0\xff");
    assert_eq!(xattr::get(layer.join("bin/ping"), "security.capability").unwrap().unwrap(), capability);
    let bin = fs::metadata(layer.join("bin")).unwrap();
    assert_eq!((bin.mode(), bin.mtime()), (0o41_777, 1_000));
    let link = fs::symlink_metadata(layer.join("bin/link")).unwrap();
    assert_eq!((link.uid(), link.mtime()), (7, 99));
    assert_eq!(fs::metadata(place.layers()).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(&layer).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn parents_without_an_entry_are_made_and_may_get_one_later() {
    let archive = Forge::new()
        .file("usr/lib/x/libgreet.so.1", b"fixed")
        .entry(&Head { name: b"usr/lib/", flag: b'5', mode: 0o750, ..Head::default() }, b"")
        .entry(&Head { name: b"./", flag: b'5', mode: 0o711, uid: 3, ..Head::default() }, b"")
        .end();
    let place = Place::new();
    let unpacked = place.unpack(&archive, LayerFormat::Tar).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (3, 5));
    assert_eq!(text(&unpacked.directories), ["usr", "usr/lib", "usr/lib/x"]);
    assert_eq!(text(&unpacked.implicit), ["usr", "usr/lib/x"]);
    let mode = |name: &str| fs::metadata(place.layer(&archive).join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("usr"), mode("usr/lib"), mode("usr/lib/x"), mode("")), (0o755, 0o750, 0o755, 0o711));
    assert_eq!(fs::metadata(place.layer(&archive).join("usr")).unwrap().mtime(), 0);
}

#[test]
fn long_names_of_both_kinds_and_global_comments_are_read() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let archive = Forge::new()
        .gnu_long(b'L', long.as_bytes())
        .file("short", b"gnu")
        .pax(&[("path", "café/a\nb".as_bytes())])
        .file("short", b"pax")
        .extended(b'g', &[("comment", b"0123456789abcdef")])
        .gnu_long(b'K', long.as_bytes())
        .symlink("link", "short")
        .end();
    let place = Place::new();
    place.unpack(&archive, LayerFormat::Tar).unwrap();
    let layer = place.layer(&archive);
    assert_eq!(fs::read(layer.join(&long)).unwrap(), b"gnu");
    assert_eq!(fs::read(layer.join("café/a\nb")).unwrap(), b"pax");
    assert_eq!(fs::read_link(layer.join("link")).unwrap(), Path::new(&long));
}

#[test]
fn archives_of_another_writer_are_read() {
    let long = "directory/".repeat(20) + "file";
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [("plain", &b"1"[..]), (&long, b"22")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        builder.append_pax_extensions([("SCHILY.xattr.user.by", &b"builder"[..])]).unwrap();
        builder.append_data(&mut header, name, content).unwrap();
    }
    let archive = builder.into_inner().unwrap();
    let place = Place::new();
    let packed = zstd(&archive);
    place.unpack(&packed, LayerFormat::TarZstd).unwrap();
    let layer = place.layer(&packed);
    assert_eq!(fs::read(layer.join(&long)).unwrap(), b"22");
    assert_eq!(xattr::get(layer.join("plain"), "user.by").unwrap().unwrap(), b"builder");
}

#[test]
fn several_zstd_frames_with_skippable_ones_between_are_one_archive() {
    let archive = Forge::new().file("a", b"1").file("b", b"2").end();
    let (front, back) = archive.split_at(700);
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
    let packed = [skippable.clone(), zstd(front), skippable.clone(), zstd(back), skippable].concat();
    let place = Place::new();
    place.unpack(&packed, LayerFormat::TarZstd).unwrap();
    assert_eq!(fs::read(place.layer(&packed).join("b")).unwrap(), b"2");
}

#[test]
fn an_overlay_shows_what_whiteouts_and_opaque_directories_say() {
    in_memory("16m", |root| {
        let place = Place::at(root);
        for directory in ["base/etc", "base/opt/old/deep", "base/keep", "upper", "work", "merged"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in ["base/etc/removed", "base/etc/kept", "base/opt/old/deep/hidden", "base/keep/kept"] {
            fs::write(root.join(file), "old").unwrap();
        }
        let archive = Forge::new()
            .dir("etc/")
            .file("etc/.wh.removed", b"")
            .file("etc/added", b"new")
            .file("opt/old/.wh..wh..opq", b"")
            .file("opt/old/only", b"new")
            .file(".wh.keep", b"")
            .end();
        let unpacked = place.unpack(&archive, LayerFormat::Tar).unwrap();
        assert_eq!((unpacked.entries, unpacked.bytes), (6, 6));
        assert_eq!(text(&unpacked.removed), ["etc/removed", "opt/old", "keep"]);
        let layer = place.layer(&archive);
        let whiteout = fs::symlink_metadata(layer.join("etc/removed")).unwrap();
        assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
        let mark = xattr::get(layer.join("opt/old"), "trusted.overlay.opaque").unwrap();
        assert_eq!(mark.as_deref(), Some(&b"y"[..]));

        let at = |name: &str| root.join(name).display().to_string();
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            layer.display(),
            at("base"),
            at("upper"),
            at("work")
        );
        let merged = root.join("merged");
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(&*options)).unwrap();
        let names = |directory: &str| {
            let mut names: Vec<_> = fs::read_dir(merged.join(directory))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["etc", "opt"]);
        assert_eq!(names("etc"), ["added", "kept"]);
        assert_eq!(names("opt/old"), ["only"]);
        assert_eq!(fs::read(merged.join("etc/added")).unwrap(), b"new");
    });
}

/// What GNU tar, the one that is installed, makes of a directory.
#[expect(clippy::disallowed_methods, reason = "an archive is made by another program")]
fn gnu_tar(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let made = std::process::Command::new("tar")
        .args(["--create", "--numeric-owner", "--owner=0", "--group=0"])
        .args(arguments)
        .arg("--directory")
        .arg(directory)
        .arg(".")
        .output()
        .expect("GNU tar is needed to write archives");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

#[test]
fn what_gnu_tar_writes_in_each_of_its_formats_is_taken_with_files_of_1969() {
    let tree = tempfile::tempdir().unwrap();
    let long = format!("usr/lib/{}", "n".repeat(120));
    fs::create_dir_all(tree.path().join("usr/lib")).unwrap();
    fs::write(tree.path().join(&long), "fixed").unwrap();
    for (formats, time) in
        [(["--format=gnu"], "@-86400"), (["--format=oldgnu"], "@-1"), (["--format=posix"], "@-1.5")]
    {
        let archive = gnu_tar(tree.path(), &[formats[0], &format!("--mtime={time}")]);
        let place = Place::new();
        let layer =
            place.unpack(&archive, LayerFormat::Tar).unwrap_or_else(|error| panic!("{formats:?}: {error}"));
        let found = fs::metadata(layer.root.join(&long)).unwrap();
        assert!(found.mtime() < 0, "{formats:?}: {}", found.mtime());
    }
}

#[test]
fn attributes_that_bsdtar_writes_twice_and_fields_that_are_taken_back_are_read() {
    let archive = Forge::new()
        .pax(&[
            ("mtime", b"1795891929.692854615"),
            ("LIBARCHIVE.xattr.user.note", b"aGk"),
            ("SCHILY.xattr.user.note", b"hi"),
        ])
        .file("bsd", b"data")
        .pax(&[("uname", b""), ("path", b""), ("size", b""), ("mtime", b"")])
        .file("plain", b"data")
        .end();
    let place = Place::new();
    place.unpack(&archive, LayerFormat::Tar).unwrap();
    let layer = place.layer(&archive);
    assert_eq!(xattr::get(layer.join("bsd"), "user.note").unwrap().unwrap(), b"hi");
    assert_eq!(fs::read(layer.join("plain")).unwrap(), b"data");
    assert_eq!(fs::metadata(layer.join("plain")).unwrap().mtime(), 1_700_000_000, "the header's own");
}
