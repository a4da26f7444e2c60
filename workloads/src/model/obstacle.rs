//! Why a container cannot be checkpointed, or not without loss: the verdict as a value.
//!
//! Kept apart from [`super::dumpability`], which looks, so that plans can carry and show obstacles
//! without anything of the host.

use serde::{Deserialize, Serialize};

use crate::model::Pid;

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObstacleKind {
    /// An io_uring instance.
    IoUring,
    /// A performance counter.
    PerfEvent,
    /// A userfaultfd.
    Userfaultfd,
    /// A BPF map, program or link.
    Bpf,
    /// A descriptor of a process.
    Pidfd,
    /// Another kind of anonymous descriptor, unknown to CRIU.
    UnknownDescriptor,
    /// A user namespace inside the container's.
    NestedUserNamespace,
    /// A pid namespace inside the container's.
    NestedPidNamespace,
    /// A network namespace besides the container's.
    SecondNetworkNamespace,
    /// A time namespace besides that of the container's first process.
    SecondTimeNamespace,
    /// A POSIX message queue descriptor.
    MessageQueue,
    /// A socket of a family that CRIU does not know (SCTP, vsock, AF_ALG, MPTCP, …).
    SocketFamily,
    /// A TCP connection that is still being made.
    HalfOpenConnection,
    /// Connections wait to be accepted.
    UnacceptedConnection,
    /// A unix socket whose peer is outside the container.
    ForeignUnixPeer,
    /// A pipe whose other end is outside the container.
    ForeignPipe,
    /// A terminal whose other side is outside the container.
    ForeignTerminal,
    /// A file outside the container's mount namespace.
    ForeignFile,
    /// A device that CRIU cannot reopen.
    Device,
    /// A deleted file too large to travel with the checkpoint.
    LargeDeletedFile,
    /// A deleted file that still has another name.
    DeletedButLinked,
    /// A task that is being traced.
    Traced,
    /// A task in uninterruptible sleep that does not end.
    UninterruptibleSleep,
    /// The container's own network namespace has more than the loopback interface.
    OwnInterfaces,
    /// The network namespace of the container is no longer the one its bundle names.
    NetworkMoved,
    /// The bundle wants a terminal; nobody would hold its other end.
    TerminalWanted,
    /// A runtime or supervisor waits for the container's first process and would act on its end.
    Supervised,
    /// Somebody who looks after the container would not when it comes back.
    SupervisionLost,
    /// The engine removes the container when it ends.
    RemovedWhenEnded,
    /// The engine has it share namespaces with other containers, and does not checkpoint such a one.
    SharedNamespaces,
    /// The engine has no checkpoints that could be gone back to.
    NoCheckpoints,
    /// The container is not running.
    NotRunning,
    /// Restored pids may be taken: the container shares a pid namespace with others.
    SharedPidNamespace,
    /// A file open on a volume: a trial may change it, and volumes are not put back.
    OpenFileOnVolume,
    /// A program that is needed is not installed.
    MissingProgram,
    /// A kernel module that is needed is not available.
    MissingModule,
    /// The container could not be looked at.
    Unreadable,
}

/// What an obstacle does to a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// CRIU refuses the dump, or makes one that it cannot restore, which is not begun; nothing happens to the container.
    NoDump,
    /// The dump succeeds but the way back is not certain.
    UncertainRestore,
}

/// One reason, found at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// What it is.
    pub kind: ObstacleKind,
    /// The process that has it; absent when it is the container's or the host's.
    pub process: Option<ObstacleProcess>,
    /// Where: a descriptor, a path, a program.
    pub place: String,
    /// What was found there, for people.
    pub found: String,
}

/// The process that has an obstacle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObstacleProcess {
    /// Its pid on the host.
    pub pid: Pid,
    /// Its command name.
    pub comm: String,
}

impl ObstacleKind {
    /// What it does to a checkpoint.
    pub fn effect(self) -> Effect {
        match self {
            Self::SharedPidNamespace | Self::OpenFileOnVolume | Self::SupervisionLost => {
                Effect::UncertainRestore
            }
            _ => Effect::NoDump,
        }
    }

    /// Why it stands in the way, for people.
    pub fn why(self) -> &'static str {
        match self {
            Self::IoUring => "CRIU cannot dump io_uring",
            Self::PerfEvent => "CRIU cannot dump performance counters",
            Self::Userfaultfd => "CRIU cannot dump a userfaultfd",
            Self::Bpf => "CRIU cannot dump BPF objects",
            Self::Pidfd => "CRIU cannot dump process descriptors",
            Self::UnknownDescriptor => "CRIU does not know this kind of descriptor",
            Self::NestedUserNamespace => "CRIU cannot dump nested user namespaces",
            Self::NestedPidNamespace => "CRIU cannot dump nested pid namespaces",
            Self::SecondNetworkNamespace => "CRIU cannot dump a second network namespace",
            Self::SecondTimeNamespace => "CRIU cannot restore a second time namespace",
            Self::MessageQueue => "CRIU cannot dump POSIX message queue descriptors",
            Self::SocketFamily => "CRIU cannot dump sockets of this family",
            Self::HalfOpenConnection => "CRIU cannot dump a connection that is still being made",
            Self::UnacceptedConnection => "CRIU cannot dump connections that nobody has accepted yet",
            Self::ForeignUnixPeer => "the peer would see the connection break",
            Self::ForeignPipe => "the other end is outside and cannot be reconnected",
            Self::ForeignTerminal => "its other side is outside the container",
            Self::ForeignFile => "CRIU cannot find it in the container's mounts",
            Self::Device => "CRIU cannot reopen this device",
            Self::LargeDeletedFile => "it is too large to travel with the checkpoint",
            Self::DeletedButLinked => "CRIU cannot dump a deleted file that has another name",
            Self::Traced => "a traced task cannot be dumped",
            Self::UninterruptibleSleep => "the task cannot be stopped",
            Self::OwnInterfaces => "its interfaces and their outer ends would be lost",
            Self::NetworkMoved => "a restore would enter another network namespace",
            Self::TerminalWanted => "nobody would hold the terminal's other side",
            Self::Supervised => "it would take the checkpoint for the container's end",
            Self::SupervisionLost => "nobody would look after it when it comes back",
            Self::RemovedWhenEnded => "there would be nothing to start again",
            Self::SharedNamespaces => "they would be missing when it comes back",
            Self::NoCheckpoints => "there would be no way back to its memory",
            Self::NotRunning => "only a running container can be checkpointed",
            Self::SharedPidNamespace => "its pids may be taken when it comes back",
            Self::OpenFileOnVolume => "a volume is not put back, so the file may differ when it comes back",
            Self::MissingProgram => "it is needed for checkpoints",
            Self::MissingModule => "CRIU needs it to read sockets",
            Self::Unreadable => "what cannot be judged is not touched",
        }
    }
}

impl Obstacle {
    /// One of the container as a whole, or of the host.
    pub fn of_all(kind: ObstacleKind, place: impl Into<String>, found: impl Into<String>) -> Self {
        Self { kind, process: None, place: place.into(), found: found.into() }
    }

    /// Whether it stands in the way of a restart too, checkpoint or not.
    pub fn forbids_restart(&self) -> bool {
        match self.kind {
            ObstacleKind::TerminalWanted | ObstacleKind::Supervised | ObstacleKind::RemovedWhenEnded => true,
            ObstacleKind::MissingProgram => self.place == "runc",
            _ => false,
        }
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(process) = &self.process {
            write!(f, "{} (pid {}): ", process.comm, process.pid)?;
        }
        write!(f, "{}: {}: {}", self.place, self.found, self.kind.why())
    }
}
