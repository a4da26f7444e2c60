//! Making podman's containers anew: by the command line that podman has kept of each.
//!
//! `podman container clone` would be shorter, and loses health checks (5.4.2); the docker-compatible interface loses more.

use manifests::{ContainerId, ImageDigest};
use serde_json::Value;
use system::command::{Finished, Invocation, WhenLate};

use crate::images::{Form, ImageArchive};
use crate::lifecycle::engine;
use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::inspected::Inspected;
use crate::lifecycle::podman::recipe::Recipe;
use crate::lifecycle::podman::{NAME, NO_SUCH, Podman, terms};
use crate::lifecycle::recreate::{self, NEVER, Names, Recreation, Recreator};
use crate::model::{Replacement, RuntimeName, WorkloadId};

/// What is another's of every container, and what only one that runs, or has run, has.
const ITS_OWN: &[&str] = &[
    "Id",
    "Name",
    "Created",
    "State",
    "StaticDir",
    "OCIConfigPath",
    "ResolvConfPath",
    "HostnamePath",
    "HostsPath",
    "ConmonPidFile",
    "PidFile",
    "ExecIDs",
    "RestartCount",
    "lockNumber",
    "GraphDriver.Data",
    "MountLabel",
    "ProcessLabel",
    "NetworkSettings.EndpointID",
    "NetworkSettings.Gateway",
    "NetworkSettings.IPAddress",
    "NetworkSettings.IPPrefixLen",
    "NetworkSettings.IPv6Gateway",
    "NetworkSettings.GlobalIPv6Address",
    "NetworkSettings.GlobalIPv6PrefixLen",
    "NetworkSettings.MacAddress",
    "NetworkSettings.SandboxKey",
    "NetworkSettings.Ports",
    "Config.CreateCommand",
    "HostConfig.RestartPolicy",
    // Set when it is started (5.4.2).
    "Config.Annotations.io.container.manager",
    "Config.Annotations.org.opencontainers.image.stopSignal",
    "Config.Annotations.org.systemd.property",
    "HostConfig.Annotations.io.container.manager",
    "HostConfig.Annotations.org.opencontainers.image.stopSignal",
    "HostConfig.Annotations.org.systemd.property",
];

/// Of each network that it is in.
const ITS_OWN_IN_A_NETWORK: &[&str] = &[
    "EndpointID",
    "Gateway",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "MacAddress",
    "IPAMConfig",
    "NetworkID",
];

/// Variables that podman adds when it starts a container.
const ADDED_AT_START: [&str; 4] = ["HOME=", "HOSTNAME=", "TERM=", "container="];

/// Limits that podman sets when it starts a container for which nobody has said others.
const SET_AT_START: [&str; 2] = ["RLIMIT_NOFILE", "RLIMIT_NPROC"];

/// What the image decides, where the command line does not.
const OF_THE_IMAGE: &[&str] = &[
    "Image",
    "ImageName",
    "ImageDigest",
    "Path",
    "Args",
    "Mounts",
    "Config.Image",
    "Config.Env",
    "Config.Cmd",
    "Config.Entrypoint",
    "Config.User",
    "Config.WorkingDir",
    "Config.Labels",
    "Config.Annotations",
    "Config.StopSignal",
    "Config.Volumes",
    "Config.Healthcheck",
    "Config.ExposedPorts",
    "HostConfig.Annotations",
    "HostConfig.Binds",
];

/// As podman writes digests of images.
fn bare(image: &ImageDigest) -> String {
    image.sha256().to_string()
}

/// A volume without a name of its own: podman calls it by a digest.
fn is_nameless(volume: &str) -> bool {
    volume.len() == 64 && volume.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The volumes without names, as for `--volume`: what is in them is this container's.
fn nameless_volumes(answer: &Value) -> Vec<String> {
    let mounts = answer["Mounts"].as_array();
    let volumes = mounts.into_iter().flatten().filter(|mount| mount["Type"] == "volume");
    let text = |mount: &Value, field: &str| mount[field].as_str().unwrap_or_default().to_owned();
    let nameless = volumes.filter(|mount| is_nameless(&text(mount, "Name")));
    nameless.map(|mount| format!("{}:{}", text(mount, "Name"), text(mount, "Destination"))).collect()
}

/// podman's word on a container, as far as it can be the same of two.
fn view(answer: &Value) -> recreate::View {
    let mut answer = answer.clone();
    let id = answer["Id"].as_str().unwrap_or_default().to_owned();
    if let Some(variables) = answer["Config"]["Env"].as_array_mut() {
        let added = |text: &str| ADDED_AT_START.iter().any(|name| text.starts_with(name));
        variables.retain(|variable| !variable.as_str().is_some_and(added));
    }
    if let Some(limits) = answer["HostConfig"]["Ulimits"].as_array_mut() {
        let by_podman = |limit: &Value| {
            SET_AT_START.iter().any(|name| limit["Name"] == *name) && limit["Soft"] == limit["Hard"]
        };
        limits.retain(|limit| !by_podman(limit));
    }
    // The name that a container without one gets when it is started.
    if answer["Config"]["Hostname"].as_str().is_some_and(|name| !name.is_empty() && id.starts_with(name)) {
        answer["Config"]["Hostname"] = Value::Null;
    }
    if let Some(networks) = answer["NetworkSettings"]["Networks"].as_object_mut() {
        for joined in networks.values_mut().filter_map(Value::as_object_mut) {
            joined.retain(|name, _| !ITS_OWN_IN_A_NETWORK.contains(&name.as_str()));
        }
    }
    let own = [&*id, id.get(..12).unwrap_or(&id)];
    recreate::view(&answer, if id.is_empty() { &[] } else { &own })
}

/// In what a copy differs from a container, beside what is its own and below one of these paths.
fn differences(of: &Value, copy: &Value, beside: &[&str]) -> Vec<String> {
    recreate::differences(&view(of), &view(copy), &[ITS_OWN, beside].concat())
}

impl Podman {
    fn ask(&self, words: &[&str]) -> Result<Finished, RuntimeError> {
        self.command().args(words).run().map_err(|source| RuntimeError::Engine { runtime: NAME, source })
    }

    /// All that podman says of a container.
    fn answer(&self, name: &ContainerId) -> Result<Value, RuntimeError> {
        let asked = self.ask(&["container", "inspect", "--", name.as_str()])?.success();
        let json = asked.map_err(|source| RuntimeError::Engine { runtime: NAME, source })?;
        let about = || format!("container {NAME}:{name}");
        let mut all: Vec<Value> = serde_json::from_slice(&json)
            .map_err(|source| RuntimeError::Answer { about: about(), source })?;
        Ok(all.pop().unwrap_or_default())
    }

    fn made_from(&self, id: &WorkloadId, found: &Inspected) -> Result<String, RuntimeError> {
        let image = found.image().ok_or_else(|| RuntimeError::Unknown { id: id.clone() })?;
        Ok(image.id.trim_start_matches("sha256:").to_owned())
    }

    fn make(
        &self,
        recipe: &Recipe,
        name: &ContainerId,
        image: &str,
        volumes: &[String],
    ) -> Result<(), RuntimeError> {
        let words = recipe.words(name.as_str(), image, volumes);
        let run = self.command().limit(self.patience.long, WhenLate::Kill).args(words).output();
        let id = WorkloadId::new(NAME, name.clone());
        run.map(drop).map_err(|source| RuntimeError::Refused { action: "make", id, source })
    }

    /// The layers of an image that podman has, lowest first; nothing if it has not.
    fn layers(&self, image: &ImageDigest) -> Result<Option<Vec<String>>, RuntimeError> {
        if !self.has_image(&NAME, image)? {
            return Ok(None);
        }
        let asked =
            self.ask(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", "--", &bare(image)])?;
        let json = asked.success().map_err(|source| RuntimeError::Engine { runtime: NAME, source })?;
        let about = format!("image {image}");
        serde_json::from_slice(&json).map_err(|source| RuntimeError::Answer { about, source })
    }

    /// Whether `podman update` changes restart policies (since 5.1).
    fn can_set_restart(&self) -> bool {
        let help = Invocation::new(&self.program).args(["update", "--help"]).output().unwrap_or_default();
        String::from_utf8_lossy(&help).contains("--restart")
    }
}

impl Names for Podman {
    fn exists(&self, name: &ContainerId) -> Result<bool, RuntimeError> {
        Ok(self.inspected(&WorkloadId::new(NAME, name.clone()))?.is_some())
    }

    fn rename(&self, from: &ContainerId, to: &ContainerId) -> Result<(), RuntimeError> {
        let run = self.command().args(["rename", "--", from.as_str(), to.as_str()]).output();
        let id = WorkloadId::new(NAME, from.clone());
        run.map(drop).map_err(|source| RuntimeError::Refused { action: "rename", id, source })
    }

    fn set_restart(&self, name: &ContainerId, policy: &str) -> Result<(), RuntimeError> {
        let id = WorkloadId::new(NAME, name.clone());
        // An older podman cannot set it, and need not where it is so already.
        if self.known(&id)?.restart_words() == policy {
            return Ok(());
        }
        self.brief("set the restart policy of", &["update", "--restart", policy], &id)
    }
}

impl Recreator for Podman {
    fn recreation(&self, id: &WorkloadId) -> Result<Recreation, RuntimeError> {
        let found = self.known(id)?;
        let restart = found.restart_words();
        let mut unmet: Vec<String> = Recipe::of(found.create_command()).err().into_iter().collect();
        if restart != NEVER && !self.can_set_restart() {
            unmet
                .push("its restart policy cannot be taken off and put on again before podman 5.1".to_owned());
        }
        let mut changes = terms::addresses(&found);
        changes.push(engine::own_files());
        Ok(Recreation { image: engine::image(self.command(), id, &found)?, restart, unmet, changes })
    }

    fn has_image(&self, _: &RuntimeName, image: &ImageDigest) -> Result<bool, RuntimeError> {
        let asked = self.ask(&["image", "exists", &bare(image)])?;
        match asked.status.code() {
            Some(NO_SUCH) => Ok(false),
            _ => {
                asked.success().map(|_| true).map_err(|source| RuntimeError::Engine { runtime: NAME, source })
            }
        }
    }

    fn load(&self, _: &RuntimeName, image: &ImageArchive) -> Result<(), RuntimeError> {
        let id = image.image();
        let expected: Vec<String> = image.diff_ids().map(|layer| layer.to_string()).collect();
        if self.layers(&id)?.as_ref() != Some(&expected) {
            let failed = |source| RuntimeError::Pack { image: id, source: Box::new(source) };
            let archive = image.pack(Form::Oci).map_err(failed)?;
            let command = self.command().limit(self.patience.long, WhenLate::Kill);
            let run = command.args(["load", "--quiet"]).input_file(archive).output();
            run.map_err(|source| RuntimeError::Engine { runtime: NAME, source })?;
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
        let found = self.known(id)?;
        let recipe = Recipe::of(found.create_command())
            .map_err(|why| RuntimeError::CannotRecreate { id: id.clone(), why: vec![why] })?;
        let original = self.answer(&id.id)?;
        let volumes = nameless_volumes(&original);
        let trial = WorkloadId::new(NAME, replacement.trial.clone());
        let expect_none = |why: Vec<String>| -> Result<(), RuntimeError> {
            if why.is_empty() {
                return Ok(());
            }
            self.remove(&trial)?;
            Err(RuntimeError::CannotRecreate { id: id.clone(), why })
        };
        self.remove(&trial)?;
        self.make(&recipe, &trial.id, &self.made_from(id, &found)?, &volumes)?;
        expect_none(differences(&original, &self.answer(&trial.id)?, &[]))?;
        self.remove(&trial)?;
        self.make(&recipe, &trial.id, &bare(image), &volumes)?;
        expect_none(differences(&original, &self.answer(&trial.id)?, OF_THE_IMAGE))
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
