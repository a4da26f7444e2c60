//! After a crash, a kill or a boot: finish or undo what the journal holds, then make the host agree with the
//! baseline.
//!
//! Before its commit a transaction goes back, after its commit it is finished. Then the livepatches that the
//! host should have are loaded, except those that it may have crashed of, and the committed root file systems
//! are mounted where no container runs on them yet. Single things that fail are in the report and hold nothing
//! else up; how each stands is judged where `update status` judges it ([`super::standing`]).

use manifests::policy::RevokedAtBoot;
use manifests::{Sha256, UtcTime};
use serde::Serialize;
use system::lock::Turn;

use crate::kernel::KernelError;
use crate::kernel::survival::Trial;
use crate::operations::standing::Standing;
use crate::operations::{Drive, Driven, Engine, EngineError, Listeners, Session, StillOpen};
use crate::plan::LoadedPayload;
use crate::state::baseline::{Baseline, Livepatch};
use crate::state::crash_guard::{GuardBook, Quarantined};
use crate::steps::Performer;
use crate::transaction::driver::Reached;
use crate::transaction::state::Outcome;

/// What a resume found and did.
#[derive(Debug, Default)]
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
            || self.baseline.iter().any(|item| item.became.needs_operator())
    }

    /// What was done, for whoever has to go on from here.
    fn done(&self) -> Vec<String> {
        let mut done = Vec::new();
        if self.thawed > 0 {
            done.push(format!("{} control groups were thawed", self.thawed));
        }
        done.extend(self.transactions.iter().map(|driven| {
            let became = match driven.reached {
                Reached::Ended(Outcome::Committed) => "was finished",
                Reached::Ended(Outcome::RolledBack) => "was rolled back",
                Reached::NeedsOperator(_) => "needs an operator",
            };
            format!("transaction {} {became}", driven.id)
        }));
        let reapplied = self.baseline.iter().filter(|item| item.became == Became::Reapplied);
        done.extend(reapplied.map(|item| format!("{} was re-applied", item.what)));
        done
    }
}

/// One thing that the host should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reapplied {
    /// `livepatch NAME`, `root file system of CONTAINER` or `package NAME:ARCHITECTURE`.
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
    /// It was left alone, and nobody has to do anything about it.
    LeftAlone {
        /// Why.
        why: String,
    },
    /// It is not loaded, because the host may have crashed of it.
    Quarantined {
        /// What happened.
        why: String,
    },
    /// It is not brought back, because it was revoked.
    Revoked {
        /// Since when.
        since: UtcTime,
    },
    /// Something else is in its place, which is not for this program to take away.
    Displaced {
        /// What.
        why: String,
    },
    /// It should be there and is not.
    Failed {
        /// Why.
        why: String,
    },
}

impl Became {
    /// What becomes of a thing by its standing alone; `None` if it has to be brought back.
    fn unless_missing(standing: Standing) -> Option<Self> {
        Some(match standing {
            Standing::Missing => return None,
            Standing::InForce => Self::Present,
            Standing::OtherKernel { why } | Standing::Gone { why } | Standing::Superseded { why } => {
                Self::LeftAlone { why }
            }
            Standing::Quarantined { why } => Self::Quarantined { why },
            Standing::Displaced { why } => Self::Displaced { why },
            Standing::Unreadable { why } => Self::Failed { why },
        })
    }

    /// Whether it needs an operator.
    pub fn needs_operator(&self) -> bool {
        matches!(
            self,
            Self::Failed { .. } | Self::Quarantined { .. } | Self::Displaced { .. } | Self::Revoked { .. }
        )
    }
}

impl Engine {
    /// Do all of it. Safe to repeat.
    ///
    /// # Errors
    /// [`EngineError::Lock`] if somebody else holds the host; [`EngineError::ResumeStopped`] with what was done
    /// and what is open if the journal cannot be kept or the kernel cannot be asked. What goes wrong with
    /// single things is in the report.
    pub fn resume(&self, turn: Turn<'_>, listeners: &Listeners<'_>) -> Result<Resumed, EngineError> {
        let mut resumed = Resumed::default();
        match self.resume_into(&mut resumed, turn, listeners) {
            Ok(()) => Ok(resumed),
            Err(busy @ EngineError::Lock(_)) => Err(busy),
            Err(source) => {
                let open = match self.journal().unfinished() {
                    Ok(open) => StillOpen::These(open.into_iter().map(|stored| stored.id).collect()),
                    Err(_) => StillOpen::Unknown,
                };
                Err(EngineError::ResumeStopped { done: resumed.done(), open, source: Box::new(source) })
            }
        }
    }

    fn resume_into(
        &self,
        resumed: &mut Resumed,
        turn: Turn<'_>,
        listeners: &Listeners<'_>,
    ) -> Result<(), EngineError> {
        let session = self.lock("resume", turn)?;
        resumed.thawed =
            self.host.leases.thaw_outstanding(&*self.host.freezer).map_err(KernelError::from)?.len();
        resumed.quarantined = self.judge_crashes()?;
        self.guards().go_on(&self.host.incarnation)?;
        self.count_hold();
        let unfinished = self.journal().unfinished()?;
        for stored in unfinished {
            resumed.transactions.push(self.drive(&session, stored, Drive::Resume, listeners)?);
        }
        self.reapply_baseline(&session, &self.performer(&session, listeners), &mut resumed.baseline)?;
        self.mark_due()?;
        self.afterwards();
        Ok(())
    }

    /// The host is being shut down in order: what is loaded now has not crashed it.
    ///
    /// # Errors
    /// [`EngineError::Journal`].
    pub fn mark_stopping(&self) -> Result<usize, EngineError> {
        self.count_hold();
        Ok(self.guards().mark_stopped(&self.host.incarnation, self.host.clock.now())?)
    }

    /// Clear the loads whose time is over; when none is left on trial, nobody has to look any more.
    ///
    /// # Errors
    /// [`EngineError::Journal`].
    pub fn mark_survived(&self) -> Result<usize, EngineError> {
        let marked = self.mark_due()?;
        if self.trial()? == Trial::Over {
            self.watch(Trial::Over);
        }
        Ok(marked)
    }

    fn mark_due(&self) -> Result<usize, EngineError> {
        let clock = &self.host.clock;
        Ok(self.guards().mark_survived(&self.host.incarnation.boot_id, clock.now(), clock.elapsed())?)
    }

    /// Put what the host may have crashed of in an earlier boot into quarantine. Whatever loads livepatches does
    /// this first: the boot's own resume may not have run.
    pub(super) fn judge_crashes(&self) -> Result<Vec<Quarantined>, EngineError> {
        let quarantined = self.guards().judge(&self.host.incarnation.boot_id, self.host.clock.now())?;
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
        session: &Session,
        performer: &Performer<'_>,
        report: &mut Vec<Reapplied>,
    ) -> Result<(), EngineError> {
        let baseline = Baseline::read(&self.journal())?;
        let quarantined = self.guards().quarantined()?;
        let revoked = self.revoked_payloads()?;
        // Nobody asks the policy of a host on which nothing is revoked.
        let at_boot = if revoked.is_empty() { RevokedAtBoot::Refuse } else { self.revoked_at_boot()? };
        // A revocation bars the way back; what is there is not taken away behind anybody's back.
        let barred = |payload: &Sha256, what: &str| {
            let since = *revoked.get(payload)?;
            match at_boot {
                RevokedAtBoot::Refuse => Some(Became::Revoked { since }),
                RevokedAtBoot::Warn => {
                    tracing::warn!(what, %since, "is revoked, and is brought back since the policy says so");
                    None
                }
            }
        };
        for livepatch in &baseline.livepatches {
            let standing = self.livepatch_standing(session, livepatch, &quarantined);
            let became = Became::unless_missing(standing)
                .or_else(|| barred(&livepatch.payload, livepatch.module.as_str()))
                .unwrap_or_else(|| self.reapply_livepatch(performer, livepatch));
            report.push(Reapplied { what: format!("livepatch {}", livepatch.module), became });
        }
        for rootfs in &baseline.rootfs {
            let name = rootfs.container.to_string();
            let became = Became::unless_missing(self.rootfs_standing(session, rootfs).0)
                .or_else(|| rootfs.layers().find_map(|layer| barred(&layer, &name)))
                .unwrap_or_else(|| match self.host.mounts.switch(&rootfs.mount_point, &rootfs.topology) {
                    Ok(_) => Became::Reapplied,
                    Err(error) => Became::Failed { why: error.to_string() },
                });
            report.push(Reapplied { what: format!("root file system of {}", rootfs.container), became });
        }
        for package in &baseline.packages {
            // Packages stay where they are over a boot: there is nothing to bring back.
            if let Some(became) = Became::unless_missing(self.package_standing(package).0) {
                report.push(Reapplied { what: format!("package {}", package.package), became });
            }
        }
        Ok(())
    }

    fn reapply_livepatch(&self, performer: &Performer<'_>, livepatch: &Livepatch) -> Became {
        let patch = LoadedPayload { module: livepatch.module.clone(), payload: livepatch.payload };
        let deadline = std::time::Duration::from_millis(livepatch.deadline_ms);
        match performer.load_and_await(&patch, deadline) {
            Ok(_) => Became::Reapplied,
            Err(error) => Became::Failed { why: error.chain() },
        }
    }
}
