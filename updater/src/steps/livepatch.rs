//! Livepatch steps.

use std::time::Duration;

use manifests::{ModuleName, Sha256};
use patch_tools::module::Module;
use serde_json::{Value, json};

use crate::kernel::guard::{LoadFate, LoadRecord};
use crate::kernel::livepatch::{Enabled, PatchState};
use crate::kernel::transition::Watcher;
use crate::kernel::transition::{Policy, watch};
use crate::kernel::{patching, preflight};
use crate::plan::{Claim, LoadedPayload};
use crate::steps::ownership::{Ownership, Whose};
use crate::steps::{Performer, Told, receipt};
use crate::transaction::driver::{Place, Since, StepError};

impl Performer<'_> {
    pub(super) fn arm_crash_guard(
        &self,
        module: &ModuleName,
        payload: &Sha256,
        window: Duration,
    ) -> Result<Value, StepError> {
        let record = LoadRecord {
            module: module.clone(),
            digest: *payload,
            boot_id: self.incarnation.boot_id.clone(),
            stopped: None,
            loaded_at: self.clock.now(),
            uptime: self.clock.elapsed(),
            window,
            fate: LoadFate::at_load(window, self.clock.now()),
        };
        self.guards().arm(&record).map_err(StepError::doing(format!("arm the crash guard for {module}")))?;
        Ok(Value::Null)
    }

    pub(super) fn disarm_crash_guard(&self, payload: &Sha256) -> Result<Value, StepError> {
        self.guards()
            .disarm(payload, &self.incarnation.boot_id)
            .map_err(StepError::doing("disarm the crash guard"))?;
        Ok(Value::Null)
    }

    pub(super) fn load_livepatch(&self, module: &ModuleName, payload: &Sha256) -> Result<Value, StepError> {
        let doing = || {
            StepError::doing::<Box<dyn std::error::Error + Send + Sync>>(format!("load livepatch {module}"))
        };
        if let Some(found) = self.livepatch.module(module).map_err(|error| doing()(error.into()))? {
            let why =
                format!("expected no module of that name, found one with {found}: it came after the plan");
            return Err(doing()(why.into()));
        }
        let image = self.payloads.open(payload).map_err(|error| doing()(error.into()))?;
        let begun = self.clock.elapsed();
        self.livepatch.load(module, &image).map_err(|error| doing()(error.into()))?;
        Ok(json!({ "load_us": micros(self.clock.elapsed() - begun) }))
    }

    pub(super) fn await_transition(
        &self,
        at: &Place<'_>,
        module: &ModuleName,
        policy: &Policy,
        claim: &Claim,
        replaced: &[ModuleName],
    ) -> Result<Value, StepError> {
        let report = watch(self.forward_watcher(), module, Enabled::Enabled, policy, &mut |event| {
            (self.tell)(&Told::Transition(&event))
        })
        .map_err(StepError::doing(format!("complete the transition of {module}")))?;
        self.confirm(module, claim)?;
        // The kernel has disabled them; as modules they would only stand in the way of loading them again.
        for old in at.plan.replaced_by(module).iter().filter(|old| replaced.contains(&old.module)) {
            match self.whose(old)? {
                Whose::Nobodys => {}
                Whose::Ours => drop(self.remove_livepatch(self.watcher(), old, policy.deadline)?),
                // It came after the plan, and has no effect any more.
                Whose::Foreign(foreign) => {
                    tracing::warn!(error = &foreign as &dyn std::error::Error, "left loaded")
                }
            }
        }
        Ok(receipt(&report))
    }

    /// See that the kernel patches what was claimed, and nothing else.
    fn confirm(&self, module: &ModuleName, claim: &Claim) -> Result<(), StepError> {
        let doing = || format!("confirm what livepatch {module} patches");
        let loaded = self.livepatch.loaded().map_err(StepError::doing(doing()))?;
        match claim {
            Claim::Manifest(claim) => preflight::confirm(module, claim, &loaded),
            Claim::Bytes(payload) => {
                let bytes = self.payloads.read(payload).map_err(StepError::doing(doing()))?;
                let parsed = Module::parse(&bytes).map_err(StepError::doing(doing()))?;
                preflight::confirm_bytes(module, &parsed, &loaded)
            }
        }
        .map_err(StepError::doing(doing()))
    }

    /// Take off a livepatch that this program loaded, and nothing else of that name.
    pub(super) fn remove_livepatch(
        &self,
        watcher: Watcher<'_>,
        patch: &LoadedPayload,
        deadline: Duration,
    ) -> Result<Value, StepError> {
        let doing = || format!("disable and unload livepatch {}", patch.module);
        match self.whose(patch)? {
            Whose::Nobodys => return Ok(json!({ "note": "it is not loaded" })),
            Whose::Foreign(foreign) => return Err(StepError::doing(doing())(foreign)),
            Whose::Ours => {}
        }
        let policy = Policy::with_deadline(deadline);
        patching::remove(watcher, &patch.module, &policy, &mut |event| (self.tell)(&Told::Transition(&event)))
            .map(|report| receipt(&report))
            .map_err(StepError::doing(doing()))
    }

    /// Take off what this step loaded, and nothing else of that name; then load again what it replaced.
    pub(super) fn unload_livepatch(
        &self,
        at: &Place<'_>,
        module: &ModuleName,
        deadline: Duration,
        reload: &[LoadedPayload],
    ) -> Result<Value, StepError> {
        if at.since == Since::Rebooted {
            // The boot took every module away; what the host should have is loaded by the resume.
            return Ok(json!({ "note": "the reboot unloaded it" }));
        }
        let mut report = json!({ "note": "it was never loaded" });
        if let Some(payload) = at.step_payload()
            && self
                .guards()
                .armed(Some(payload), &self.incarnation.boot_id)
                .map_err(StepError::doing("read the crash guard"))?
        {
            match self.whose(&LoadedPayload { module: module.clone(), payload: *payload })? {
                Whose::Nobodys => {}
                Whose::Foreign(foreign) => report = json!({ "note": foreign.to_string() }),
                Whose::Ours => {
                    let policy = Policy::undoing(&Policy::with_deadline(deadline));
                    report = patching::remove(self.watcher(), module, &policy, &mut |event| {
                        (self.tell)(&Told::Transition(&event));
                    })
                    .map(|report| receipt(&report))
                    .map_err(StepError::doing(format!("unload livepatch {module}")))?;
                }
            }
        }
        for old in reload {
            self.reload_livepatch(old, deadline)?;
        }
        Ok(report)
    }

    /// Load again what this step took off.
    pub(super) fn put_livepatch_back(
        &self,
        at: &Place<'_>,
        patch: &LoadedPayload,
        deadline: Duration,
    ) -> Result<Value, StepError> {
        if at.since == Since::Rebooted {
            // The host should still have it, so the resume loads it: on the right kernel, and unless the host
            // may have crashed of it.
            return Ok(
                json!({ "note": "the reboot unloaded it; the resume loads what the host should have" }),
            );
        }
        self.reload_livepatch(patch, deadline)
    }

    fn reload_livepatch(&self, patch: &LoadedPayload, deadline: Duration) -> Result<Value, StepError> {
        let doing = |what: &str| format!("{what} livepatch {}", patch.module);
        match self.whose(patch)? {
            Whose::Nobodys => {}
            Whose::Foreign(foreign) => return Err(StepError::doing(doing("load again"))(foreign)),
            Whose::Ours => {
                let state = self.livepatch.state(&patch.module);
                if state.map_err(StepError::doing(doing("look for")))?
                    == PatchState::Settled(Enabled::Enabled)
                {
                    return Ok(json!({ "note": "it is live" }));
                }
                // Half gone, or replaced and still loaded: take it off to the end, since the kernel enables a
                // livepatch only as it loads.
                self.remove_livepatch(self.watcher(), patch, deadline)?;
            }
        }
        self.load_and_await(patch, deadline)
    }

    /// Arm the crash guard, load a livepatch and wait for its transition; a transition that has to be turned back
    /// unloads it again.
    ///
    /// # Errors
    /// [`StepError`] naming the livepatch.
    pub fn load_and_await(&self, patch: &LoadedPayload, deadline: Duration) -> Result<Value, StepError> {
        let what = || format!("load livepatch {} again", patch.module);
        let image = self.payloads.open(&patch.payload).map_err(StepError::doing(what()))?;
        self.arm_crash_guard(&patch.module, &patch.payload, self.crash_guard)?;
        let policy = Policy::with_deadline(deadline);
        let report = patching::enable(self.watcher(), &patch.module, &image, &policy, &mut |event| {
            (self.tell)(&Told::Transition(&event));
        })
        .map_err(StepError::doing(what()))?;
        if let Err(error) = self.confirm(&patch.module, &Claim::Bytes(patch.payload)) {
            self.remove_livepatch(self.watcher(), patch, deadline)?;
            return Err(error);
        }
        Ok(receipt(&report))
    }

    fn whose(&self, patch: &LoadedPayload) -> Result<Whose, StepError> {
        let ownership = Ownership { livepatch: self.livepatch, payloads: self.payloads };
        let doing = || format!("look for livepatch {}", patch.module);
        ownership.of_loaded(patch).map_err(StepError::doing(doing()))
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
