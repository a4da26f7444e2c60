//! Which role lists a manifest, and how a role that became large is split: so that a host fetches little.
//!
//! `targets` lists nothing itself. It delegates by prefixes of manifests' names; the first role in its list that has a
//! prefix of a name is the name's. A role larger than [`LARGEST`] leaves most of its names to a new one, which has
//! longer prefixes and stands directly before it. So every name has one role, whatever the order of splits: names that
//! the new role takes were the old one's, and of all others none has one of its prefixes.
//!
//! Pure: documents in, documents out.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::authoring::metadata::{Delegated, Delegations, TargetFile, Targets};

/// The most bytes of a role before it is split. With 10,000 manifests this makes some 200 roles; a larger one would
/// make what a new manifest costs larger, a smaller one the snapshot, which names each role.
pub(super) const LARGEST: usize = 32 << 10;

/// What the pattern of each prefix ends with: manifest, version, file.
const BELOW: &str = "*/*/*";

pub(super) fn pattern(prefix: &str) -> String {
    format!("{prefix}{BELOW}")
}

/// The patterns of prefixes, in order. Those that differ in their last letter or digit alone are one: there are ten
/// times as many prefixes as roles, and every new host fetches all of them.
fn patterns(prefixes: &[String]) -> Vec<String> {
    let mut patterns = Vec::new();
    let mut sets: BTreeMap<&str, String> = BTreeMap::new();
    for prefix in prefixes {
        match prefix.char_indices().next_back() {
            Some((at, last)) if last.is_ascii_alphanumeric() => {
                sets.entry(&prefix[..at]).or_default().push(last)
            }
            _ => patterns.push(pattern(prefix)),
        }
    }
    patterns.extend(sets.into_iter().map(|(stem, set)| match set.len() {
        1 => pattern(&format!("{stem}{set}")),
        _ => pattern(&format!("{stem}[{set}]")),
    }));
    patterns.sort_unstable();
    patterns
}

/// How much of a name a pattern's prefix is, if the name has it.
fn reach(pattern: &str, name: &str) -> Option<usize> {
    let prefix = pattern.strip_suffix(BELOW)?;
    match prefix.strip_suffix(']').and_then(|open| open.split_once('[')) {
        None => name.starts_with(prefix).then_some(prefix.len()),
        Some((stem, set)) => {
            let last = name.strip_prefix(stem)?.chars().next()?;
            set.contains(last).then_some(stem.len() + 1)
        }
    }
}

/// The role of a manifest's name.
pub(super) fn role_of<'a>(delegations: &'a Delegations, name: &str) -> Option<&'a Delegated> {
    delegations.roles.iter().find(|role| role.paths.iter().any(|path| reach(path, name).is_some()))
}

/// A name for a new role.
pub(super) fn fresh(delegations: &Delegations) -> String {
    let numbers =
        delegations.roles.iter().filter_map(|role| role.name.strip_prefix('m')?.parse::<u64>().ok());
    format!("m{}", numbers.max().unwrap_or(0) + 1)
}

fn name_of(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// About the size of a file's entry, in bytes.
fn entry(path: &str, file: &TargetFile) -> usize {
    fn value(one: &Value) -> usize {
        match one {
            Value::Object(fields) => fields.iter().map(|(name, field)| name.len() + 4 + value(field)).sum(),
            Value::Array(items) => items.iter().map(|item| 1 + value(item)).sum(),
            Value::String(text) => text.len() + 2,
            _ => 8,
        }
    }
    // Names of fields, a digest in hexadecimal, a length.
    path.len() + 115 + file.custom.as_ref().map_or(0, |custom| value(custom) + 12)
}

/// About the size of what a role lists, in bytes.
fn size(targets: &BTreeMap<String, TargetFile>) -> usize {
    targets.iter().map(|(path, file)| entry(path, file)).sum()
}

/// Whether a role lists more than it should.
pub(super) fn is_large(targets: &BTreeMap<String, TargetFile>) -> bool {
    size(targets) > LARGEST
}

/// Splits a role until none of its parts is too large. Returns the new roles with what they list.
pub(super) fn split(
    delegations: &mut Delegations,
    role: &str,
    listed: &mut Targets,
) -> Vec<(String, BTreeMap<String, TargetFile>)> {
    let mut new = Vec::new();
    let mut waiting = vec![(role.to_owned(), std::mem::take(&mut listed.targets))];
    while let Some((role, mut targets)) = waiting.pop() {
        if size(&targets) > LARGEST
            && let Some((name, taken)) = part(delegations, &role, &mut targets)
        {
            waiting.push((name, taken));
            waiting.push((role, targets));
        } else {
            new.push((role, targets));
        }
    }
    let own = new.iter().position(|(name, _)| name == role).expect("a split leaves the old role its name");
    listed.targets = new.swap_remove(own).1;
    new
}

/// Leaves about three quarters of a role's names to a new role. Nothing if all that it lists is of one name.
fn part(
    delegations: &mut Delegations,
    role: &str,
    targets: &mut BTreeMap<String, TargetFile>,
) -> Option<(String, BTreeMap<String, TargetFile>)> {
    let at = delegations.roles.iter().position(|one| one.name == role)?;
    let own = delegations.roles[at].paths.clone();
    let total = size(targets);
    // Longer and longer prefixes, until they tell names apart. Names are at most 64 characters.
    for more in 1..=64 {
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        for (path, file) in targets.iter() {
            let name = name_of(path);
            let prefix = own.iter().filter_map(|path| reach(path, name)).max()?;
            // A name that ends here keeps the role.
            if let Some(longer) = name.get(..prefix + more) {
                let bytes = entry(path, file);
                *groups.entry(longer).or_default() += bytes;
            }
        }
        // From the first name on: names count up, so that those go which are not added to any more, and fill their role.
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for (prefix, size) in groups {
            if bytes + size <= total * 5 / 6 && bytes < total * 3 / 4 {
                taken.push(prefix.to_owned());
                bytes += size;
            }
        }
        // A lopsided split would make many small roles.
        if bytes < total / 6 && !(more == 64 && bytes > 0) {
            continue;
        }
        taken.sort_unstable();
        let name = fresh(delegations);
        let moves = |path: &str| taken.iter().any(|prefix| name_of(path).starts_with(prefix.as_str()));
        let moved: BTreeMap<_, _> = targets
            .iter()
            .filter(|(path, _)| moves(path))
            .map(|(path, file)| (path.clone(), file.clone()))
            .collect();
        targets.retain(|path, _| !moved.contains_key(path));
        let old = &delegations.roles[at];
        let paths = patterns(&taken);
        let new = Delegated { name: name.clone(), holders: old.holders.clone(), terminating: true, paths };
        delegations.roles.insert(at, new);
        return Some((name, moved));
    }
    None
}

#[cfg(test)]
mod tests {
    use manifests::{Sha256, UtcTime};

    use super::*;
    use crate::authoring::metadata::{Hashes, Head, Keyholders};

    fn file(size: usize) -> TargetFile {
        let custom = Some(serde_json::Value::String("x".repeat(size)));
        TargetFile { length: 1, hashes: Hashes { sha256: Sha256::of(b"x") }, custom }
    }

    fn split_all(
        names: impl Iterator<Item = String>,
    ) -> (Delegations, BTreeMap<String, BTreeMap<String, TargetFile>>) {
        let holders = Keyholders { keyids: vec!["k".to_owned()], threshold: 1 };
        let first = Delegated { name: "m1".to_owned(), holders, terminating: true, paths: vec![pattern("")] };
        let mut delegations = Delegations { keys: BTreeMap::new(), roles: vec![first] };
        let mut roles: BTreeMap<String, BTreeMap<String, TargetFile>> = BTreeMap::new();
        let expires: UtcTime = "2027-01-01T00:00:00Z".parse().unwrap();
        for name in names {
            let role = role_of(&delegations, &name).unwrap().name.clone();
            let mut listed = Targets {
                head: Head::new("targets", 1, expires),
                targets: roles.remove(&role).unwrap_or_default(),
                delegations: None,
            };
            listed.targets.insert(format!("{name}/1/manifest.json"), file(300));
            for (new, targets) in split(&mut delegations, &role, &mut listed) {
                roles.insert(new, targets);
            }
            roles.insert(role, listed.targets);
        }
        (delegations, roles)
    }

    #[test]
    fn each_name_is_listed_by_the_first_role_that_has_its_prefix_however_roles_were_split() {
        let mut seed = 7_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize
        };
        let alphabet: Vec<char> = "ab01.-".chars().collect();
        let names: Vec<String> = (0..3000)
            .map(|_| {
                (0..1 + random() % 12)
                    .map(|i| if i == 0 { 'a' } else { alphabet[random() % alphabet.len()] })
                    .collect()
            })
            .collect();
        let (delegations, roles) = split_all(names.iter().cloned());
        assert!(delegations.roles.len() > 20);
        for name in names {
            let role = &role_of(&delegations, &name).unwrap().name;
            assert!(roles[role].contains_key(&format!("{name}/1/manifest.json")), "{name} in {role}");
        }
        assert!(roles.values().all(|targets| size(targets) <= LARGEST));
    }

    #[test]
    fn names_that_count_up_fill_their_roles_at_least_by_a_fifth() {
        let (_, roles) = split_all((0..3000).map(|n| format!("cve-2026-{n:05}")));
        let small = roles.values().filter(|targets| size(targets) < LARGEST / 5).count();
        assert!(small <= roles.len() / 20, "{small} of {}", roles.len());
    }

    #[test]
    fn one_name_with_very_many_versions_stays_one_role() {
        let (delegations, roles) = split_all(std::iter::once("a".repeat(64)));
        assert_eq!((delegations.roles.len(), roles.len()), (1, 1));
    }
}
