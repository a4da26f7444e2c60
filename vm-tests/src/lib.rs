//! Tests, demo and benchmarks of `update` on real kernels, in virtual machines.
//!
//! [`lab`] makes and runs the machines. The `vm-tests` binary ([`cli`]) gives them to people.

pub mod cli;
pub mod lab;
