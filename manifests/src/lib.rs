//! Manifests: what changes on a host, who vouches for it, and whom a host believes.
//!
//! Bytes in, values out: nothing here opens a file, reads a clock or knows a host.
//!
//! - [`schema`]: the manifest itself; [`Manifest::parse`]
//! - [`names`], [`text`], [`digest`], [`duration`], [`time`]: its words, each checked once, by type
//! - `scalar`: how serde reads those words
//! - [`yaml`]: the strict reading of YAML
//! - [`error`]: why a document is not a manifest
//! - [`envelope`], [`key`]: DSSE envelopes and Ed25519 keys
//! - [`policy`], `matching`: roles, thresholds, and keys that stand for one role only
//! - [`verify`]: the one way to a [`Verified`] manifest
//! - [`bounded`]: reading that stops at a size

#![forbid(unsafe_code)]

pub mod bounded;
pub mod digest;
pub mod duration;
pub mod envelope;
pub mod error;
pub mod key;
mod matching;
pub mod names;
pub mod policy;
mod scalar;
pub mod schema;
pub mod text;
pub mod time;
pub mod verify;
pub mod yaml;

pub use digest::{BuildId, Sha256};
pub use duration::Span;
pub use envelope::{Envelope, EnvelopeError};
pub use error::ManifestError;
pub use key::{KeyId, PublicKey, PublicKeyFile, SecretKey};
pub use names::{
    ContainerId, CveId, FileName, KernelRelease, KeyName, LabelName, ManifestName, ModuleName, NameError,
    ObjectName, RoleName, SymbolName,
};
pub use policy::{Policy, PolicyError};
pub use schema::layer::{
    ContainerSelector, FileIdentity, Label, LayerComponent, LayerFormat, Order, OrderBy, ReplacedFile,
    WithoutCheckpoint,
};
pub use schema::livepatch::{LivepatchComponent, PatchedFunction, PatchedObject, Replace, Transition};
pub use schema::payload::Payload;
pub use schema::probe::{Check, HttpUrl, Probe};
pub use schema::{Arch, Component, Manifest, OnFailure, Rollback, Severity, Targets};
pub use text::{Argument, ContainerPath, LabelValue, Summary};
pub use time::UtcTime;
pub use verify::{Examination, TrustFloor, Verified, VerifyAt, VerifyError};
