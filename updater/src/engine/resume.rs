//! After a crash, a kill or a boot: finish or undo what the journal holds, then make the host agree with the
//! baseline.
//!
//! Before its commit a transaction goes back, after its commit it is finished. Then the livepatches that the
//! host should have are loaded, except those that it may have crashed of, and the committed root file systems
//! are mounted where no container runs on them yet.

use serde::Serialize;

use super::{Adapters, Drive, Driven, Engine, EngineError, Listeners};
use crate::baseline::{Baseline, Livepatch, Rootfs};
use crate::crash_guard::{GuardBook, Quarantined};
use crate::host::{Enabled, PatchState};
use crate::machine::Machine;
use crate::plan::LoadedPayload;
use crate::runtime::{ContainerStatus, Topology};
use crate::transaction::driver::Reached;

/// What a resume found and did.
#[derive(Debug)]
pub struct Resumed {
    /// Control groups that a killed process had left frozen.
    pub thawed: usize,
    /// Unfinished transactions and where they are now.
    pub transactions: Vec<Driven>,
    /// Livepatches that went into quarantine now.
    pub quarantined: Vec<Quarantined>,
    /// What the host should have, and what became of it.
    pub baseline: Vec<Reapplied>,
}

impl Resumed {
    /// Whether something is left that only an operator can decide.
    pub fn needs_operator(&self) -> bool {
        self.transactions.iter().any(|driven| matches!(driven.reached, Reached::NeedsOperator(_)))
            || self
                .baseline
                .iter()
                .any(|item| matches!(item.became, Became::Failed { .. } | Became::Quarantined { .. }))
    }
}

/// One thing that the host should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reapplied {
    /// `livepatch NAME` or `root file system of CONTAINER`.
    pub what: String,
    /// What became of it.
    #[serde(flatten)]
    pub became: Became,
}

/// What became of something that the host should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "became", rename_all = "kebab-case")]
pub enum Became {
    /// It was there.
    Present,
    /// It was brought back.
    Reapplied,
    /// It was left alone, for this reason.
    LeftAlone {
        /// Why.
        why: String,
    },
    /// It is not loaded, because the host may have crashed of it.
    Quarantined {
        /// What happened.
        why: String,
    },
    /// It should be there and is not.
    Failed {
        /// Why.
        why: String,
    },
}

impl Engine {
    /// Do all of it. Safe to repeat.
    ///
    /// # Errors
    /// [`EngineError`] if the host cannot be locked or the journal cannot be read; what goes wrong with single
    /// things is in the report.
    pub fn resume(&self, listeners: &Listeners<'_>) -> Result<Resumed, EngineError> {
        let adapters = self.lock("resume")?;
        let thawed = self.host.leases.thaw_outstanding(&*self.host.freezer)?.len();
        let quarantined = self.judge_crashes()?;
        let unfinished = self.journal().unfinished()?;
        let mut transactions = Vec::new();
        for stored in unfinished {
            transactions.push(self.drive(&adapters, stored, Drive::Resume, listeners)?);
        }
        let baseline = self.reapply_baseline(&adapters, &self.machine(&adapters, listeners))?;
        self.mark_due()?;
        self.afterwards();
        Ok(Resumed { thawed, transactions, quarantined, baseline })
    }

    /// The host is being shut down in order: what is loaded now has not crashed it.
    ///
    /// # Errors
    /// [`EngineError::Journal`].
    pub fn mark_stopping(&self) -> Result<usize, EngineError> {
        Ok(self.guards().mark_stopped(&self.host.boot_id, self.host.clock.now())?)
    }

    /// Clear the loads whose time is over.
    ///
    /// # Errors
    /// [`EngineError::Journal`].
    pub fn mark_survived(&self) -> Result<usize, EngineError> {
        self.mark_due()
    }

    fn mark_due(&self) -> Result<usize, EngineError> {
        let clock = &self.host.clock;
        Ok(self.guards().mark_survived(&self.host.boot_id, clock.now(), clock.elapsed())?)
    }

    /// Put what the host may have crashed of in an earlier boot into quarantine. Whatever loads livepatches does
    /// this first: the boot's own resume may not have run.
    pub(super) fn judge_crashes(&self) -> Result<Vec<Quarantined>, EngineError> {
        let quarantined = self.guards().judge(&self.host.boot_id, self.host.clock.now())?;
        for entry in &quarantined {
            tracing::warn!(module = %entry.module, why = %entry.why, "in quarantine from now on");
        }
        Ok(quarantined)
    }

    /// The crash guard's records.
    pub fn guards(&self) -> GuardBook<'_> {
        GuardBook::new(&self.journal)
    }

    fn reapply_baseline(
        &self,
        adapters: &Adapters,
        machine: &Machine<'_>,
    ) -> Result<Vec<Reapplied>, EngineError> {
        let baseline = Baseline::read(&self.journal())?;
        let quarantined = self.guards().quarantined()?;
        let mut report = Vec::new();
        for livepatch in &baseline.livepatches {
            let became = match quarantined.iter().find(|entry| entry.digest == livepatch.payload) {
                Some(entry) => Became::Quarantined { why: entry.why.clone() },
                None => self.reapply_livepatch(machine, livepatch)?,
            };
            report.push(Reapplied { what: format!("livepatch {}", livepatch.module), became });
        }
        for rootfs in &baseline.rootfs {
            let became = self.reapply_rootfs(adapters, rootfs)?;
            report.push(Reapplied { what: format!("root file system of {}", rootfs.container), became });
        }
        Ok(report)
    }

    fn reapply_livepatch(&self, machine: &Machine<'_>, livepatch: &Livepatch) -> Result<Became, EngineError> {
        if machine.livepatch.state(&livepatch.module)? == PatchState::Settled(Enabled::Enabled) {
            return Ok(Became::Present);
        }
        let running = self.host.kernel.clone();
        if livepatch.kernel != running {
            let why = format!("it is for kernel {}, this is {running}", livepatch.kernel);
            return Ok(Became::LeftAlone { why });
        }
        let patch = LoadedPayload { module: livepatch.module.clone(), payload: livepatch.payload };
        let deadline = std::time::Duration::from_millis(livepatch.deadline_ms);
        Ok(match machine.load_and_await(&patch, deadline) {
            Ok(_) => Became::Reapplied,
            Err(error) => Became::Failed { why: error.chain() },
        })
    }

    fn reapply_rootfs(&self, adapters: &Adapters, rootfs: &Rootfs) -> Result<Became, EngineError> {
        let running = adapters.on.runtime.inspect(&rootfs.container)?.is_some_and(|container| {
            matches!(container.status, ContainerStatus::Running | ContainerStatus::Paused)
        });
        let now = match self.host.mounts.current(&rootfs.mount_point) {
            Ok(now) => now,
            Err(error) => return Ok(Became::LeftAlone { why: error.to_string() }),
        };
        if now.shows_the_same_as(&rootfs.topology) {
            return Ok(Became::Present);
        }
        if running {
            return Ok(Became::LeftAlone {
                why: "the container runs on another root file system".to_owned(),
            });
        }
        if now != Topology::Plain {
            return Ok(Became::LeftAlone { why: "somebody else has mounted something there".to_owned() });
        }
        Ok(match self.host.mounts.switch(&rootfs.mount_point, &rootfs.topology) {
            Ok(_) => Became::Reapplied,
            Err(error) => Became::Failed { why: error.to_string() },
        })
    }
}
