//! updater

pub mod host;
pub mod runtime;
