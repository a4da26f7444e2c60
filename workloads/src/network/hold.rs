//! Connections during a trial: their packets are dropped, neither answered nor lost for good.
//!
//! A checkpoint takes the sockets away. If the kernel then answered a peer's packet it would answer
//! with a reset, and a rollback would find nobody waiting. So, per container, one nftables table
//! drops exactly the checkpointed 4-tuples, in and out, while new connections pass.
//!
//! Invariants:
//! - A hold is made by one atomic `nft -f`, *before* CRIU's own lock (which drops everything) is
//!   removed: there is no instant in which a packet of a held connection is answered.
//! - `output` is held too, so that a restored socket stays silent until everything is verified.
//! - CRIU's leftovers are found by reading the rules back, and gone only when reading says so.
//! - Each request may be repeated, and succeeds when the namespace itself is gone.

mod address;
mod farewell;
pub(crate) mod leftover;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use system::command::{CommandError, Invocation};

use crate::criu::images::Connection;
use crate::model::NetworkPlace;
use crate::network::{ConnectionHold, netns};

/// Before connection tracking's defragmentation (-400), raw (-300), mangle and filter: no other rule
/// of the namespace may see, reject or translate these packets first.
const PRIORITY: i32 = -450;

/// The name of one hold: an nftables table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// Which peers answered when they were told that their connection is no more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Farewell {
    /// Peers that answered, and so have been reset by the kernel.
    pub told: Vec<Connection>,
    /// Peers that did not answer in time; their own timers will tell them.
    pub silent: Vec<Connection>,
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
    /// The packet filter's account of itself could not be read.
    #[error("`nft -j -a list ruleset` did not write the JSON of libnftables-json(5)")]
    Ruleset {
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// CRIU's lock is still there after it was removed.
    #[error("CRIU's network lock is still in place after {rounds} attempts to remove it: {rules}")]
    LockStays {
        /// How often it was tried.
        rounds: usize,
        /// The rules still found.
        rules: String,
    },
    /// Probes could not be sent to peers.
    #[error("could not open a raw socket to tell peers that their connections are gone")]
    Probe {
        /// The reason.
        source: io::Error,
    },
}

/// Holds by nftables.
#[derive(Debug, Clone, Copy, Default)]
pub struct NftHold;

impl NftHold {
    fn enter<T: Send>(
        place: &NetworkPlace,
        work: impl FnOnce() -> Result<T, HoldError> + Send,
    ) -> Result<Option<T>, HoldError> {
        match (netns::inside(place, work), place) {
            (Ok(result), _) => result.transpose(),
            (Err(source), NetworkPlace::Path(path) | NetworkPlace::Engine(path)) => {
                Err(HoldError::Enter { path: path.clone(), source })
            }
            (Err(source), _) => Err(HoldError::Enter { path: "/proc/self/ns/net".into(), source }),
        }
    }

    /// Like [`Self::enter`], but a namespace that is gone has nothing left in it.
    fn enter_if_there<T: Send>(
        place: &NetworkPlace,
        work: impl FnOnce() -> Result<T, HoldError> + Send,
    ) -> Result<Option<T>, HoldError> {
        match Self::enter(place, work) {
            Err(HoldError::Enter { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other,
        }
    }
}

fn nft(action: &'static str, script: String) -> Result<(), HoldError> {
    let run = Invocation::new("nft").args(["-f", "-"]).input(script).output();
    run.map(drop).map_err(|source| HoldError::Filter { action, source })
}

impl ConnectionHold for NftHold {
    fn hold(
        &self,
        place: &NetworkPlace,
        name: &HoldName,
        connections: &[Connection],
    ) -> Result<(), HoldError> {
        let (place, table) = Table::of(place);
        let script = script(table, name, connections);
        Self::enter(place, || nft("hold the checkpointed connections", script)).map(drop)
    }

    fn clear_checkpoint_lock(
        &self,
        place: &NetworkPlace,
        connections: &[Connection],
    ) -> Result<LeftoverLock, HoldError> {
        let scope = match place {
            NetworkPlace::Host => leftover::Scope::These(connections),
            _ => leftover::Scope::WholeNamespace(connections),
        };
        Self::enter_if_there(place, || leftover::remove(scope)).map(Option::unwrap_or_default)
    }

    fn release(&self, place: &NetworkPlace, name: &HoldName) -> Result<(), HoldError> {
        let (place, table) = Table::of(place);
        let script = remove_script(table, name);
        Self::enter_if_there(place, || nft("let the held connections go", script)).map(drop)
    }

    fn reset_peers(&self, place: &NetworkPlace, connections: &[Connection]) -> Result<Farewell, HoldError> {
        let say = |connections: &[Connection]| {
            farewell::say(connections).map_err(|source| HoldError::Probe { source })
        };
        let split = |connections: &[Connection]| -> (Vec<Connection>, Vec<Connection>) {
            connections.iter().partition(|one| address::is_ours(one.local.ip()))
        };
        let NetworkPlace::Engine(_) = place else {
            let told = Self::enter_if_there(place, || say(connections))?;
            return Ok(told.unwrap_or_else(|| Farewell { told: Vec::new(), silent: connections.to_vec() }));
        };
        // What has its address still is told from there; for an address that is nobody's the host speaks.
        let (mut farewell, rest) = Self::enter_if_there(place, || {
            let (own, rest) = split(connections);
            Ok((say(&own)?, rest))
        })?
        .unwrap_or_else(|| (Farewell::default(), connections.to_vec()));
        let (lent, taken): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|one| !address::is_in_use(one.local));
        farewell.silent.extend(taken);
        let lease = address::lend(lent.iter().map(|one| one.local.ip()));
        let (speakable, mute) = split(&lent);
        farewell.silent.extend(mute);
        let said = say(&speakable)?;
        drop(lease);
        farewell.told.extend(said.told);
        farewell.silent.extend(said.silent);
        Ok(farewell)
    }
}

/// Which packets a table sees.
#[derive(Debug, Clone, Copy)]
struct Table {
    family: &'static str,
    arriving: &'static str,
    leaving: &'static str,
}

/// Those of the namespace that it is in.
const NAMESPACE: Table = Table { family: "inet", arriving: "input", leaving: "output" };

/// Those that pass a bridge of the host: to a container, whether from the host, from beyond it or from another
/// container, they leave by its port, and from it they come in by it.
const BRIDGE: Table = Table { family: "bridge", arriving: "postrouting", leaving: "prerouting" };

impl Table {
    /// Where the table for a container's packets is, and what it sees there.
    fn of(place: &NetworkPlace) -> (&NetworkPlace, Self) {
        match place {
            NetworkPlace::Engine(_) => (&NetworkPlace::Host, BRIDGE),
            place => (place, NAMESPACE),
        }
    }
}

/// Removes the table whether or not it exists: declaring it first makes the deletion valid.
fn remove_script(Table { family, .. }: Table, name: &HoldName) -> String {
    format!("table {family} {0}\ndelete table {family} {0}\n", name.as_str())
}

/// The whole table in one transaction, replacing an older one of the same name.
fn script(table: Table, name: &HoldName, connections: &[Connection]) -> String {
    let unique: BTreeSet<&Connection> = connections.iter().collect();
    let Table { family, arriving, leaving } = table;
    let mut text = remove_script(table, name);
    let _ = writeln!(text, "table {family} {} {{", name.as_str());
    for (set, kind, wanted) in [("held4", "ipv4_addr", Family::V4), ("held6", "ipv6_addr", Family::V6)] {
        let elements: Vec<String> = unique
            .iter()
            .filter(|connection| Family::of(connection) == wanted)
            .map(|Connection { local, peer }| {
                format!("{} . {} . {} . {}", local.ip(), local.port(), peer.ip(), peer.port())
            })
            .collect();
        let _ = writeln!(text, "  set {set} {{ type {kind} . inet_service . {kind} . inet_service");
        if !elements.is_empty() {
            let _ = writeln!(text, "    elements = {{ {} }}", elements.join(", "));
        }
        text.push_str("  }\n");
    }
    let _ = write!(
        text,
        "  chain arriving {{\n    type filter hook {arriving} priority {PRIORITY}; policy accept;\n    \
         ip daddr . tcp dport . ip saddr . tcp sport @held4 drop\n    \
         ip6 daddr . tcp dport . ip6 saddr . tcp sport @held6 drop\n  }}\n  \
         chain leaving {{\n    type filter hook {leaving} priority {PRIORITY}; policy accept;\n    \
         ip saddr . tcp sport . ip daddr . tcp dport @held4 drop\n    \
         ip6 saddr . tcp sport . ip6 daddr . tcp dport @held6 drop\n  }}\n}}\n"
    );
    text
}

/// Address family of a connection on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(connection: &Connection) -> Self {
        match connection.peer.ip() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(local: &str, peer: &str) -> Connection {
        Connection { local: local.parse().unwrap(), peer: peer.parse().unwrap() }
    }

    #[test]
    fn a_hold_is_one_atomic_script_that_drops_both_directions() {
        let name = HoldName::new("update_7_web").unwrap();
        let held = [
            connection("10.0.0.2:80", "10.0.0.1:4000"),
            connection("[fd00::2]:80", "[fd00::1]:4001"),
            connection("10.0.0.2:80", "10.0.0.1:4000"),
        ];
        insta::assert_snapshot!(script(NAMESPACE, &name, &held), @r"
        table inet update_7_web
        delete table inet update_7_web
        table inet update_7_web {
          set held4 { type ipv4_addr . inet_service . ipv4_addr . inet_service
            elements = { 10.0.0.2 . 80 . 10.0.0.1 . 4000 }
          }
          set held6 { type ipv6_addr . inet_service . ipv6_addr . inet_service
            elements = { fd00::2 . 80 . fd00::1 . 4001 }
          }
          chain arriving {
            type filter hook input priority -450; policy accept;
            ip daddr . tcp dport . ip saddr . tcp sport @held4 drop
            ip6 daddr . tcp dport . ip6 saddr . tcp sport @held6 drop
          }
          chain leaving {
            type filter hook output priority -450; policy accept;
            ip saddr . tcp sport . ip daddr . tcp dport @held4 drop
            ip6 saddr . tcp sport . ip6 daddr . tcp dport @held6 drop
          }
        }
        ");
    }

    #[test]
    fn between_two_runs_of_a_container_its_connections_are_held_at_the_bridge() {
        let network = NetworkPlace::Engine("/run/netns/netns-1".into());
        let (place, table) = Table::of(&network);
        assert_eq!(*place, NetworkPlace::Host);
        let name = HoldName::new("update_7_web").unwrap();
        let script = script(table, &name, &[connection("10.88.0.2:80", "10.88.0.1:4000")]);
        assert!(script.starts_with("table bridge update_7_web\ndelete table bridge update_7_web\n"));
        for hook in
            ["arriving {\n    type filter hook postrouting", "leaving {\n    type filter hook prerouting"]
        {
            assert!(script.contains(hook), "{hook} is missing in:\n{script}");
        }
    }

    #[test]
    fn names_that_could_be_nft_syntax_are_refused() {
        for text in ["", "update_", "filter", "update_a;b", "update_A", "update_{}"] {
            assert!(HoldName::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn letting_go_in_a_namespace_that_is_gone_is_success() {
        let place = NetworkPlace::Path("/no/such/namespace".into());
        let name = HoldName::new("update_1").unwrap();
        let held = [connection("10.0.0.2:80", "10.0.0.1:4000")];
        NftHold.release(&place, &name).unwrap();
        assert_eq!(NftHold.clear_checkpoint_lock(&place, &held).unwrap().removed, 0);
        assert_eq!(NftHold.reset_peers(&place, &held).unwrap().silent, held);
        assert!(NftHold.hold(&place, &name, &held).is_err());
    }
}
