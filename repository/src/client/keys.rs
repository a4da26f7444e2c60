//! A threshold counts keys: one key under two ids would be two. And a signature has one spelling, so that no byte of a
//! document can be changed that is believed.

use std::collections::BTreeMap;

use sigstore_tuf::Error;
use sigstore_tuf::key::Key;
use sigstore_tuf::metadata::{Metadata, Root, Targets};

fn distinct(keys: &BTreeMap<String, Key>) -> Result<(), Error> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (id, key) in keys {
        if let Some(other) = seen.insert(key.keyval.public.trim(), id) {
            return Err(Error::Malformed(format!(
                "expected each key once, found one as {other} and as {id}"
            )));
        }
    }
    Ok(())
}

/// That the keys of a root are different ones. What is no root is for the verifier to refuse.
pub(crate) fn each_once(root: &[u8]) -> Result<(), Error> {
    Metadata::<Root>::from_slice(root).map_or(Ok(()), |root| distinct(&root.signed().keys))
}

/// The same of the keys to which a role delegates.
pub(crate) fn each_delegated_once(targets: &[u8]) -> Result<(), Error> {
    let targets = Metadata::<Targets>::from_slice(targets).ok();
    match targets.as_ref().and_then(|targets| targets.signed().delegations.as_ref()) {
        Some(delegations) => distinct(&delegations.keys),
        None => Ok(()),
    }
}

/// That signatures are spelled in small letters, as everybody writes them. What is no document is for the verifier to
/// refuse.
pub(crate) fn spelled_one_way(document: &[u8]) -> Result<(), Error> {
    let document: serde_json::Value = serde_json::from_slice(document).unwrap_or_default();
    let signatures = document.get("signatures").and_then(|signatures| signatures.as_array());
    let capital = |signature: &&serde_json::Value| {
        let text = signature.get("sig").and_then(|sig| sig.as_str());
        text.is_some_and(|text| text.bytes().any(|c| c.is_ascii_uppercase()))
    };
    match signatures.into_iter().flatten().find(capital) {
        Some(_) => {
            Err(Error::Malformed("expected signatures in small letters, found a capital one".to_owned()))
        }
        None => Ok(()),
    }
}
