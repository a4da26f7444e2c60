//! Making docker's containers anew: by dockerd's interface, which takes the configuration that it gives.

use manifests::{ContainerId, ImageDigest};
use serde_json::{Value, json};
use system::command::{CommandError, Finished, WhenLate};

use crate::images::{Form, ImageArchive};
use crate::lifecycle::docker::recipe::{Recipe, recipe};
use crate::lifecycle::docker::{Docker, NAME, api, terms};
use crate::lifecycle::engine;
use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::recreate::{self, Names, Recreation, Recreator};
use crate::model::{Replacement, RuntimeName, WorkloadId};

/// What is another's of every container, and what only one that runs, or has run, has.
const ITS_OWN: &[&str] = &[
    "Id",
    "Name",
    "Created",
    "State",
    "ResolvConfPath",
    "HostnamePath",
    "HostsPath",
    "LogPath",
    "RestartCount",
    "ExecIDs",
    "MountLabel",
    "ProcessLabel",
    "AppArmorProfile",
    "GraphDriver.Data",
    "HostConfig.RestartPolicy",
    "Config.Image",
    // What compose remembers of the image that it made a container from.
    "ImageManifestDescriptor",
];

/// Of its network settings, what was given for good.
const GIVEN_IN_A_NETWORK: &[&str] = &["IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority"];

/// What the image decides, where the operator does not.
const OF_THE_IMAGE: &[&str] = &[
    "Image",
    "Path",
    "Args",
    "Mounts",
    "Config.Env",
    "Config.Cmd",
    "Config.Entrypoint",
    "Config.User",
    "Config.WorkingDir",
    "Config.Labels",
    "Config.StopSignal",
    "Config.Volumes",
    "Config.Healthcheck",
    "Config.ExposedPorts",
    "Config.OnBuild",
    "Config.Shell",
    "Config.ArgsEscaped",
];

/// docker's word on a container, as far as it can be the same of two.
fn view(answer: &Value) -> recreate::View {
    let mut answer = answer.clone();
    let id = answer["Id"].as_str().unwrap_or_default().to_owned();
    let networks = answer["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    let given = networks.into_iter().map(|(name, joined)| {
        let mut joined = joined.as_object().cloned().unwrap_or_default();
        joined.retain(|name, _| GIVEN_IN_A_NETWORK.contains(&name.as_str()));
        // In it at all is something, too.
        joined.insert("Joined".to_owned(), true.into());
        (name, Value::from(joined))
    });
    answer["NetworkSettings"] = Value::Object(given.collect());
    let own = [&*id, id.get(..12).unwrap_or(&id)];
    let mut view = recreate::view(&answer, if id.is_empty() { &[] } else { &own });
    // Every container may be called by its own number in a network.
    let is_number = |path: &str, value: &Value| path.contains(".Aliases.") && value == "ITS-OWN";
    view.retain(|path, value| !is_number(path, value));
    view
}

fn differences(of: &Value, copy: &Value, beside: &[&str]) -> Vec<String> {
    recreate::differences(&view(of), &view(copy), &[ITS_OWN, beside].concat())
}

fn engine_error(source: CommandError) -> RuntimeError {
    RuntimeError::Engine { runtime: NAME, source }
}

impl Docker {
    /// Nobody waits for a daemon that does not run: at boot it waits for this program.
    fn expect_running(&self) -> Result<(), RuntimeError> {
        match self.runs() {
            true => Ok(()),
            false => Err(RuntimeError::EngineDown { runtime: NAME }),
        }
    }

    fn ask(&self, words: &[&str]) -> Result<Finished, RuntimeError> {
        self.expect_running()?;
        self.command().args(words).run().map_err(engine_error)
    }

    fn told(&self, words: &[&str], about: String) -> Result<Value, RuntimeError> {
        let json = self.ask(words)?.success().map_err(engine_error)?;
        serde_json::from_slice(&json).map_err(|source| RuntimeError::Answer { about, source })
    }

    /// All that docker says of a container.
    fn answer(&self, name: &ContainerId) -> Result<Value, RuntimeError> {
        let words = ["container", "inspect", "--", name.as_str()];
        let told = self.told(&words, format!("container {NAME}:{name}"))?;
        Ok(told.get(0).cloned().unwrap_or_default())
    }

    /// What an image says of the containers that are made from it.
    fn image_configuration(&self, image: &str) -> Result<Value, RuntimeError> {
        let words = ["image", "inspect", "--format", "{{json .Config}}", "--", image];
        self.told(&words, format!("image {image}"))
    }

    /// The layers of an image that docker has, lowest first; nothing if it has not.
    fn layers(&self, image: &ImageDigest) -> Result<Option<Vec<String>>, RuntimeError> {
        let id = image.to_string();
        let asked = self.ask(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", "--", &id])?;
        if !asked.status.success() && asked.stderr_tail.contains("No such image") {
            return Ok(None);
        }
        let json = asked.success().map_err(engine_error)?;
        let about = format!("image {image}");
        serde_json::from_slice(&json).map(Some).map_err(|source| RuntimeError::Answer { about, source })
    }

    fn make(&self, name: &ContainerId, recipe: &Recipe) -> Result<(), RuntimeError> {
        let id = || WorkloadId::new(NAME, name.clone());
        let refused = |source| RuntimeError::Api { action: "make", id: id(), source };
        let post = |path: &str, body: &Value| api::post(&self.socket, path, body, self.patience.long);
        post(&format!("/containers/create?name={name}"), &recipe.create).map_err(refused)?;
        recipe.joins.iter().try_for_each(|(network, endpoint)| {
            let body = json!({ "Container": name, "EndpointConfig": endpoint });
            post(&format!("/networks/{network}/connect"), &body).map(drop).map_err(refused)
        })
    }

    fn brief(&self, action: &'static str, words: &[&str], id: &WorkloadId) -> Result<(), RuntimeError> {
        self.expect_running()?;
        let run = self.command().args(words).arg("--").arg(id.id.as_str()).output();
        run.map(drop).map_err(|source| RuntimeError::Refused { action, id: id.clone(), source })
    }
}

impl Names for Docker {
    fn exists(&self, name: &ContainerId) -> Result<bool, RuntimeError> {
        self.expect_running()?;
        Ok(self.inspected(&WorkloadId::new(NAME, name.clone()))?.is_some())
    }

    fn rename(&self, from: &ContainerId, to: &ContainerId) -> Result<(), RuntimeError> {
        self.expect_running()?;
        let run = self.command().args(["rename", "--", from.as_str(), to.as_str()]).output();
        let id = WorkloadId::new(NAME, from.clone());
        run.map(drop).map_err(|source| RuntimeError::Refused { action: "rename", id, source })
    }

    fn set_restart(&self, name: &ContainerId, policy: &str) -> Result<(), RuntimeError> {
        let id = WorkloadId::new(NAME, name.clone());
        match self.known(&id)?.restart_words() == policy {
            true => Ok(()),
            false => self.brief("set the restart policy of", &["update", "--restart", policy], &id),
        }
    }
}

impl Recreator for Docker {
    fn recreation(&self, id: &WorkloadId) -> Result<Recreation, RuntimeError> {
        self.expect_running()?;
        let found = self.known(id)?;
        let answer = self.answer(&id.id)?;
        let mut unmet = Vec::new();
        if answer["HostConfig"]["Links"].as_array().is_some_and(|links| !links.is_empty()) {
            unmet.push(
                "it has links (`--link`), which docker does not take again as it gives them".to_owned(),
            );
        }
        let mut changes = terms::of_a_start(&found, &self.all()?);
        changes.push(engine::own_files());
        let restart = found.restart_words();
        Ok(Recreation { image: engine::image(self.command(), id, &found)?, restart, unmet, changes })
    }

    fn has_image(&self, _: &RuntimeName, image: &ImageDigest) -> Result<bool, RuntimeError> {
        Ok(self.layers(image)?.is_some())
    }

    fn load(&self, _: &RuntimeName, image: &ImageArchive) -> Result<(), RuntimeError> {
        let id = image.image();
        let expected: Vec<String> = image.diff_ids().map(|layer| layer.to_string()).collect();
        if self.layers(&id)?.as_ref() != Some(&expected) {
            let failed = |source| RuntimeError::Pack { image: id, source: Box::new(source) };
            let archive = image.pack(Form::Docker).map_err(failed)?;
            let command = self.command().limit(self.patience.long, WhenLate::Kill);
            command.args(["load", "--quiet"]).input_file(archive).output().map_err(engine_error)?;
        }
        match self.layers(&id)? {
            Some(found) if found == expected => Ok(()),
            found => {
                let found = found.unwrap_or_default();
                Err(RuntimeError::NotTheImage { runtime: NAME, image: id, expected, found })
            }
        }
    }

    fn create(
        &self,
        id: &WorkloadId,
        image: &ImageDigest,
        replacement: &Replacement,
    ) -> Result<(), RuntimeError> {
        let original = self.answer(&id.id)?;
        let own = original["Image"].as_str().unwrap_or_default().to_owned();
        let configuration = self.image_configuration(&own)?;
        let trial = WorkloadId::new(NAME, replacement.trial.clone());
        let expect_same = |beside: &[&str], recipe: &Recipe| -> Result<(), RuntimeError> {
            let nameless: &[&str] =
                if recipe.nameless.is_empty() { &[] } else { &["HostConfig.Binds", "Mounts"] };
            let copy = self.answer(&trial.id)?;
            let why = differences(&original, &copy, &[beside, nameless].concat());
            if why.is_empty() {
                return Ok(());
            }
            self.remove(&trial)?;
            Err(RuntimeError::CannotRecreate { id: id.clone(), why })
        };
        self.remove(&trial)?;
        let again = recipe(&original, &configuration, &own);
        self.make(&trial.id, &again)?;
        expect_same(&[], &again)?;
        self.remove(&trial)?;
        let anew = recipe(&original, &configuration, &image.to_string());
        self.make(&trial.id, &anew)?;
        expect_same(OF_THE_IMAGE, &anew)
    }

    fn exchange(&self, id: &WorkloadId, replacement: &Replacement) -> Result<(), RuntimeError> {
        recreate::exchange(self, id, replacement)
    }

    fn put_back(&self, id: &WorkloadId, replacement: &Replacement) -> Result<(), RuntimeError> {
        recreate::put_back(self, id, replacement)
    }

    fn remove(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        match self.exists(&id.id)? {
            true => self.brief("remove", &["rm", "--volumes"], id),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "recreate_tests.rs"]
mod tests;
