//! What the ledger says, entry by entry: the events of rollouts, who is in the fleet, and who held the lease.

use std::collections::BTreeMap;

use fleet::facts::{Exposed, HostFacts};
use fleet::host::Host;
use fleet::rollout::{Author, Entry, Event};
use manifests::{CveId, DomainName, GroupName, HostId, KeyName, LabelValue, Sha256, UtcTime};
use serde::{Deserialize, Serialize};

use crate::store::{Key, LedgerEntry, StoreError};

/// Something that was decided or became known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fact {
    /// A rollout's document was accepted: the first entry of its stream.
    Accepted {
        /// When.
        at: UtcTime,
        /// The manifest.
        manifest: Sha256,
        /// The digest of the record with document, policy and inventory.
        plan: Sha256,
    },
    /// Something happened to a rollout.
    Happened {
        /// When.
        at: UtcTime,
        /// What.
        event: Event,
    },
    /// A token was made.
    TokenMade {
        /// When.
        at: UtcTime,
        /// Its hash.
        token: Sha256,
        /// Who made it.
        by: KeyName,
        /// The groups that it puts a host into.
        groups: Vec<GroupName>,
        /// The failure domain.
        domain: DomainName,
        /// What the host is there for.
        role: LabelValue,
        /// How many hosts it lets in.
        hosts: u32,
        /// From when on it lets nobody in.
        expires: UtcTime,
    },
    /// A host came in.
    Enrolled {
        /// When.
        at: UtcTime,
        /// Which.
        host: HostId,
        /// By the token with this hash.
        token: Sha256,
    },
    /// A host said what it is like.
    Described {
        /// When.
        at: UtcTime,
        /// Which.
        host: HostId,
        /// The digest of what it said.
        facts: Sha256,
    },
    /// A host was moved.
    Moved {
        /// When.
        at: UtcTime,
        /// Which.
        host: HostId,
        /// Who moved it.
        by: KeyName,
        /// The groups that it is in.
        groups: Vec<GroupName>,
        /// What it fails together with.
        domain: DomainName,
        /// What it is there for.
        role: LabelValue,
    },
    /// Hosts that came back from a manifest may have it again.
    Retried {
        /// When.
        at: UtcTime,
        /// The manifest.
        manifest: Sha256,
        /// Which hosts.
        hosts: Vec<HostId>,
        /// Who says so.
        by: Author,
    },
    /// A host left.
    Left {
        /// When.
        at: UtcTime,
        /// Which.
        host: HostId,
        /// How.
        how: Departure,
        /// Who said so.
        by: KeyName,
    },
    /// Somebody may talk to the controller.
    Admitted {
        /// When.
        at: UtcTime,
        /// What they are called.
        name: KeyName,
        /// What they may do.
        role: crate::access::Role,
        /// Who said so; nobody when the fleet was made.
        by: Option<KeyName>,
    },
    /// A controller took the lease.
    LeaseTaken {
        /// When.
        at: UtcTime,
        /// Who.
        holder: String,
        /// Its epoch.
        epoch: u64,
    },
    /// The store was put back from a backup: what came after it is lost here, and hosts may know of it.
    Restored {
        /// When.
        at: UtcTime,
        /// Who put it back.
        by: KeyName,
        /// The ledger's size in the backup.
        size: u64,
    },
}

/// How a host leaves the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Departure {
    /// It is not there any more; it may come back with a new key and a new token.
    Retired,
    /// Somebody else may have its key: that key never comes back.
    Revoked,
}

/// The stream of a rollout.
pub fn of_rollout(rollout: Sha256) -> Key {
    Key::new("rollout", rollout)
}

/// The stream of what concerns hosts and no rollout.
pub fn of_hosts() -> Key {
    Key::new("fleet", "hosts")
}

/// The stream of what hosts may have again.
pub fn of_retries() -> Key {
    Key::new("fleet", "retries")
}

/// The stream of leases and of the store itself.
pub fn of_store() -> Key {
    Key::new("fleet", "store")
}

impl Fact {
    /// The fact that a rollout's entry is.
    pub(super) fn happened(entry: &Entry) -> Self {
        Self::Happened { at: entry.at, event: entry.event.clone() }
    }

    /// As an entry of a stream.
    pub fn entry(&self, stream: Key) -> LedgerEntry {
        LedgerEntry { stream, body: encode(self) }
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn read(entry: &LedgerEntry) -> Result<Self, StoreError> {
        decode("an entry of the ledger", &entry.body)
    }
}

/// What a rollout follows from: kept as one record, whose digest is in the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanRecord {
    /// The envelope of the document.
    pub(super) document: String,
    /// The policy's text.
    pub(super) policy: String,
    /// The version of its manifest.
    pub(super) version: u64,
    /// Rollouts that end when it begins.
    pub(super) supersedes: Vec<Sha256>,
    /// The fleet when it was accepted.
    pub(super) inventory: Vec<Host>,
}

/// What is known of a host by its own word: kept as one record, whose facts' digest is in the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FactsRecord {
    /// What it said last.
    pub(super) facts: HostFacts,
    /// How long it has been exposed to what.
    pub(super) exposed: BTreeMap<CveId, Exposed>,
}

impl FactsRecord {
    /// What follows when the host says something else.
    pub(super) fn next(before: Option<Self>, facts: HostFacts, now: UtcTime) -> Self {
        let mut exposed = before.map(|before| before.exposed).unwrap_or_default();
        for exposure in &facts.exposures {
            exposed.entry(exposure.cve.clone()).or_default();
        }
        for (cve, exposed) in &mut exposed {
            *exposed = exposed.next(facts.standing(cve), now);
        }
        Self { facts, exposed }
    }
}

/// JSON of a value of this program, whose types have no maps with keys that JSON cannot hold.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("the controller's types serialise to JSON")
}

/// The value of what [`encode`] made.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged { what: format!("{what}: {error}") })
}
