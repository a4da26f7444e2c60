//! The host's side of `update`: what is planned, done, recorded and undone on one host.
//!
//! Read in this order, which is also that of the calls: each room uses those below it.
//!
//! | room | what |
//! |---|---|
//! | [`cli`] | one file for each subcommand: words in, words out; nothing is decided here |
//! | [`executor`] | root's half of a host in a fleet: answers the agent over a socket |
//! | [`operations`] | whole operations: apply, rollback, resume, status; they lock, authenticate, survey, plan, drive |
//! | [`steps`] | what each step does, and how it is undone |
//! | [`kernel`] | livepatches of the running kernel, behind a narrow trait (containers: the crate `workloads`) |
//! | [`state`] | everything that is kept on disk: journal, baseline, crash guard, payloads |
//! | [`transaction`] | the transition function, and the driver that obeys it |
//! | [`plan`] | manifest + facts -> a closed list of steps with their undos; pure |
//! | [`config`] | where this host keeps things and how long |

pub mod cli;
pub mod config;
pub mod executor;
pub mod kernel;
pub mod operations;
pub mod plan;
#[cfg(test)]
pub(crate) mod simulated;
pub mod state;
pub mod steps;
pub mod transaction;
