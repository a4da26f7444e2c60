//! Transactions: what was planned, what happened, what happens next.
//!
//! - [`state`]: the transition function, pure
//! - [`journal`]: every event on disk before anything else is done
//! - [`driver`]: asks the state, journals, acts through [`driver::Hands`], journals
//!
//! The one rule: an intent is on disk before the host is touched, an outcome after. So replaying the journal
//! names every step that may have acted, and no other.

pub mod driver;
pub mod journal;
pub mod state;

#[cfg(test)]
mod crash_tests;
