//! Lies about what a signed document is.

use manifests::verify::Standing;
use manifests::{
    DocumentKind, Envelope, EnvelopeError, Manifest, Policy, SecretKey, TrustFloor, VerifyAt, VerifyError,
};

const TRUTH: &str = include_str!("truth.yaml");

fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

/// The one key may sign manifests, by schema 1.
fn policy() -> Policy {
    let public = key().public();
    let text = format!(
        "schema: 1\nkeys:\n  - {{name: one, id: {}, public: \"{public}\"}}\nroles:\n  - {{name: all, keys: [one], threshold: 1}}\n",
        public.id()
    );
    Policy::parse(text.as_bytes()).unwrap()
}

fn signed(kind: DocumentKind) -> Envelope {
    let mut envelope = Envelope::new(kind, TRUTH.as_bytes().to_vec());
    envelope.sign(&key()).unwrap();
    envelope
}

fn verify(envelope: &Envelope) -> Result<u64, VerifyError> {
    let floor = TrustFloor::default();
    let at = VerifyAt { now: "2026-11-10T12:00:00Z".parse().unwrap(), floor: &floor };
    policy().verify::<Manifest>(envelope, at).map(|manifest| manifest.version)
}

#[test]
fn a_signature_for_one_kind_of_document_never_counts_for_another() {
    assert_eq!(verify(&signed(DocumentKind::Manifest)).unwrap(), 3);
    for kind in DocumentKind::ALL.into_iter().filter(|kind| *kind != DocumentKind::Manifest) {
        let other = signed(kind);
        assert_eq!(other.kind(), Some(kind));
        assert!(matches!(verify(&other), Err(VerifyError::PayloadType { .. })), "{kind}");
        let json = other.to_json().replace(kind.payload_type(), DocumentKind::Manifest.payload_type());
        let renamed = Envelope::parse(json.as_bytes()).unwrap();
        assert_eq!(renamed.kind(), Some(DocumentKind::Manifest));
        assert!(matches!(verify(&renamed), Err(VerifyError::BadSignature { .. })), "{kind}");
    }
}

#[test]
fn what_is_of_another_kind_is_told_with_the_worth_of_its_signatures() {
    let floor = TrustFloor::default();
    let at = VerifyAt { now: "2026-11-10T12:00:00Z".parse().unwrap(), floor: &floor };
    let examined = policy().examine::<Manifest>(&signed(DocumentKind::Grant), at);
    let error = examined.outcome.unwrap_err();
    assert_eq!(error.kind(), "payload-type");
    assert_eq!(error.to_string(), "the signed payload is not a manifest");
    assert!(matches!(examined.signers.signatures[0].standing, Standing::Counts { .. }));
    assert!(examined.signed.is_none());
}

#[test]
fn each_kind_has_its_own_size_limit() {
    for kind in DocumentKind::ALL {
        let of_size = |size| Envelope::parse(Envelope::new(kind, vec![b'#'; size]).to_json().as_bytes());
        of_size(kind.max_bytes()).unwrap();
        let found = kind.max_bytes() + 1;
        let error = of_size(found).unwrap_err();
        assert!(
            matches!(error, EnvelopeError::PayloadTooLarge { limit, found: size } if limit + 1 == size && size == found),
            "{kind}: {error}"
        );
    }
}
