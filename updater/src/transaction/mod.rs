//! Transactions: what was planned, what happened, what happens next.
//!
//! - [`state`]: the transition function, pure
//! - [`driver`]: asks the state, records (in [`crate::state::journal`]), acts through [`driver::Hands`], records
//!
//! The one rule: an intent is on disk before the host is touched, an outcome after. So replaying the journal
//! names every step that may have acted, and no other.

pub mod driver;
pub mod state;

#[cfg(test)]
mod crash_tests;
