//! One archive per lie.

use std::fs;

use manifests::{LayerFormat, Sha256};

use crate::files::layer::tests::forge::{Forge, Head};
use crate::files::layer::tests::{Place, in_memory, refused, refused_as, rule, zstd};
use crate::files::layer::{Fault, FileKind, LayerError, Rule};

#[track_caller]
fn fault(archive: &[u8]) -> (u64, Fault) {
    match refused(archive) {
        LayerError::Damaged { offset, fault } => (offset, fault),
        other => panic!("refused for another reason: {other}"),
    }
}

#[test]
fn a_name_that_climbs_is_refused_wherever_the_dots_are() {
    for name in ["../canary/file", "a/../../canary/file", "a/..", "..", "./../x", "a/b/../c"] {
        assert_eq!(rule(&Forge::new().file(name, b"evil").end()), (name.to_owned(), Rule::DotDot));
    }
    assert_eq!(rule(&Forge::new().dir("../evil/").end()).1, Rule::DotDot);
    assert_eq!(
        rule(&Forge::new().file("a/.wh...", b"").end()).1,
        Rule::WhiteoutName { found: b".."[..].into() }
    );
    assert_eq!(rule(&Forge::new().file("a/../.wh.x", b"").end()).1, Rule::DotDot);
}

#[test]
fn an_absolute_name_is_refused_in_every_kind_of_header() {
    assert_eq!(rule(&Forge::new().file("/etc/evil", b"").end()).1, Rule::Absolute);
    assert_eq!(rule(&Forge::new().dir("/").end()).1, Rule::Absolute);
    assert_eq!(rule(&Forge::new().pax(&[("path", b"/etc/evil")]).file("good", b"").end()).1, Rule::Absolute);
    assert_eq!(rule(&Forge::new().gnu_long(b'L', b"/etc/evil").file("good", b"").end()).1, Rule::Absolute);
    let prefixed = {
        let mut block = Head { name: b"evil", ..Head::default() }.bytes();
        block[345..349].copy_from_slice(b"/etc");
        super::forge::reseal(&mut block);
        Forge::new().raw(&block).end()
    };
    assert_eq!(rule(&prefixed).1, Rule::Absolute);
}

#[test]
fn names_that_no_file_can_have_are_refused() {
    assert_eq!(rule(&Forge::new().file("", b"").end()).1, Rule::Empty);
    assert_eq!(rule(&Forge::new().pax(&[("path", b"")]).file("", b"").end()).1, Rule::Empty);
    assert_eq!(rule(&Forge::new().pax(&[("path", b"a\0b")]).file("x", b"").end()).1, Rule::Nul);
    assert_eq!(rule(&Forge::new().pax(&[("path", b"caf\xe9")]).file("x", b"").end()).1, Rule::NotText);
    assert_eq!(rule(&Forge::new().file("a/", b"").end()).1, Rule::TrailingSlash);
    assert_eq!(rule(&Forge::new().file(".", b"").end()).1, Rule::Root);
    assert_eq!(rule(&Forge::new().symlink("./", "a").end()).1, Rule::Root);
}

#[test]
fn names_that_are_too_long_or_too_deep_are_refused() {
    let long_part = vec![b'n'; 256];
    let archive = Forge::new().pax(&[("path", &long_part)]).file("x", b"").end();
    assert_eq!(rule(&archive).1, Rule::PartTooLong { limit: 255, found: 256 });
    let long = "abcdefghi/".repeat(410);
    let archive = Forge::new().gnu_long(b'L', long.as_bytes()).dir("x").end();
    assert_eq!(rule(&archive).1, Rule::TooLong { limit: 4095, found: 4100 });
    let deep = "d/".repeat(129);
    let archive = Forge::new().pax(&[("path", deep.as_bytes())]).dir("x").end();
    assert_eq!(rule(&archive).1, Rule::TooDeep { limit: 128, found: 129 });
}

#[test]
fn a_hard_link_out_of_the_layer_is_refused() {
    for (target, broken) in [
        ("/etc/passwd", Rule::Absolute),
        ("../canary/file", Rule::DotDot),
        ("a/../../canary/file", Rule::DotDot),
        ("", Rule::Empty),
    ] {
        let (_, rule) = rule(&Forge::new().hard_link("link", target).end());
        assert_eq!(rule, Rule::HardLinkName { target: target.as_bytes().into(), rule: Box::new(broken) });
    }
    let archive = Forge::new().pax(&[("linkpath", b"/etc/passwd")]).hard_link("link", "good").end();
    assert!(matches!(rule(&archive).1, Rule::HardLinkName { .. }));
    let archive = Forge::new().gnu_long(b'K', b"/etc/passwd").hard_link("link", "good").end();
    assert!(matches!(rule(&archive).1, Rule::HardLinkName { .. }));
}

#[test]
fn a_hard_link_to_what_is_no_file_of_this_layer_is_refused() {
    let target = |archive: &[u8]| match rule(archive).1 {
        Rule::HardLinkTarget { found, .. } => found,
        other => panic!("refused for another reason: {other}"),
    };
    assert_eq!(target(&Forge::new().hard_link("link", "later").file("later", b"").end()), FileKind::Nothing);
    assert_eq!(target(&Forge::new().hard_link("link", "no/where").end()), FileKind::Nothing);
    assert_eq!(target(&Forge::new().dir("d/").hard_link("link", "d").end()), FileKind::Directory);
    assert_eq!(target(&Forge::new().hard_link("link", ".").end()), FileKind::Directory);
    assert_eq!(target(&Forge::new().symlink("s", "x").hard_link("link", "s").end()), FileKind::Symlink);
    assert_eq!(
        target(&Forge::new().file(".wh.w", b"").hard_link("link", "w").end()),
        FileKind::CharacterDevice
    );
    let through = Forge::new().dir("d/").file("d/f", b"").symlink("s", "d").hard_link("link", "s/f").end();
    assert!(matches!(rule(&through).1, Rule::Parent { found: FileKind::Symlink, .. }));
}

#[test]
fn an_entry_behind_a_symbolic_link_is_refused() {
    let parent = |name: &str| Rule::Parent { parent: name.as_bytes().into(), found: FileKind::Symlink };
    let link = || Forge::new().dir("real/").dir("a/").symlink("a/link", "../real");
    assert_eq!(rule(&link().file("a/link/evil", b"").end()), ("a/link/evil".to_owned(), parent("a/link")));
    assert_eq!(rule(&link().dir("a/link/deep/er/").end()).1, parent("a/link"));
    assert_eq!(rule(&link().file("a/link/.wh.x", b"").end()).1, parent("a/link"));
    assert_eq!(rule(&link().file("a/link/.wh..wh..opq", b"").end()).1, parent("a/link"));
    assert_eq!(rule(&link().symlink("a/link/x", "y").end()).1, parent("a/link"));
    assert_eq!(rule(&link().file("f", b"").hard_link("a/link/x", "f").end()).1, parent("a/link"));
}

#[test]
fn a_symbolic_link_that_leaves_the_layer_by_its_form_is_refused() {
    assert!(matches!(rule(&Forge::new().symlink("s", "/etc").end()).1, Rule::SymlinkAbsolute { .. }));
    assert!(matches!(rule(&Forge::new().symlink("s", "../etc").end()).1, Rule::SymlinkClimbs { .. }));
    assert!(matches!(
        rule(&Forge::new().symlink("a/s", "b/../../../etc").end()).1,
        Rule::SymlinkClimbs { .. }
    ));
    assert!(matches!(rule(&Forge::new().symlink("s", "").end()).1, Rule::SymlinkTarget { .. }));
    let nul = Forge::new().pax(&[("linkpath", b"a\0b")]).symlink("s", "x").end();
    assert!(matches!(rule(&nul).1, Rule::SymlinkTarget { .. }));
}

#[test]
fn a_symbolic_link_already_in_the_store_is_not_followed() {
    let place = Place::new();
    fs::create_dir(place.layers()).unwrap();
    let archive = Forge::new().file("f", b"evil").end();
    std::os::unix::fs::symlink("../../canary", place.layer(&archive)).unwrap();
    let before = place.outside();
    let error = place.unpack(&archive, LayerFormat::Tar).unwrap_err();
    assert!(matches!(error, LayerError::InTheWay { found: FileKind::Symlink, .. }), "{error}");
    let incoming = place.layers().join(format!(".incoming-{}", Sha256::of(b"")));
    std::os::unix::fs::symlink("../../canary", incoming).unwrap();
    let empty = Forge::new().end();
    place.unpack(&empty, LayerFormat::Tar).unwrap();
    assert_eq!(place.outside(), before);
}

#[test]
fn an_entry_below_a_file_or_a_whiteout_is_refused() {
    let (_, rule_file) = rule(&Forge::new().file("a", b"").file("a/b", b"").end());
    assert_eq!(rule_file, Rule::Parent { parent: b"a"[..].into(), found: FileKind::File });
    let (_, rule_whiteout) = rule(&Forge::new().file(".wh.a", b"").file("a/b/c", b"").end());
    assert_eq!(rule_whiteout, Rule::Parent { parent: b"a"[..].into(), found: FileKind::CharacterDevice });
    assert_eq!(rule(&Forge::new().file(".wh.a/b", b"").end()).1, Rule::WhiteoutParent);
}

#[test]
fn a_whiteout_of_a_parent_that_has_entries_is_refused() {
    assert_eq!(rule(&Forge::new().file("a/b", b"").file(".wh.a", b"").end()).1, Rule::WhiteoutAndEntry);
    assert_eq!(rule(&Forge::new().dir("a/").file(".wh.a", b"").end()).1, Rule::WhiteoutAndEntry);
}

#[test]
fn a_name_that_is_brought_and_removed_is_refused_in_either_order() {
    assert_eq!(rule(&Forge::new().file("a", b"").file(".wh.a", b"").end()).1, Rule::WhiteoutAndEntry);
    assert_eq!(rule(&Forge::new().file(".wh.a", b"").file("a", b"").end()).1, Rule::WhiteoutAndEntry);
    assert_eq!(rule(&Forge::new().file(".wh.a", b"").dir("a").end()).1, Rule::WhiteoutAndEntry);
    assert_eq!(rule(&Forge::new().file(".wh.a", b"").symlink("a", "b").end()).1, Rule::WhiteoutAndEntry);
}

#[test]
fn a_name_that_comes_twice_is_refused_in_every_spelling() {
    let duplicate = |archive: Vec<u8>| match rule(&archive).1 {
        Rule::Duplicate { found } => found,
        other => panic!("refused for another reason: {other}"),
    };
    assert_eq!(duplicate(Forge::new().file("a", b"1").file("a", b"2").end()), FileKind::File);
    assert_eq!(duplicate(Forge::new().file("d/a", b"1").file("./d//a", b"2").end()), FileKind::File);
    assert_eq!(duplicate(Forge::new().dir("a/").dir("a").end()), FileKind::Directory);
    assert_eq!(duplicate(Forge::new().dir("./").dir(".").end()), FileKind::Directory);
    assert_eq!(duplicate(Forge::new().file("a", b"").dir("a").end()), FileKind::File);
    assert_eq!(duplicate(Forge::new().dir("a").file("a", b"").end()), FileKind::Directory);
    assert_eq!(duplicate(Forge::new().symlink("a", "canary").file("a", b"").end()), FileKind::Symlink);
    assert_eq!(duplicate(Forge::new().symlink("a", "canary").dir("a").end()), FileKind::Symlink);
    assert_eq!(duplicate(Forge::new().file("a", b"").hard_link("a", "a").end()), FileKind::File);
    assert_eq!(
        duplicate(Forge::new().file(".wh.a", b"").file(".wh.a", b"").end()),
        FileKind::CharacterDevice
    );
    let opaque = Forge::new().file("d/.wh..wh..opq", b"").file("d/.wh..wh..opq", b"").end();
    assert_eq!(duplicate(opaque), FileKind::File);
}

#[test]
fn whiteouts_that_name_nothing_or_carry_something_are_refused() {
    for (name, found) in [(".wh.", ""), ("a/.wh..", "."), (".wh..wh.plnk", ".wh.plnk"), (".wh..wh.", ".wh.")]
    {
        let (_, rule) = rule(&Forge::new().file(name, b"").end());
        assert_eq!(rule, Rule::WhiteoutName { found: found.as_bytes().into() });
    }
    assert_eq!(rule(&Forge::new().file(".wh.a", b"content").end()).1, Rule::WhiteoutContent);
    assert_eq!(rule(&Forge::new().dir(".wh.a").end()).1, Rule::WhiteoutContent);
    assert_eq!(rule(&Forge::new().symlink(".wh.a", "b").end()).1, Rule::WhiteoutContent);
    assert_eq!(rule(&Forge::new().file("a", b"").hard_link(".wh.b", "a").end()).1, Rule::WhiteoutContent);
    let attribute = Forge::new().pax(&[("SCHILY.xattr.user.a", b"b")]).file(".wh.a", b"").end();
    assert_eq!(rule(&attribute).1, Rule::WhiteoutContent);
    assert_eq!(rule(&Forge::new().file("./.wh..wh..opq", b"").end()).1, Rule::OpaqueRoot);
}

#[test]
fn devices_fifos_and_unknown_kinds_are_refused() {
    for (flag, found) in [
        (b'3', FileKind::CharacterDevice),
        (b'4', FileKind::BlockDevice),
        (b'6', FileKind::Fifo),
        (b'7', FileKind::Unknown(b'7')),
        (b'M', FileKind::Unknown(b'M')),
        (b'V', FileKind::Unknown(b'V')),
        (0xff, FileKind::Unknown(0xff)),
    ] {
        assert_eq!(rule(&Forge::new().kind("n", flag).end()).1, Rule::Kind { found });
    }
}

#[test]
fn sparse_files_are_refused_in_both_their_forms() {
    assert_eq!(rule(&Forge::new().kind("s", b'S').end()).1, Rule::Sparse);
    let pax =
        Forge::new().pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")]).file("s", b"").end();
    assert_eq!(rule(&pax).1, Rule::Sparse);
}

#[test]
fn attributes_that_would_speak_to_overlay_or_the_host_are_refused() {
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "user.overlay.redirect",
        "security.selinux",
        "security.ima",
        "system.posix_acl_access",
    ] {
        let key = format!("SCHILY.xattr.{name}");
        for archive in [
            Forge::new().pax(&[(&key, b"y")]).dir("d").end(),
            Forge::new().pax(&[(&key, b"y")]).file("f", b"").end(),
        ] {
            assert_eq!(rule(&archive).1, Rule::Xattr { name: name.as_bytes().into() });
        }
    }
    let link = Forge::new().pax(&[("SCHILY.xattr.user.a", b"y")]).symlink("s", "t").end();
    assert!(matches!(rule(&link).1, Rule::XattrPlace { .. }));
}

#[test]
fn what_is_said_twice_or_not_understood_is_refused() {
    let twice = Forge::new().pax(&[("path", b"a"), ("path", b"b")]).file("x", b"").end();
    assert!(matches!(rule(&twice).1, Rule::Twice { .. }));
    let both = Forge::new().pax(&[("path", b"a")]).gnu_long(b'L', b"b").file("x", b"").end();
    assert!(matches!(rule(&both).1, Rule::Twice { .. }));
    let headers = Forge::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("x", b"").end();
    assert!(matches!(rule(&headers).1, Rule::Twice { .. }));
    for keyword in ["hdrcharset", "SCHILY.acl.access", "LIBARCHIVE.fflags", "RHT.security.selinux", "SUN.x"] {
        let archive = Forge::new().pax(&[(keyword, b"y")]).file("x", b"").end();
        assert_eq!(rule(&archive).1, Rule::Keyword { keyword: keyword.as_bytes().into() });
    }
    let global = Forge::new().extended(b'g', &[("path", b"/etc/evil")]).file("x", b"").end();
    assert!(matches!(rule(&global).1, Rule::Keyword { .. }));
}

#[test]
fn owners_modes_and_sizes_that_cannot_be_are_refused() {
    let owner = Forge::new().pax(&[("uid", b"4294967295")]).file("x", b"").end();
    assert_eq!(rule(&owner).1, Rule::Owner { found: 4_294_967_295 });
    let owner = Forge::new().pax(&[("gid", b"4294967296")]).file("x", b"").end();
    assert_eq!(rule(&owner).1, Rule::Owner { found: 4_294_967_296 });
    let mode = Forge::new().entry(&Head { name: b"x", mode: 0o200_644, ..Head::default() }, b"").end();
    assert_eq!(rule(&mode).1, Rule::Mode { found: 0o200_644 });
    let head = Head { name: b"d", flag: b'5', size: 512, ..Head::default() };
    let content = Forge::new().entry(&head, &[b'x'; 512]).end();
    assert_eq!(rule(&content).1, Rule::Content { kind: FileKind::Directory, found: 512 });
    for number in ["-1", "0x1", "99999999999999999999"] {
        let archive = Forge::new().pax(&[("size", number.as_bytes())]).file("x", b"").end();
        assert!(matches!(fault(&archive).1, Fault::Number { field: "size", .. }), "{number}");
    }
}

#[test]
fn a_changed_header_is_damage_with_its_offset() {
    let mut archive = Forge::new().file("a", b"1").file("b", b"2").end();
    archive[1024] ^= 1;
    assert!(matches!(fault(&archive), (1024, Fault::Checksum { .. })));
    let v7 = Forge::new().entry(&Head { name: b"x", magic: &[0; 8], ..Head::default() }, b"").end();
    assert!(matches!(fault(&v7), (0, Fault::Magic { .. })));
}

#[test]
fn a_truncated_archive_is_damage_wherever_it_ends() {
    let whole = Forge::new().file("a", &[b'x'; 700]).file("b", b"2").end();
    in_memory("16m", |root| {
        let place = Place::at(root);
        for length in 0..whole.len() {
            match place.refuses(&whole[..length], LayerFormat::Tar) {
                LayerError::Damaged { offset, fault: Fault::Truncated { .. } } => {
                    assert_eq!(offset, length as u64);
                }
                other => panic!("cut at {length}: {other}"),
            }
        }
    });
    assert!(matches!(fault(&Forge::new().file("a", b"x").cut()).1, Fault::Truncated { .. }));
    let dangling = Forge::new().pax(&[("path", b"x")]).end();
    assert_eq!(fault(&dangling), (1024, Fault::Dangling));
}

#[test]
fn bytes_after_the_end_are_damage_with_their_offset() {
    assert_eq!(
        fault(&Forge::new().file("a", b"").raw(&[0; 1024]).raw(b"more").cut()),
        (1536, Fault::Trailing)
    );
    let hidden = Forge::new().raw(&[0; 5000]).file("evil", b"").end();
    assert_eq!(fault(&hidden), (5000, Fault::Trailing));
    let one_block = Forge::new().raw(&[0; 512]).file("evil", b"").end();
    assert_eq!(fault(&one_block).1, Fault::EndMarker);
}

#[test]
fn a_zstd_stream_that_is_cut_changed_or_followed_by_something_is_refused() {
    let whole = zstd(&Forge::new().file("a", &(0..=255).cycle().take(5000).collect::<Vec<u8>>()).end());
    in_memory("16m", |root| {
        let place = Place::at(root);
        for length in 4..whole.len() {
            let error = place.refuses(&whole[..length], LayerFormat::TarZstd);
            assert!(matches!(error, LayerError::Decompress { .. }), "cut at {length}: {error}");
        }
    });
    for more in [&b"x"[..], b"garbage", &[0; 512]] {
        let error = refused_as(&[&whole, more].concat(), LayerFormat::TarZstd);
        assert!(matches!(error, LayerError::Decompress { .. }), "{error}");
    }
    let second = zstd(&Forge::new().file("evil", b"").end());
    let error = refused_as(&[whole, second].concat(), LayerFormat::TarZstd);
    assert!(matches!(error, LayerError::Damaged { fault: Fault::Trailing, .. }), "{error}");
}

#[test]
fn another_packing_than_the_manifest_says_is_named() {
    let archive = Forge::new().file("a", b"").end();
    let error = refused_as(&zstd(&archive), LayerFormat::Tar);
    assert_eq!(
        error.to_string(),
        "the layer is not packed as the manifest says: expected tar, found a zstd stream"
    );
    assert!(matches!(refused_as(&archive, LayerFormat::TarZstd), LayerError::Format { .. }));
    assert!(matches!(refused_as(b"\x1f\x8b\x08\0", LayerFormat::Tar), LayerError::Format { .. }));
    assert!(matches!(refused_as(b"", LayerFormat::TarZstd), LayerError::Format { .. }));
    assert!(matches!(refused_as(b"", LayerFormat::Tar), LayerError::Damaged { .. }));
}

#[test]
fn a_name_cannot_speak_to_the_terminal() {
    let archive = Forge::new().pax(&[("path", b"../\x1b[2J\xe2\x80\xaeevil\n")]).file("x", b"").end();
    let message = refused(&archive).to_string();
    assert!(message.chars().all(|char| !char.is_control() && char != '\u{202e}'), "{message:?}");
    assert_eq!(
        refused(&Forge::new().file("a/../b", b"").end()).to_string(),
        "layer entry \"a/../b\" (header at byte 0) is refused: expected a name without \"..\", found one"
    );
}
