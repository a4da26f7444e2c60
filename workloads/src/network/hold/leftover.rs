//! CRIU's network lock: what it leaves behind, found and removed.
//!
//! CRIU (3.x, `criu/netfilter.c`, `criu/net.c`) locks in one of two ways:
//! - In a namespace of the container it puts a chain `CRIU` into the filter table of iptables and
//!   ip6tables, jumps to it from INPUT and OUTPUT, and drops all but its own packets (mark 0xC114).
//! - In the host's namespace it drops each dumped connection by a rule of its own, with the same mark
//!   excepted.
//!
//! A dump that ends the container leaves them, and a restore into an external namespace leaves the
//! first as well: the peers then hang for good. Newer versions (`--network-lock nftables`) make a table
//! `inet CRIU-<pid>`.
//!
//! iptables-nft makes the filter tables that it needs, even to list them or to take a lock off. Where nothing
//! but empty chains that accept is left in them, they go too, so that the namespace is as it was.
//!
//! Whether the rules went through iptables-nft or iptables-legacy is the host's choice, so both are
//! looked at; legacy only if its table exists, because asking would create it.

use std::fs;
use std::net::SocketAddr;

use system::command::{Invocation, find};

use crate::criu::images::Connection;
use crate::network::hold::{HoldError, LeftoverLock};

/// Each round removes everything a reading showed; a second is needed only if somebody adds at the
/// same time, a third shows that this is not us.
const ROUNDS: usize = 3;

/// The mark that CRIU gives its own packets (`SOCCR_MARK`), as iptables prints it.
const MARK: &str = "0xc114";

/// Whose rules may be removed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// A namespace that only this container uses.
    WholeNamespace,
    /// Rules about these connections only; others may be of somebody else's checkpoint.
    These(&'a [Connection]),
}

/// One way of talking to one packet filter.
#[derive(Debug, Clone, Copy)]
struct Filter {
    list: &'static str,
    restore: &'static str,
}

pub(crate) fn remove(scope: Scope<'_>) -> Result<LeftoverLock, HoldError> {
    let mut removed = 0;
    let mut rules = Vec::new();
    for _ in 0..ROUNDS {
        rules = Vec::new();
        for filter in filters() {
            let wrong = deletions(&listing(filter)?, scope);
            if !wrong.is_empty() {
                delete(filter, &wrong)?;
                rules.extend(wrong);
            }
        }
        if let Scope::WholeNamespace = scope {
            rules.extend(remove_tables()?);
        }
        if rules.is_empty() {
            if let Scope::WholeNamespace = scope {
                remove_empty_filters();
            }
            return Ok(LeftoverLock { removed });
        }
        removed += rules.len();
    }
    Err(HoldError::LockStays { rounds: ROUNDS, rules: rules.join("; ") })
}

/// The filters to look at on this host, in this namespace.
fn filters() -> Vec<Filter> {
    let modern = [
        Filter { list: "iptables-nft", restore: "iptables-nft-restore" },
        Filter { list: "ip6tables-nft", restore: "ip6tables-nft-restore" },
    ];
    let legacy = [
        ("ip_tables_names", Filter { list: "iptables-legacy", restore: "iptables-legacy-restore" }),
        ("ip6_tables_names", Filter { list: "ip6tables-legacy", restore: "ip6tables-legacy-restore" }),
    ];
    let plain = [
        Filter { list: "iptables", restore: "iptables-restore" },
        Filter { list: "ip6tables", restore: "ip6tables-restore" },
    ];
    let installed = |filter: &Filter| find(filter.list).is_some();
    let has_table = |names: &str| {
        let tables = fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
        tables.lines().any(|table| table == "filter")
    };
    let mut found: Vec<Filter> = modern.into_iter().filter(installed).collect();
    if found.is_empty() {
        // A host with one variant only, under the plain names.
        return plain.into_iter().filter(installed).collect();
    }
    found.extend(
        legacy.into_iter().filter(|(names, one)| installed(one) && has_table(names)).map(|(_, one)| one),
    );
    found
}

fn listing(filter: Filter) -> Result<String, HoldError> {
    let output = Invocation::new(filter.list).args(["-w", "-S"]).output();
    let output =
        output.map_err(|source| HoldError::Filter { action: "look for CRIU's network lock", source })?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// The commands that remove CRIU's rules from an `iptables -S` listing, in a valid order.
fn deletions(listing: &str, scope: Scope<'_>) -> Vec<String> {
    match scope {
        Scope::WholeNamespace => {
            let jumps = listing.lines().filter(|line| line.starts_with("-A ") && line.ends_with(" -j CRIU"));
            let mut commands: Vec<String> = jumps.filter_map(deletion).collect();
            if listing.lines().any(|line| line == "-N CRIU") {
                commands.extend(["-F CRIU".to_owned(), "-X CRIU".to_owned()]);
            }
            commands.extend(connection_rules(listing).filter_map(deletion));
            commands
        }
        Scope::These(connections) => connection_rules(listing)
            .filter(|rule| connections.iter().any(|connection| is_about(rule, connection)))
            .filter_map(deletion)
            .collect(),
    }
}

fn deletion(rule: &str) -> Option<String> {
    rule.strip_prefix("-A ").map(|rest| format!("-D {rest}"))
}

fn connection_rules(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter(|line| {
        (line.starts_with("-A INPUT ") || line.starts_with("-A OUTPUT "))
            && line.contains(&format!("! --mark {MARK}"))
            && line.ends_with("-j DROP")
    })
}

/// Whether a rule names both ends of a connection, in either direction.
fn is_about(rule: &str, connection: &Connection) -> bool {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let value = |option: &str| words.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1]);
    let end = |address: &str, port: &str| -> Option<SocketAddr> {
        let host = value(address)?.split('/').next()?;
        Some(SocketAddr::new(host.parse().ok()?, value(port)?.parse().ok()?))
    };
    match (end("-s", "--sport"), end("-d", "--dport")) {
        (Some(from), Some(to)) => {
            (from, to) == (connection.local, connection.peer)
                || (to, from) == (connection.local, connection.peer)
        }
        _ => false,
    }
}

fn delete(filter: Filter, commands: &[String]) -> Result<(), HoldError> {
    let script = format!("*filter\n{}\nCOMMIT\n", commands.join("\n"));
    let run = Invocation::new(filter.restore).args(["-w", "--noflush"]).input(script).output();
    run.map(drop).map_err(|source| HoldError::Filter { action: "remove CRIU's network lock", source })
}

/// Tables of newer versions, in a namespace that nobody else uses.
fn remove_tables() -> Result<Vec<String>, HoldError> {
    let failed = |source| HoldError::Filter { action: "look for CRIU's network lock", source };
    let output = Invocation::new("nft").args(["list", "tables", "inet"]).output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output).into_owned();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("table inet "))
        .filter(|name| name.starts_with("CRIU-"))
        .collect();
    if !names.is_empty() {
        let script: String = names.iter().map(|name| format!("delete table inet {name}\n")).collect();
        super::nft("remove CRIU's network lock", script)?;
    }
    Ok(names.into_iter().map(|name| format!("table inet {name}")).collect())
}

/// The table changes nothing, so that it stays is no failure: somebody may just have begun to use it.
fn remove_empty_filters() {
    let Ok(ruleset) = Invocation::new("nft").args(["list", "ruleset"]).output() else { return };
    let ruleset = String::from_utf8_lossy(&ruleset);
    for family in ["ip", "ip6"] {
        if let Some(script) = removal_of_empty_filter(&ruleset, family) {
            let _ = super::nft("remove an empty filter table", script);
        }
    }
}

/// The script that removes the family's table `filter`, if it only has chains that accept everything. It fails
/// as a whole if a rule has come since: nft deletes no chain that has rules.
fn removal_of_empty_filter(ruleset: &str, family: &str) -> Option<String> {
    let head = format!("table {family} filter {{");
    let mut script = String::new();
    for line in ruleset.lines().skip_while(|line| *line != head).skip(1).take_while(|line| *line != "}") {
        let line = line.trim();
        if let Some(chain) = line.strip_prefix("chain ").and_then(|rest| rest.strip_suffix(" {")) {
            script += &format!("delete chain {family} filter {chain}\n");
        } else if !(line.is_empty() || line == "}" || line.ends_with("; policy accept;")) {
            return None;
        }
    }
    (!script.is_empty()).then(|| format!("{script}delete table {family} filter\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n-N CRIU\n-A INPUT -j CRIU\n\
        -A OUTPUT -j CRIU\n-A OUTPUT -p tcp -j ACCEPT\n-A CRIU -m mark --mark 0xc114 -j ACCEPT\n-A CRIU -j DROP\n";

    const RULES: &str = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n\
        -A INPUT -s 10.0.0.1/32 -d 10.0.0.2/32 -p tcp -m mark ! --mark 0xc114 -m tcp --sport 4000 --dport 80 -j DROP\n\
        -A INPUT -s 10.0.0.9/32 -d 10.0.0.2/32 -p tcp -m mark ! --mark 0xc114 -m tcp --sport 4000 --dport 80 -j DROP\n\
        -A INPUT -s 10.0.0.1/32 -d 10.0.0.2/32 -p tcp -m tcp --sport 4000 --dport 80 -j DROP\n\
        -A OUTPUT -s 10.0.0.2/32 -d 10.0.0.1/32 -p tcp -m mark ! --mark 0xc114 -m tcp --sport 80 --dport 4000 -j DROP\n";

    #[test]
    fn the_chain_goes_with_its_jumps_and_nothing_else() {
        assert_eq!(
            deletions(CHAIN, Scope::WholeNamespace),
            ["-D INPUT -j CRIU", "-D OUTPUT -j CRIU", "-F CRIU", "-X CRIU"]
        );
    }

    #[test]
    fn a_namespace_without_a_lock_needs_no_change() {
        let listing = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n-A INPUT -p tcp -j DROP\n";
        assert!(deletions(listing, Scope::WholeNamespace).is_empty());
    }

    #[test]
    fn on_the_host_only_rules_of_our_own_connections_are_removed() {
        let ours =
            [Connection { local: "10.0.0.2:80".parse().unwrap(), peer: "10.0.0.1:4000".parse().unwrap() }];
        let commands = deletions(RULES, Scope::These(&ours));
        assert_eq!(commands.len(), 2, "{commands:?}");
        assert!(commands[0].starts_with("-D INPUT -s 10.0.0.1/32 -d 10.0.0.2/32 -p tcp -m mark"));
        assert!(commands[1].starts_with("-D OUTPUT -s 10.0.0.2/32"));
        assert!(deletions(CHAIN, Scope::These(&ours)).is_empty(), "the host's own CRIU chain is not ours");
    }

    const EMPTY: &str = "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy accept;\n\
        \t}\n\n\tchain OUTPUT {\n\t\ttype filter hook output priority filter; policy accept;\n\t}\n}\n";

    #[test]
    fn a_filter_table_that_changes_nothing_is_removed_chain_by_chain() {
        assert_eq!(
            removal_of_empty_filter(EMPTY, "ip").unwrap(),
            "delete chain ip filter INPUT\ndelete chain ip filter OUTPUT\ndelete table ip filter\n"
        );
        assert_eq!(removal_of_empty_filter(EMPTY, "ip6"), None);
    }

    #[test]
    fn a_filter_table_with_a_rule_a_set_or_another_policy_stays() {
        for (from, to) in [
            ("policy accept;", "policy drop;"),
            ("\t}\n\n", "\t\ttcp dport 22 drop\n\t}\n\n"),
            ("\tchain OUTPUT", "\tset s {\n\t\ttype ipv4_addr\n\t}\n\tchain OUTPUT"),
        ] {
            assert_eq!(removal_of_empty_filter(&EMPTY.replacen(from, to, 1), "ip"), None, "{to}");
        }
    }
}
