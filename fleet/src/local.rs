//! What a host's two processes say to each other over a socket: the agent, which speaks with controllers and may do
//! nothing, asks the executor, which is root, parses no network input, and believes nothing but signatures.
//!
//! One connection, one question, one answer: a line of JSON each, bounded. Documents travel as their envelopes; the
//! executor verifies them by the host's own policy under the host's lock. Payloads lie in the agent's spool, named by
//! their digests; they are hashed when they are taken.
//!
//! - **look**: what this host is like
//! - **preflight**: could this rollout's manifest be applied? Changes nothing
//! - **attempt**: make a nonce for one attempt; the executor keeps it, and when it made it
//! - **begin**: here is the grant for it. Answered when the transaction has ended
//! - **outcome**: what became of an attempt, and whether the host has been well since; also after a crash of either
//! - **stop**: what runs in the name of this rollout turns back at its next boundary

use std::path::PathBuf;

use manifests::{GroupName, HostId, LabelValue, Nonce, Sha256};
use serde::{Deserialize, Serialize};

use crate::protocol::HostFacts;
use crate::rollout::{Action, Said};

/// Where the executor listens.
pub const SOCKET: &str = "/run/update/executor.sock";

/// The most bytes of a question: two documents and a grant, as JSON within JSON.
pub const MAX_QUESTION: usize = 8 << 20;

/// The most bytes of an answer.
pub const MAX_ANSWER: usize = 1 << 20;

/// A question of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// What is this host like?
    Look {
        /// A directory with manifests of the fleet, each the envelope and named by the digest of what it carries: what is
        /// this host to the vulnerabilities that they fix?
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifests: Option<PathBuf>,
    },
    /// Could this be applied now?
    Preflight {
        /// What.
        what: Papers,
    },
    /// A nonce for an attempt.
    Attempt {
        /// In which rollout.
        rollout: Sha256,
        /// To do what.
        action: Action,
    },
    /// Do it.
    Begin {
        /// The envelope of the grant.
        grant: String,
        /// By which documents.
        what: Papers,
    },
    /// What became of an attempt?
    Outcome {
        /// In which rollout.
        rollout: Sha256,
        /// Which.
        nonce: Nonce,
    },
    /// Nothing more in the name of this rollout; what runs turns back.
    Stop {
        /// Which.
        rollout: Sha256,
    },
}

/// The documents of a rollout, as they came, and where its payloads lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Papers {
    /// The envelope of the rollout document.
    pub rollout: String,
    /// The envelope of the manifest.
    pub manifest: String,
    /// A directory with the payloads, each named by its digest.
    pub spool: PathBuf,
}

/// The executor's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To a look.
    Host(Box<Look>),
    /// To an attempt.
    Nonce {
        /// For this attempt and no other.
        nonce: Nonce,
    },
    /// To a preflight, to begin and to outcome: what the host says.
    Said(Verdict),
    /// To outcome: the transaction goes on.
    Running,
    /// To outcome: this host has begun nothing by that attempt, and never will.
    NeverBegan,
    /// To stop.
    Stopped,
    /// The question was not understood, or this host is not in a fleet; nothing was done.
    Failed {
        /// Why, with everything below it.
        error: String,
    },
}

/// What a host is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// Who it is in its fleet; nothing before it was enrolled.
    pub host: Option<HostId>,
    /// The groups that it is in.
    pub groups: Vec<GroupName>,
    /// What it is like.
    pub facts: HostFacts,
    /// The kernel's id of this boot.
    pub boot: Nonce,
    /// The highest epoch that it has seen.
    pub epoch: u64,
}

/// What the host says of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// What.
    pub said: Said,
    /// Why, in one line; empty where there is nothing to add.
    pub why: String,
    /// The transaction in the host's journal, if there is one.
    pub transaction: Option<LabelValue>,
}

/// What this host is in its fleet: `/etc/update/fleet.yaml`, root's alone to write. Made by `update enrol`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Who it is: the digest of its key.
    pub host: HostId,
    /// The groups that its token put it into.
    pub groups: Vec<GroupName>,
    /// The controllers, `https://…`; they are asked in turn.
    pub controllers: Vec<String>,
}

impl Membership {
    /// Where the file is.
    pub const PATH: &str = "/etc/update/fleet.yaml";

    /// The most bytes of the file.
    pub const MAX_BYTES: usize = 64 << 10;

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// Where and why it is not one.
    pub fn parse(bytes: &[u8]) -> Result<Self, manifests::yaml::YamlError> {
        manifests::yaml::from_slice(bytes, Self::MAX_BYTES)
    }
}
