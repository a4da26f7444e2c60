//! A livepatch put on or taken off, to the end.
//!
//! [`enable`] is load and transition; if the transition is turned back, the module is unloaded as
//! well, so that a failure leaves nothing behind. [`remove`] is disable, transition and unload, and
//! takes up wherever it finds the livepatch: enabled, in transition either way, disabled but still
//! loaded, or gone. Applying it twice gives what once gives.

use std::fs::File;
use std::time::Duration;

use manifests::ModuleName;
use serde::{Deserialize, Serialize};
use system::clock::{Backoff, millis};
use thiserror::Error;

use crate::kernel::error::{KernelError, UnloadRefusal};
use crate::kernel::livepatch::{Enabled, PatchState};
use crate::kernel::transition::{Policy, TransitionError, TransitionEvent, TransitionReport, Watcher, watch};

/// How long a module may stay in use after its livepatch was disabled; the kernel lets go of it in
/// a work item right after the transition.
const LET_GO: Duration = Duration::from_secs(10);
/// Between two tries of something that another livepatch or a reference holds up.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A livepatch was put on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnableReport {
    /// How long `finit_module(2)` took, the kernel's first look at every task included.
    #[serde(with = "millis")]
    pub load: Duration,
    /// The transition.
    pub transition: TransitionReport,
}

/// A livepatch was taken off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveReport {
    /// The transition; absent if the livepatch was disabled already.
    pub transition: Option<TransitionReport>,
    /// How long unloading took.
    #[serde(with = "millis")]
    pub unload: Duration,
}

/// A livepatch was not put on.
#[derive(Debug, Error)]
pub enum EnableError {
    /// The kernel did not take the module. Nothing changed.
    #[error("{module} was not loaded")]
    Refused {
        /// The module.
        module: ModuleName,
        /// The kernel's reason.
        source: KernelError,
    },
    /// The transition was turned back, and the module is unloaded. Nothing is left.
    #[error("{module} was loaded, did not become effective, and is unloaded again")]
    TurnedBack {
        /// The module.
        module: ModuleName,
        /// What happened to the transition.
        source: TransitionError,
    },
    /// The transition failed, and so did cleaning up: an operator is needed.
    #[error("{module} did not become effective, and taking it off failed: {}", system::error::with_causes(&**during_undo))]
    Stranded {
        /// The module.
        module: ModuleName,
        /// What happened to the transition.
        #[source]
        original: TransitionError,
        /// What happened while cleaning up.
        during_undo: Box<RemoveError>,
    },
}

/// A livepatch was not taken off.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// Its transition did not end.
    #[error("{module} is still in place")]
    Transition {
        /// The module.
        module: ModuleName,
        /// What happened.
        source: TransitionError,
    },
    /// The kernel said no, or could not be asked.
    #[error("cannot take {module} off")]
    Host {
        /// The module.
        module: ModuleName,
        /// The kernel's reason.
        source: KernelError,
    },
}

/// Loads a module and follows its transition to the end.
///
/// While another livepatch is in transition the kernel refuses; that is retried until the policy's
/// deadline.
///
/// # Errors
/// [`EnableError`]; only [`EnableError::Stranded`] leaves something behind.
pub fn enable(
    watcher: Watcher<'_>,
    module: &ModuleName,
    image: &File,
    policy: &Policy,
    on_event: &mut dyn FnMut(TransitionEvent),
) -> Result<EnableReport, EnableError> {
    let begun = watcher.clock.elapsed();
    retry_busy(watcher, policy.deadline, || watcher.livepatch.load(module, image))
        .map_err(|source| EnableError::Refused { module: module.clone(), source })?;
    let load = watcher.clock.elapsed() - begun;
    match watch(watcher, module, Enabled::Enabled, policy, on_event) {
        Ok(transition) => Ok(EnableReport { load, transition }),
        Err(original) => match remove(watcher.uninterrupted(), module, &Policy::undoing(policy), on_event) {
            Ok(_) => Err(EnableError::TurnedBack { module: module.clone(), source: original }),
            Err(during_undo) => Err(EnableError::Stranded {
                module: module.clone(),
                original,
                during_undo: Box::new(during_undo),
            }),
        },
    }
}

/// Disables a livepatch, follows its transition to the end and unloads its module.
///
/// A module that is not loaded is a success: this is what an undo asks for.
///
/// # Errors
/// [`RemoveError`]. With [`super::transition::OnDeadline::Reverse`] the livepatch is enabled again
/// when its deadline passes; with `Leave` it stays in transition, and calling this again goes on.
pub fn remove(
    watcher: Watcher<'_>,
    module: &ModuleName,
    policy: &Policy,
    on_event: &mut dyn FnMut(TransitionEvent),
) -> Result<RemoveReport, RemoveError> {
    let host = |source| RemoveError::Host { module: module.clone(), source };
    let transition = match watcher.livepatch.state(module).map_err(host)? {
        PatchState::Absent | PatchState::Settled(Enabled::Disabled) => None,
        PatchState::InTransition(Enabled::Disabled) => Some(()),
        PatchState::Settled(Enabled::Enabled) | PatchState::InTransition(Enabled::Enabled) => {
            let disable = || watcher.livepatch.set_enabled(module, Enabled::Disabled);
            match retry_busy(watcher, policy.deadline, disable) {
                // Gone or disabled since it was looked at: what was wanted.
                Ok(()) | Err(KernelError::NothingToChange { .. } | KernelError::NoSuchPatch { .. }) => {}
                Err(source) => return Err(host(source)),
            }
            Some(())
        }
    };
    let transition = transition
        .map(|()| watch(watcher, module, Enabled::Disabled, policy, on_event))
        .transpose()
        .map_err(|source| RemoveError::Transition { module: module.clone(), source })?;
    let begun = watcher.clock.elapsed();
    match retry_busy(watcher, LET_GO, || watcher.livepatch.unload(module)) {
        Ok(()) | Err(KernelError::Unload { refusal: UnloadRefusal::NotLoaded, .. }) => {}
        Err(source) => return Err(host(source)),
    }
    Ok(RemoveReport { transition, unload: watcher.clock.elapsed() - begun })
}

/// Repeats what fails only for the moment ([`KernelError::is_busy`]), at most for `limit`.
fn retry_busy(
    watcher: Watcher<'_>,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let begun = watcher.clock.elapsed();
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        match attempt() {
            Err(error)
                if error.is_busy()
                    && watcher.clock.elapsed() - begun < limit
                    && !watcher.interrupt.asked() =>
            {
                backoff.wait(watcher.clock);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
#[path = "patching_tests.rs"]
mod tests;
