//! A rollout, and every host in it, as one state machine.
//!
//! A rollout is a [`Plan`] plus the [`Entry`]s of its ledger. [`Progress::apply`] is the only place where an event
//! changes anything, and serves live running and replay alike. What happens next has two sources, and no third:
//! [`decide`] says which events are due, and [`begin`] answers a host that asks to begin. What hosts say becomes events in [`hear`].
//!
//! Invariants, each held by `apply` or `begin` whatever a caller believes, and by a model of all orders of messages
//! (`tests/model.rs`):
//! - a host has at most one open grant, over all rollouts; the same attempt gets the same grant again
//! - caps are counted in the transaction that grants ([`Book`])
//! - nothing of a wave begins before the wave in front of it has passed
//! - after a halt there are only ways back, and no resuming
//! - a counted failure stays counted, whatever becomes of the host
//! - every counter follows from the events
//! - a token of the controller can only slow a rollout down; what makes it go on needs a signature
//! - one host alone can at most pause it, unless the fleet is too small for a test
//! - a rollout that does not go on says why ([`waiting`])
//! - a wave whose policy asks for a comparison passes by an answer alone, never for want of one ([`health`])
//!
//! Rooms: [`event`] what can happen, [`state`] what is, `apply` the transition function, [`begin`](mod@begin) the one
//! authority, [`report`] what hosts say, [`health`] how the changed do beside the others, `decide` what is due,
//! [`succession`] which rollout takes whose place, [`waiting`](mod@waiting), [`explain`](mod@explain),
//! [`guarantee`](mod@guarantee) and `words` for people.

mod apply;
pub mod begin;
mod decide;
pub mod event;
pub mod explain;
pub mod guarantee;
pub mod health;
pub mod report;
pub mod state;
pub mod succession;
#[cfg(test)]
mod tests;
pub mod waiting;
mod words;

pub use apply::Impossible;
pub use begin::{Action, Begin, Book, NotNow, Occupied, Request, begin};
pub use decide::{Facts, decide};
pub use event::{
    Author, Entry, Event, Fault, Halt, Limit, Outcome, Pause, Place, Proof, Successor, Wave, verdict_of_exit,
};
pub use explain::{Explanation, Line, explain};
pub use guarantee::guarantee;
pub use health::{Comparison, Figure, Side, Sides, Unanswered};
pub use report::{Report, Said, Stale, hear};
pub use state::{Count, Failure, HostState, Plan, Progress, Stage};
pub use succession::{Claim, Outdated, succeed};
pub use waiting::{Waiting, waiting};
