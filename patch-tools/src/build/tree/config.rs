//! What two kernel configurations have differently.

use std::collections::BTreeMap;

/// Settings about the signing key and a build's identity. Distributions blank them in the configuration
/// that they ship in `/boot`; none changes what the compiler is given.
const IDENTITY: [&str; 4] =
    ["CONFIG_BUILD_SALT", "CONFIG_MODULE_SIG_ALL", "CONFIG_MODULE_SIG_KEY", "CONFIG_SYSTEM_TRUSTED_KEYS"];

/// The settings that differ, as `CONFIG_X: left -> right`. What is "not set" and what is not mentioned are
/// the same.
pub(super) fn differences(left: &str, right: &str) -> Vec<String> {
    let (left, right) = (settings(left), settings(right));
    let names = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
    let mut differences: Vec<String> = names
        .filter(|name| !IDENTITY.contains(name))
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| {
            let shown = |value: Option<&&str>| value.map_or("not set", |value| *value).to_owned();
            format!("{name}: {} -> {}", shown(left.get(name)), shown(right.get(name)))
        })
        .collect();
    differences.sort();
    differences
}

fn settings(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter(|line| line.starts_with("CONFIG_")).filter_map(|line| line.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_and_absent_are_the_same_and_identity_does_not_count() {
        let left = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\nCONFIG_BUILD_SALT=\"1\"\n";
        assert_eq!(differences(left, "CONFIG_A=m\nCONFIG_C=\"x\"\n"), ["CONFIG_A: y -> m"]);
    }
}
