//! Connections during a trial: their packets are dropped, neither answered nor lost for good.
//!
//! (implementation follows in this file)

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::command::CommandError;

/// The name of one hold: an nftables table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HoldName(String);

/// A text that cannot name a hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} cannot name a hold: expected `update_` and 1 to 40 of [a-z0-9_]")]
pub struct InvalidHoldName {
    /// What was given.
    pub text: String,
}

impl HoldName {
    /// Checks a name.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidHoldName> {
        let text = text.into();
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        match text.strip_prefix("update_") {
            Some(rest) if (1..=40).contains(&rest.len()) && rest.bytes().all(allowed) => Ok(Self(text)),
            _ => Err(InvalidHoldName { text }),
        }
    }

    /// The name of the table.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HoldName {
    type Error = InvalidHoldName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<HoldName> for String {
    fn from(name: HoldName) -> Self {
        name.0
    }
}

/// What was found of CRIU's network lock and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeftoverLock {
    /// Rules and chains removed, over all tables.
    pub removed: usize,
}

/// Why connections could not be held or let go.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The container's network namespace could not be entered.
    #[error("could not enter the network namespace {path}")]
    Enter {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A packet filter command failed.
    #[error("could not {action}")]
    Filter {
        /// What was being done.
        action: &'static str,
        /// What the command said.
        source: CommandError,
    },
    /// CRIU's lock is still there after it was removed.
    #[error("CRIU's network lock is still in place after {rounds} attempts to remove it: {rules}")]
    LockStays {
        /// How often it was tried.
        rounds: usize,
        /// The rules still found.
        rules: String,
    },
    /// A probe could not be sent to a peer.
    #[error("could not tell the peer of {connection} that it is gone")]
    Probe {
        /// The connection.
        connection: super::images::Connection,
        /// The reason.
        source: io::Error,
    },
}
