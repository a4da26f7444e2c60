//! A fleet: how one signed manifest goes through many hosts, in waves that stop and go back by themselves.
//!
//! This crate decides, and does nothing: no clock, no file, no network. The same facts give the same decision, for a
//! controller that runs, one that replays its ledger, a simulator, and a model of all orders of messages.
//!
//! From the top:
//!
//! - [`policy`]: what people write: who, how fast, when, and what makes it stop
//! - [`facts`]: what a host says of itself
//! - [`host`]: a host as a rollout sees it
//! - [`waves`]: which host goes when
//! - [`test`]: what a wave proves, and when it halts, holds or passes
//! - [`assurance`]: what a policy is worth for one fleet; what can never end well is refused here
//! - [`rollout`]: the state machine: what happened, what is due, and who may begin now
//! - [`schedule`]: how early hosts let a controller be
//! - [`protocol`]: what hosts and controllers say to each other
//! - [`local`]: what a host's agent and its executor say to each other
//! - [`simulate`]: the state machine played with hosts that are made up
//!
//! The documents that people and controllers sign ([`manifests::Rollout`], [`manifests::Grant`]) are a crate below:
//! hosts verify them without knowing anything of this one.

#![forbid(unsafe_code)]

pub mod assurance;
pub mod facts;
pub mod host;
pub mod local;
pub mod policy;
pub mod protocol;
pub mod rollout;
#[cfg(test)]
mod sample;
pub mod schedule;
pub mod simulate;
pub mod test;
pub mod waves;
