//! The ledger: everything that was ever decided, in an order that nobody can change unseen.
//!
//! Its entries are the leaves of a tree by RFC 6962. A head (size and root) stands in every grant, and a signed
//! [`checkpoint`] wherever somebody keeps one. Who owns the database can rewrite rows, and even every hash; what they
//! cannot do is give a consistency proof from a head that a host or a witness has seen to a history that is another one.
//!
//! - [`tree`]: roots and proofs; the log of published manifests is such a tree, too
//! - [`checkpoint`]: a head, signed
//! - [`audit`](mod@audit): a store held against a checkpoint

pub mod audit;
pub mod checkpoint;

pub use audit::{Finding, audit};
pub use checkpoint::{CheckpointError, Origin};
pub use manifests::log::tree;
pub use manifests::log::tree::{Frontier, Position, Proof};
