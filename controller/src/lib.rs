//! The controller of a fleet: what was decided, on disk, and the one authority that lets hosts begin.
//!
//! The crate `fleet` decides; this one keeps. From the bottom:
//!
//! - [`store`]: one contract for records, ledger and lease, and who keeps it
//! - [`ledger`]: the tree over everything that was decided, its proofs and signed checkpoints
//! - [`authority`]: rollouts, grants and the lease: the one place that decides
//! - [`enrolment`]: tokens by which hosts come in
//! - [`backup`]: a copy that is whole, and the way back to it
//!
//! No network here: whatever speaks to hosts or people turns requests into calls.

#![forbid(unsafe_code)]

pub mod authority;
pub mod backup;
pub mod enrolment;
pub mod ledger;
pub mod store;
