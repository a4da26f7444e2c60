//! Layers that would fill a disk or a memory, and a disk that is full.

use std::io::Write;

use manifests::LayerFormat;

use crate::files::layer::tests::forge::{Forge, Head};
use crate::files::layer::tests::{Place, in_memory};
use crate::files::layer::{Bound, LayerError, Layers, Limits};

#[track_caller]
fn bound(limits: Limits, archive: &[u8], format: LayerFormat) -> (Bound, u64) {
    let place = Place::new();
    let store = place.store().with_limits(limits);
    let error =
        store.unpack(&manifests::Sha256::of(archive), &place.payload(archive), format).expect_err("a bomb");
    assert!(place.names_in_layers().is_empty());
    match error {
        LayerError::TooLarge { bound, offset, .. } => (bound, offset),
        other => panic!("refused for another reason: {other}"),
    }
}

#[test]
fn a_zstd_bomb_ends_at_the_ratio_and_not_at_the_disk() {
    // One file of 4 GiB of zeros in about 130 KiB.
    let size = 4_u64 << 30;
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(20).unwrap();
    encoder.write_all(&Head { name: b"zeros", size, ..Head::default() }.bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    // More than enough of it to cross the limit; the rest is never read.
    for _ in 0..300 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let limits = Limits::default();
    let (bound, offset) = bound(limits, &bomb, LayerFormat::TarZstd);
    assert_eq!(bound, Bound::Ratio);
    let fair = limits.ratio_free.max(bomb.len() as u64 * limits.ratio);
    assert!(offset >= fair && offset <= fair + (1 << 20), "{offset} for {} bytes", bomb.len());
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_written() {
    let head = Head { name: b"big", size: (8 << 30) - 100, ..Head::default() };
    assert_eq!(
        bound(Limits::default(), &Forge::new().entry(&head, b"").end(), LayerFormat::Tar),
        (Bound::Bytes, 512)
    );
    let archive = Forge::new().pax(&[("size", b"18446744073709551615")]).file("big", b"").end();
    assert_eq!(bound(Limits::default(), &archive, LayerFormat::Tar).0, Bound::Bytes);
}

#[test]
fn many_small_files_count_together() {
    let limits = Limits { bytes: 10_000, ..Limits::default() };
    let archive =
        (0..20).fold(Forge::new(), |forge, index| forge.file(&format!("f{index}"), &[1; 300])).end();
    assert_eq!(bound(limits, &archive, LayerFormat::Tar).0, Bound::Bytes);
}

#[test]
fn padding_after_the_end_counts_too() {
    let limits = Limits { bytes: 10_000, ..Limits::default() };
    let archive = Forge::new().raw(&[0; 20_000]).cut();
    assert_eq!(bound(limits, &archive, LayerFormat::Tar).0, Bound::Bytes);
}

#[test]
fn entries_extension_headers_and_implied_directories_are_counted() {
    let limits = Limits { entries: 10, ..Limits::default() };
    let files = (0..11).fold(Forge::new(), |forge, index| forge.file(&format!("f{index}"), b"")).end();
    assert_eq!(bound(limits, &files, LayerFormat::Tar), (Bound::Entries, 10 * 512));
    let comments = (0..11).fold(Forge::new(), |forge, _| forge.extended(b'g', &[("comment", b"x")])).end();
    assert_eq!(bound(limits, &comments, LayerFormat::Tar).0, Bound::Entries);
    let deep = Forge::new().file("1/2/3/4/5/6/7/8/9/10/11/f", b"").end();
    assert_eq!(bound(limits, &deep, LayerFormat::Tar).0, Bound::Entries);
}

#[test]
fn an_extension_header_does_not_decide_how_much_memory_it_gets() {
    for flag in [b'x', b'g', b'L', b'K'] {
        let head = Head { name: b"long", flag, size: (1 << 20) + 1, ..Head::default() };
        let archive = Forge::new().entry(&head, b"").end();
        assert_eq!(bound(Limits::default(), &archive, LayerFormat::Tar), (Bound::Extension, 0));
    }
}

#[test]
fn directories_and_removed_names_are_kept_in_bounded_memory() {
    let limits = Limits { memory: 10_000, ..Limits::default() };
    let archive = (0..100).fold(Forge::new(), |forge, index| forge.dir(&format!("d{index}"))).end();
    assert_eq!(bound(limits, &archive, LayerFormat::Tar).0, Bound::Memory);
    let archive = (0..100).fold(Forge::new(), |forge, index| forge.file(&format!(".wh.d{index}"), b"")).end();
    assert_eq!(bound(limits, &archive, LayerFormat::Tar).0, Bound::Memory);
}

#[test]
fn a_zstd_frame_that_wants_too_large_a_window_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&Forge::new().file("a", b"").end()).unwrap();
    let archive = encoder.finish().unwrap();
    let error = super::refused_as(&archive, LayerFormat::TarZstd);
    assert!(matches!(error, LayerError::Decompress { offset: 0, .. }), "{error}");
}

#[test]
fn a_full_disk_is_named_and_nothing_stays_on_it() {
    in_memory("1m", |root| {
        let place = Place::at(root);
        let archive = Forge::new().file("small", b"1").file("large", &vec![7; 4 << 20]).end();
        let before = nix::sys::statvfs::statvfs(root).unwrap().blocks_free();
        // The payload itself lies elsewhere.
        let mut payload = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).unwrap();
        payload.write_all(&archive).unwrap();
        let layer = manifests::Sha256::of(&archive);
        let error = place.store().unpack(&layer, &payload, LayerFormat::Tar).unwrap_err();
        assert!(matches!(error, LayerError::Full { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            "the store's file system is full (or a quota is): could not write \"large\" at byte 1024"
        );
        assert!(place.names_in_layers().is_empty());
        let after = nix::sys::statvfs::statvfs(root).unwrap().blocks_free();
        assert!(before - after <= 2, "{} blocks stay used", before - after);
        let small = Forge::new().file("small", b"1").end();
        place.unpack(&small, LayerFormat::Tar).expect("there is room again");
    });
}
