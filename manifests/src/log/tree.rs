//! The tree of RFC 6962, section 2.1, kept as the hashes of its whole subtrees.
//!
//! A subtree of 2^level leaves that is full never changes again, so a store can keep its hash by its [`Position`] and
//! never writes it twice. Everything else (the root of a size, a proof) is made of at most 64 such hashes. Appending
//! needs only the [`Frontier`]: the full subtrees on the right edge.
//!
//! The log of published manifests and a controller's ledger are both such trees.
//! Proofs are made here and verified by the crate `ct-merkle`, so that no mistake is made twice in the same way.

use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use sha2::Digest as _;

use crate::digest::Sha256;
use crate::grant::LedgerHead;

/// The most leaves of a tree that is looked at: more than anybody publishes, and far below where `u64` ends.
pub const MAX_SIZE: u64 = 1 << 48;

/// A full subtree: the `index`-th of those with 2^`level` leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The logarithm of its number of leaves.
    pub level: u32,
    /// How many of the same size lie to its left.
    pub index: u64,
}

/// The hash of a leaf: SHA-256 over a zero byte and the entry.
pub fn leaf(entry: &[u8]) -> Sha256 {
    let mut hash = sha2::Sha256::new_with_prefix([0]);
    hash.update(entry);
    Sha256::from_bytes(hash.finalize().into())
}

/// The hash of two subtrees of which the left one is full: SHA-256 over a byte of 1 and both.
pub fn parent(left: Sha256, right: Sha256) -> Sha256 {
    let mut hash = sha2::Sha256::new_with_prefix([1]);
    hash.update(left.as_bytes());
    hash.update(right.as_bytes());
    Sha256::from_bytes(hash.finalize().into())
}

/// The right edge of a tree: its full subtrees from the largest to the smallest, one for each bit of the size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Sha256>,
}

impl Frontier {
    /// The positions of the peaks of a tree of `size` leaves, from the largest.
    pub fn positions(size: u64) -> Vec<Position> {
        whole(0, size)
    }

    /// The frontier of a tree of `size` leaves with the peaks at [`Frontier::positions`].
    pub fn new(size: u64, peaks: Vec<Sha256>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends an entry; the subtrees that it completes, each with its hash.
    pub fn append(&mut self, entry: &[u8]) -> Vec<(Position, Sha256)> {
        let mut hash = leaf(entry);
        let (mut level, mut index) = (0, self.size);
        let mut made = vec![(Position { level, index }, hash)];
        while index % 2 == 1
            && let Some(left) = self.peaks.pop()
        {
            hash = parent(left, hash);
            (level, index) = (level + 1, index / 2);
            made.push((Position { level, index }, hash));
        }
        self.peaks.push(hash);
        self.size += 1;
        made
    }

    /// Size and root hash. The root of no leaves is the hash of nothing.
    pub fn head(&self) -> LedgerHead {
        let fold = self.peaks.iter().rev().copied().reduce(|right, left| parent(left, right));
        LedgerHead { size: self.size, root: fold.unwrap_or_else(|| Sha256::of(b"")) }
    }
}

/// The full subtrees that cover the leaves from `begin` to `end`, left to right. `begin` must be where a subtree that
/// reaches to `end` may begin, which holds for every range of a proof.
fn whole(mut begin: u64, end: u64) -> Vec<Position> {
    let mut positions = Vec::new();
    while begin < end {
        let level = (end - begin).ilog2().min(if begin == 0 { 63 } else { begin.trailing_zeros() });
        positions.push(Position { level, index: begin >> level });
        begin += 1 << level;
    }
    positions
}

/// The ranges of leaves whose hashes are an inclusion proof, from the leaf up (RFC 6962, 2.1.1).
fn path(number: u64, size: u64) -> Vec<(u64, u64)> {
    let (mut begin, mut end) = (0, size);
    let mut path = Vec::new();
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if number < middle {
            path.push((middle, end));
            end = middle;
        } else {
            path.push((begin, middle));
            begin = middle;
        }
    }
    path.reverse();
    path
}

/// The same of a consistency proof (RFC 6962, 2.1.2).
fn subproof(old: u64, size: u64) -> Vec<(u64, u64)> {
    let (mut begin, mut end) = (0, size);
    let mut proof = Vec::new();
    while end > old {
        let middle = begin + split(end - begin);
        if old <= middle {
            proof.push((middle, end));
            end = middle;
        } else {
            proof.push((begin, middle));
            begin = middle;
        }
    }
    // The old tree itself is known to whoever asks.
    if begin > 0 {
        proof.push((begin, end));
    }
    proof.reverse();
    proof
}

/// The largest power of two below `leaves`, which are two or more.
fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// A proof's hashes, from the leaf up.
pub type Proof = Vec<Sha256>;

/// Makes the hashes of `ranges`, asking `nodes` once for all full subtrees that they are made of.
fn hashes<E>(
    ranges: &[(u64, u64)],
    nodes: impl FnOnce(&[Position]) -> Result<Vec<Sha256>, E>,
) -> Result<Proof, E> {
    let parts: Vec<Vec<Position>> = ranges.iter().map(|(begin, end)| whole(*begin, *end)).collect();
    let mut found = nodes(&parts.concat())?.into_iter();
    let hash = |part: &Vec<Position>| {
        let part: Vec<Sha256> = found.by_ref().take(part.len()).collect();
        part.into_iter().rev().reduce(|right, left| parent(left, right))
    };
    Ok(parts.iter().filter_map(hash).collect())
}

/// The proof that entry `number` stands in the tree of `size` entries; nothing if it does not reach so far.
pub fn prove_inclusion<E>(
    number: u64,
    size: u64,
    nodes: impl FnOnce(&[Position]) -> Result<Vec<Sha256>, E>,
) -> Result<Option<Proof>, E> {
    if number >= size { Ok(None) } else { hashes(&path(number, size), nodes).map(Some) }
}

/// The proof that the tree of `old` entries is the beginning of that of `size`; nothing if it cannot be one.
pub fn prove_consistency<E>(
    old: u64,
    size: u64,
    nodes: impl FnOnce(&[Position]) -> Result<Vec<Sha256>, E>,
) -> Result<Option<Proof>, E> {
    if old > size || old == 0 { Ok(None) } else { hashes(&subproof(old, size), nodes).map(Some) }
}

fn root(head: &LedgerHead) -> RootHash<sha2::Sha256> {
    RootHash::new((*head.root.as_bytes()).into(), head.size)
}

/// Whether `proof` shows that `entry` is the `number`-th of the ledger with this head.
pub fn includes(head: &LedgerHead, number: u64, entry: &[u8], proof: &[Sha256]) -> bool {
    if number >= head.size || head.size > MAX_SIZE {
        return false;
    }
    let digests: Vec<_> = proof.iter().map(|hash| (*hash.as_bytes()).into()).collect();
    let proof = InclusionProof::from_digests(digests.iter());
    root(head).verify_inclusion(&entry, number, &proof).is_ok()
}

/// Whether `proof` shows that the ledger with head `old` is the beginning of the one with head `new`.
pub fn extends(new: &LedgerHead, old: &LedgerHead, proof: &[Sha256]) -> bool {
    if new.size > MAX_SIZE {
        return false;
    }
    // Nothing is the beginning of everything, and a tree is its own.
    if old.size == 0 {
        return *old == Frontier::default().head();
    }
    if old.size == new.size {
        return old == new && proof.is_empty();
    }
    let digests: Vec<_> = proof.iter().map(|hash| (*hash.as_bytes()).into()).collect();
    let proof = ConsistencyProof::from_digests(digests.iter());
    root(new).verify_consistency(&root(old), &proof).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use ct_merkle::mem_backed_tree::MemoryBackedTree;

    use super::*;

    struct Grown {
        nodes: BTreeMap<Position, Sha256>,
        heads: Vec<LedgerHead>,
        entries: Vec<Vec<u8>>,
    }

    impl Grown {
        fn to(size: usize) -> Self {
            let mut frontier = Frontier::default();
            let mut grown =
                Self { nodes: BTreeMap::new(), heads: vec![frontier.head()], entries: Vec::new() };
            for number in 0..size {
                let entry = format!("entry {number}").into_bytes();
                for (position, hash) in frontier.append(&entry) {
                    assert_eq!(grown.nodes.insert(position, hash), None, "{position:?} is written once");
                }
                grown.heads.push(frontier.head());
                grown.entries.push(entry);
            }
            grown
        }

        fn nodes(&self, wanted: &[Position]) -> Result<Vec<Sha256>, Infallible> {
            Ok(wanted.iter().map(|position| self.nodes[position]).collect())
        }
    }

    #[test]
    fn every_root_is_the_one_that_another_implementation_finds() {
        let grown = Grown::to(70);
        let mut other = MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
        for size in 0..=70 {
            if size > 0 {
                other.push(grown.entries[size - 1].clone());
            }
            assert_eq!(root(&grown.heads[size]), other.root(), "{size}");
            let peaks = grown.nodes(&Frontier::positions(size as u64)).unwrap();
            assert_eq!(Frontier::new(size as u64, peaks).unwrap().head(), grown.heads[size], "{size}");
        }
    }

    #[test]
    fn every_entry_is_proven_in_every_tree_and_no_other_in_its_place() {
        let grown = Grown::to(35);
        for size in 1..=35_u64 {
            let head = grown.heads[size as usize];
            for number in 0..size {
                let proof = prove_inclusion(number, size, |wanted| grown.nodes(wanted)).unwrap().unwrap();
                let entry = &grown.entries[number as usize];
                assert!(includes(&head, number, entry, &proof), "{number} of {size}");
                assert!(!includes(&head, number, b"another", &proof), "{number} of {size}");
                assert!(
                    size == 1 || !includes(&head, (number + 1) % size, entry, &proof),
                    "{number} of {size}"
                );
            }
            assert_eq!(prove_inclusion(size, size, |wanted| grown.nodes(wanted)).unwrap(), None);
        }
    }

    #[test]
    fn every_tree_extends_every_earlier_one_and_no_other_history() {
        let grown = Grown::to(35);
        for size in 0..=35_usize {
            for old in 0..=size {
                let proof = prove_consistency(old as u64, size as u64, |wanted| grown.nodes(wanted)).unwrap();
                let proof = proof.unwrap_or_default();
                let (before, after) = (grown.heads[old], grown.heads[size]);
                assert!(extends(&after, &before, &proof), "{old} to {size}");
                let forked = LedgerHead { root: Sha256::of(b"a fork"), ..before };
                assert!(!extends(&after, &forked, &proof), "{old} to {size}");
                let rewritten = LedgerHead { root: Sha256::of(b"rewritten"), ..after };
                assert!(old == 0 || !extends(&rewritten, &before, &proof), "{old} to {size}");
            }
        }
    }
}
