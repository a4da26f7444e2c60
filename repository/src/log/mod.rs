//! The log of published manifests: an append-only Merkle tree in plain files, beside what is served.
//!
//! ```text
//! LOG/checkpoint                 the newest signed checkpoint, with the cosignatures of witnesses
//! LOG/tile/LEVEL/N[.p/W]         hashes, 256 to a tile (C2SP tlog-tiles)
//! LOG/tile/entries/N[.p/W]       entries, 256 to a bundle
//! LOG/proof/LEAF.tlog-proof      for each entry, by its leaf hash, that it is in the tree of the checkpoint
//! ```
//!
//! Any static web server serves it, and any client of C2SP's formats reads it; the folder `proof/` is ours. Whether to
//! believe a checkpoint or a proof is `manifests::log`'s to say.
//!
//! Invariants:
//! - Tiles and entries are on the disk before the checkpoint that needs them, which is replaced at once.
//! - What is appended to is looked at first: a log whose tiles are not those of its checkpoint is not signed any further.
//! - A witness signs after it has kept what it signs, and only what continues what it has kept.
//!
//! - [`files`]: a log in a directory, or at an address
//! - [`tiles`]: where hashes and entries are, and reading them
//! - [`store`]: making a log and appending to it
//! - [`memory`]: what a witness or a monitor has seen, and the evidence when a log forks
//! - [`audit`]: the whole of a log, looked at

pub mod audit;
mod error;
pub mod files;
pub mod memory;
pub mod store;
pub mod tiles;

pub use error::LogError;
pub use files::{Directory, Files, Remote};
pub use memory::{Memory, Met};
pub use store::Log;
pub use tiles::Tiles;

/// The name of the newest checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
