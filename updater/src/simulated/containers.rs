//! Simulated containers on a simulated machine: all traits of this folder, in memory.
//!
//! A container is a process that remembers a number and knows which version of a file it runs, on a
//! mounted topology, with connections whose peers notice what a real peer would: a packet that is
//! neither dropped nor answered by the right process resets them. A checkpoint is a file in the real
//! checkpoint directory, so that losing or discarding it has consequences. Every operation is a
//! request to the [`FakeMachine`], which may make the program die there.
//!
//! Tests check the state that everything ends in. What no caller may do (change the files below a
//! running process, restore on other files) panics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use manifests::{ContainerId, FileIdentity, ImageDigest, LayerFormat, Probe, Sha256};
use serde::{Deserialize, Serialize};
use system::clock::{Clock as _, Interrupt};
use system::command::CommandError;
use workloads::criu::*;
use workloads::files::*;
use workloads::images::ImageArchive;
use workloads::lifecycle::error::AfterFailure;
use workloads::lifecycle::*;
use workloads::limits::*;
use workloads::model::*;
use workloads::network::*;
use workloads::probes::*;
use workloads::processes::*;

use crate::simulated::machine::FakeMachine;
use crate::simulated::packages::FakeHost;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// runc is not installed.
    NoRuntime,
    /// The file system with the images is full.
    DiskFull,
    /// CRIU refuses to restore.
    NoRestore,
    /// What is restored lacks a process, and there is no word of CRIU's that it came back.
    Lacking,
    /// A process beside the first one ends as soon as it is restored.
    ShortLived,
    /// A dump takes longer than anybody waits for at first, and then succeeds.
    SlowDump,
    /// So does a restore.
    SlowRestore,
    /// What is slow does not end at all.
    Hangs,
    /// What a dump wrote cannot be read, and the container is brought back at once.
    UnreadableImages,
    /// The fixed version does not pass its probes.
    BadFix,
    /// The layer brings the fixed file to another path than the one in use.
    WrongPath,
    /// The version that is fixed starts something of the old one after a while.
    OldHelper,
    /// The container ends as its pre-dump begins: after the plan was made.
    Vanishes,
    /// What runs the fixed version does not end, not even by SIGKILL.
    Undying,
    /// Somebody has a file open on the mounted root file system.
    BusyRootfs,
    /// The engine cannot be asked to make a container again.
    NoRecipe,
    /// What is made from the new image does not start.
    NoStart,
}

/// What goes on with a container though nobody waits for it any more.
#[derive(Debug, Clone)]
enum UnderWay {
    Dump(CheckpointDir),
    Restore(CheckpointDir),
}

/// What somebody else does to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meddling {
    Ends,
    Starts,
}

/// What a peer knows of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Its packets are answered.
    Established,
    /// They are dropped, and it sends them again.
    Waiting,
    /// It was told that the connection is gone.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Version {
    Old,
    Fixed,
}

/// What runs in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    /// What it remembers.
    pub(crate) memory: u64,
    pub(crate) version: Version,
    /// Whether it has the sockets of the connections.
    connected: bool,
}

/// A checkpoint on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Image {
    memory: u64,
    version: Version,
    connections: Vec<Connection>,
    mounted: Topology,
}

#[derive(Debug)]
struct Fake {
    described: Container,
    process: Option<Process>,
    mounted: Topology,
    /// Its processes map the library of the host, not one of their own.
    on_host_files: bool,
    obstacles: Vec<Obstacle>,
    /// What cannot be told of its processes.
    unknown: Vec<Unknown>,
    connections: BTreeMap<Connection, Peer>,
    /// CRIU's own lock is in place.
    locked: bool,
    under_way: Option<UnderWay>,
    /// Something of the old version runs beside its process.
    old_helper: bool,
    /// How often its probes were asked.
    asked: u32,
    /// From which question on its fixed version does not pass its probes.
    fails_from: Option<u32>,
    /// What an engine made it from.
    image: Option<ImageDigest>,
    /// Its restart policy.
    policy: String,
}

#[derive(Debug, Default)]
struct State {
    containers: BTreeMap<WorkloadId, Fake>,
    holds: BTreeMap<String, Vec<Connection>>,
    layers: BTreeSet<Sha256>,
    /// Containers whose mapped files were asked for.
    looked_at: BTreeSet<WorkloadId>,
    /// Images that the engine has, and those of them in which the fault is fixed.
    images: BTreeSet<ImageDigest>,
    fixed_images: BTreeSet<ImageDigest>,
    /// What the peers of removed containers know.
    left_behind: Vec<Peer>,
    unreadable: Vec<String>,
    trouble: BTreeSet<Trouble>,
    pids: u32,
}

/// The containers of a machine.
#[derive(Debug)]
pub(crate) struct FakeContainers {
    state: Mutex<State>,
    machine: Arc<FakeMachine>,
    host: Arc<FakeHost>,
    directory: tempfile::TempDir,
}

/// What every process runs that has not been fixed.
pub(crate) fn vulnerable() -> FileIdentity {
    FileIdentity::Sha256(Sha256::of(b"libgreet.so.1, vulnerable"))
}

/// What a new container's process remembers.
pub(crate) const MEMORY: u64 = 42;

impl FakeContainers {
    pub(crate) fn new(machine: Arc<FakeMachine>, host: Arc<FakeHost>) -> Self {
        Self { state: Mutex::default(), machine, host, directory: tempfile::tempdir().unwrap() }
    }

    /// Every container runs the library of the host.
    pub(crate) fn on_host_files(self) -> Self {
        self.lock().containers.values_mut().for_each(|one| one.on_host_files = true);
        self
    }

    /// Adds a running container with one connection, on an overlay.
    pub(crate) fn with(self, id: &str) -> Self {
        let at = self.directory.path().join(id);
        let mounted = Topology::Overlay(Overlay {
            lower: vec![self.directory.path().join("image")],
            upper: Some(at.join("upper")),
            work: Some(at.join("work")),
            options: Vec::new(),
            flags: Vec::new(),
        });
        let connection = Connection {
            local: "10.0.0.2:7000".parse().unwrap(),
            peer: format!("10.0.0.1:{}", 4000 + self.lock().containers.len()).parse().unwrap(),
        };
        let described = Container {
            id: id.parse().unwrap(),
            status: ContainerStatus::Running,
            init: None,
            started: None,
            bundle: at.clone(),
            rootfs: at.join("rootfs"),
            annotations: BTreeMap::new(),
            cgroup: Some(PathBuf::from(format!("/runc/{id}"))),
            cgroup_driver: CgroupDriver::Cgroupfs,
            network: NetworkPlace::Host,
        };
        let mut state = self.lock();
        let process = state.process(MEMORY, Version::Old, true);
        state.containers.insert(
            described.id.clone(),
            Fake {
                described,
                process: Some(process),
                mounted,
                on_host_files: false,
                obstacles: Vec::new(),
                unknown: Vec::new(),
                connections: [(connection, Peer::Established)].into(),
                locked: false,
                under_way: None,
                old_helper: false,
                asked: 0,
                fails_from: None,
                image: None,
                policy: recreate::NEVER.to_owned(),
            },
        );
        drop(state);
        self
    }

    /// An engine made every container from this image, and starts it again whenever it ends.
    pub(crate) fn made_from(self, image: ImageDigest) -> Self {
        let mut state = self.lock();
        state.images.insert(image);
        for one in state.containers.values_mut() {
            (one.image, one.policy) = (Some(image), "always".to_owned());
        }
        drop(state);
        self
    }

    /// What a container was made from, and its restart policy.
    pub(crate) fn recipe(&self, id: &str) -> (Option<ImageDigest>, String) {
        let state = self.lock();
        let one = &state.containers[&id.parse::<WorkloadId>().unwrap()];
        (one.image, one.policy.clone())
    }

    /// All containers, running or not, that are there, and which of them run.
    pub(crate) fn names(&self) -> Vec<(String, bool)> {
        let state = self.lock();
        state.containers.iter().map(|(id, one)| (id.to_string(), one.process.is_some())).collect()
    }

    /// What the peers of containers know that were removed.
    pub(crate) fn left_behind(&self) -> Vec<Peer> {
        self.lock().left_behind.clone()
    }

    /// Somebody removes an image.
    pub(crate) fn remove_image(&self, image: &ImageDigest) {
        self.lock().images.remove(image);
    }

    /// Somebody makes a container anew, from another image.
    pub(crate) fn remake(&self, id: &str, image: ImageDigest) {
        self.lock().get(&id.parse().unwrap()).unwrap().image = Some(image);
    }

    /// Every container is in this network namespace.
    pub(crate) fn sharing(self, namespace: &str) -> Self {
        let place = NetworkPlace::Path(namespace.into());
        self.lock().containers.values_mut().for_each(|one| one.described.network = place.clone());
        self
    }

    /// Something that stands in the way of checkpoints of every container.
    pub(crate) fn with_obstacle(self, kind: ObstacleKind, place: &str) -> Self {
        let obstacle = Obstacle { kind, process: None, place: place.to_owned(), found: "found".to_owned() };
        self.lock().containers.values_mut().for_each(|one| one.obstacles.push(obstacle.clone()));
        self
    }

    /// A process of one container cannot be read.
    pub(crate) fn hide(&self, id: &str, unknown: Unknown) {
        self.lock().containers.get_mut(&id.parse::<WorkloadId>().unwrap()).unwrap().unknown.push(unknown);
    }

    /// The containers whose mapped files were asked for.
    pub(crate) fn looked_at(&self) -> Vec<WorkloadId> {
        self.lock().looked_at.iter().cloned().collect()
    }

    pub(crate) fn make(&self, trouble: Trouble) {
        self.lock().trouble.insert(trouble);
    }

    /// The fixed version of one container passes its probes only so many times.
    pub(crate) fn spoil(&self, id: &str, passes: u32) {
        self.lock().get(&id.parse().unwrap()).unwrap().fails_from = Some(passes);
    }

    /// Somebody else ends the container, or starts it, outside of all plans.
    pub(crate) fn meddle(&self, id: &str, with: Meddling) {
        let mut state = self.lock();
        let process = match with {
            Meddling::Ends => None,
            Meddling::Starts => Some(state.process(0, Version::Old, false)),
        };
        state.containers.get_mut(&id.parse::<WorkloadId>().unwrap()).unwrap().process = process;
        state.exchange_packets();
    }

    pub(crate) fn mend(&self) {
        self.lock().trouble.clear();
    }

    /// The bundle of a container is gone; of one that is not there, the runtime remembers it all the same.
    pub(crate) fn lose_bundle(&self, id: &str) {
        let mut state = self.lock();
        state.unreadable.push(id.to_owned());
        if let Some(one) = state.containers.get_mut(&id.parse::<WorkloadId>().unwrap()) {
            one.described.network = NetworkPlace::Unknown("could not read its bundle".to_owned());
        }
    }

    /// Somebody ends a container.
    pub(crate) fn end(&self, id: &str) {
        self.lock().get(&id.parse().unwrap()).unwrap().process = None;
    }

    /// Somebody starts a container on what is mounted, or on a mount of their own.
    pub(crate) fn start_by_others(&self, id: &str, mount: Option<Topology>) {
        let mut state = self.lock();
        let process = state.process(0, Version::Old, false);
        let one = state.get(&id.parse().unwrap()).unwrap();
        one.mounted = mount.unwrap_or_else(|| one.mounted.clone());
        one.process = Some(process);
    }

    /// Somebody removes a container and its files.
    pub(crate) fn remove(&self, id: &str) {
        self.lock().containers.remove(&id.parse::<WorkloadId>().unwrap());
    }

    /// Power off and on.
    pub(crate) fn reboot(&self) {
        let mut state = self.lock();
        state.holds.clear();
        for one in state.containers.values_mut() {
            one.process = None;
            one.mounted = Topology::Plain;
            (one.locked, one.under_way) = (false, None);
        }
    }

    /// Processes and mounts go; the packet filters are the kernel's, and stay.
    pub(crate) fn soft_reboot(&self) {
        let mut state = self.lock();
        for one in state.containers.values_mut() {
            (one.process, one.mounted, one.under_way) = (None, Topology::Plain, None);
        }
        state.exchange_packets();
    }

    pub(crate) fn process(&self, id: &str) -> Option<Process> {
        self.lock().containers[&id.parse::<WorkloadId>().unwrap()].process
    }

    pub(crate) fn mounted(&self, id: &str) -> Topology {
        self.lock().containers[&id.parse::<WorkloadId>().unwrap()].mounted.clone()
    }

    pub(crate) fn peers(&self, id: &str) -> Vec<Peer> {
        self.lock().containers[&id.parse::<WorkloadId>().unwrap()].connections.values().copied().collect()
    }

    /// Holds and locks that are still in place.
    pub(crate) fn packet_filters(&self) -> usize {
        let state = self.lock();
        state.holds.len() + state.containers.values().filter(|one| one.locked).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request; `None` when the program is dead and the request goes nowhere.
    fn request(&self) -> Option<MutexGuard<'_, State>> {
        self.machine.reached().then(|| self.lock())
    }

    fn life(&self, id: &WorkloadId) -> Result<MutexGuard<'_, State>, RuntimeError> {
        let state = self.request().ok_or_else(|| RuntimeError::Unknown { id: id.clone() })?;
        if state.trouble.contains(&Trouble::NoRuntime) {
            return Err(RuntimeError::Refused { action: "ask about", id: id.clone(), source: no_runtime() });
        }
        Ok(state)
    }

    /// As [`Self::life`], after what is under way has ended.
    fn settled_life(&self, id: &WorkloadId) -> Result<MutexGuard<'_, State>, RuntimeError> {
        let mut state = self.life(id)?;
        let hangs = state.trouble.contains(&Trouble::Hangs);
        let Ok(one) = state.get(id) else { return Ok(state) };
        match one.under_way.clone() {
            Some(_) if hangs => return Err(still_running("dump or restore", id)),
            Some(UnderWay::Dump(dir)) => one.dump(&dir),
            Some(UnderWay::Restore(dir)) => drop(state.restore(id, &dir, self.host.is_fixed())?),
            None => return Ok(state),
        }
        state.get(id)?.under_way = None;
        state.exchange_packets();
        Ok(state)
    }
}

fn still_running(action: &'static str, id: &WorkloadId) -> RuntimeError {
    RuntimeError::StillRunning { action, id: id.clone(), pid: 4711, waited: Duration::from_secs(900) }
}

fn no_runtime() -> CommandError {
    CommandError::Missing { program: "runc".to_owned() }
}

fn criu(action: &'static str, id: &WorkloadId, words: &str, state: AfterFailure) -> RuntimeError {
    let source = CommandError::Failed {
        line: format!("runc {action} {id}"),
        status: ExitStatus::from_raw(1 << 8),
        stderr_tail: "criu failed: type NOTIFY errno 0".to_owned(),
    };
    RuntimeError::Criu {
        action,
        id: id.clone(),
        criu: vec![words.to_owned()],
        state,
        source: Box::new(source),
    }
}

impl State {
    fn process(&mut self, memory: u64, version: Version, connected: bool) -> Process {
        self.pids += 1;
        Process { pid: Pid(1000 + self.pids), memory, version, connected }
    }

    fn get(&mut self, id: &WorkloadId) -> Result<&mut Fake, RuntimeError> {
        self.containers.get_mut(id).ok_or_else(|| RuntimeError::Unknown { id: id.clone() })
    }

    /// What a restore does in the end.
    fn restore(
        &mut self,
        id: &WorkloadId,
        dir: &CheckpointDir,
        host_is_fixed: bool,
    ) -> Result<Pid, RuntimeError> {
        let image = image(id, dir)?;
        let on_host_files = self.get(id)?.on_host_files;
        assert!(!on_host_files || !host_is_fixed, "{id} was restored on the new files of the host");
        let process = self.process(image.memory, image.version, true);
        let one = self.get(id)?;
        assert!(one.mounted.shows_the_same_as(&image.mounted), "{id} restored on {:?}", one.mounted);
        assert!(one.process.is_none(), "{id} was started under a restore");
        (one.process, one.locked) = (Some(process), true);
        self.exchange_packets();
        Ok(process.pid)
    }

    /// Lets each peer notice what its next packet would tell it.
    fn exchange_packets(&mut self) {
        let held: Vec<Connection> = self.holds.values().flatten().copied().collect();
        for one in self.containers.values_mut() {
            for (connection, peer) in &mut one.connections {
                let dropped = one.locked || held.contains(connection);
                *peer = match (*peer, one.process) {
                    (Peer::Reset, _) => Peer::Reset,
                    _ if dropped => Peer::Waiting,
                    (_, Some(process)) if process.connected => Peer::Established,
                    _ => Peer::Reset,
                };
            }
        }
    }
}

impl Fake {
    /// What a dump does in the end.
    fn dump(&mut self, dir: &CheckpointDir) {
        let Some(process) = self.process.take() else { return };
        let image = Image {
            memory: process.memory,
            version: process.version,
            connections: self.connections.keys().copied().collect(),
            mounted: self.mounted.clone(),
        };
        fs::write(image_path(dir), serde_json::to_vec(&image).unwrap())
            .unwrap_or_else(|error| panic!("{} was removed under a dump: {error}", dir.root().display()));
        self.locked = true;
    }

    fn seen(&self) -> Container {
        let init = self.process.map(|process| process.pid);
        Container { init, started: init.map(|pid| pid.0.into()), ..self.described.clone() }
    }
}

fn image_path(dir: &CheckpointDir) -> PathBuf {
    dir.full().join("image.json")
}

fn image(id: &WorkloadId, dir: &CheckpointDir) -> Result<Image, RuntimeError> {
    let incomplete = || RuntimeError::Incomplete { id: id.clone(), path: dir.root().to_owned() };
    let bytes = fs::read(image_path(dir)).map_err(|_| incomplete())?;
    serde_json::from_slice(&bytes).map_err(|_| incomplete())
}

impl Lifecycle for FakeContainers {
    fn list(&self) -> Result<Listing, RuntimeError> {
        let state = self.request().ok_or_else(|| RuntimeError::List { source: no_runtime() })?;
        if state.trouble.contains(&Trouble::NoRuntime) {
            return Err(RuntimeError::List { source: no_runtime() });
        }
        let containers = state.containers.values().filter(|one| one.process.is_some()).map(Fake::seen);
        let unreadable = state.unreadable.iter().map(|container| Unreadable {
            container: container.clone(),
            why: "could not read its bundle".to_owned(),
        });
        Ok(Listing { containers: containers.collect(), unreadable: unreadable.collect() })
    }

    fn inspect(&self, id: &WorkloadId) -> Result<Option<Container>, RuntimeError> {
        let state = self.life(id)?;
        Ok(state.containers.get(id).filter(|one| one.process.is_some()).map(Fake::seen))
    }

    fn start(&self, container: &Container) -> Result<Pid, RuntimeError> {
        let mut state = self.settled_life(&container.id)?;
        let one = state.get(&container.id)?;
        if let Some(running) = one.process {
            return Ok(running.pid);
        }
        let lower = match &one.mounted {
            Topology::Overlay(overlay) | Topology::Stored(overlay) => overlay.lower.as_slice(),
            Topology::Plain => &[],
        };
        let layered = one.on_host_files && self.host.is_fixed()
            || lower.iter().any(|directory| directory.components().any(|part| part.as_os_str() == "layers"));
        let image = one.image;
        let fixed = layered || image.is_some_and(|image| state.fixed_images.contains(&image));
        if image.is_some() && fixed && state.trouble.contains(&Trouble::NoStart) {
            let id = container.id.clone();
            let (found, missing) = ("stopped".to_owned(), Vec::new());
            return Err(RuntimeError::NotAlive { action: "start", id, found, missing });
        }
        let effective = fixed && !state.trouble.contains(&Trouble::WrongPath);
        let process = state.process(0, if effective { Version::Fixed } else { Version::Old }, false);
        state.get(&container.id)?.process = Some(process);
        state.exchange_packets();
        Ok(process.pid)
    }

    fn stop(&self, id: &WorkloadId, _: Duration) -> Result<(), RuntimeError> {
        let mut state = self.settled_life(id)?;
        let undying = state.trouble.contains(&Trouble::Undying);
        let one = state.get(id)?;
        if undying && one.process.is_some_and(|process| process.version == Version::Fixed) {
            return Err(RuntimeError::WillNotStop { id: id.clone(), after: Duration::from_secs(20) });
        }
        (one.process, one.old_helper) = (None, false);
        state.exchange_packets();
        Ok(())
    }

    fn exec(
        &self,
        id: &WorkloadId,
        _: &[String],
        _: Duration,
        _: &dyn Interrupt,
    ) -> Result<ExecOutcome, RuntimeError> {
        drop(self.life(id)?);
        Ok(ExecOutcome::Exited { status: 0, stderr_tail: String::new() })
    }

    fn image(&self, id: &WorkloadId) -> Result<Option<workloads::model::Image>, RuntimeError> {
        let state = self.life(id)?;
        let image = state.containers.get(id).and_then(|one| one.image);
        let made_from = |image: ImageDigest| workloads::model::Image {
            name: None,
            id: image.to_string(),
            digest: None,
            layers: Vec::new(),
        };
        Ok(image.map(made_from))
    }
}

/// The names of one runtime's containers; each change is a request, before which the program may die.
struct Named<'a> {
    containers: &'a FakeContainers,
    runtime: &'a RuntimeName,
}

impl Named<'_> {
    fn id(&self, name: &ContainerId) -> WorkloadId {
        WorkloadId::new(self.runtime.clone(), name.clone())
    }
}

impl recreate::Names for Named<'_> {
    fn exists(&self, name: &ContainerId) -> Result<bool, RuntimeError> {
        Ok(self.containers.life(&self.id(name))?.containers.contains_key(&self.id(name)))
    }

    fn rename(&self, from: &ContainerId, to: &ContainerId) -> Result<(), RuntimeError> {
        let (from, to) = (self.id(from), self.id(to));
        let mut state = self.containers.life(&from)?;
        let mut one =
            state.containers.remove(&from).ok_or_else(|| RuntimeError::Unknown { id: from.clone() })?;
        assert!(one.process.is_none() && one.under_way.is_none(), "{from} was renamed while it ran");
        one.described.id = to.clone();
        assert!(state.containers.insert(to.clone(), one).is_none(), "{to} was there already");
        Ok(())
    }

    fn set_restart(&self, name: &ContainerId, policy: &str) -> Result<(), RuntimeError> {
        let id = self.id(name);
        let mut state = self.containers.life(&id)?;
        state.get(&id)?.policy = policy.to_owned();
        Ok(())
    }
}

impl Recreator for FakeContainers {
    fn recreation(&self, id: &WorkloadId) -> Result<Recreation, RuntimeError> {
        let image = self.image(id)?;
        let mut state = self.life(id)?;
        let unmet = state.trouble.contains(&Trouble::NoRecipe).then(|| "no recipe".to_owned());
        let restart = state.get(id)?.policy.clone();
        let changes = vec!["its address".to_owned()];
        Ok(Recreation { image, restart, unmet: unmet.into_iter().collect(), changes })
    }

    fn has_image(&self, _: &RuntimeName, image: &ImageDigest) -> Result<bool, RuntimeError> {
        Ok(self.lock().images.contains(image))
    }

    fn load(&self, runtime: &RuntimeName, image: &ImageArchive) -> Result<(), RuntimeError> {
        let dead = || RuntimeError::NoImages { runtime: runtime.clone() };
        let mut state = self.request().ok_or_else(dead)?;
        state.images.insert(image.image());
        state.fixed_images.insert(image.image());
        Ok(())
    }

    fn create(
        &self,
        id: &WorkloadId,
        image: &ImageDigest,
        replacement: &Replacement,
    ) -> Result<(), RuntimeError> {
        let trial = WorkloadId::new(id.runtime.clone(), replacement.trial.clone());
        Recreator::remove(self, &trial)?;
        let mut state = self.life(id)?;
        assert!(state.images.contains(image), "{id} is made from an image that is not there");
        let at = self.directory.path().join(trial.to_string());
        let old = state.get(id)?;
        let described = Container {
            id: trial.clone(),
            bundle: at.clone(),
            rootfs: at.join("rootfs"),
            ..old.described.clone()
        };
        let mounted = old.mounted.clone();
        let one = Fake {
            described,
            process: None,
            mounted,
            on_host_files: false,
            obstacles: Vec::new(),
            unknown: Vec::new(),
            connections: BTreeMap::new(),
            locked: false,
            under_way: None,
            old_helper: false,
            asked: 0,
            fails_from: None,
            image: Some(*image),
            policy: recreate::NEVER.to_owned(),
        };
        state.containers.insert(trial, one);
        Ok(())
    }

    fn exchange(&self, id: &WorkloadId, replacement: &Replacement) -> Result<(), RuntimeError> {
        recreate::exchange(&Named { containers: self, runtime: &id.runtime }, id, replacement)
    }

    fn put_back(&self, id: &WorkloadId, replacement: &Replacement) -> Result<(), RuntimeError> {
        recreate::put_back(&Named { containers: self, runtime: &id.runtime }, id, replacement)
    }

    fn remove(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        let mut state = self.life(id)?;
        if let Some(one) = state.containers.remove(id) {
            assert!(one.process.is_none() && one.under_way.is_none(), "{id} was removed while it ran");
            state.left_behind.extend(one.connections.into_values());
        }
        Ok(())
    }
}

impl Checkpointer for FakeContainers {
    fn settled(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        self.settled_life(id).map(drop)
    }

    fn pre_dump(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<(), RuntimeError> {
        let mut state = self.settled_life(id)?;
        let full = state.trouble.contains(&Trouble::DiskFull);
        let one = state.get(id)?;
        if one.process.is_none() {
            return Err(RuntimeError::Unknown { id: id.clone() });
        }
        fs::create_dir_all(dir.pre()).unwrap();
        if full {
            return Err(criu("pre-dump", id, NO_SPACE, AfterFailure::StillRunning));
        }
        Ok(())
    }

    fn checkpoint(
        &self,
        id: &WorkloadId,
        dir: &CheckpointDir,
        _: DumpBase,
    ) -> Result<CheckpointStats, RuntimeError> {
        let mut state = self.settled_life(id)?;
        let trouble = state.trouble.clone();
        let one = state.get(id)?;
        let Some(process) = one.process else {
            return image(id, dir).map(|_| CheckpointStats::default());
        };
        if trouble.contains(&Trouble::DiskFull) {
            one.locked = true;
            state.exchange_packets();
            return Err(criu("checkpoint", id, NO_SPACE, AfterFailure::StillRunning));
        }
        fs::create_dir_all(dir.full()).unwrap();
        if trouble.contains(&Trouble::SlowDump) {
            (one.under_way, one.locked) = (Some(UnderWay::Dump(dir.clone())), true);
            state.exchange_packets();
            return Err(still_running("checkpoint", id));
        }
        one.dump(dir);
        if trouble.contains(&Trouble::UnreadableImages) {
            let again = state.process(process.memory, process.version, true);
            state.get(id)?.process = Some(again);
            let original = RuntimeError::Incomplete { id: id.clone(), path: dir.root().to_owned() };
            let (id, original) = (id.clone(), Box::new(original));
            return Err(RuntimeError::Unfinished { id, original, during_undo: None });
        }
        state.exchange_packets();
        Ok(CheckpointStats { frozen: Duration::from_millis(120), ..CheckpointStats::default() })
    }

    fn content(&self, id: &WorkloadId, dir: &CheckpointDir) -> Result<CheckpointContent, RuntimeError> {
        drop(self.settled_life(id)?);
        let image = image(id, dir)?;
        Ok(CheckpointContent { connections: image.connections, ..CheckpointContent::default() })
    }

    fn restore(&self, container: &Container, dir: &CheckpointDir) -> Result<Restored, RuntimeError> {
        let id = &container.id;
        let mut state = self.settled_life(id)?;
        image(id, dir)?;
        if state.trouble.contains(&Trouble::NoRestore) {
            return Err(criu("restore", id, "Can't fork for 7: File exists", AfterFailure::Gone));
        }
        let slow = state.trouble.contains(&Trouble::SlowRestore);
        let one = state.get(id)?;
        if let Some(running) = one.process {
            return Ok(Restored { init: running.pid, processes: 1, ended: Vec::new() });
        }
        if slow {
            (one.under_way, one.locked) = (Some(UnderWay::Restore(dir.clone())), true);
            return Err(still_running("restore", id));
        }
        let has = |trouble| state.trouble.contains(&trouble);
        let (lacking, short_lived) = (has(Trouble::Lacking), has(Trouble::ShortLived));
        let init = state.restore(id, dir, self.host.is_fixed())?;
        let gone = vec![SLEEPER.to_owned()];
        if lacking {
            let (id, found) = (id.clone(), "running".to_owned());
            return Err(RuntimeError::NotAlive { action: "restore", id, found, missing: gone });
        }
        Ok(Restored { init, processes: 1, ended: if short_lived { gone } else { Vec::new() } })
    }
}

/// The process beside the first one.
pub(crate) const SLEEPER: &str = "11 (sleep)";

const NO_SPACE: &str = "Error (criu/page-xfer.c): Unable to write pages: No space left on device";

impl RootfsMounts for FakeContainers {
    fn current(&self, rootfs: &Path) -> Result<Topology, RootfsError> {
        let state = self.request().ok_or_else(|| gone(rootfs))?;
        let found = state.containers.values().find(|one| one.described.rootfs == rootfs);
        found.map(|one| one.mounted.clone()).ok_or_else(|| gone(rootfs))
    }

    fn conflicts(&self, _: &Path, _: &Layer) -> Result<Vec<LayerConflict>, RootfsError> {
        Ok(Vec::new())
    }

    fn prepare(&self, rootfs: &Path, _: &[Layer], _: &FreshUpper) -> Result<(), RootfsError> {
        let mut state = self.request().ok_or_else(|| gone(rootfs))?;
        if state.trouble.contains(&Trouble::Vanishes) {
            state.containers.values_mut().for_each(|one| one.process = None);
            state.exchange_packets();
        }
        Ok(())
    }

    fn switch(&self, rootfs: &Path, to: &Topology) -> Result<Switched, RootfsError> {
        let mut state = self.request().ok_or_else(|| gone(rootfs))?;
        let busy = state.trouble.contains(&Trouble::BusyRootfs);
        let found = state.containers.values_mut().find(|one| one.described.rootfs == rootfs);
        let one = found.ok_or_else(|| gone(rootfs))?;
        assert!(one.process.is_none(), "the files of {} were changed while it ran", one.described.id);
        assert!(
            one.under_way.is_none(),
            "the files of {} were changed under a dump or restore",
            one.described.id
        );
        if busy && one.mounted != *to {
            return Err(RootfsError::Unmount { rootfs: rootfs.to_owned(), source: nix::Error::EBUSY });
        }
        one.mounted = to.clone();
        Ok(Switched::Changed)
    }

    fn file_records(&self, _: &Path, files: &[CheckpointedFile]) -> Result<Vec<FileRecord>, RootfsError> {
        let record = |file: &CheckpointedFile| FileRecord { path: file.path.clone(), sha256: None };
        Ok(files.iter().map(record).collect())
    }
}

fn gone(rootfs: &Path) -> RootfsError {
    RootfsError::Read { path: rootfs.to_owned(), source: std::io::ErrorKind::NotFound.into() }
}

impl ConnectionHold for FakeContainers {
    fn hold(&self, _: &NetworkPlace, name: &HoldName, connections: &[Connection]) -> Result<(), HoldError> {
        let Some(mut state) = self.request() else { return Ok(()) };
        state.holds.insert(name.as_str().to_owned(), connections.to_vec());
        state.exchange_packets();
        Ok(())
    }

    fn clear_checkpoint_lock(
        &self,
        place: &NetworkPlace,
        connections: &[Connection],
    ) -> Result<LeftoverLock, HoldError> {
        let whole_chain = matches!(place, NetworkPlace::Path(_));
        let Some(mut state) = self.request() else { return Ok(LeftoverLock::default()) };
        let mut removed = 0;
        for one in state.containers.values_mut() {
            let concerned = one.connections.keys().any(|known| connections.contains(known))
                || whole_chain && one.described.network == *place;
            // A dump that failed left a lock of which nobody has written down the connections.
            if one.locked && (concerned || connections.is_empty()) {
                assert!(
                    one.under_way.is_none(),
                    "the lock of {} went under a dump or restore",
                    one.described.id
                );
                (one.locked, removed) = (false, removed + 1);
            }
        }
        state.exchange_packets();
        Ok(LeftoverLock { removed })
    }

    fn release(&self, _: &NetworkPlace, name: &HoldName) -> Result<(), HoldError> {
        let Some(mut state) = self.request() else { return Ok(()) };
        state.holds.remove(name.as_str());
        state.exchange_packets();
        Ok(())
    }

    fn reset_peers(&self, _: &NetworkPlace, connections: &[Connection]) -> Result<Farewell, HoldError> {
        drop(self.request());
        Ok(Farewell { told: connections.to_vec(), silent: Vec::new() })
    }
}

impl Limits for FakeContainers {
    fn record(&self, container: &Container) -> Result<CgroupRecord, CgroupError> {
        let path =
            container.cgroup.clone().ok_or_else(|| CgroupError::NoCgroup { id: container.id.clone() })?;
        Ok(CgroupRecord { path, knobs: [("memory.max".to_owned(), "max".to_owned())].into() })
    }

    fn apply(&self, _: &Container, _: &CgroupRecord) -> Result<Vec<KnobDifference>, CgroupError> {
        Ok(Vec::new())
    }
}

impl Layers for FakeContainers {
    fn unpack(&self, digest: &Sha256, _: &File, _: LayerFormat) -> Result<Layer, LayerError> {
        if let Some(mut state) = self.request() {
            state.layers.insert(*digest);
        }
        Ok(Layer::default())
    }

    fn get(&self, digest: &Sha256) -> Result<Option<Layer>, LayerError> {
        Ok(self.lock().layers.contains(digest).then(Layer::default))
    }
}

impl Prober for FakeContainers {
    fn until_ready(
        &self,
        site: &ProbeSite,
        probe: &Probe,
        interrupt: &(dyn Interrupt + Sync),
    ) -> Result<u32, ProbeError> {
        self.once(site, probe, interrupt).map(|()| 1)
    }

    fn once(&self, site: &ProbeSite, probe: &Probe, _: &(dyn Interrupt + Sync)) -> Result<(), ProbeError> {
        let ProbeSite::Container { container } = site else { return Ok(()) };
        let no_container = || ProbeError::NoContainer { container: container.clone() };
        let mut state = self.request().ok_or_else(no_container)?;
        let late = state.trouble.contains(&Trouble::OldHelper);
        let one = state.containers.get_mut(container).ok_or_else(no_container)?;
        let process = one.process.ok_or_else(no_container)?;
        // The first answer is that to the probe step, the others come during the settle time.
        one.old_helper = late && one.asked > 0;
        one.asked += 1;
        let spoilt = one.fails_from.is_some_and(|passes| one.asked > passes);
        if process.version == Version::Fixed && (spoilt || state.trouble.contains(&Trouble::BadFix)) {
            let (check, stderr) = (probe.check.to_string(), "the greeting is wrong".to_owned());
            return Err(ProbeError::Status { check, status: 1, stderr });
        }
        Ok(())
    }
}

impl Observer for FakeContainers {
    fn mapped(
        &self,
        containers: &[Container],
        wanted: &[Wanted],
        onlooker: Onlooker<'_>,
    ) -> Result<Vec<Mapped>, LookError> {
        if onlooker.interrupt.asked() {
            return Err(Stopped.into());
        }
        let mut state = self.lock();
        state.looked_at.extend(containers.iter().map(|container| container.id.clone()));
        let look = |container: &Container| {
            let Some(one) = state.containers.get(&container.id) else { return Mapped::default() };
            let old = one.process.filter(|process| process.version == Version::Old || one.old_helper);
            let is_wanted = wanted.iter().any(|wanted| wanted.identity == vulnerable());
            let found = old.filter(|_| is_wanted).map(|process| Match {
                identity: vulnerable(),
                path: "/usr/lib/libgreet.so.1".into(),
                processes: vec![process.pid],
            });
            Mapped { matches: found.into_iter().collect(), unknown: one.unknown.clone() }
        };
        Ok(containers.iter().map(look).collect())
    }

    fn on_host_files(
        &self,
        processes: &[Pid],
        _: &HostPaths,
        _: Onlooker<'_>,
    ) -> Result<Vec<Pid>, LookError> {
        let state = self.lock();
        let on_host = state.containers.values().filter(|one| one.on_host_files);
        let pids: Vec<Pid> = on_host.filter_map(|one| Some(one.process?.pid)).collect();
        Ok(processes.iter().copied().filter(|pid| pids.contains(pid)).collect())
    }

    fn obstacles(&self, container: &Container) -> Vec<Obstacle> {
        self.machine.sleep(Duration::from_millis(1));
        self.lock().containers[&container.id].obstacles.clone()
    }
}
