//! What this host keeps on disk: one room for every table and file of the store.
//!
//! - [`journal`]: transactions and their events
//! - [`chain`]: what they are held by, so that a change beside this program shows
//! - [`author`]: who wrote
//! - [`baseline`]: what the host should have
//! - [`crash_guard`]: livepatch loads that the host has not survived yet, and the quarantine
//! - [`floors`]: versions that it has acted upon
//! - [`grants`]: what controllers of a fleet let it begin
//! - [`hold`]: that an operator keeps it as it is for a while
//! - `migrations`: the layout of the database
//! - [`payloads`]: verified payloads by digest
//! - [`privacy`]: all of it is root's alone

pub mod author;
pub mod baseline;
pub mod chain;
pub mod crash_guard;
pub mod floors;
pub mod grants;
pub mod hold;
pub mod journal;
mod migrations;
pub mod payloads;
pub mod privacy;
