//! What holds for any input.

use manifests::{Manifest, Policy, Revocation};
use proptest::prelude::*;

const TRUTH: &str = include_str!("truth.yaml");

/// Pieces that YAML gives a meaning to, for texts that come near to documents.
fn yamlish() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "schema: 1\n",
        "name: ",
        "- ",
        "? ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\n",
        "  ",
        "\t",
        "|\n",
        ">-\n",
        "'",
        "\"",
        "\\",
        "&a ",
        "*a",
        "!t ",
        "!!str ",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "#",
        "<<: ",
        "~",
        "null",
        "0x1",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
        "\0",
        "é",
        "components:\n",
        "kind: layer\n",
    ]);
    prop::collection::vec(pieces, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = Manifest::parse(&bytes);
        let _ = Policy::parse(&bytes);
        let _ = Revocation::parse(&bytes);
    }

    #[test]
    fn no_text_near_yaml_makes_the_readers_panic(text in yamlish()) {
        let _ = Manifest::parse(text.as_bytes());
        let _ = Policy::parse(text.as_bytes());
        let _ = Revocation::parse(text.as_bytes());
    }

    #[test]
    fn no_damage_to_a_manifest_makes_the_reader_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = TRUTH.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = Manifest::parse(&bytes);
        bytes.truncate(length.index(TRUTH.len()));
        let _ = Manifest::parse(&bytes);
    }

    /// Wherever an anchor, alias or tag is put before a value, the document is refused.
    #[test]
    fn no_place_hides_an_anchor_an_alias_or_a_tag(
        line in 0usize..TRUTH.lines().count(),
        property in prop::sample::select(vec!["&a ", "*a ", "!t ", "!!str ", "! "]),
    ) {
        let mut text = String::new();
        for (index, content) in TRUTH.lines().enumerate() {
            match content.split_once(": ") {
                Some((key, value)) if index == line => text += &format!("{key}: {property}{value}\n"),
                _ => text += &format!("{content}\n"),
            }
        }
        prop_assume!(text != TRUTH);
        prop_assert!(Manifest::parse(text.as_bytes()).is_err(), "{}", text);
    }

    /// What was read, written as JSON and read again is the same manifest.
    #[test]
    fn a_manifest_reads_back_from_json(version in 1u64..1 << 53, settle in 0u32..=3600) {
        let text = TRUTH.replace("version: 3", &format!("version: {version}")) + &format!("settle: {settle}s\n");
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        let json = serde_json::to_vec(&manifest).unwrap();
        prop_assert_eq!(Manifest::parse(&json).unwrap(), manifest);
    }
}
