//! Undo a committed transaction, as a transaction of its own.

use std::collections::BTreeMap;

use manifests::ModuleName;
use system::error::with_causes;
use system::lock::Turn;

use crate::operations::apply::Beginning;
use crate::operations::hold::Heeding;
use crate::operations::{Driven, Engine, EngineError, Listeners, Session};
use crate::plan::facts::{AffectedBy, ContainerFacts, Unmet};
use crate::plan::packages::PackageSwitch;
use crate::plan::planner::Refusal;
use crate::plan::reverse;
use crate::plan::reverse::{Memory, ReverseFacts};
use crate::plan::{Action, Feels, LoadedPayload, Plan, Undo};
use crate::state::baseline::Baseline;
use crate::state::grants::TakenGrant;
use crate::state::hold::Passed;
use crate::state::journal::{Origin, Stored, TransactionId};
use crate::steps::dossier::Dossier;
use crate::steps::ownership::Whose;
use crate::transaction::state::Outcome;

/// The applies that are committed and not rolled back, oldest first.
pub(super) fn in_force(all: &[Stored]) -> impl Iterator<Item = &Stored> {
    all.iter().filter(|stored| {
        matches!(stored.origin, Origin::Apply { .. })
            && stored.outcome() == Some(Outcome::Committed)
            && !is_undone(all, &stored.id)
    })
}

fn is_undone(all: &[Stored], id: &TransactionId) -> bool {
    all.iter().any(|other| {
        matches!(&other.origin, Origin::Rollback { of, .. } if of == id)
            && other.outcome() == Some(Outcome::Committed)
    })
}

/// How a payload that was collected comes back.
const PUT_BACK: &str = "`update plan` with the manifest that brought it puts it back";

/// What containers get back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Old files, a fresh start, data kept.
    Files,
    /// Memory and files of the checkpoint; what came since is lost.
    Checkpoint,
}

/// What lets a rollback begin.
#[derive(Clone, Copy)]
pub(super) struct LetBy<'a> {
    /// A controller's word, if it is the fleet's doing.
    pub(super) grant: Option<&'a TakenGrant>,
    /// The hold that an operator goes past.
    pub(super) despite: Option<&'a Passed>,
}

impl Engine {
    /// The committed transaction that `update rollback` undoes: the named one, or the last that is still in force.
    ///
    /// # Errors
    /// [`EngineError::NothingToRollBack`].
    pub fn rollback_target(&self, wanted: Option<&str>) -> Result<Stored, EngineError> {
        let journal = self.journal();
        let all = journal.all()?;
        if let Some(wanted) = wanted {
            let stored = journal.transaction(wanted)?;
            let refuse =
                |why: &str| Err(EngineError::NothingToRollBack(format!("transaction {}: {why}", stored.id)));
            return match (&stored.origin, stored.outcome()) {
                (Origin::Rollback { .. }, _) => {
                    refuse("it is a rollback itself; apply the manifest again instead")
                }
                (_, None) => refuse("it is unfinished; `update resume` ends it"),
                (_, Some(Outcome::RolledBack)) => refuse("it ended rolled back already"),
                (_, Some(Outcome::Committed)) if is_undone(&all, &stored.id) => {
                    refuse("it was rolled back later")
                }
                (_, Some(Outcome::Committed)) => Ok(stored),
            };
        }
        let last = in_force(&all).last();
        last.cloned().ok_or_else(|| {
            EngineError::NothingToRollBack("no committed transaction of this host is in force".to_owned())
        })
    }

    /// Plan the undo of a committed transaction.
    ///
    /// # Errors
    /// [`EngineError::Refused`] if a container cannot be put back or a livepatch that has to be loaded again is
    /// not in the store; why the host cannot be surveyed.
    pub fn plan_rollback(&self, of: &Stored, back: Back) -> Result<Plan, EngineError> {
        self.with_hold(self.plan_rollback_with(&self.look()?, of, back, &self.new_id())?)
    }

    fn plan_rollback_with(
        &self,
        session: &Session,
        of: &Stored,
        back: Back,
        id: &TransactionId,
    ) -> Result<Plan, EngineError> {
        let done = &of.progress.in_effect();
        let baseline = Baseline::read(&self.journal())?;
        let mut containers = Vec::new();
        for planned in
            done.containers.iter().filter(|planned| !matches!(planned.feels, Feels::Skipped { .. }))
        {
            let affected =
                vec![AffectedBy { component: 0, files: planned.files.clone(), unknown: Vec::new() }];
            let id = &planned.container.id;
            if let Some((before, _)) = done.exchanged(id) {
                containers.extend(self.survey_exchanged(session, id, before)?);
                continue;
            }
            let facts = match self.survey_container(session, id)? {
                Some(facts) => Some(facts),
                None => self.survey_stopped(&planned.container)?,
            };
            containers.extend(facts.map(|facts| ContainerFacts { affected, ..facts }));
        }
        let live: Vec<LoadedPayload> = baseline
            .livepatches
            .into_iter()
            .map(|livepatch| LoadedPayload { module: livepatch.module, payload: livepatch.payload })
            .collect();
        let foreign = self.foreign_among(session, &live);
        let memory = match back {
            Back::Files => Memory::StartAfresh,
            Back::Checkpoint => {
                let restored = |planned: &&ContainerFacts| {
                    planned.container.status.has_processes() && planned.image.is_none()
                };
                for planned in containers.iter().filter(restored) {
                    let dossier = Dossier::new(&self.config.checkpoints(), &of.id, &planned.container.id);
                    if !matches!(dossier.after(), Ok(Some(_))) {
                        return Err(EngineError::NothingToRollBack(format!(
                            "transaction {} has no checkpoint of container {} any more (looked in {})",
                            of.id,
                            planned.container.id,
                            dossier.images().root().display()
                        )));
                    }
                }
                Memory::FromCheckpoint { taken: of.began }
            }
        };
        let installed = self.installed(done.packages.iter().map(|planned| planned.switch.package.clone()))?;
        let services = self.services_of(done)?;
        let settings = self.settings();
        let quarantined: Vec<_> =
            self.guards().quarantined()?.into_iter().map(|entry| entry.digest).collect();
        let facts = ReverseFacts {
            of: of.id.as_str(),
            done,
            live: &live,
            foreign: &foreign,
            quarantined: &quarantined,
            containers: &containers,
            installed: &installed,
            services: &services,
            committed: &baseline.rootfs,
            memory,
            settings: &settings,
        };
        let plan = reverse::plan(&facts, id.as_str())?;
        self.expect_payloads(&plan)?;
        Ok(plan)
    }

    /// What is loaded under the names of these and is something else.
    fn foreign_among(&self, session: &Session, live: &[LoadedPayload]) -> BTreeMap<ModuleName, String> {
        let ownership = self.ownership(session);
        live.iter()
            // One whose payload is lost is refused by what the plan needs of it.
            .filter_map(|patch| match ownership.of_loaded(patch) {
                Ok(Whose::Foreign(foreign)) => Some((patch.module.clone(), foreign.found())),
                _ => None,
            })
            .collect()
    }

    /// What the plan, or its way back, loads is in the store: found out before a container is touched.
    fn expect_payloads(&self, plan: &Plan) -> Result<(), Refusal> {
        let mut unmet = Vec::new();
        for PackageSwitch { package, from, to } in plan.packages.iter().map(|planned| &planned.switch) {
            for file in [from, to] {
                if let Err(error) = self.payloads.open(&file.payload) {
                    unmet.push(Unmet {
                        subject: format!("package {package}"),
                        expected: format!("the file of {} in the store, to be installed again", file.version),
                        found: format!("{} ({PUT_BACK})", with_causes(&error)),
                    });
                }
            }
        }
        for step in &plan.steps {
            let loads = match (&step.action, &step.undo) {
                (Action::LoadLivepatch { module, payload, .. }, _) => Some((module, payload)),
                (_, Undo::ReloadLivepatch { patch, .. }) => Some((&patch.module, &patch.payload)),
                _ => None,
            };
            let Some((module, payload)) = loads else { continue };
            if let Err(error) = self.payloads.open(payload) {
                unmet.push(Unmet {
                    subject: format!("livepatch {module}"),
                    expected: "its module in the store, to be loaded again".to_owned(),
                    found: format!("{} ({PUT_BACK})", with_causes(&error)),
                });
            }
        }
        if unmet.is_empty() { Ok(()) } else { Err(Refusal { unmet }) }
    }

    /// Undo a committed transaction.
    ///
    /// # Errors
    /// [`EngineError`]; except for [`EngineError::Stopped`] nothing was touched.
    pub fn rollback(
        &self,
        wanted: Option<&str>,
        back: Back,
        heeding: Heeding,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Driven, EngineError> {
        let session = self.lock("rollback", Turn::Now)?;
        self.expect_finished()?;
        let despite = self.expect_not_held(heeding)?;
        self.judge_crashes()?;
        let of = self.rollback_target(wanted)?;
        let let_by = LetBy { grant: None, despite: despite.as_ref() };
        self.roll_back(&session, &of, back, let_by, listeners, begun)
    }

    /// As [`Engine::rollback`], by whoever holds the host and has chosen.
    pub(super) fn roll_back(
        &self,
        session: &Session,
        of: &Stored,
        back: Back,
        LetBy { grant, despite }: LetBy<'_>,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Driven, EngineError> {
        let id = self.new_id();
        let plan = self.plan_rollback_with(session, of, back, &id)?;
        let (name, version) = match &of.origin {
            Origin::Apply { name, version, .. } | Origin::Rollback { name, version, .. } => {
                (name.clone(), *version)
            }
        };
        let origin = Origin::Rollback { of: of.id.clone(), name, version };
        let beginning = Beginning { id: &id, origin: &origin, plan: &plan, grant, despite, manifest: None };
        let driven = self.begin(session, &beginning, listeners, begun)?;
        self.afterwards();
        Ok(driven)
    }
}
