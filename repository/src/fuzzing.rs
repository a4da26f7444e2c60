//! For the fuzzer alone: the readers of what servers, mirrors and other people's machines hand over, each as a function of
//! bytes. Hidden, and no part of what this crate promises.
//!
//! A target panics where a promise of its reader does not hold.

use std::fmt::Debug;

use sigstore_tuf::metadata::{Metadata, Targets};
use url::Url;

use crate::authoring::metadata::{self, Document, Signed};
use crate::bundle;
use crate::client::{catalogue, keys};
use crate::log::tiles;
use crate::transport::mirrors::Mirror;
use crate::transport::wire::{self, Frame};

/// A draft that comes back from somebody's stick: what is taken can be signed, and is the same after it was written.
pub fn draft(bytes: &[u8]) {
    read_twice::<metadata::Root>(bytes);
    read_twice::<metadata::Targets>(bytes);
    read_twice::<metadata::Meta>(bytes);
}

fn read_twice<T: Document + Debug + PartialEq>(bytes: &[u8]) {
    match Signed::<T>::parse("a draft", bytes) {
        Ok(draft) => {
            assert!(!metadata::canonical(&draft.signed).is_empty());
            assert!(
                draft.signers(&Default::default()).is_empty(),
                "nobody's key, and a signature that holds"
            );
            let again = Signed::<T>::parse("the same", &draft.to_bytes());
            assert!(again.is_ok_and(|again| again == draft), "{draft:?}");
        }
        Err(error) => drop(error.to_string()),
    }
}

/// Metadata, as far as it is looked at here and not by the verifier.
pub fn metadata(bytes: &[u8]) {
    for looked in [keys::each_once(bytes), keys::each_delegated_once(bytes), keys::spelled_one_way(bytes)] {
        let _ = looked.map_err(|error| error.to_string());
    }
    let Ok(targets) = Metadata::<Targets>::from_slice(bytes) else { return };
    for entry in catalogue::listed(targets.signed()) {
        let path = catalogue::path(&entry.name, entry.version, catalogue::MANIFEST);
        assert!(targets.signed().targets.contains_key(&path), "{path} is not what is listed");
    }
}

/// What an `update-transport` says.
pub fn frames(mut bytes: &[u8]) {
    let mut content = Vec::new();
    let mut written = Vec::new();
    let whole = bytes;
    while let Ok(frame) = wire::read(&mut bytes, &mut content) {
        assert!(content.len() <= wire::FRAME);
        if wire::write(&mut written, frame, &content).is_err() || frame == Frame::Ends {
            break;
        }
    }
    assert!(whole.starts_with(&written), "a frame is written as it was read");
}

/// The address of a place, a line feed, and the name of a target or a role: no name leaves the place.
pub fn place(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (address, name) = text.split_once('\n').unwrap_or((&text, "file"));
    let Ok(place) = Mirror::parse(address) else { return };
    for (base, url) in [
        (place.metadata(""), place.metadata(&format!("1.{name}.json"))),
        (place.target(""), place.target(name)),
    ] {
        let server = |url: &Url| {
            (
                url.scheme().to_owned(),
                url.host_str().map(str::to_owned),
                url.port(),
                url.username().to_owned(),
            )
        };
        assert!(url.path().starts_with(base.path()) && server(&url) == server(&base), "{url} of {base}");
        assert_eq!((url.query(), url.fragment()), (None, None), "{url}");
        assert!(url.path_segments().is_none_or(|mut parts| parts.all(|part| part != "..")), "{url}");
    }
}

/// A tile of hashes.
pub fn tile(bytes: &[u8]) {
    for width in [1, 2, 255, tiles::WIDTH] {
        match tiles::parse_tile(bytes, width) {
            Ok(hashes) => {
                assert!(hashes.len() as u64 == width && bytes.len() >= 32 * hashes.len());
            }
            Err(expected) => drop(expected),
        }
    }
}

/// An entry bundle, which is the same after it was written.
pub fn entry_bundle(bytes: &[u8]) {
    for width in [1, 2, tiles::WIDTH] {
        if let Ok(entries) = tiles::parse_bundle(bytes, width) {
            assert_eq!(entries.len() as u64, width);
            assert!(bytes.starts_with(&tiles::write_bundle(&entries)), "a bundle has one spelling");
            entries.iter().for_each(|entry| manifests::fuzzing::log_entry(entry));
        }
    }
}

/// A bundle that somebody has carried here: its members are apart from each other, and none has a name that climbs.
pub fn bundle(bytes: &[u8]) {
    let Ok(members) = bundle::look(bytes) else { return };
    let mut places: Vec<_> = members.values().map(|member| (member.at, member.at + member.size)).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|two| two[0].1 <= two[1].0), "members overlap");
    assert!(places.last().is_none_or(|last| last.1 + 1024 <= bytes.len() as u64));
    for name in members.keys() {
        assert!(
            !name.starts_with('/')
                && name.split('/').all(|part| !part.is_empty() && part != ".." && part != ".")
        );
    }
}

/// The archive of these members, as a bundle is one: for first inputs.
pub fn archive_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    bundle::written(members)
}
