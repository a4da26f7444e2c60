//! CRIU: what its image files say, and what it cannot dump.

pub mod images;
pub mod obstacles;
pub(crate) mod version;

pub use images::{CheckpointContent, CheckpointedFile, CheckpointedProcess, Connection, FilePlace};
