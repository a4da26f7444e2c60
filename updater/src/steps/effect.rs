//! The effect of a fix: what runs in an updated container maps none of the files that the fix replaces.
//!
//! Files are known by what they are, so a layer that brings the fixed file to another path than the one in use is
//! found out, and so is a copy that nobody thought of. What cannot be looked at is told and proves nothing either way:
//! were it a failure, any process could keep every fix away.

use manifests::{FileIdentity, ReplacedFile};
use serde_json::{Value, json};
use workloads::model::{Container, WorkloadId};
use workloads::processes::{Mapped, Match, Onlooker, Wanted, procfs};

use crate::plan::Action;
use crate::steps::Performer;
use crate::steps::container::doing;
use crate::transaction::driver::{Place, StepError};

impl Performer<'_> {
    /// Nobody in the container maps any of these files.
    pub(super) fn confirm_effect(
        &self,
        id: &WorkloadId,
        replaced: &[ReplacedFile],
    ) -> Result<Value, StepError> {
        let running = self.running(id)?.ok_or_else(|| doing("look through", id)("it is not running"))?;
        let Mapped { matches, unknown } = self.mapped(&running, replaced)?;
        if matches.is_empty() {
            let unknown: Vec<String> = unknown.iter().map(ToString::to_string).collect();
            return Ok(if unknown.is_empty() { Value::Null } else { json!({ "unknown": unknown }) });
        }
        let found: Vec<String> = matches.iter().map(|found| told(found, replaced)).collect();
        Err(doing("see the effect of the fix in", id)(format!(
            "expected no process to map a file that it replaces, found {}",
            found.join("; ")
        )))
    }

    /// The same for a container that goes back alone, or for all others, once more before the commit: processes may
    /// have begun since.
    pub(super) fn confirm_effects(&self, at: &Place<'_>, of: Option<&WorkloadId>) -> Result<(), StepError> {
        at.plan.steps.iter().try_for_each(|step| match &step.action {
            Action::ConfirmEffect { container, replaced } if at.plan.goes_back_alone(step) == of => {
                self.confirm_effect(container, replaced).map(drop)
            }
            _ => Ok(()),
        })
    }

    fn mapped(&self, running: &Container, replaced: &[ReplacedFile]) -> Result<Mapped, StepError> {
        let wanted: Vec<Wanted> =
            replaced.iter().map(|file| Wanted { identity: file.identity.clone(), size: file.size }).collect();
        let onlooker = Onlooker { interrupt: self.interrupt, told: &|_| () };
        let found = self.observer.mapped(std::slice::from_ref(running), &wanted, onlooker);
        Ok(found.map_err(doing("look through", &running.id))?.pop().unwrap_or_default())
    }
}

/// Who maps what from where.
fn told(found: &Match, replaced: &[ReplacedFile]) -> String {
    let processes: Vec<String> = found
        .processes
        .iter()
        .map(|pid| match procfs::comm(*pid) {
            Some(comm) => format!("{pid} ({comm})"),
            None => pid.to_string(),
        })
        .collect();
    let meant = replaced.iter().find(|file| file.identity == found.identity);
    let meant = meant.map_or_else(String::new, |file| format!(", the one at fault as {}", file.path));
    let identity = match &found.identity {
        FileIdentity::BuildId(id) => format!("build id {id}"),
        FileIdentity::Sha256(digest) => format!("sha256 {digest}"),
    };
    format!("{} with {} ({identity}{meant})", processes.join(", "), found.path)
}
