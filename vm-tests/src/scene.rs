//! The scene of the demo and of the tests: a machine with two containers, one of them vulnerable.
//!
//! `web` runs on an overlay with the vulnerable library; `other` on a plain directory with the fixed one,
//! so no update has a reason to touch it. The kernel is vulnerable too: `/proc/cmdline` shows everyone
//! the secret [`SECRET`].
//!
//! A scene is continued from a snapshot of one that was set up before, which takes about a second.

use anyhow::Result;

use crate::fixtures::client::Client;
use crate::fixtures::containers::{self, Container, Rootfs};
use crate::fixtures::greet::{Greet, Library};
use crate::fixtures::livepatch::Livepatches;
use crate::lab::Lab;
use crate::lab::cache::Recipe;
use crate::lab::distribution::Distribution;
use crate::lab::machine::{Machine, Snapshot};
use crate::lab::spec::MachineSpec;

/// A word on the kernel's command line that the vulnerable kernel shows.
pub const SECRET: &str = "lab.secret=hunter2";

/// What the scene is made of, on this host.
#[derive(Debug, Clone)]
pub struct Props {
    /// Server, client, library.
    pub greet: Greet,
    /// Modules for the scene's kernel.
    pub livepatches: Livepatches,
    /// The containers, in the order of their start.
    pub containers: Vec<Container>,
}

/// A machine with the containers running.
#[derive(Debug)]
pub struct Scene {
    /// The machine.
    pub machine: Machine,
    /// What is in it.
    pub props: Props,
}

/// The container that the updates are for.
pub fn web() -> Container {
    Container::new("web", 1)
}

/// The container that no update is for.
pub fn other() -> Container {
    Container::new("other", 2).rootfs(Rootfs::Plain).library(Library::Fixed)
}

/// The scene's machine.
pub fn spec() -> MachineSpec {
    spec_on(Distribution::default())
}

/// The scene's machine with this Debian.
pub fn spec_on(distribution: Distribution) -> MachineSpec {
    // `memfd_secret` is there by default from Linux 6.5 on.
    MachineSpec::of(distribution).kernel_argument(SECRET).kernel_argument("secretmem.enable=1")
}

impl Scene {
    /// The usual scene, owned by this process.
    pub fn open(lab: &Lab) -> Result<Self> {
        Self::with(lab, &spec(), vec![web(), other()])
    }

    /// A scene with other containers or another machine.
    pub fn with(lab: &Lab, spec: &MachineSpec, containers: Vec<Container>) -> Result<Self> {
        let (props, snapshot) = Self::prepare(lab, spec, containers)?;
        Ok(Self { machine: lab.restore(&snapshot)?, props })
    }

    /// The usual scene in a machine with a name, which outlives this process.
    pub fn keep(lab: &Lab, name: &str, spec: &MachineSpec) -> Result<Self> {
        let (props, snapshot) = Self::prepare(lab, spec, vec![web(), other()])?;
        Ok(Self { machine: lab.keep(name, &snapshot)?, props })
    }

    /// Builds what the scene needs, and a snapshot of it.
    pub fn prepare(lab: &Lab, spec: &MachineSpec, containers: Vec<Container>) -> Result<(Props, Snapshot)> {
        let greet = Greet::prepare(lab.cache())?;
        let livepatches = Livepatches::prepare(lab.cache(), &lab.kernel(&spec.kernel)?)?;
        let mut recipe = Recipe::of([containers::recipe(), greet.identity()]);
        for container in &containers {
            recipe.add(format!("{container:?}{}", container.config()));
        }
        let snapshot = lab.snapshot("scene", spec, recipe, |machine| {
            containers::install(machine.guest(), &greet, &containers)
        })?;
        Ok((Props { greet, livepatches, containers }, snapshot))
    }

    /// The container with this id.
    pub fn container(&self, id: &str) -> &Container {
        self.props
            .containers
            .iter()
            .find(|container| container.id == id)
            .expect("the scene has this container")
    }

    /// Opens a connection to a container that stays open; `name` tells several apart.
    pub fn client(&self, id: &str, name: &str) -> Result<Client> {
        Client::connect(self.machine.guest(), name, &self.container(id).address())
    }
}
