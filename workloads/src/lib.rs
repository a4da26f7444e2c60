//! What runs on a host, and how it is looked at, checkpointed, given other files, stopped and started.
//!
//! | room | what |
//! |---|---|
//! | [`model`] | the nouns: container, root file system, obstacle, control group; pure |
//! | [`lifecycle`] | list, dump, restore, start, stop, exec: one adapter for each runtime |
//! | [`criu`] | CRIU's image files, and what keeps a container from being dumped |
//! | [`files`] | fix layers, and which directories make up a root file system |
//! | [`images`] | container images in OCI archives, verified by digest |
//! | [`network`] | packets of checkpointed connections, network namespaces |
//! | [`packages`] | what the package manager has installed, and installing it |
//! | [`services`] | what systemd runs, and restarting it |
//! | [`processes`] | who has which file mapped |
//! | [`limits`] | control groups: resource limits, the freezer |
//! | [`probes`] | is the new version any good |
//!
//! Invariants:
//! - Every request may be repeated: asking for a state that already holds is success.
//! - External programs are run through [`system::command`] only; the end of their stderr is in the error.
//! - Nothing here decides: which container, in which order and what to do on failure is the plan's.

pub mod criu;
pub mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod images;
pub mod lifecycle;
pub mod limits;
pub mod model;
pub mod network;
pub mod packages;
pub mod probes;
pub mod processes;
pub mod services;
