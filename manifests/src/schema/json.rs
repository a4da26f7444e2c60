//! The JSON Schemas of the documents that people write, for editors and other programs.
//!
//! They say what one field alone may be; rules between fields are in [`super::validate`] and
//! [`crate::policy`] only. The shipped files are `manifest.schema.json`, `policy.schema.json`,
//! `revocation.schema.json`, `rollout.schema.json`, `grant.schema.json` and `order.schema.json`.

use serde_json::Value;

use super::Manifest;
use crate::grant::Grant;
use crate::order::RolloutOrder;
use crate::policy::RawPolicy;
use crate::revocation::Revocation;
use crate::rollout::Rollout;

/// The JSON Schema (draft 2020-12) of the manifest, schema version 1.
pub fn manifest() -> Value {
    schemars::schema_for!(Manifest).to_value()
}

/// The JSON Schema (draft 2020-12) of the trust policy, schema versions 1 and 2.
pub fn policy() -> Value {
    schemars::schema_for!(RawPolicy).to_value()
}

/// The JSON Schema (draft 2020-12) of a revocation, schema version 1.
pub fn revocation() -> Value {
    schemars::schema_for!(Revocation).to_value()
}

/// The JSON Schema (draft 2020-12) of a rollout, schema version 1.
pub fn rollout() -> Value {
    schemars::schema_for!(Rollout).to_value()
}

/// The JSON Schema (draft 2020-12) of an order, schema version 1.
pub fn order() -> Value {
    schemars::schema_for!(RolloutOrder).to_value()
}

/// The JSON Schema (draft 2020-12) of a grant, schema version 1.
pub fn grant() -> Value {
    schemars::schema_for!(Grant).to_value()
}
