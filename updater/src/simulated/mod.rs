//! Simulated hosts for tests, which check the state that they end in.

pub(crate) mod containers;
pub(crate) mod machine;
pub(crate) mod packages;
