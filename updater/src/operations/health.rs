//! How this host has been since the fleet changed it: by the journal, the kernel and the runtime.

use std::time::Duration;

use fleet::facts::{Change, ChangeOutcome, Probes};
use fleet::rollout::Action as Doing;
use jiff::Timestamp;
use manifests::{GrantedAction, LabelValue, UtcTime};
use workloads::model::Container;

use crate::kernel::kmsg;
use crate::operations::story::{Direction, End, Story};
use crate::operations::{Engine, EngineError};
use crate::plan::Action;
use crate::state::grants::Granted;
use crate::state::journal::{Origin, Stored};
use crate::transaction::state::Outcome;

/// Clock ticks a second in what the kernel tells of processes (`USER_HZ`, the same on every architecture that we are for).
const TICKS: u64 = 100;

impl Engine {
    /// The last changes that grants of the fleet began here, the last first, at most so many. Those that the journal does
    /// not keep any more are left out.
    ///
    /// # Errors
    /// [`EngineError`] if the journal or the runtime cannot be asked.
    pub fn changes(&self, most: usize) -> Result<Vec<Change>, EngineError> {
        let (granted, all) = {
            let journal = self.journal();
            (journal.granted(most)?, journal.all()?)
        };
        // Asked for when it first matters, and once.
        let mut running = None;
        let mut changes = Vec::new();
        for granted in granted {
            if let Some(stored) = all.iter().find(|stored| stored.id == granted.transaction) {
                changes.push(self.change(&granted, stored, &all, &mut running)?);
            }
        }
        Ok(changes)
    }

    fn change(
        &self,
        granted: &Granted,
        stored: &Stored,
        all: &[Stored],
        running: &mut Option<Vec<Container>>,
    ) -> Result<Change, EngineError> {
        let story = Story::of(stored);
        let undone = |other: &Stored| {
            matches!(&other.origin, Origin::Rollback { of, .. } if *of == stored.id)
                && other.outcome() == Some(Outcome::Committed)
        };
        let outcome = match stored.outcome() {
            None => ChangeOutcome::Open,
            Some(Outcome::RolledBack) => ChangeOutcome::RolledBack,
            Some(Outcome::Committed) if all.iter().any(undone) => ChangeOutcome::Undone,
            Some(Outcome::Committed) => ChangeOutcome::Committed,
        };
        let same_boot = granted.boot == self.incarnation().boot_id.to_string();
        let (taints, splats, restarted) = match same_boot {
            true => (
                self.taint() & !granted.taint,
                kmsg::splats(&self.host.root.join("dev/kmsg"), self.in_this_boot(granted.at)),
                self.restarted(&story, running)?,
            ),
            false => (0, 0, Vec::new()),
        };
        Ok(Change {
            transaction: text(stored.id.as_str()),
            rollout: granted.rollout,
            action: match granted.action {
                GrantedAction::Apply => Doing::Apply,
                GrantedAction::Rollback => Doing::Rollback,
            },
            until: UtcTime::floor(story.until),
            outcome,
            transition_ms: story.livepatches.iter().filter_map(|livepatch| livepatch.transition_ms).max(),
            probes: probes(stored, &story),
            taints,
            splats,
            restarted,
            unreachable_min: 0,
        })
    }

    /// A time of the wall clock by the clock of this boot.
    fn in_this_boot(&self, at: Timestamp) -> Duration {
        let ago = Duration::try_from(self.host.clock.now().duration_since(at)).unwrap_or_default();
        self.host.clock.elapsed().saturating_sub(ago)
    }

    /// Containers that a transaction changed and that were started again since it ended.
    fn restarted(
        &self,
        story: &Story,
        running: &mut Option<Vec<Container>>,
    ) -> Result<Vec<LabelValue>, EngineError> {
        if story.containers.is_empty() || story.outcome.is_none() {
            return Ok(Vec::new());
        }
        // A start in the second of its end is its own.
        let ended = self.in_this_boot(story.until).as_secs() + 1;
        let running = match running {
            Some(known) => known,
            None => running.insert(self.running()?),
        };
        let again =
            running.iter().filter(|container| container.started.is_some_and(|ticks| ticks / TICKS > ended));
        let ids = again.map(|container| container.id.to_string());
        let changed = |id: &String| story.containers.iter().any(|times| times.container == *id);
        Ok(ids.filter(changed).map(|id| text(&id)).collect())
    }
}

/// Ids of this program hold nothing that a label could not.
fn text(id: &str) -> LabelValue {
    id.parse().unwrap_or_else(|_| "unknown".parse().expect("letters"))
}

/// How the steps went that probe.
fn probes(stored: &Stored, story: &Story) -> Probes {
    let mut probes = Probes::default();
    let steps = &stored.progress.plan().steps;
    let is_probe = |step: usize| {
        matches!(steps.get(step).map(|step| &step.action), Some(Action::Probe { .. } | Action::Settle { .. }))
    };
    for chapter in
        story.steps.iter().filter(|chapter| chapter.direction == Direction::Do && is_probe(chapter.step))
    {
        match chapter.end {
            End::Done { .. } => probes.held += 1,
            End::Failed { .. } => probes.failed += 1,
            End::Cut => {}
        }
    }
    probes
}
