//! For the fuzzer alone: the readers of documents, each as a function of bytes. Hidden, and no part of what this crate
//! promises.
//!
//! A target panics where a promise of its reader does not hold.

use std::fmt::Debug;

use serde::Serialize;

use crate::chain::{Head, check_exported};
use crate::evidence::Said;
use crate::log::{Checkpoint, LogEntry, LogPolicy, LogProof, Note, NoteKey, NoteKeyKind};
use crate::provenance::Origin;
use crate::statement::Subject;
use crate::{
    Document, Envelope, Grant, Manifest, Policy, PolicyDocument, PublicKeyFile, Revocation, Rollout,
    SecretKey,
};

/// An envelope, which must be the same after it was written.
pub fn envelope(bytes: &[u8]) {
    match Envelope::parse(bytes) {
        Ok(envelope) => {
            let again = Envelope::parse(envelope.to_json().as_bytes());
            assert!(again.is_ok_and(|again| again == envelope), "{envelope:?}");
            assert!(Envelope::looks_like_one(bytes) && envelope.signed_bytes().len() < bytes.len() + 64);
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A manifest.
pub fn manifest(bytes: &[u8]) {
    read_twice::<Manifest>(bytes);
}

/// A policy: as an operator installs it, and as a signed document.
pub fn policy(bytes: &[u8]) {
    let document = PolicyDocument::parse(bytes);
    match Policy::parse(bytes) {
        Ok(_) => {}
        Err(error) => {
            drop(error.to_string());
            assert!(document.is_err(), "a document, and no policy");
        }
    }
}

/// A list of what must not count any more.
pub fn revocation(bytes: &[u8]) {
    read_twice::<Revocation>(bytes);
}

/// What people allow a controller.
pub fn rollout(bytes: &[u8]) {
    read_twice::<Rollout>(bytes);
}

/// A controller's word to one host.
pub fn grant(bytes: &[u8]) {
    read_twice::<Grant>(bytes);
}

/// The file of a public key.
pub fn public_key(bytes: &[u8]) {
    let _ = PublicKeyFile::parse(bytes).map_err(|error| error.to_string());
}

/// What a host says of itself.
pub fn evidence(bytes: &[u8]) {
    match Said::parse(bytes) {
        Ok(said) => {
            let written = match &said {
                Said::Evidence(statement) => statement.to_json(),
                Said::Vex(statement) => statement.to_json(),
            };
            assert!(Said::parse(&written).is_ok_and(|again| again == said), "{said:?}");
            let binding = said.binding();
            assert!(!binding.boot.as_str().is_empty() && !said.subjects().is_empty());
        }
        Err(error) => drop(error.to_string()),
    }
}

/// Where a module is said to come from.
pub fn origin(bytes: &[u8]) {
    match Origin::read(bytes) {
        Ok((_, subject)) => {
            for subject in subject.iter().filter_map(Subject::sha256) {
                assert!(Origin::parse(bytes, subject).is_ok());
            }
        }
        Err(error) => drop(error.to_string()),
    }
}

/// Exported records of a journal.
pub fn journal(bytes: &[u8]) {
    match check_exported(bytes, &[]) {
        Ok(head) => {
            assert_eq!(head.to_string().parse::<Head>().ok(), Some(head));
            assert!(check_exported(bytes, &[head]).is_ok(), "it holds, and not with its own head");
            if let Some(seq) = head.seq.checked_add(1) {
                let further = Head { seq, hash: head.hash };
                assert!(check_exported(bytes, &[further]).is_err(), "it holds without its end");
            }
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A document means the same after a program has written it as JSON, which is YAML too.
fn read_twice<T: Document + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    match T::parse(bytes) {
        Ok(document) => {
            assert!(bytes.len() <= T::KIND.max_bytes());
            let json = serde_json::to_vec(&document).expect("a document can be written");
            match T::parse(&json) {
                Ok(again) => assert_eq!(again, document),
                // Names of fields take room that YAML's short forms do not.
                Err(_) if json.len() > T::KIND.max_bytes() => {}
                Err(error) => panic!("{}: {error}", String::from_utf8_lossy(&json)),
            }
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A signed note, which is the same after it was written.
pub fn signed_note(bytes: &[u8]) {
    match Note::parse(bytes) {
        Ok(note) => {
            let again = Note::parse(note.to_string().as_bytes());
            assert_eq!(again.as_ref(), Ok(&note));
            assert_eq!(note.to_string().as_bytes(), bytes, "a note has one spelling");
            let stranger = NoteKey::new(
                "stranger".parse().expect("a name"),
                NoteKeyKind::Log,
                SecretKey::from_seed([9; 32]).public(),
            );
            assert!(note.signed_by(&stranger).is_err() || note.signed_by(&stranger) == Ok(None));
        }
        Err(error) => drop(error.to_string()),
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(key) = text.trim_end().parse::<NoteKey>() {
        assert_eq!(key.to_string(), text.trim_end());
    }
}

/// A log's checkpoint.
pub fn checkpoint(bytes: &[u8]) {
    match Checkpoint::of(bytes) {
        Ok((checkpoint, note)) => {
            assert!(
                note.text().starts_with(&checkpoint.to_text()),
                "the first three lines have one spelling"
            );
            assert_eq!(Checkpoint::parse(&checkpoint.to_text()), Ok(checkpoint));
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A proof that something is in a log, and what a host makes of it.
pub fn log_proof(bytes: &[u8]) {
    match LogProof::parse(bytes) {
        Ok(proof) => {
            let again = LogProof::parse(proof.to_string().as_bytes());
            assert_eq!(again.as_ref(), Ok(&proof));
            let _ = proof.holds(b"entry");
        }
        Err(error) => drop(error.to_string()),
    }
}

/// Whom somebody believes about logs.
pub fn log_policy(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<LogPolicy>() {
        Ok(policy) => assert!(!policy.logs().is_empty() && !policy.needed().is_empty()),
        Err(error) => drop(error.to_string()),
    }
}

/// An entry of a log.
pub fn log_entry(bytes: &[u8]) {
    match LogEntry::parse(bytes) {
        Ok(entry) => assert_eq!(entry.to_bytes(), bytes, "an entry has one spelling"),
        Err(error) => drop(error.to_string()),
    }
}
