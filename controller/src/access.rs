//! Who among people may ask the controller for what.
//!
//! A person has a token of 256 bits, shown once; the store keeps its SHA-256 hash. What a token lets do only looks or slows
//! down: whatever makes a rollout begin or go on is a document that people sign, and no token stands for that.

use std::fmt;

use manifests::{KeyName, Sha256};
use serde::{Deserialize, Serialize};

use crate::authority::facts::{Fact, decode, encode, of_hosts};
use crate::authority::{Authority, Denied};
use crate::store::{Expect, Key, Put, Record, StoreError};

/// What a person may do; each may do what those before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look at everything.
    Viewer,
    /// Pause, abort, roll back; hand in documents that others signed, and payloads.
    Operator,
    /// Let hosts in, move them, and send them away.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

impl std::str::FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.to_string() == text)
            .ok_or(NoRole)
    }
}

/// There is no such role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected viewer, operator or admin")]
pub struct NoRole;

/// Somebody who may talk to the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// What they are called.
    pub name: KeyName,
    /// What they may do.
    pub role: Role,
}

/// The hash by which a token is known.
pub fn hash(token: &str) -> Sha256 {
    Sha256::of(token.as_bytes())
}

fn key(token: Sha256) -> Key {
    Key::new("person", token)
}

/// Whether nobody may talk to this controller yet.
///
/// # Errors
/// [`StoreError`].
pub fn nobody_yet(authority: &Authority) -> Result<bool, StoreError> {
    Ok(authority.store().room("person")?.is_empty())
}

/// Lets somebody in. The token is in the answer and nowhere else.
///
/// # Errors
/// [`Denied`].
pub fn admit(authority: &Authority, person: &Person, by: Option<&KeyName>) -> Result<String, Denied> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| Denied::Token(crate::enrolment::TokenError::NoRandomNumbers))?;
    let token = Sha256::of(&bytes).to_string();
    authority.settle(|decision| {
        let key = key(hash(&token));
        decision.batch.expects.push(Expect { key: key.clone(), revision: 0 });
        decision.batch.puts.push(Put { key, value: encode(person) });
        let Person { name, role } = person.clone();
        decision.say(&Fact::Admitted { at: decision.now, name, role, by: by.cloned() }, of_hosts());
        Ok(())
    })?;
    Ok(token)
}

/// Everybody who may ask.
///
/// # Errors
/// [`StoreError`].
pub fn everybody(authority: &Authority) -> Result<Vec<Person>, StoreError> {
    let read = |(_, record): (Key, Record)| decode("a person", &record.value);
    authority.store().room("person")?.into_iter().map(read).collect()
}

/// Who has this token.
///
/// # Errors
/// [`StoreError`].
pub fn who(authority: &Authority, token: &str) -> Result<Option<Person>, StoreError> {
    // Looked up by its hash: how long that takes tells nothing of the token.
    whose(authority, hash(token))
}

/// Who has the token with this hash.
///
/// # Errors
/// [`StoreError`].
pub fn whose(authority: &Authority, token: Sha256) -> Result<Option<Person>, StoreError> {
    match authority.store().record(&key(token))? {
        Some(record) => Ok(Some(decode("a person", &record.value)?)),
        None => Ok(None),
    }
}
