//! What this host is: to its fleet, and to whoever wants to know.

use std::collections::BTreeSet;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use fleet::facts::{HostFacts, LivepatchState, LoadedLivepatch};
use fleet::local::{Answer, Look, Membership};
use fleet::protocol::Hint;
use manifests::{Envelope, Label, LabelValue, Nonce, Sha256};

use super::Executor;
use super::answer::words;
use crate::config;
use crate::kernel::livepatch::{Enabled, LoadedPatch, PatchState};
use crate::operations::errand::Member;
use crate::operations::{Engine, EngineError, repository};

impl Executor {
    /// The host's engine, and what this host is in its fleet.
    pub(super) fn engine(&self) -> Result<(Engine, Option<Membership>), String> {
        let membership = config::membership(&self.around.membership).map_err(|error| words(&error))?;
        let groups = membership.as_ref().map_or(&[][..], |membership| &membership.groups);
        let engine = (self.around.engine)(groups).map_err(|error| words(&error))?;
        Ok((engine, membership))
    }

    /// The engine of a host that is in a fleet, and who it is there.
    pub(super) fn member(&self) -> Result<(Engine, Member), String> {
        let (engine, membership) = self.engine()?;
        let membership = membership.ok_or_else(|| {
            let path = self.around.membership.display();
            format!("{path} is not there: this host is in no fleet; update enrol")
        })?;
        let groups = engine.config().groups.clone();
        Ok((engine, Member { host: membership.host, groups }))
    }

    /// `manifests` is the agent's directory: nothing in it is believed for being there.
    pub(super) fn look(&self, manifests: Option<&Path>) -> Result<Answer, String> {
        let (engine, membership) = self.engine()?;
        let boot = engine.incarnation().boot_id.to_string();
        Ok(Answer::Host(Box::new(Look {
            host: membership.as_ref().map(|membership| membership.host),
            groups: engine.config().groups.clone(),
            facts: facts(&engine, manifests),
            boot: nonce(&boot)?,
            epoch: engine.seen().map_err(|error| words(&error))?.epoch,
        })))
    }
}

/// What is found of it; what cannot be looked at is left out, and keeps nothing else from being told.
fn facts(engine: &Engine, manifests: Option<&Path>) -> HostFacts {
    let running = found("containers", engine.running());
    let annotations = running.iter().flat_map(|container| &container.annotations);
    let service = |(name, value): (&String, &String)| {
        Some(Label { name: name.parse().ok()?, value: value.parse().ok()? })
    };
    let mut known: Vec<Vec<u8>> = manifests.map(envelopes).unwrap_or_default();
    known.extend(envelopes_of_repository(&engine.config().store));
    HostFacts {
        name: label(&nix::unistd::gethostname().unwrap_or_default().to_string_lossy()),
        kernel: engine.kernel().release.clone(),
        kernel_build_id: engine.kernel().build_id.clone(),
        cpu: cpu(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        services: sorted(annotations.filter_map(service), HostFacts::MAX_SERVICES),
        livepatches: sorted(
            found("livepatches", engine.loaded()).into_iter().map(livepatch),
            HostFacts::MAX_LIVEPATCHES,
        ),
        workloads: sorted(
            running.iter().filter_map(|container| container.id.to_string().parse().ok()),
            HostFacts::MAX_WORKLOADS,
        ),
        exposures: sorted(found("exposures", engine.exposures(&known)), HostFacts::MAX_EXPOSURES),
        changes: found("changes", engine.changes(HostFacts::MAX_CHANGES)),
    }
}

fn found<T>(what: &str, found: Result<Vec<T>, EngineError>) -> Vec<T> {
    found.unwrap_or_else(|error| {
        tracing::warn!(error = words(&error), "{what} cannot be looked at");
        Vec::new()
    })
}

/// Each once, in an order that does not change by itself, and at most so many.
fn sorted<T: Ord>(items: impl IntoIterator<Item = T>, most: usize) -> Vec<T> {
    let items: BTreeSet<T> = items.into_iter().collect();
    items.into_iter().take(most).collect()
}

fn livepatch(patch: LoadedPatch) -> LoadedLivepatch {
    let state = match patch.state {
        PatchState::Settled(Enabled::Enabled) => LivepatchState::InForce,
        PatchState::Settled(Enabled::Disabled) | PatchState::Absent => LivepatchState::Disabled,
        PatchState::InTransition(_) => LivepatchState::InTransition,
    };
    LoadedLivepatch { module: patch.module, build_id: patch.identity.build_id, state }
}

/// The files of a directory that are named by a digest, as far as they are files and no larger than an envelope.
fn envelopes(directory: &Path) -> Vec<Vec<u8>> {
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<Sha256>().is_ok())
    };
    files(directory).filter(named).take(Hint::MAX_MANIFESTS).filter_map(|path| regular(&path)).collect()
}

/// Manifests that this host fetched by name.
fn envelopes_of_repository(store: &Path) -> Vec<Vec<u8>> {
    files(&repository::kept_in(store)).filter_map(|path| regular(&path)).collect()
}

fn files(directory: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The bytes of a regular file; neither a pipe nor a link to elsewhere is followed.
fn regular(path: &Path) -> Option<Vec<u8>> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    manifests::bounded::read(file, Envelope::MAX_BYTES).ok()
}

/// Any text as a label: what a label cannot hold becomes a dash.
fn label(text: &str) -> LabelValue {
    let kept: String = text
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(63)
        .collect();
    let kept = kept.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let kept = if kept.is_empty() { "unknown" } else { kept };
    kept.parse().expect("letters, digits, dots, dashes and underscores, a letter or digit at both ends")
}

/// The processor's model.
fn cpu(cpuinfo: &str) -> LabelValue {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    label(model.map_or("unknown", |(_, model)| model))
}

/// A boot id as the fleet writes it: its digits.
fn nonce(boot: &str) -> Result<Nonce, String> {
    boot.replace('-', "").parse().map_err(|error| format!("the boot id {boot}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_calls_itself_becomes_a_label() {
        let model = "processor\t: 0\nmodel name\t: AMD EPYC 7B13 (64) @ 2.2GHz\n";
        assert_eq!(cpu(model).as_str(), "AMD-EPYC-7B13--64----2.2GHz");
        assert_eq!(cpu("").as_str(), "unknown");
        assert_eq!(label("\u{1b}[2J").as_str(), "2J");
        assert_eq!(label("---").as_str(), "unknown");
        assert_eq!(label(&"x".repeat(200)).as_str().len(), 63);
        assert_eq!(
            nonce("3b18e1b0-8d0c-4f3c-9f21-0d8a7f0f8c11").unwrap().to_string(),
            "3b18e1b08d0c4f3c9f210d8a7f0f8c11"
        );
    }
}
