//! updater

pub mod runtime;
