//! Manifests: what changes on a host, who vouches for it, and whom a host believes.
//!
//! Bytes in, values out: nothing here opens a file, reads a clock or knows a host.
//!
//! - [`schema`]: the manifest itself; [`Manifest::parse`]
//! - [`selection`]: which of its components a host's kernel takes
//! - [`names`], [`text`], [`digest`], [`duration`], [`time`], [`package`]: its words, each checked once, by type
//! - `scalar`: how serde reads those words
//! - [`yaml`]: the strict reading of YAML
//! - [`error`]: why a document is not a manifest
//! - [`document`]: the kinds of signed documents, each with its payload type and size
//! - [`host`]: which host of a fleet, and its place in a rollout
//! - [`envelope`], [`key`]: DSSE envelopes and Ed25519 keys
//! - [`policy`], `matching`: roles, their scopes and thresholds, rules, and one policy after another
//! - [`rollout`], [`order`], [`grant`]: what people allow a controller, their word to it, and its word to one host
//! - [`log`]: the log of what was published, its checkpoints, witnesses and proofs
//! - [`revocation`]: what must not count any more
//! - [`verify`]: the one way to a [`Verified`] document
//! - [`statement`], [`evidence`], [`vex`], [`provenance`]: in-toto statements: what hosts and builders have seen
//! - [`chain`]: records that follow from one another
//! - [`bounded`]: reading that stops at a size

#![forbid(unsafe_code)]

pub mod bounded;
pub mod chain;
pub mod digest;
pub mod document;
pub mod duration;
pub mod envelope;
pub mod error;
pub mod evidence;
#[doc(hidden)]
pub mod fuzzing;
pub mod grant;
pub mod host;
pub mod key;
pub mod log;
mod matching;
pub mod names;
pub mod order;
pub mod package;
pub mod policy;
pub mod provenance;
pub mod revocation;
pub mod rollout;
mod scalar;
pub mod schema;
pub mod selection;
pub mod statement;
pub mod text;
pub mod time;
pub mod verify;
pub mod vex;
pub mod yaml;

pub use digest::{BuildId, ImageDigest, Sha256};
pub use document::{Document, DocumentKind};
pub use duration::{Period, Span};
pub use envelope::{Envelope, EnvelopeError};
pub use error::ManifestError;
pub use grant::{Attempt, Grant, GrantError, GrantRefusal, GrantedAction, LedgerHead};
pub use host::{HostId, Nonce, Share};
pub use key::{KeyId, KeyType, PublicKey, PublicKeyFile, SecretKey};
pub use log::{LogEntry, LogPolicy, LogRefusal, Logged, Publication};
pub use names::{
    ContainerId, CveId, Distribution, DomainName, FileName, GroupName, KernelRelease, KernelSeries, KeyName,
    LabelName, ManifestName, ModuleName, NameError, ObjectName, PackageArch, PackageName, RoleName,
    ServiceName, SymbolName, WorkloadName, ZoneName,
};
pub use order::{OrderError, Ordered, RolloutOrder};
pub use package::{KernelPackage, PackageVersion};
pub use policy::succession::{PolicyDocument, SuccessionError};
pub use policy::{Policy, PolicyError};
pub use revocation::{Revocation, Revoked, Withdrawn};
pub use rollout::{Asked, NotAllowed, Part, Profile, RollbackAllowed, Rollout, RolloutError, Schedule};
pub use schema::handling::Handling;
pub use schema::image::ImageComponent;
pub use schema::layer::{
    ContainerSelector, FailureScope, FileIdentity, Label, LayerComponent, LayerFormat, Order, OrderBy,
    ReplacedFile, WithoutCheckpoint,
};
pub use schema::livepatch::{
    FixedIn, LivepatchComponent, PatchedFunction, PatchedObject, Replace, StuckAction, StuckRule, Transition,
};
pub use schema::package::{PackageBuild, PackageChange, PackageComponent, ServiceRules};
pub use schema::payload::Payload;
pub use schema::probe::{Check, HttpUrl, Probe};
pub use schema::{Arch, Component, Manifest, OnFailure, Rollback, Severity, Targets};
pub use selection::{ComponentFit, HostKernel, KernelOutcome, KernelSelection};
pub use text::{Argument, ContainerPath, LabelValue, Summary};
pub use time::UtcTime;
pub use verify::{Examination, TrustFloor, Verified, VerifyAt, VerifyError};
