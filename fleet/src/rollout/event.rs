//! What can happen to a rollout. Its state follows from these, in their order, and from nothing else.

use manifests::{GroupName, KeyName, Nonce, Sha256, UtcTime};
use serde::{Deserialize, Serialize};

use super::health::Comparison;
use crate::host::Host;

/// A host by its place in the rollout's order, from 0. Places never change; late joiners come at the end.
pub type Place = usize;

/// A wave, from 0.
pub type Wave = usize;

/// An event and when it was written down. Each is one entry of the ledger, written in the transaction that
/// changes the state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When, by the store's clock.
    pub at: UtcTime,
    /// What.
    pub event: Event,
}

/// Something that happened to a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The signed document was accepted.
    Submitted,
    /// Somebody agrees.
    Approved {
        /// Who.
        by: Author,
    },
    /// The next wave needs approval before it opens.
    ApprovalAsked,
    /// The calendar lets hosts begin.
    CalendarOpened,
    /// The calendar lets no more hosts begin.
    CalendarClosed,
    /// The hosts of a wave are offered the manifest.
    WaveOpened {
        /// Which: the next one.
        wave: Wave,
    },
    /// The open wave came out undecided and takes more hosts, from the next wave.
    ToppedUp {
        /// The open wave.
        wave: Wave,
        /// How many more.
        hosts: usize,
    },
    /// The open wave has passed.
    WavePassed {
        /// Which.
        wave: Wave,
    },
    /// A host that was busy is offered the manifest again.
    Offered {
        /// Which host.
        host: Place,
    },
    /// A host has everything it needs, and nothing speaks against it there.
    Ready {
        /// Which host.
        host: Place,
    },
    /// Nothing was touched on a host, and it says why.
    Declined {
        /// Which host.
        host: Place,
        /// Why.
        outcome: Outcome,
    },
    /// A host was told to begin.
    Granted {
        /// Which host.
        host: Place,
        /// What its executor made for this attempt.
        nonce: Nonce,
        /// Under which lease.
        epoch: u64,
    },
    /// The change is on the host, and it is watched from now on.
    Applied {
        /// Which host.
        host: Place,
    },
    /// The host was hurt, during the change or while it was watched.
    Failed {
        /// Which host.
        host: Place,
        /// How.
        fault: Fault,
    },
    /// The host was watched for the whole bake, and is well.
    Matured {
        /// Which host.
        host: Place,
    },
    /// The host said nothing for too long, and no outage explains it.
    Silenced {
        /// Which host.
        host: Place,
    },
    /// The host gets nothing any more in this rollout: it left the fleet, or once came back from this manifest.
    Withdrawn {
        /// Which host.
        host: Place,
    },
    /// A host that came back from this manifest may have it again.
    Retried {
        /// Which host.
        host: Place,
        /// Who says so.
        by: Author,
    },
    /// A host that has come out runs another kernel than it was offered the manifest for, and is offered it again.
    Rebooted {
        /// Which host.
        host: Place,
        /// What it is now.
        into: Box<Host>,
    },
    /// A host that was not there at the beginning.
    Joined {
        /// The host.
        host: Box<Host>,
    },
    /// The changed were compared with those held back, and it came out otherwise than before.
    Compared {
        /// By which metric.
        query: GroupName,
        /// How.
        comparison: Comparison,
    },
    /// No host may begin until people say so.
    Paused {
        /// Why.
        cause: Pause,
    },
    /// People say so.
    Resumed {
        /// Who.
        by: Author,
    },
    /// No host ever begins again; there are only ways back.
    Halted {
        /// Why.
        cause: Halt,
    },
    /// Hosts are told to go back.
    RollbackBegun {
        /// Who decided it; nobody if the policy did.
        by: Option<Author>,
    },
    /// A host was told to go back.
    RollbackGranted {
        /// Which host.
        host: Place,
        /// What its executor made for this attempt.
        nonce: Nonce,
        /// Under which lease.
        epoch: u64,
    },
    /// A host is back.
    RolledBack {
        /// Which host.
        host: Place,
    },
    /// A host cannot go back, or did not say that it has.
    RollbackFailed {
        /// Which host.
        host: Place,
    },
    /// All that can be back is.
    RollbackEnded,
    /// Every wave has passed. Hosts that join later still get it.
    Completed,
    /// People gave it up. What is applied stays.
    Aborted {
        /// Who.
        by: Author,
    },
    /// Its document does not count any more.
    Expired,
    /// Another rollout has begun that takes its place.
    Superseded {
        /// Which.
        by: Successor,
    },
}

impl Event {
    /// The host that it is of, by its place; nothing for what is of the rollout, and for a host that joins, which has no
    /// place before.
    pub fn host(&self) -> Option<Place> {
        match self {
            Self::Offered { host }
            | Self::Ready { host }
            | Self::Declined { host, .. }
            | Self::Granted { host, .. }
            | Self::Applied { host }
            | Self::Failed { host, .. }
            | Self::Matured { host }
            | Self::Silenced { host }
            | Self::Withdrawn { host }
            | Self::Retried { host, .. }
            | Self::Rebooted { host, .. }
            | Self::RollbackGranted { host, .. }
            | Self::RolledBack { host }
            | Self::RollbackFailed { host } => Some(*host),
            Self::Submitted
            | Self::Approved { .. }
            | Self::ApprovalAsked
            | Self::CalendarOpened
            | Self::CalendarClosed
            | Self::WaveOpened { .. }
            | Self::ToppedUp { .. }
            | Self::WavePassed { .. }
            | Self::Joined { .. }
            | Self::Compared { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. }
            | Self::Halted { .. }
            | Self::RollbackBegun { .. }
            | Self::RollbackEnded
            | Self::Completed
            | Self::Aborted { .. }
            | Self::Expired
            | Self::Superseded { .. } => None,
        }
    }
}

/// The rollout that takes another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Successor {
    /// Its digest.
    pub rollout: Sha256,
    /// The version of its manifest.
    pub version: u64,
}

/// A person, and how it is known that it was them.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Author {
    /// What they are called.
    pub name: KeyName,
    /// How it is known.
    pub proof: Proof,
}

/// How it is known who decided something.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// A token of the controller, which may only slow things down.
    Token,
    /// A signature that hosts would believe.
    Signature,
}

/// Why nothing was touched on a host. With *failed*, the six outcomes that have a budget of their own.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It has the fix already.
    NotNeeded,
    /// A precondition does not hold (exit code 3).
    Refused,
    /// It is occupied with something else (exit code 5); it is asked again.
    Busy,
    /// Its operators hold it back.
    Held,
    /// The documents are not authentic by its own policy (exit code 4).
    NotAuthentic,
}

impl Outcome {
    /// Every outcome, in the order of their counters.
    pub const ALL: [Self; 5] = [Self::NotNeeded, Self::Refused, Self::Busy, Self::Held, Self::NotAuthentic];
}

/// How a host was hurt.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The change failed and everything was restored (exit code 1).
    Restored,
    /// The change failed and somebody has to look (exit codes 6 and 70).
    Unrestored,
    /// The kernel complained after the change.
    Splat,
    /// The host is less well than before: probes, restarts, connectivity.
    Unhealthy,
    /// It fell silent.
    Silent,
}

impl Fault {
    /// Whether something of the change may still be on the host.
    pub fn leaves_something(self) -> bool {
        self != Self::Restored
    }
}

/// What a host says of one attempt, from the exit code of its program (the table is in `system::exit`).
pub fn verdict_of_exit(code: u8) -> Result<(), Result<Outcome, Fault>> {
    match code {
        0 => Ok(()),
        3 => Err(Ok(Outcome::Refused)),
        4 => Err(Ok(Outcome::NotAuthentic)),
        5 => Err(Ok(Outcome::Busy)),
        1 => Err(Err(Fault::Restored)),
        // 6, 70, and what no program of ours says.
        _ => Err(Err(Fault::Unrestored)),
    }
}

/// Why a rollout pauses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Pause {
    /// Somebody asked.
    Operator {
        /// Who.
        by: Author,
    },
    /// A wave ended undecided, and may take no more hosts.
    Inconclusive {
        /// Which.
        wave: Wave,
    },
    /// Changed hosts do worse than those held back.
    Veto {
        /// By which metric.
        query: GroupName,
    },
    /// For too long nobody could say how the changed do beside those held back.
    Unanswered {
        /// By which metric.
        query: GroupName,
    },
    /// Hosts that were not touched fell silent, too.
    Outage {
        /// A host of the domain.
        host: Place,
    },
    /// Too many hosts declined, for one reason.
    Declined {
        /// The reason.
        outcome: Outcome,
    },
    /// One host alone reached a hard limit.
    OneHost {
        /// The limit.
        limit: Limit,
    },
}

/// A hard limit.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Hurt hosts.
    Failed,
    /// Silent hosts.
    Lost,
    /// Hosts whose kernel complained.
    Splats,
}

impl Limit {
    /// Every limit, in the order of their counters.
    pub const ALL: [Self; 3] = [Self::Failed, Self::Lost, Self::Splats];

    /// Whether a fault counts against it.
    pub fn counts(self, fault: Fault) -> bool {
        match self {
            Self::Failed => true,
            Self::Lost => fault == Fault::Silent,
            Self::Splats => fault == Fault::Splat,
        }
    }
}

/// Why a rollout halts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Halt {
    /// The test of a wave says so.
    Test {
        /// Which wave.
        wave: Wave,
        /// Which stratum; nothing if it is all of them together.
        stratum: Option<usize>,
    },
    /// The fleet is too small for the test, and a host was hurt.
    EveryHost {
        /// Which.
        host: Place,
    },
    /// More hosts than a hard limit allows.
    Limit {
        /// Which limit.
        limit: Limit,
    },
}
