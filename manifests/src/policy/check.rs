//! Whether a policy means what it seems to: each rule between its parts, once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Policy, PolicyError, PolicySchema, Role, Rule, SharedKeys};
use crate::document::DocumentKind;
use crate::key::KeyId;
use crate::names::{KeyName, RoleName};

/// The most keys, roles, alternatives of a rule and entries of a scope.
const MAX_KEYS: usize = 256;
const MAX_ROLES: usize = 32;
const MAX_ALTERNATIVES: usize = 16;
const MAX_SCOPE: usize = 256;

/// The highest version: what every JSON reader and a signed 64-bit column hold exactly (2^53 - 1).
const MAX_VERSION: u64 = (1 << 53) - 1;

impl Policy {
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        if let Some(edition) = self.edition
            && !(1..=MAX_VERSION).contains(&edition.version)
        {
            return Err(PolicyError::Version { max: MAX_VERSION, found: edition.version });
        }
        self.check_keys()?;
        self.check_roles()?;
        self.check_shared_keys()?;
        match self.schema {
            PolicySchema::One => self.check_together(),
            PolicySchema::Two => self.check_rules(),
        }
    }

    fn check_keys(&self) -> Result<(), PolicyError> {
        count("keys", self.keys.len(), MAX_KEYS)?;
        let mut names = BTreeSet::new();
        let mut ids: BTreeMap<KeyId, &KeyName> = BTreeMap::new();
        for key in &self.keys {
            let expected = key.public.id();
            if key.id != expected {
                return Err(PolicyError::WrongId { key: key.name.clone(), expected, found: key.id });
            }
            if !names.insert(&key.name) {
                return Err(PolicyError::NameTwice { key: key.name.clone() });
            }
            if let Some(first) = ids.insert(key.id, &key.name) {
                return Err(PolicyError::KeyTwice { first: first.clone(), second: key.name.clone() });
            }
        }
        Ok(())
    }

    fn check_roles(&self) -> Result<(), PolicyError> {
        count("roles", self.roles.len(), MAX_ROLES)?;
        let mut names = BTreeSet::new();
        for Role { name, keys, threshold, scope } in &self.roles {
            if !names.insert(name) {
                return Err(PolicyError::RoleTwice { role: name.clone() });
            }
            let mut own = BTreeSet::new();
            for key in keys {
                if self.key_index(key).is_none() {
                    return Err(PolicyError::UnknownKey { role: name.clone(), key: key.clone() });
                }
                if !own.insert(key) {
                    return Err(PolicyError::RoleKeyTwice { role: name.clone(), key: key.clone() });
                }
            }
            if *threshold == 0 || *threshold as usize > keys.len() {
                return Err(PolicyError::Threshold {
                    role: name.clone(),
                    keys: keys.len(),
                    threshold: *threshold,
                });
            }
            for (field, found) in scope.lengths() {
                if !(1..=MAX_SCOPE).contains(&found) {
                    return Err(PolicyError::Scope { role: name.clone(), field, max: MAX_SCOPE, found });
                }
            }
        }
        Ok(())
    }

    fn check_shared_keys(&self) -> Result<(), PolicyError> {
        if self.shared_keys != SharedKeys::Refuse {
            return Ok(());
        }
        let mut role_of: BTreeMap<&KeyName, &RoleName> = BTreeMap::new();
        for role in &self.roles {
            for key in &role.keys {
                if let Some(first) = role_of.insert(key, &role.name) {
                    let (key, first, second) = (key.clone(), first.clone(), role.name.clone());
                    return Err(PolicyError::KeyInTwoRoles { key, first, second });
                }
            }
        }
        Ok(())
    }

    /// Schema 1: all roles can be filled together.
    fn check_together(&self) -> Result<(), PolicyError> {
        let all: Vec<&Role> = self.roles.iter().collect();
        match self.reach(&all) {
            (needed, reachable) if reachable < needed => Err(PolicyError::TooFewKeys { needed, reachable }),
            _ => Ok(()),
        }
    }

    fn check_rules(&self) -> Result<(), PolicyError> {
        count("rules", self.rules.len(), DocumentKind::ALL.len())?;
        let mut kinds = BTreeSet::new();
        for rule in &self.rules {
            if !kinds.insert(rule.document) {
                return Err(PolicyError::RuleTwice { document: rule.document });
            }
            self.check_rule(rule)?;
        }
        match kinds.contains(&DocumentKind::Policy) {
            true => Ok(()),
            false => Err(PolicyError::NoRule { document: DocumentKind::Policy }),
        }
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), PolicyError> {
        let document = rule.document;
        count("rules.any_of", rule.any_of.len(), MAX_ALTERNATIVES)?;
        for names in &rule.any_of {
            count("rules.any_of[]", names.len(), MAX_ROLES)?;
            let mut own = BTreeSet::new();
            let known = |name: &&RoleName| self.roles.iter().any(|role| role.name == **name);
            if let Some(role) = names.iter().find(|name| !known(name) || !own.insert(*name)) {
                return Err(PolicyError::RuleRole { document, role: role.clone() });
            }
        }
        for (roles, names) in self.alternatives(document).zip(&rule.any_of) {
            // Whoever may write the policy may write any scope, and a revocation is of everything.
            let free = matches!(document, DocumentKind::Policy | DocumentKind::Revocation);
            if let Some(role) = roles.iter().find(|role| free && role.scope.is_limited()) {
                return Err(PolicyError::ScopedRole { document, role: role.name.clone() });
            }
            let (needed, reachable) = self.reach(&roles);
            if reachable < needed {
                return Err(PolicyError::Unsatisfiable { document, roles: names.clone(), needed, reachable });
            }
        }
        Ok(())
    }

    /// How many signatures the roles need together, and how many the keys that count can give: in a dated
    /// policy those that count on that day, else all.
    fn reach(&self, roles: &[&Role]) -> (usize, usize) {
        let needed = roles.iter().map(|role| role.threshold as usize).sum();
        let counts =
            |key: &super::PolicyKey| self.edition.is_none_or(|edition| key.counts_at(edition.issued));
        (needed, self.seat(roles, counts).iter().map(Vec::len).sum())
    }
}

fn count(field: &'static str, found: usize, max: usize) -> Result<(), PolicyError> {
    if (1..=max).contains(&found) { Ok(()) } else { Err(PolicyError::Count { field, max, found }) }
}
