//! updater

pub mod exit;
pub mod host;
pub mod runtime;
