//! What this host keeps on disk: one room for every table and file of the store.
//!
//! - [`journal`]: transactions and their events
//! - [`baseline`]: what the host should have
//! - [`crash_guard`]: livepatch loads that the host has not survived yet, and the quarantine
//! - [`payloads`]: verified payloads by digest

pub mod baseline;
pub mod crash_guard;
pub mod journal;
pub mod payloads;
