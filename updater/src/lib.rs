//! The host's side of `update`: what is planned, done, recorded and undone on one machine.
//!
//! Read in this order:
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | manifest + facts -> a closed list of steps with their undos; pure |
//! | [`transaction`] | the transition function, the journal, the driver between them |
//! | `machine` | what each step does, and how it is undone |
//! | `engine` | whole operations: apply, rollback, resume, status |
//! | [`host`], [`runtime`] | the kernel and the containers, behind narrow traits |
//! | [`store`], [`baseline`], [`crash_guard`], [`lock`], [`config`] | what is kept on disk |
//! | [`trust`] | whom this host believes: envelope, policy, floors, payload digests |
//! | [`exit`] | one table of exit codes, one shape of failure |
//!
//! Dependencies run downwards in that list. Only `host` and `runtime` touch the kernel or run programs.

pub mod baseline;
mod causes;
pub mod cli;
pub mod config;
pub mod crash_guard;
pub mod engine;
pub mod exit;
pub mod host;
pub mod lock;
pub mod machine;
pub mod plan;
pub mod runtime;
pub mod store;
pub mod transaction;
pub mod trust;
