//! Shipped JSON Schemas, held against the types that they are of.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Expects the file of a crate's folder to be this schema; writes it first where UPDATE_SCHEMA is set.
pub(crate) fn compare(folder: &str, file: &str, schema: &Value) {
    let path = Path::new(folder).join(file);
    let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap_or_default();
    assert!(shipped == text, "{file} is stale: run this test with UPDATE_SCHEMA=1 and commit the file");
}

/// Every key of `value` at any depth.
pub(crate) fn keys(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                into.push(key.clone());
                keys(value, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}
