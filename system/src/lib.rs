//! The basement: what every program here needs of the operating system, and nothing about updates.
//!
//! | module | what |
//! |---|---|
//! | [`command`] | run an external program, bounded |
//! | [`clock`], [`boot`] | time, waits, and which boot this is |
//! | [`durable`] | files that are there whole or not at all |
//! | [`kernel_file`] | what goes wrong with files of procfs, sysfs and cgroupfs |
//! | [`medium`] | whether what is written can be read without a key |
//! | [`logs`] | where logs go |
//! | [`output`] | what commands print, escaped |
//! | [`process`] | processes, known by more than their number |
//! | [`lock`] | one transaction at a time per host |
//! | [`exit`] | the one table of exit codes, the one shape of failure |
//! | [`error`] | an error with its causes |

pub mod boot;
mod capture;
pub mod clock;
pub mod command;
pub mod durable;
pub mod error;
pub mod exit;
pub mod kernel_file;
pub mod lock;
pub mod logs;
pub mod medium;
pub mod output;
pub mod process;
