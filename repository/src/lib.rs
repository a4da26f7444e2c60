//! A repository of signed manifests and their payloads: The Update Framework, version 1.0.x, on both sides.
//!
//! | module | what |
//! |---|---|
//! | [`client`] | what a host may learn of a repository, and how it gets it |
//! | [`store`] | what it keeps of it, whole or not at all |
//! | [`transport`] | bytes from somewhere, neither endless nor slow; HTTP by a process without rights |
//! | [`authoring`] | making a repository: drafts, signatures of several people, publication, refresh |
//! | [`log`] | the log of what was published: tiles, checkpoints, witnesses |
//! | [`bundle`] | all that a host needs of a repository for one manifest, in one file |
//! | `crypto` | the signature algorithms of TUF |
//!
//! Expiry, rollback and thresholds are `sigstore-tuf`'s to judge, and nobody else's here.

#![forbid(unsafe_code)]

pub mod authoring;
pub mod bundle;
pub mod client;
mod crypto;
#[doc(hidden)]
pub mod fuzzing;
pub mod log;
pub mod store;
pub mod transport;
