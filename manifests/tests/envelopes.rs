//! Files that are no envelopes, and the words they are refused with.

use std::error::Error;

use manifests::{Envelope, EnvelopeError, SecretKey};
use proptest::prelude::*;

fn signed() -> String {
    let mut envelope = Envelope::of_manifest(include_bytes!("truth.yaml").to_vec());
    envelope.sign(&SecretKey::from_seed([1; 32])).unwrap();
    envelope.sign(&SecretKey::from_seed([2; 32])).unwrap();
    envelope.to_json()
}

fn refusal(text: &str) -> String {
    let error = Envelope::parse(text.as_bytes()).expect_err(text);
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(" / ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

/// `signed()` with `old` replaced, which must be in it.
fn with(old: &str, new: &str) -> String {
    let text = signed();
    assert!(text.contains(old), "{old}");
    text.replacen(old, new, 1)
}

#[test]
fn each_lie_about_the_envelope_has_its_own_words() {
    let id = SecretKey::from_seed([1; 32]).public().id().to_string();
    let other = SecretKey::from_seed([2; 32]).public().id().to_string();
    let text = signed();
    let lies = [
        ("empty", String::new()),
        ("yaml", include_str!("truth.yaml").to_owned()),
        ("truncated", text[..text.len() / 2].to_owned()),
        ("trailing-garbage", text.clone() + "x"),
        ("two-envelopes", text.repeat(2)),
        ("byte-order-mark", format!("\u{feff}{text}")),
        ("an-array", r#"["application/vnd.update.manifest.v1+yaml", "", []]"#.to_owned()),
        ("signature-as-an-array", r#"{"payloadType":"t","payload":"","signatures":[["a","b"]]}"#.to_owned()),
        ("unknown-field", with("{", r#"{"comment": 1, "#)),
        ("unknown-field-in-a-signature", with(r#""keyid""#, r#""alg": "none", "keyid""#)),
        ("duplicate-payload", with(r#""payloadType""#, r#""payload": "", "payloadType""#)),
        ("duplicate-payload-escaped", with(r#""payloadType""#, r#""p\u0061yload": "", "payloadType""#)),
        ("duplicate-keyid", with(r#""keyid""#, &format!(r#""keyid": "{other}", "keyid""#))),
        ("no-signatures-field", r#"{"payloadType":"t","payload":""}"#.to_owned()),
        ("payload-null", r#"{"payloadType":"t","payload":null,"signatures":[]}"#.to_owned()),
        ("payload-unpadded", r#"{"payloadType":"t","payload":"YQ","signatures":[]}"#.to_owned()),
        ("payload-trailing-bits", r#"{"payloadType":"t","payload":"YR==","signatures":[]}"#.to_owned()),
        ("payload-url-safe", r#"{"payloadType":"t","payload":"_-8=","signatures":[]}"#.to_owned()),
        (
            "payload-with-line-break",
            r#"{"payloadType":"t","payload":"YWFh\nYWFh","signatures":[]}"#.to_owned(),
        ),
        ("keyid-short", with(&id, &id[1..])),
        ("keyid-capitals", with(&id, &id.to_uppercase())),
        (
            "sig-empty",
            with(r#""sig": ""#, r#""sig": "", "x": ""#).replace(r#", "x""#, r#"}, {"keyid": "", "sig""#),
        ),
        ("sig-long", with(r#""sig": ""#, &format!(r#""sig": "{}"#, "AAAA".repeat(2731)))),
        ("same-key-twice", with(&other, &id)),
    ];
    let mut refusals = String::new();
    for (name, lie) in lies {
        refusals += &format!("{name}: {}\n", refusal(&lie));
    }
    insta::assert_snapshot!(refusals);
}

#[test]
fn an_envelope_past_the_size_limit_is_refused_before_it_is_parsed() {
    let large = vec![b' '; 100 << 20];
    assert!(
        matches!(Envelope::parse(&large), Err(EnvelopeError::TooLarge { found, .. }) if found == 100 << 20)
    );
}

#[test]
fn a_payload_past_the_size_of_a_manifest_is_refused() {
    let envelope = Envelope::of_manifest(vec![b'#'; (1 << 20) + 1]);
    assert!(matches!(
        Envelope::parse(envelope.to_json().as_bytes()),
        Err(EnvelopeError::PayloadTooLarge { limit: 1_048_576, found: 1_048_577 })
    ));
    let envelope = Envelope::of_manifest(vec![b'#'; 1 << 20]);
    assert_eq!(Envelope::parse(envelope.to_json().as_bytes()).unwrap(), envelope);
}

#[test]
fn more_signatures_than_any_policy_needs_are_refused() {
    let mut envelope = Envelope::of_manifest(vec![]);
    for seed in 0..65 {
        envelope.sign(&SecretKey::from_seed([seed; 32])).unwrap();
    }
    assert!(matches!(
        Envelope::parse(envelope.to_json().as_bytes()),
        Err(EnvelopeError::TooManySignatures { limit: 64, found: 65 })
    ));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Envelope::parse(&bytes);
    }

    /// What reads as an envelope after any one byte was changed still is one, and not the same.
    #[test]
    fn one_changed_byte_is_never_the_same_envelope(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let text = signed();
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        let before = std::mem::replace(&mut bytes[at], byte);
        if let Ok(envelope) = Envelope::parse(&bytes) {
            let spaces = before.is_ascii_whitespace() && byte.is_ascii_whitespace();
            prop_assert!(spaces || before == byte || envelope != Envelope::parse(text.as_bytes()).unwrap());
        }
    }
}
