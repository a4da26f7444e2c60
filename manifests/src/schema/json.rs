//! The JSON Schema of the manifest, for editors and other programs.
//!
//! It says what one field alone may be; rules between fields are in [`super::validate`] only.

use serde_json::Value;

use super::Manifest;

/// The JSON Schema (draft 2020-12) of schema version 1.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Manifest);
    schema.insert("$id".into(), "https://update.example/manifest.v1.schema.json".into());
    schema.to_value()
}
