//! The runtimes of a host, found at run time, as one: each workload is its own runtime's.

use std::path::Path;
use std::time::Duration;

use manifests::ImageDigest;
use system::clock::Interrupt;
use system::command::HeldLock;

use crate::criu::images::CheckpointContent;
use crate::images::ImageArchive;
use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::{
    Checkpointer, Docker, Lifecycle, Podman, Recreation, Recreator, Runc, Terms, containerd, docker, podman,
    rootless,
};
use crate::model::{
    CheckpointDir, CheckpointStats, Container, DumpBase, ExecOutcome, Image, Listing, Pid, Replacement,
    Restored, RuntimeName, Unreadable, WorkloadId,
};

/// The annotation by which an engine marks the containers that it has a runtime run.
const MANAGER: &str = "io.container.manager";

/// What starts and stops containers, writes their memory down, and makes them anew.
trait Runtime: Lifecycle + Checkpointer + Recreator {}

impl Runtime for Runc {}
impl Runtime for Podman {}
impl Runtime for Docker {}

/// runc, and the engines that are installed.
#[derive(Debug)]
pub struct Runtimes {
    runc: Runc,
    podman: Option<Podman>,
    docker: Option<Docker>,
}

impl Runtimes {
    /// What this host has; runc's containers are those under `root` (`runc --root`).
    pub fn found(root: &Path) -> Self {
        Self { runc: Runc::new(root), podman: Podman::found(), docker: Docker::found() }
    }

    /// Makes commands that change a container hold this lock while they run.
    ///
    /// # Errors
    /// If the lock cannot be shared.
    pub fn holding(self, lock: HeldLock) -> std::io::Result<Self> {
        let podman = self.podman.map(|podman| Ok::<_, std::io::Error>(podman.holding(lock.again()?)));
        Ok(Self { podman: podman.transpose()?, runc: self.runc.holding(lock), docker: self.docker })
    }

    fn engines(&self) -> impl Iterator<Item = (RuntimeName, &dyn Runtime)> {
        let podman = self.podman.iter().map(|podman| (podman::NAME, podman as &dyn Runtime));
        podman.chain(self.docker.iter().map(|docker| (docker::NAME, docker as &dyn Runtime)))
    }

    /// The one that a workload belongs to.
    fn of(&self, id: &WorkloadId) -> Result<&dyn Runtime, RuntimeError> {
        self.named(&id.runtime).ok_or_else(|| RuntimeError::NoRuntime { id: id.clone() })
    }

    fn named(&self, runtime: &RuntimeName) -> Option<&dyn Runtime> {
        if *runtime == RuntimeName::DEFAULT {
            return Some(&self.runc);
        }
        self.engines().find(|(name, _)| name == runtime).map(|(_, engine)| engine)
    }
}

impl Recreator for Runc {}

impl Lifecycle for Runtimes {
    /// A host without runc has none of its containers; an engine that does not answer is told beside the others.
    fn list(&self) -> Result<Listing, RuntimeError> {
        let mut all = match self.runc.list() {
            Err(error) if error.is_absence() && self.engines().next().is_some() => Listing::default(),
            listing => listing?,
        };
        // An engine's are listed by the engine.
        all.containers.retain(|container| !container.annotations.contains_key(MANAGER));
        for (name, engine) in self.engines() {
            match engine.list() {
                Ok(mut more) => {
                    all.containers.append(&mut more.containers);
                    all.unreadable.append(&mut more.unreadable);
                }
                Err(error) => all
                    .unreadable
                    .push(Unreadable { container: format!("of {name}"), why: error.with_causes() }),
            }
        }
        all.unreadable.extend(containerd::told(Path::new(containerd::TASKS)));
        all.unreadable.extend(rootless::told(Path::new(rootless::USERS)));
        all.containers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    fn inspect(&self, id: &WorkloadId) -> Result<Option<Container>, RuntimeError> {
        self.of(id)?.inspect(id)
    }

    fn start(&self, container: &Container) -> Result<Pid, RuntimeError> {
        self.of(&container.id)?.start(container)
    }

    fn stop(&self, id: &WorkloadId, patience: Duration) -> Result<(), RuntimeError> {
        self.of(id)?.stop(id, patience)
    }

    fn exec(
        &self,
        id: &WorkloadId,
        command: &[String],
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<ExecOutcome, RuntimeError> {
        self.of(id)?.exec(id, command, timeout, interrupt)
    }

    fn image(&self, id: &WorkloadId) -> Result<Option<Image>, RuntimeError> {
        self.of(id)?.image(id)
    }

    fn terms(&self, container: &Container) -> Result<Terms, RuntimeError> {
        self.of(&container.id)?.terms(container)
    }
}

impl Checkpointer for Runtimes {
    fn settled(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        self.of(id)?.settled(id)
    }

    fn pre_dump(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<(), RuntimeError> {
        self.of(id)?.pre_dump(id, dir)
    }

    fn checkpoint(
        &self,
        id: &WorkloadId,
        dir: &CheckpointDir,
        base: DumpBase,
    ) -> Result<CheckpointStats, RuntimeError> {
        self.of(id)?.checkpoint(id, dir, base)
    }

    fn content(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<CheckpointContent, RuntimeError> {
        self.of(id)?.content(id, dir)
    }

    fn restore(&self, container: &Container, dir: &CheckpointDir) -> Result<Restored, RuntimeError> {
        self.of(&container.id)?.restore(container, dir)
    }
}

impl Recreator for Runtimes {
    fn recreation(&self, id: &WorkloadId) -> Result<Recreation, RuntimeError> {
        self.of(id)?.recreation(id)
    }

    fn has_image(&self, runtime: &RuntimeName, image: &ImageDigest) -> Result<bool, RuntimeError> {
        self.named(runtime).map_or(Ok(false), |engine| engine.has_image(runtime, image))
    }

    fn load(&self, runtime: &RuntimeName, image: &ImageArchive) -> Result<(), RuntimeError> {
        let none = || RuntimeError::NoImages { runtime: runtime.clone() };
        self.named(runtime).ok_or_else(none)?.load(runtime, image)
    }

    fn create(
        &self,
        id: &WorkloadId,
        image: &ImageDigest,
        replacement: &Replacement,
    ) -> Result<(), RuntimeError> {
        self.of(id)?.create(id, image, replacement)
    }

    fn exchange(&self, id: &WorkloadId, replacement: &Replacement) -> Result<(), RuntimeError> {
        self.of(id)?.exchange(id, replacement)
    }

    fn put_back(&self, id: &WorkloadId, replacement: &Replacement) -> Result<(), RuntimeError> {
        self.of(id)?.put_back(id, replacement)
    }

    fn remove(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        self.of(id)?.remove(id)
    }
}
