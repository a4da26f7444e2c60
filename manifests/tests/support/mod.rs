//! Keys, policies and signed documents by name, for the tests of trust.

use manifests::{
    Document, DocumentKind, Envelope, Policy, SecretKey, Sha256, TrustFloor, UtcTime, Verified, VerifyAt,
    VerifyError,
};

/// In the time of `truth.yaml`.
pub(crate) const DURING: &str = "2026-11-10T12:00:00Z";

/// A key by its name.
pub(crate) fn key(name: &str) -> SecretKey {
    SecretKey::from_seed(*Sha256::of(name.as_bytes()).as_bytes())
}

/// The `keys:` of a policy.
pub(crate) fn keys(names: &[&str]) -> String {
    let entry = |name: &&str| {
        let public = key(name).public();
        format!("  - {{name: {name}, id: {}, public: \"{public}\"}}\n", public.id())
    };
    format!("keys:\n{}", names.iter().map(entry).collect::<String>())
}

/// What a host gets to see of a document: it has been through a file.
pub(crate) fn signed(kind: DocumentKind, text: &str, by: &[&str]) -> Envelope {
    let mut envelope = Envelope::new(kind, text.as_bytes().to_vec());
    for name in by {
        envelope.sign(&key(name)).unwrap();
    }
    Envelope::parse(envelope.to_json().as_bytes()).unwrap()
}

pub(crate) fn time(text: &str) -> UtcTime {
    text.parse().unwrap()
}

pub(crate) fn at(floor: &TrustFloor) -> VerifyAt<'_> {
    VerifyAt { now: time(DURING).timestamp(), floor }
}

/// Verifies `text`, signed `by` these keys, on a host that remembers nothing.
pub(crate) fn verify<T: Document>(
    policy: &Policy,
    text: &str,
    by: &[&str],
) -> Result<Verified<T>, VerifyError> {
    policy.verify(&signed(T::KIND, text, by), at(&TrustFloor::default()))
}
