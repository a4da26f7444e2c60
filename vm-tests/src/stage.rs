//! A host that is managed: the [scene](crate::scene) with `update` installed as a package would do it, a trust
//! policy, and releases signed by the real programs.
//!
//! Making one builds the programs of this workspace; the machine goes on from a snapshot in which they are installed.

use anyhow::Result;

use crate::fixtures::containers::Container;
use crate::lab::Lab;
use crate::lab::cache::Recipe;
use crate::lab::distribution::Distribution;
use crate::lab::host::Step;
use crate::lab::machine::{Machine, Snapshot};
use crate::lab::spec::MachineSpec;
use crate::product::{Build, Product};
use crate::publisher::{Draft, Publisher};
use crate::scene::{self, Props, Scene};

/// What managed hosts are made from.
#[derive(Debug)]
pub struct Stage {
    /// Modules, layers and containers.
    pub props: Props,
    /// Keys and programs to sign with.
    pub publisher: Publisher,
    product: Product,
    managed: Snapshot,
}

impl Stage {
    /// Builds everything that is not there yet, for the usual scene.
    ///
    /// # Errors
    /// If a compiler or the machine that is to be snapshotted fails.
    pub fn set(lab: &Lab) -> Result<Self> {
        Self::on(lab, Distribution::default())
    }

    /// As [`Self::set`], on this Debian.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn on(lab: &Lab, distribution: Distribution) -> Result<Self> {
        let containers = vec![scene::web(), scene::other()];
        Self::of(lab, Build::Tests, &scene::spec_on(distribution), containers)
    }

    /// As [`Self::set`], with programs built another way or for other containers.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn with(lab: &Lab, build: Build, containers: Vec<Container>) -> Result<Self> {
        Self::of(lab, build, &scene::spec(), containers)
    }

    /// As [`Self::with`], in other machines.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn of(lab: &Lab, build: Build, spec: &MachineSpec, containers: Vec<Container>) -> Result<Self> {
        let product = Product::build(build)?;
        let (props, bare) = Scene::prepare(lab, spec, containers)?;
        let managed = lab.snapshot_from("managed", &bare, product.recipe()?, |machine| {
            let step = Step::begin("installing update in a machine for snapshots");
            product.install(machine.guest())?;
            step.end();
            Ok(())
        })?;
        Ok(Self { props, publisher: Publisher::new(&product)?, product, managed })
    }

    /// The same hosts after something was done to one of them, once. `recipe` decides the outcome of `set_up`.
    ///
    /// # Errors
    /// If it fails.
    pub fn after(
        self,
        lab: &Lab,
        kind: &str,
        recipe: Recipe,
        set_up: impl FnOnce(&mut Machine) -> Result<()>,
    ) -> Result<Self> {
        let managed = lab.snapshot_from(kind, &self.managed, recipe, set_up)?;
        Ok(Self { managed, ..self })
    }

    /// A machine of its own for each call.
    ///
    /// # Errors
    /// If the machine does not come up.
    pub fn open(&self, lab: &Lab) -> Result<Scene> {
        self.dress(lab.restore(&self.managed)?)
    }

    /// As [`Self::open`], with a name and outliving this process.
    ///
    /// # Errors
    /// Also if a machine has that name.
    pub fn keep(&self, lab: &Lab, name: &str) -> Result<Scene> {
        self.dress(lab.keep(name, &self.managed)?)
    }

    /// Signs a draft and puts it with its payloads into a guest; returns the envelope's path there.
    ///
    /// # Errors
    /// If it cannot be signed or copied.
    pub fn publish(&self, machine: &Machine, draft: &Draft) -> Result<String> {
        self.publisher.publish(machine.guest(), draft, &self.props, &machine.spec().kernel)
    }

    /// The built programs.
    pub fn product(&self) -> &Product {
        &self.product
    }

    fn dress(&self, machine: Machine) -> Result<Scene> {
        self.publisher.install_policy(machine.guest())?;
        Ok(Scene { machine, props: self.props.clone() })
    }
}
