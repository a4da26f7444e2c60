//! The shipped JSON Schemas are those of the types, and know every field that the types know.
//!
//! After a change of the types: `UPDATE_SCHEMA=1 cargo nextest run -p manifests --test schema`.

#![expect(clippy::disallowed_methods, reason = "a test reads its fixtures")]

#[path = "support/schema.rs"]
mod support;

use std::fs;
use std::path::Path;

use manifests::{Manifest, schema::json};
use serde_json::Value;
use support::keys;

fn compare(file: &str, schema: &Value) {
    support::compare(env!("CARGO_MANIFEST_DIR"), file, schema);
}

#[test]
fn the_shipped_schema_of_the_manifest_is_that_of_the_types() {
    compare("manifest.schema.json", &json::manifest());
}

#[test]
fn the_shipped_schema_of_the_policy_is_that_of_the_types() {
    compare("policy.schema.json", &json::policy());
}

#[test]
fn the_shipped_schema_of_a_revocation_is_that_of_the_type() {
    compare("revocation.schema.json", &json::revocation());
}

#[test]
fn the_shipped_schemas_of_rollout_grant_and_order_are_those_of_the_types() {
    compare("rollout.schema.json", &json::rollout());
    compare("grant.schema.json", &json::grant());
    compare("order.schema.json", &json::order());
}

/// A field that is read and written has a place in the schema and a line in the reference page.
#[test]
fn every_field_of_an_example_is_in_the_schema_and_in_the_reference() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let reference = fs::read_to_string(folder.join("../docs/manifest.md")).unwrap();
    let schema = json::manifest().to_string();
    let mut fields = Vec::new();
    for example in ["greet", "many-kernels", "host-library", "image"] {
        let example = fs::read(folder.join(format!("examples/{example}.yaml"))).unwrap();
        keys(&serde_json::to_value(Manifest::parse(&example).unwrap()).unwrap(), &mut fields);
    }
    assert!(fields.len() > 40, "{fields:?}");
    for field in fields {
        assert!(schema.contains(&format!("\"{field}\":")), "{field} is not in the schema");
        assert!(reference.contains(&format!("`{field}`")), "{field} is not in docs/manifest.md");
    }
}
