//! Why a request to the container runtime failed.
//!
//! Each variant names the container; what a failed command said about itself (the end of its log)
//! is part of the error, because the operator sees nothing else of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::ImageDigest;
use system::command::CommandError;

use crate::criu::images::{ImageError, last_errors};
use crate::images::ImageArchiveError;
use crate::lifecycle::docker::ApiError;
use crate::model::{Container, ContainerStatus, Obstacle, Replacement, RuntimeName, WorkloadId};

/// How many of CRIU's error lines an error carries: the cause and its consequences up the stack.
const CRIU_LINES: usize = 6;

/// A request to the container runtime that failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A command could not be run, or said no.
    #[error("could not {action} container {id}")]
    Refused {
        /// What was asked: `checkpoint`, `restore`, …
        action: &'static str,
        /// The container.
        id: WorkloadId,
        /// What the command said.
        source: CommandError,
    },
    /// A dump or restore did not end in time, and was left alone.
    #[error(
        "the {action} of container {id} (pid {pid}) still runs after {waited:?}; nothing is done to the container before \
         it ends"
    )]
    StillRunning {
        /// What was asked.
        action: &'static str,
        /// The container.
        id: WorkloadId,
        /// The process that does it; it leads a group of its own.
        pid: u32,
        /// How long it was waited for this time.
        waited: Duration,
    },
    /// The containers could not be listed.
    #[error("could not list the containers")]
    List {
        /// What the command said.
        source: CommandError,
    },
    /// CRIU refused to dump or restore; the container's state after that is in `state`.
    #[error("CRIU could not {action} container {id} ({state}): {}", .criu.join("; "))]
    Criu {
        /// `pre-dump`, `checkpoint` or `restore`.
        action: &'static str,
        /// The container.
        id: WorkloadId,
        /// CRIU's own last error lines, oldest first.
        criu: Vec<String>,
        /// What is left of the container.
        state: AfterFailure,
        /// What runc said.
        source: Box<CommandError>,
    },
    /// The runtime's answer could not be read.
    #[error("the runtime's answer about {about} is not as expected")]
    Answer {
        /// What had been asked.
        about: String,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// The bundle's configuration could not be read.
    #[error("could not read {path}")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The container's name, as the runtime gave it, is not one that this program accepts.
    #[error("the runtime listed a container that cannot be handled")]
    Id(#[from] manifests::NameError),
    /// No such container.
    #[error("container {id} is not known to the runtime")]
    Unknown {
        /// The container.
        id: WorkloadId,
    },
    /// The container is not in a state in which this can be done.
    #[error("container {id} is {found:?}, expected {expected}")]
    State {
        /// The container.
        id: WorkloadId,
        /// Its state.
        found: ContainerStatus,
        /// The state in which this can be done.
        expected: &'static str,
    },
    /// It was not checkpointed, since it could not be restored.
    #[error("container {id} was not checkpointed and runs on, since it would not come back: {obstacle}")]
    NoWayBack {
        /// The container.
        id: WorkloadId,
        /// What bars the way back.
        obstacle: Box<Obstacle>,
    },
    /// A container did not go away.
    #[error("container {id} still exists {after:?} after it was killed")]
    WillNotStop {
        /// The container.
        id: WorkloadId,
        /// How long it was waited for.
        after: Duration,
    },
    /// The command said yes but the container is not all there.
    #[error("after {action}, container {id} is {found} and lacks {}", list(.missing))]
    NotAlive {
        /// What had been asked.
        action: &'static str,
        /// The container.
        id: WorkloadId,
        /// Its status.
        found: String,
        /// Processes that should live and do not.
        missing: Vec<String>,
    },
    /// The dump itself succeeded but its images could not be completed on disk.
    #[error("the checkpoint of container {id} could not be completed; {}", brought_back(.during_undo))]
    Unfinished {
        /// The container.
        id: WorkloadId,
        /// Why it could not be completed.
        #[source]
        original: Box<RuntimeError>,
        /// Why the container could not be brought back at once; absent when it was.
        during_undo: Option<Box<RuntimeError>>,
    },
    /// There is no complete checkpoint where one is needed.
    #[error("{path} holds no complete checkpoint of container {id}")]
    Incomplete {
        /// The container.
        id: WorkloadId,
        /// The checkpoint's directory.
        path: PathBuf,
    },
    /// The checkpoint's own files could not be prepared or read.
    #[error("the checkpoint of container {id} is unusable")]
    Images {
        /// The container.
        id: WorkloadId,
        /// The reason.
        source: ImageError,
    },
    /// The workload's runtime is not on this host.
    #[error("container {id} is of a runtime that is not installed")]
    NoRuntime {
        /// The container.
        id: WorkloadId,
    },
    /// The engine is not asked for checkpoints.
    #[error("{id} is of an engine without checkpoints, expected nobody to ask for one")]
    NoCheckpoints {
        /// The container.
        id: WorkloadId,
    },
    /// An engine did not answer, or said no to what is about no container.
    #[error("could not ask {runtime}")]
    Engine {
        /// The engine.
        runtime: RuntimeName,
        /// What the command said.
        source: CommandError,
    },
    /// An engine whose daemon does not run, and is not woken to be asked.
    #[error("{runtime}'s daemon does not run: its containers can be put in order when it does")]
    EngineDown {
        /// The engine.
        runtime: RuntimeName,
    },
    /// An engine's interface said no.
    #[error("could not {action} container {id}")]
    Api {
        /// What was asked.
        action: &'static str,
        /// The container.
        id: WorkloadId,
        /// What it said.
        source: ApiError,
    },
    /// A runtime that makes no containers from images.
    #[error("{runtime} makes no containers from images, expected nobody to ask for one")]
    NoImages {
        /// The runtime.
        runtime: RuntimeName,
    },
    /// The archive that an engine is to read could not be written.
    #[error("could not make an archive of image {image}")]
    Pack {
        /// The image.
        image: ImageDigest,
        /// The reason.
        source: Box<ImageArchiveError>,
    },
    /// What an engine took in is not what it was given.
    #[error("{runtime} has another image as {image}: expected the layers {}, found {}", list(.expected), list(.found))]
    NotTheImage {
        /// The engine.
        runtime: RuntimeName,
        /// The image.
        image: ImageDigest,
        /// The layers of its configuration, lowest first.
        expected: Vec<String>,
        /// Those that the engine shows.
        found: Vec<String>,
    },
    /// A container that its engine cannot be asked to make again; nothing of it was touched.
    #[error("container {id} cannot be made anew as it is, and was not touched: {}", .why.join("; "))]
    CannotRecreate {
        /// The container.
        id: WorkloadId,
        /// What would be lost, a sentence each.
        why: Vec<String>,
    },
    /// Containers have other names than an exchange leaves behind, cut or not.
    #[error(
        "expected container {id} beside {} (to take its place) or {} (set aside), found {}: somebody else has \
         renamed or removed one", .replacement.trial, .replacement.aside, list(.found)
    )]
    Names {
        /// The container.
        id: WorkloadId,
        /// The other two names.
        replacement: Box<Replacement>,
        /// Which of the three are there.
        found: Vec<String>,
    },
    /// The storage driver is not one whose layers this program knows.
    #[error("its files are kept by the storage driver {driver}, expected overlay")]
    Storage {
        /// The driver.
        driver: String,
    },
    /// What a process has mapped could not be read.
    #[error("could not read what process {pid} of container {id} has mapped")]
    Maps {
        /// The container.
        id: WorkloadId,
        /// The process.
        pid: crate::model::Pid,
        /// The reason.
        source: std::io::Error,
    },
    /// A directory for images could not be made.
    #[error("could not prepare {path} for a checkpoint")]
    Prepare {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

impl RuntimeError {
    /// What a dump or restore that did not succeed has to say: CRIU's own words, and what is left of the container.
    pub(super) fn of_criu(
        action: &'static str,
        id: &WorkloadId,
        log: &Path,
        source: CommandError,
        look: impl FnOnce() -> Result<Option<Container>, Self>,
    ) -> Self {
        match source {
            CommandError::StillRunning { pid, limit, .. } => {
                return Self::StillRunning { action, id: id.clone(), pid, waited: limit };
            }
            CommandError::Missing { .. } => return Self::Refused { action, id: id.clone(), source },
            _ => {}
        }
        let state = match look() {
            Ok(Some(found)) if found.status == ContainerStatus::Running => AfterFailure::StillRunning,
            _ => AfterFailure::Gone,
        };
        let written = std::fs::read(log).unwrap_or_default();
        let criu = last_errors(&String::from_utf8_lossy(&written), CRIU_LINES);
        Self::Criu { action, id: id.clone(), criu, state, source: Box::new(source) }
    }

    /// Whether a dump took the container down, and it was brought back at once.
    pub fn was_brought_back(&self) -> bool {
        matches!(self, Self::Unfinished { during_undo: None, .. })
    }

    /// Whether something is under way that may still change the container.
    pub fn is_under_way(&self) -> bool {
        match self {
            Self::StillRunning { .. } => true,
            Self::Unfinished { during_undo: Some(error), .. } => error.is_under_way(),
            _ => false,
        }
    }

    /// Whether there are no containers because there is no such runtime.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::List { source: CommandError::Missing { .. } })
    }

    /// The error and its causes on one line.
    pub fn with_causes(&self) -> String {
        system::error::with_causes(self)
    }
}

/// What is left of a container after CRIU failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// It runs on as if nothing had been asked.
    StillRunning,
    /// It does not run.
    Gone,
}

impl std::fmt::Display for AfterFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StillRunning => "it is still running, unharmed",
            Self::Gone => "it is not running",
        })
    }
}

fn list(missing: &[String]) -> String {
    if missing.is_empty() { "nothing".into() } else { missing.join(", ") }
}

fn brought_back(during_undo: &Option<Box<RuntimeError>>) -> String {
    match during_undo {
        None => "it was brought back from its images at once".into(),
        Some(error) => format!("and bringing it back failed: {error}"),
    }
}
