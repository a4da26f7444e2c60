//! Rules that only iptables itself can name: those of iptables-legacy, and of versions of iptables-nft that make
//! them of modules of their own.
//!
//! Each is one of ours to name: CRIU's chain, its jumps, and the rules of connections that are known from the
//! checkpoint. What is there is asked for with `-C`; a listing is only searched for CRIU's mark, to save the asking.

use std::fs;

use system::command::{CommandError, Invocation, find};

use super::{MARK, Scope};
use crate::criu::images::Connection;
use crate::network::hold::{Family, HoldError};

/// Of one rule, equal ones may be there as often as CRIU was cut short. More is not CRIU.
const EQUAL_RULES: usize = 16;

/// One variant of iptables for one family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Iptables {
    program: &'static str,
    family: Family,
}

const LEGACY: [(&str, Iptables); 2] = [
    ("ip_tables_names", Iptables { program: "iptables-legacy", family: Family::V4 }),
    ("ip6_tables_names", Iptables { program: "ip6tables-legacy", family: Family::V6 }),
];
const NFT: [Iptables; 2] = [
    Iptables { program: "iptables-nft", family: Family::V4 },
    Iptables { program: "ip6tables-nft", family: Family::V6 },
];
const PLAIN: [Iptables; 2] = [
    Iptables { program: "iptables", family: Family::V4 },
    Iptables { program: "ip6tables", family: Family::V6 },
];

/// Whether rules that nft cannot show whole are of concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hidden {
    Yes,
    No,
}

/// The variants to ask on this host, in this namespace. A table of legacy iptables is made by asking for it, so
/// nobody asks for one that is not there.
pub(super) fn variants(hidden: Hidden) -> Vec<Iptables> {
    let installed = |one: &Iptables| find(one.program).is_some();
    let has_table = |names: &str| {
        let tables = fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
        tables.lines().any(|table| table == "filter")
    };
    let legacy = LEGACY.into_iter().filter(|(names, _)| has_table(names));
    // A host with one variant only has it under the plain names.
    let named =
        |one: Iptables| if installed(&one) { one } else { PLAIN[usize::from(one.family == Family::V6)] };
    let mut found: Vec<Iptables> = legacy.map(|(_, one)| named(one)).collect();
    if hidden == Hidden::Yes {
        found.extend(NFT.map(named));
    }
    found.retain(installed);
    found.sort_by_key(|one| one.program);
    found.dedup_by_key(|one| one.program);
    found
}

impl Iptables {
    /// Removes CRIU's rules; returns what was removed.
    pub(super) fn remove(self, scope: Scope<'_>) -> Result<Vec<String>, HoldError> {
        let mut removed = Vec::new();
        let connections = match scope {
            Scope::WholeNamespace(connections) => {
                // Without the chain nothing jumps to it, and iptables does not understand the question.
                if self.has(&["-S", "CRIU"])? {
                    for chain in ["INPUT", "OUTPUT"] {
                        self.remove_rule(&[chain, "-j", "CRIU"], &mut removed)?;
                    }
                    self.run(&["-F", "CRIU"])?;
                    self.run(&["-X", "CRIU"])?;
                    removed.push(format!("{} chain CRIU", self.program));
                }
                connections
            }
            Scope::These(connections) => connections,
        };
        if !self.mentions_mark()? {
            return Ok(removed);
        }
        for connection in connections.iter().filter(|one| Family::of(one) == self.family) {
            for rule in rules(connection) {
                let words: Vec<&str> = rule.iter().map(String::as_str).collect();
                self.remove_rule(&words, &mut removed)?;
            }
        }
        Ok(removed)
    }

    fn remove_rule(self, rule: &[&str], removed: &mut Vec<String>) -> Result<(), HoldError> {
        for _ in 0..EQUAL_RULES {
            if !self.has(&[&["-C"], rule].concat())? {
                break;
            }
            self.run(&[&["-D"], rule].concat())?;
            removed.push(format!("{} {}", self.program, rule.join(" ")));
        }
        Ok(())
    }

    fn mentions_mark(self) -> Result<bool, HoldError> {
        let mark = format!("{MARK:#x}");
        let listing = self.run(&["-S"])?;
        Ok(listing.windows(mark.len()).any(|window| window == mark.as_bytes()))
    }

    /// Whether something is there: iptables ends with 1 for what is not.
    fn has(self, words: &[&str]) -> Result<bool, HoldError> {
        let asked = Invocation::new(self.program).arg("-w").args(words).run().map_err(looking)?;
        match asked.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => asked.success().map(|_| true).map_err(looking),
        }
    }

    fn run(self, words: &[&str]) -> Result<Vec<u8>, HoldError> {
        let run = Invocation::new(self.program).arg("-w").args(words).output();
        run.map_err(|source| HoldError::Filter { action: "remove CRIU's network lock", source })
    }
}

fn looking(source: CommandError) -> HoldError {
    HoldError::Filter { action: "look for CRIU's network lock", source }
}

/// The two rules with which CRIU holds a connection (`criu/netfilter.c`, `nf_connection_switch_raw`).
fn rules(Connection { local, peer }: &Connection) -> [Vec<String>; 2] {
    [("INPUT", peer, local), ("OUTPUT", local, peer)].map(|(chain, from, to)| {
        let mark = format!("{MARK:#x}");
        let (source, destination) = (from.ip().to_string(), to.ip().to_string());
        let (source_port, destination_port) = (from.port().to_string(), to.port().to_string());
        [
            chain,
            "-s",
            &source,
            "-d",
            &destination,
            "-p",
            "tcp",
            "-m",
            "mark",
            "!",
            "--mark",
            &mark,
            "-m",
            "tcp",
            "--sport",
            &source_port,
            "--dport",
            &destination_port,
            "-j",
            "DROP",
        ]
        .map(str::to_owned)
        .to_vec()
    })
}
