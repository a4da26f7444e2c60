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
//! Whether the rules went through iptables-nft or iptables-legacy is the host's choice, so both are looked at.
//!
//! Whoever lives in the namespace wrote all that is in it but CRIU's rules. No byte that was read is ever fed
//! back: rules of nftables are removed by their handles ([`ruleset`]), all others by commands that are made of
//! what is known from the checkpoint ([`iptables`]).

mod iptables;
mod ruleset;

use system::command::Invocation;

use self::iptables::{Hidden, variants};
use self::ruleset::Ruleset;
use crate::criu::images::Connection;
use crate::network::hold::{HoldError, LeftoverLock};

/// Each round removes everything a reading showed; a second is needed only if somebody adds at the
/// same time, a third shows that this is not us.
const ROUNDS: usize = 3;

/// The mark that CRIU gives its own packets (`SOCCR_MARK`).
const MARK: u64 = 0xc114;

/// Whose rules may be removed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// A namespace that only this container uses; these are its connections.
    WholeNamespace(&'a [Connection]),
    /// Rules about these connections only; others may be of somebody else's checkpoint.
    These(&'a [Connection]),
}

pub(crate) fn remove(scope: Scope<'_>) -> Result<LeftoverLock, HoldError> {
    let mut removed = 0;
    let mut rules = Vec::new();
    for _ in 0..ROUNDS {
        let found = read()?;
        rules = found.deletions(scope);
        if !rules.is_empty() {
            super::nft("remove CRIU's network lock", script(&rules))?;
        }
        let hidden = if found.has_hidden_matches() { Hidden::Yes } else { Hidden::No };
        for variant in variants(hidden) {
            rules.extend(variant.remove(scope)?);
        }
        if rules.is_empty() {
            if let Scope::WholeNamespace(_) = scope {
                remove_empty_filters();
            }
            return Ok(LeftoverLock { removed });
        }
        removed += rules.len();
    }
    Err(HoldError::LockStays { rounds: ROUNDS, rules: rules.join("; ") })
}

fn read() -> Result<Ruleset, HoldError> {
    let listing = Invocation::new("nft").args(["-j", "-a", "list", "ruleset"]).output();
    let listing =
        listing.map_err(|source| HoldError::Filter { action: "look for CRIU's network lock", source })?;
    Ruleset::parse(&listing).map_err(|source| HoldError::Ruleset { source })
}

/// All commands that an account can lead to, for [`crate::fuzzing`].
pub(crate) fn commands_for(account: &[u8]) -> Vec<String> {
    let Ok(found) = Ruleset::parse(account) else { return Vec::new() };
    let connections = [Connection { local: ([10, 0, 0, 2], 80).into(), peer: ([10, 0, 0, 1], 4000).into() }];
    let scopes = [Scope::WholeNamespace(&connections), Scope::These(&connections)];
    let mut commands: Vec<String> = scopes.iter().flat_map(|scope| found.deletions(*scope)).collect();
    commands.extend(found.removals_of_empty_filters().concat());
    found.has_hidden_matches();
    commands
}

fn script(commands: &[String]) -> String {
    commands.iter().map(|command| format!("{command}\n")).collect()
}

/// The table changes nothing, so that it stays is no failure: somebody may just have begun to use it.
fn remove_empty_filters() {
    let Ok(found) = read() else { return };
    for commands in found.removals_of_empty_filters() {
        let _ = super::nft("remove an empty filter table", script(&commands));
    }
}

#[cfg(test)]
#[path = "leftover/tests.rs"]
mod tests;
