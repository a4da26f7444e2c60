//! The controller of a fleet: what was decided, on disk, and the one authority that lets hosts begin.
//!
//! The crate `fleet` decides; this one keeps. From the bottom:
//!
//! - [`store`]: one contract for records, ledger and lease, and who keeps it
//! - [`ledger`]: the tree over everything that was decided, its proofs and signed checkpoints
//!
//! No network here: whatever speaks to hosts or people turns requests into calls.

#![forbid(unsafe_code)]

pub mod ledger;
pub mod store;
