//! Steps that exchange a container for one that was made from another image.
//!
//! The order is: give the engine the image, make the new container beside the old one, take the old one down (as for any other
//! restart), exchange their names, start. Which container has which name is on the engine's disk, and outlives a reboot.

use std::time::Duration;

use manifests::{ContainerId, ImageDigest, Sha256};
use serde_json::{Value, json};
use workloads::images::ImageArchive;
use workloads::model::{Replacement, RuntimeName, WorkloadId};

use crate::plan::Action;
use crate::steps::Performer;
use crate::steps::container::{doing, planned};
use crate::transaction::driver::{Place, StepError};

impl Performer<'_> {
    pub(super) fn load_image(
        &self,
        runtime: &RuntimeName,
        image: &ImageDigest,
        payload: &Sha256,
    ) -> Result<Value, StepError> {
        let what = || format!("give {runtime} image {image}");
        let file = self.payloads.open(payload).map_err(StepError::doing(what()))?;
        let archive = ImageArchive::open(&file, image).map_err(StepError::doing(what()))?;
        let bytes = archive.check_layers().map_err(StepError::doing(what()))?;
        self.recreator.load(runtime, &archive).map_err(StepError::doing(what()))?;
        Ok(json!({ "manifest": archive.manifest(), "bytes": bytes }))
    }

    pub(super) fn create_replacement(
        &self,
        at: &Place<'_>,
        id: &WorkloadId,
        from: &ImageDigest,
        image: &ImageDigest,
        replacement: &Replacement,
    ) -> Result<Value, StepError> {
        let planned = planned(at, id)?;
        if planned.container.status.has_processes() {
            self.expect_unchanged(planned)?;
        }
        self.expect_made_from(id, from)?;
        self.recreator.create(id, image, replacement).map_err(doing("make anew", id))?;
        Ok(json!({ "name": replacement.trial }))
    }

    pub(super) fn remove_replacement(
        &self,
        id: &WorkloadId,
        trial: &ContainerId,
    ) -> Result<Value, StepError> {
        let trial = WorkloadId::new(id.runtime.clone(), trial.clone());
        self.recreator.remove(&trial).map_err(doing("remove the new", &trial))?;
        Ok(Value::Null)
    }

    pub(super) fn exchange_containers(
        &self,
        id: &WorkloadId,
        replacement: &Replacement,
    ) -> Result<Value, StepError> {
        self.expect_down(id)?;
        self.recreator.exchange(id, replacement).map_err(doing("exchange", id))?;
        Ok(Value::Null)
    }

    pub(super) fn put_replaced_back(
        &self,
        id: &WorkloadId,
        image: &ImageDigest,
        replacement: &Replacement,
    ) -> Result<Value, StepError> {
        // After a boot its engine may have started it by its policy: it is on trial all the same.
        if self.running(id)?.is_some() && self.made_from(id)?.as_deref() == Some(&*image.to_string()) {
            self.lifecycle.stop(id, Duration::ZERO).map_err(doing("end the trial of", id))?;
        }
        self.recreator.put_back(id, replacement).map_err(doing("put back", id))?;
        Ok(Value::Null)
    }

    /// The container that was set aside, and with it its checkpoint, which nothing else can be restored from: it holds
    /// secrets.
    pub(super) fn remove_replaced(
        &self,
        at: &Place<'_>,
        id: &WorkloadId,
        aside: &ContainerId,
    ) -> Result<Value, StepError> {
        let aside = WorkloadId::new(id.runtime.clone(), aside.clone());
        self.recreator.remove(&aside).map_err(doing("remove the old", &aside))?;
        self.dossier(at, id).discard().map_err(doing("remove the checkpoint of the old", id))?;
        Ok(Value::Null)
    }

    /// What runs under this name was made from this image.
    pub(super) fn confirm_image(&self, id: &WorkloadId, image: &ImageDigest) -> Result<Value, StepError> {
        self.running(id)?.ok_or_else(|| doing("look at the image of", id)("it is not running"))?;
        self.expect_made_from(id, image)?;
        Ok(Value::Null)
    }

    /// The same for a container that goes back alone, or for all others, once more before the commit.
    pub(super) fn confirm_images(&self, at: &Place<'_>, of: Option<&WorkloadId>) -> Result<(), StepError> {
        at.plan.steps.iter().try_for_each(|step| match &step.action {
            Action::ConfirmImage { container, image } if at.plan.goes_back_alone(step) == of => {
                self.confirm_image(container, image).map(drop)
            }
            _ => Ok(()),
        })
    }

    fn made_from(&self, id: &WorkloadId) -> Result<Option<String>, StepError> {
        let image = self.lifecycle.image(id).map_err(doing("look at the image of", id))?;
        Ok(image.map(|image| image.id))
    }

    fn expect_made_from(&self, id: &WorkloadId, image: &ImageDigest) -> Result<(), StepError> {
        let found = self.made_from(id)?;
        match found.as_deref() == Some(&*image.to_string()) {
            true => Ok(()),
            false => Err(doing("find the image of", id)(format!(
                "expected {image}, found {}: somebody else has made it anew",
                found.as_deref().unwrap_or("none")
            ))),
        }
    }
}
