//! The agent of a host in a fleet: it speaks with controllers, fetches what they offer, and may do nothing.
//!
//! Root's half is the executor (`update executor`), which it asks over a socket ([`fleet::local`]). What the agent says of
//! this host is the executor's word; whatever a controller says is a hint, but for the grant, which it only hands on.
//!
//! - [`identity`]: the host's key, and certificates for it
//! - [`pinned`]: whom to believe before there is a certificate
//! - [`client`]: questions to controllers
//! - [`executor`]: questions to the executor
//! - [`spool`]: documents and payloads that were fetched
//! - [`memory`]: what must not be forgotten over a crash
//! - [`duty`]: what to do next; pure
//! - [`enrol`], [`run`], [`cli`]: the commands

#![forbid(unsafe_code)]

pub mod cli;
pub mod client;
pub mod duty;
pub mod enrol;
pub mod executor;
pub mod identity;
pub mod memory;
pub mod names;
pub mod pinned;
pub mod run;
pub mod spool;
