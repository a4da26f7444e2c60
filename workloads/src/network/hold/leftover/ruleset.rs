//! The packet filter's own account of itself: `nft -j list ruleset` (libnftables-json(5)).
//!
//! Whoever lives in a network namespace chose every name and comment in it. So the account is read as JSON, where
//! no text can pass for a rule, and what is taken from it are handles: numbers. An expression of a kind that nobody
//! here knows is no error, or a container could make its own firewall unreadable; so it is read as a plain value.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::{MARK, Scope};
use crate::criu::images::Connection;

/// The families in which iptables keeps its rules.
const FAMILIES: [&str; 2] = ["ip", "ip6"];

/// The chains that packets of the namespace's own connections go through, by iptables' names.
const CHAINS: [&str; 2] = ["INPUT", "OUTPUT"];

/// CRIU's own chain.
const CRIU: &str = "CRIU";

/// What the filter holds.
#[derive(Debug)]
pub(super) struct Ruleset {
    objects: Vec<Value>,
}

/// One object of the account: its kind, and what is said of it.
type Object<'a> = (&'a str, &'a Value);

impl Ruleset {
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(serde::Deserialize)]
        struct Account {
            nftables: Vec<Value>,
        }
        serde_json::from_slice(json).map(|Account { nftables }| Self { objects: nftables })
    }

    fn objects(&self) -> impl Iterator<Item = Object<'_>> {
        let objects = self.objects.iter().filter_map(Value::as_object);
        objects.flat_map(|one| one.iter().map(|(kind, said)| (kind.as_str(), said)))
    }

    /// What belongs to iptables' table `filter` of one family.
    fn of_filter<'a>(&'a self, family: &'a str) -> impl Iterator<Item = Object<'a>> {
        self.objects()
            .filter(move |(_, said)| text(said, "family") == family && text(said, "table") == "filter")
    }

    /// Commands that remove CRIU's lock, in a valid order.
    pub(super) fn deletions(&self, scope: Scope<'_>) -> Vec<String> {
        let mut commands = Vec::new();
        for family in FAMILIES {
            for (_, rule) in self.of_filter(family).filter(|(kind, _)| *kind == "rule") {
                let chain = CHAINS.into_iter().find(|chain| text(rule, "chain") == *chain);
                if let (Some(chain), Some(handle)) = (chain, handle(rule))
                    && is_criu(rule, scope)
                {
                    commands.push(format!("delete rule {family} filter {chain} handle {handle}"));
                }
            }
            let has_chain =
                self.of_filter(family).any(|(kind, one)| kind == "chain" && text(one, "name") == CRIU);
            if let Scope::WholeNamespace(_) = scope
                && has_chain
            {
                commands.push(format!("flush chain {family} filter {CRIU}"));
                commands.push(format!("delete chain {family} filter {CRIU}"));
            }
        }
        if let Scope::WholeNamespace(_) = scope {
            let tables =
                self.objects().filter(|(kind, one)| *kind == "table" && text(one, "family") == "inet");
            let criu = tables.filter(|(_, one)| text(one, "name").starts_with("CRIU-"));
            commands.extend(
                criu.filter_map(|(_, one)| handle(one))
                    .map(|handle| format!("delete table inet handle {handle}")),
            );
        }
        commands
    }

    /// Whether there are rules whose matches nft does not show, since they are made by iptables' own modules: of
    /// versions that know no other way.
    pub(super) fn has_hidden_matches(&self) -> bool {
        let rules = FAMILIES.into_iter().flat_map(|family| self.of_filter(family));
        rules
            .filter(|(kind, rule)| *kind == "rule" && CHAINS.contains(&text(rule, "chain")))
            .any(|(_, rule)| expressions(rule).any(|one| one.get("xt").is_some()))
    }

    /// Commands that remove iptables' tables `filter` where they only hold chains that accept everything: iptables
    /// makes them whenever it is asked. They fail as a whole if a rule has come since, because a chain that has
    /// rules is not deleted.
    pub(super) fn removals_of_empty_filters(&self) -> Vec<Vec<String>> {
        FAMILIES.into_iter().filter_map(|family| self.removal_of_empty_filter(family)).collect()
    }

    fn removal_of_empty_filter(&self, family: &str) -> Option<Vec<String>> {
        let mut commands = Vec::new();
        for (kind, one) in self.of_filter(family) {
            let policy = text(one, "policy");
            if kind != "chain" || !(policy.is_empty() || policy == "accept") {
                return None;
            }
            commands.push(format!("delete chain {family} filter handle {}", handle(one)?));
        }
        if commands.is_empty() {
            return None;
        }
        commands.push(format!("delete table {family} filter"));
        Some(commands)
    }
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn handle(object: &Value) -> Option<u64> {
    object.get("handle").and_then(Value::as_u64)
}

fn expressions(rule: &Value) -> impl Iterator<Item = &Value> {
    rule.get("expr").and_then(Value::as_array).into_iter().flatten()
}

/// Whether a rule is part of CRIU's lock: a jump to its chain, or one that drops a connection's packets but CRIU's.
fn is_criu(rule: &Value, scope: Scope<'_>) -> bool {
    let jumps = || expressions(rule).any(|one| one.pointer("/jump/target").is_some_and(|to| to == CRIU));
    let drops = || expressions(rule).any(|one| one.get("drop").is_some()) && excepts_mark(rule);
    match scope {
        Scope::WholeNamespace(_) => jumps() || drops(),
        Scope::These(connections) => drops() && connections.iter().any(|one| is_about(rule, one)),
    }
}

fn excepts_mark(rule: &Value) -> bool {
    matches(rule, "!=").any(|(left, right)| {
        left.pointer("/meta/key").is_some_and(|key| key == "mark") && right.as_u64() == Some(MARK)
    })
}

/// The two sides of each comparison of a rule.
fn matches<'a>(rule: &'a Value, operator: &'a str) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let compared = expressions(rule).filter_map(|one| one.get("match"));
    let compared = compared.filter(move |one| text(one, "op") == operator);
    compared.filter_map(|one| Some((one.get("left")?, one.get("right")?)))
}

/// Whether a rule names both ends of a connection, in either direction.
fn is_about(rule: &Value, connection: &Connection) -> bool {
    let field = |name: &str| {
        let mut found = matches(rule, "==");
        let found = found.find(|(left, _)| left.pointer("/payload/field").is_some_and(|field| field == name));
        found.map(|(_, right)| right)
    };
    let end = |address: &str, port: &str| -> Option<SocketAddr> {
        let address: IpAddr = field(address)?.as_str()?.parse().ok()?;
        Some(SocketAddr::new(address, u16::try_from(field(port)?.as_u64()?).ok()?))
    };
    match (end("saddr", "sport"), end("daddr", "dport")) {
        (Some(from), Some(to)) => {
            (from, to) == (connection.local, connection.peer)
                || (to, from) == (connection.local, connection.peer)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(objects: &[&str]) -> Ruleset {
        let all = [&[r#"{"metainfo": {"version": "1.0.6"}}"#], objects].concat().join(",");
        let json = format!(r#"{{"nftables": [{all}]}}"#);
        Ruleset::parse(json.as_bytes()).unwrap()
    }

    const TABLE: &str = r#"{"table": {"family": "ip", "name": "filter", "handle": 1}}"#;
    const INPUT: &str = r#"{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 2,
        "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}}"#;
    const CHAIN: &str = r#"{"chain": {"family": "ip", "table": "filter", "name": "CRIU", "handle": 3}}"#;
    const JUMP: &str = r#"{"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 4,
        "expr": [{"counter": {"packets": 0, "bytes": 0}}, {"jump": {"target": "CRIU"}}]}}"#;

    fn connection_rule(handle: u64, peer: &str, mark: u64) -> String {
        let equal = |protocol: &str, field: &str, value: &str| {
            format!(
                r#"{{"match": {{"op": "==", "left": {{"payload": {{"protocol": "{protocol}", "field": "{field}"}}}}, "right": {value}}}}}"#
            )
        };
        let ends = [
            equal("ip", "saddr", &format!("\"{peer}\"")),
            equal("ip", "daddr", "\"10.0.0.2\""),
            equal("tcp", "sport", "4000"),
            equal("tcp", "dport", "80"),
        ];
        format!(
            r#"{{"rule": {{"family": "ip", "table": "filter", "chain": "INPUT", "handle": {handle}, "expr": [{},
            {{"match": {{"op": "!=", "left": {{"meta": {{"key": "mark"}}}}, "right": {mark}}}}}, {{"drop": null}}]}}}}"#,
            ends.join(",")
        )
    }

    #[test]
    fn the_chain_goes_with_its_jumps_and_nothing_else() {
        let other = JUMP.replace("CRIU", "docker").replace("\"handle\": 4", "\"handle\": 5");
        assert_eq!(
            ruleset(&[TABLE, INPUT, CHAIN, JUMP, &other]).deletions(Scope::WholeNamespace(&[])),
            [
                "delete rule ip filter INPUT handle 4",
                "flush chain ip filter CRIU",
                "delete chain ip filter CRIU"
            ]
        );
        assert!(ruleset(&[TABLE, INPUT, &other]).deletions(Scope::WholeNamespace(&[])).is_empty());
    }

    #[test]
    fn on_the_host_only_rules_of_our_own_connections_are_removed() {
        let ours =
            [Connection { local: "10.0.0.2:80".parse().unwrap(), peer: "10.0.0.1:4000".parse().unwrap() }];
        let rules = [(4, "10.0.0.1", MARK), (5, "10.0.0.9", MARK), (6, "10.0.0.1", 7)]
            .map(|(handle, peer, mark)| connection_rule(handle, peer, mark));
        let all = [TABLE, INPUT, CHAIN, JUMP, &rules[0], &rules[1], &rules[2]];
        assert_eq!(ruleset(&all).deletions(Scope::These(&ours)), ["delete rule ip filter INPUT handle 4"]);
        assert_eq!(ruleset(&all[4..]).deletions(Scope::WholeNamespace(&[])).len(), 2);
    }

    #[test]
    fn no_byte_that_was_read_is_in_a_command() {
        let evil = r#"x; flush ruleset\n#"#;
        let objects = [
            TABLE.to_owned(),
            INPUT.to_owned(),
            JUMP.replace("\"INPUT\"", &format!("\"{evil}\"")),
            JUMP.replace("\"handle\": 4", r#""handle": "4; flush ruleset""#),
            JUMP.replace("\"ip\"", &format!("\"{evil}\"")),
            format!(r#"{{"table": {{"family": "inet", "name": "CRIU-7{evil}", "handle": 9}}}}"#),
            format!(
                r#"{{"rule": {{"family": "ip", "table": "filter", "chain": "INPUT", "handle": 8,
                "comment": "{evil}", "expr": [{{"unheard of": ["{evil}"]}}, {{"jump": {{"target": "CRIU"}}}}]}}}}"#
            ),
        ];
        let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
        assert_eq!(
            ruleset(&objects).deletions(Scope::WholeNamespace(&[])),
            ["delete rule ip filter INPUT handle 8", "delete table inet handle 9"]
        );
    }

    #[test]
    fn a_filter_table_that_changes_nothing_is_removed_chain_by_chain() {
        let odd =
            INPUT.replace("\"INPUT\"", "\"x; flush ruleset\"").replace("\"handle\": 2", "\"handle\": 7");
        assert_eq!(
            ruleset(&[TABLE, INPUT, &odd]).removals_of_empty_filters(),
            [[
                "delete chain ip filter handle 2",
                "delete chain ip filter handle 7",
                "delete table ip filter"
            ]]
        );
        assert!(ruleset(&[]).removals_of_empty_filters().is_empty());
    }

    #[test]
    fn a_filter_table_with_a_rule_a_set_or_another_policy_stays() {
        let set =
            r#"{"set": {"family": "ip", "table": "filter", "name": "s", "handle": 9, "type": "ipv4_addr"}}"#;
        let drop = INPUT.replace("accept", "drop");
        for objects in [[TABLE, INPUT, JUMP], [TABLE, INPUT, set], [TABLE, CHAIN, &drop]] {
            assert!(ruleset(&objects).removals_of_empty_filters().is_empty(), "{objects:?}");
        }
    }
}
