//! A store held against what it once signed: every hash is computed again from the entries.

use manifests::LedgerHead;

use super::tree::{Frontier, Position};
use crate::store::{Store, StoreError, Which};

/// So many entries are read at once.
const PAGE: usize = 4096;

/// What is wrong with a ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// An entry is missing between others.
    #[error("the ledger has a gap: expected entry {expected}, found {found}")]
    Gap {
        /// The number of the one that is missing.
        expected: u64,
        /// The number of the next one that is there.
        found: u64,
    },
    /// A hash is not that of the entries below it.
    #[error("subtree {} of level {} is not what its entries make: an entry or a hash was changed", .at.index, .at.level)]
    Node {
        /// Which.
        at: Position,
    },
    /// The ledger is shorter than it was.
    #[error("the ledger lost entries: expected at least {expected}, found {found}")]
    Short {
        /// The size that was signed.
        expected: u64,
        /// The size that it has.
        found: u64,
    },
    /// It does not begin with what was signed.
    #[error("the ledger was rewritten: its first {} entries are not those that were signed", .signed.size)]
    Rewritten {
        /// What was signed.
        signed: LedgerHead,
    },
}

/// Computes the whole tree again and holds it against `signed`, heads that somebody kept; the head, or what is wrong.
///
/// # Errors
/// [`StoreError`] if the store cannot be read.
pub fn audit(store: &dyn Store, signed: &[LedgerHead]) -> Result<Result<LedgerHead, Finding>, StoreError> {
    let mut frontier = Frontier::default();
    let matches =
        |head: LedgerHead| signed.iter().find(|kept| kept.size == head.size && **kept != head).copied();
    if let Some(signed) = matches(frontier.head()) {
        return Ok(Err(Finding::Rewritten { signed }));
    }
    let (mut made, mut rewritten) = (Vec::new(), None);
    loop {
        let page = store.entries(&Which::From(frontier.size()), PAGE)?;
        if page.is_empty() {
            break;
        }
        for (number, entry) in page {
            if number != frontier.size() {
                return Ok(Err(Finding::Gap { expected: frontier.size(), found: number }));
            }
            made.extend(frontier.append(&entry.leaf_bytes()));
            rewritten = rewritten.or_else(|| matches(frontier.head()));
        }
        let (positions, hashes): (Vec<_>, Vec<_>) = made.drain(..).unzip();
        let kept = store.nodes(&positions)?;
        let changed = positions.iter().zip(hashes.iter().zip(&kept)).find(|(_, (made, kept))| made != kept);
        if let Some((at, _)) = changed {
            return Ok(Err(Finding::Node { at: *at }));
        }
        // Only of what is whole in itself that says something of its own.
        if let Some(signed) = rewritten {
            return Ok(Err(Finding::Rewritten { signed }));
        }
    }
    let head = frontier.head();
    match signed.iter().map(|kept| kept.size).max() {
        Some(expected) if expected > head.size => Ok(Err(Finding::Short { expected, found: head.size })),
        _ => Ok(Ok(head)),
    }
}
