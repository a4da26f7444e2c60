//! For the fuzzer alone: the readers of what others wrote, each as a function of bytes. Hidden, and no part of what this
//! crate promises.
//!
//! A target panics where a promise of its reader does not hold. The formats are private to their rooms, which is why
//! the targets are here and not with the fuzzer (`fuzz/`).

use std::io::Write as _;

use manifests::{LayerFormat, Sha256};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::criu::images;
use crate::files::layer::{self, Limits};
use crate::files::{buildid, mountinfo};
use crate::images::{Form, ImageArchive, ImageArchiveError};
use crate::model::{Comm, Overlay};
use crate::network::hold::leftover;
use crate::processes::mapping;

/// Enough for what a fuzzer writes, and little enough to be reached.
const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    ratio: 100,
    ratio_free: 64 << 10,
    entries: 200,
    extension: 16 << 10,
    memory: 64 << 10,
};

/// The archive of a layer.
pub fn layer(bytes: &[u8]) {
    let _ = layer::read_through(&file(bytes), LayerFormat::Tar, LIMITS).map_err(|error| error.to_string());
}

/// The same under zstd.
pub fn layer_zstd(bytes: &[u8]) {
    let _ =
        layer::read_through(&file(bytes), LayerFormat::TarZstd, LIMITS).map_err(|error| error.to_string());
}

/// The records of an extended header.
pub fn pax(bytes: &[u8]) {
    layer::read_extension(bytes);
}

/// An image file of CRIU, of whatever kind its magic says.
pub fn checkpoint_image(bytes: &[u8]) {
    let _ = images::read_any(bytes).map_err(|error| error.to_string());
}

/// The archive of an image, or one of its documents.
pub fn image_archive(bytes: &[u8]) {
    crate::images::read_documents(bytes);
    let limits = crate::images::Limits {
        archive: LIMITS.bytes,
        files: LIMITS.entries,
        document: LIMITS.extension,
        unpacked: LIMITS.bytes,
        ratio_free: LIMITS.ratio_free,
        ..crate::images::Limits::default()
    };
    let archive = file(bytes);
    let open = |image| ImageArchive::open_within(&archive, &image, limits);
    let Err(ImageArchiveError::Image { found, .. }) = open(Sha256::from_bytes([0; 32]).into()) else {
        return;
    };
    for image in found {
        let Ok(opened) = open(image) else { continue };
        assert_eq!(opened.image(), image);
        let Ok(unpacked) = opened.check_layers() else { continue };
        assert!(unpacked <= LIMITS.bytes);
        let alone = opened.pack(Form::Oci).expect("there is room for it");
        let again = ImageArchive::open(&alone, &image).expect("what is written here can be read");
        assert_eq!(again.manifest(), opened.manifest());
    }
}

/// `/proc/pid/maps`.
pub fn maps(bytes: &[u8]) {
    for one in mapping::mapped(bytes).files {
        assert!(one.name.starts_with(b"/") && one.inode() != b"0");
        assert!(!one.device().contains(&b' ') && !one.name.contains(&b'\n'));
        one.is_ambiguous();
    }
}

/// `/proc/pid/mountinfo`, and the layers that the options of an overlay name.
pub fn mountinfo(bytes: &[u8]) {
    for mount in mountinfo::parse(bytes) {
        for options in [&mount.options, &mount.super_options] {
            let Ok(shown) = Overlay::from_options(options) else { continue };
            // What is mounted again shows the same.
            if let Ok(again) = shown.mount_options() {
                let read = Overlay::from_options(&again).map_err(|error| error.to_string());
                assert_eq!(read.as_ref(), Ok(&shown), "{options:?} became {again:?}");
            }
        }
    }
}

/// The packet filter's account of itself. No byte of it may be in the commands that it leads to.
pub fn ruleset(bytes: &[u8]) {
    const OURS: [&str; 14] = [
        "delete", "flush", "rule", "chain", "table", "ip", "ip6", "inet", "filter", "handle", "INPUT",
        "OUTPUT", "CRIU", "",
    ];
    for command in leftover::commands_for(bytes) {
        for word in command.split(' ') {
            assert!(OURS.contains(&word) || word.parse::<u64>().is_ok(), "{command:?}");
        }
    }
}

/// The head of an ELF file, for its build id.
pub fn build_id(bytes: &[u8]) {
    buildid::read(&file(bytes)).expect("what is in memory can be read");
}

/// The name of a process, as it is written down and read again.
pub fn comm(bytes: &[u8]) {
    let comm = Comm::from(bytes);
    let written = serde_json::to_string(&comm).expect("a name can be written");
    assert_eq!(serde_json::from_str::<Comm>(&written).expect("and read"), comm, "{written}");
    assert!(!comm.to_string().chars().any(char::is_control), "{comm}");
}

/// A file in memory with these bytes.
fn file(bytes: &[u8]) -> std::fs::File {
    let descriptor = memfd_create("fuzz", MFdFlags::MFD_CLOEXEC).expect("a file in memory");
    let mut file = std::fs::File::from(descriptor);
    file.write_all(bytes).expect("memory");
    file
}
