//! Every shipped example is a manifest, and reads back the same from what it serialises to.

#![expect(clippy::disallowed_methods, reason = "a test reads its fixtures")]

use std::fs;
use std::path::Path;

use manifests::{Manifest, Policy};

#[test]
fn every_example_is_a_manifest() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut parsed = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let manifest =
            Manifest::parse(&bytes).unwrap_or_else(|error| panic!("{}: {:?}", path.display(), error));
        let json = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(Manifest::parse(&json).unwrap(), manifest, "{}", path.display());
        parsed += 1;
    }
    assert!(parsed > 0, "no example in {}", folder.display());
}

#[test]
fn the_examples_of_policies_are_some() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policy");
    for file in ["policy.yaml", "policy-2.yaml"] {
        Policy::parse(&fs::read(folder.join(file)).unwrap())
            .unwrap_or_else(|error| panic!("{file}: {error:?}"));
    }
}
