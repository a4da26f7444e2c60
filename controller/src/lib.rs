//! The controller of a fleet: what was decided, on disk, and the one authority that lets hosts begin.
//!
//! The crate `fleet` decides; this one keeps. From the bottom:
//!
//! - [`store`]: one contract for records, ledger and lease, and who keeps it
//! - [`ledger`]: the tree over everything that was decided, its proofs and signed checkpoints
//! - [`authority`]: rollouts, grants and the lease: the one place that decides
//! - [`enrolment`], [`access`]: tokens by which hosts come in, and people ask
//! - [`backup`]: a copy that is whole, and the way back to it
//! - [`certificates`]: the fleet's own certificate authority
//! - [`content`]: documents and payloads that hosts fetch
//! - [`identity`]: which fleet a store is of
//! - [`prometheus`]: a server of metrics, asked how hosts do
//! - [`presence`]: when hosts were last heard of
//! - [`server`]: HTTPS for hosts and people; it turns requests into calls and decides nothing
//! - [`client`], [`cli`]: people's commands, which ask a server

#![forbid(unsafe_code)]

pub mod access;
pub mod authority;
pub mod backup;
pub mod certificates;
pub mod cli;
pub mod client;
pub mod content;
pub mod enrolment;
pub mod identity;
pub mod ledger;
pub mod presence;
pub mod prometheus;
pub mod server;
pub mod store;
