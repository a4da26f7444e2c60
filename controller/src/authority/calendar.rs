//! When hosts may begin, rollout by rollout.

use fleet::policy::calendar::Opening;
use fleet::policy::{Freeze, Window};
use manifests::{Sha256, UtcTime};

use super::{Authority, Denied};

/// The calendar of a rollout that may go on.
#[derive(Debug, Clone)]
pub struct RolloutCalendar {
    /// Which.
    pub rollout: Sha256,
    /// Its manifest's name and version.
    pub name: String,
    /// Before this time nobody begins.
    pub not_before: UtcTime,
    /// From this time on nobody begins.
    pub expires: UtcTime,
    /// When hosts may begin; empty: at any time.
    pub windows: Vec<Window>,
    /// When none may.
    pub freezes: Vec<Freeze>,
    /// What it says now.
    pub now: Opening,
    /// When hosts may begin next, if that ever is before it expires.
    pub opens: Option<UtcTime>,
}

impl Authority {
    /// The calendars of all rollouts that may go on.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn calendars(&self) -> Result<Vec<RolloutCalendar>, Denied> {
        let (turn, now) = (self.turn()?, self.now());
        let live = turn.known.rollouts.iter().filter(|(_, running)| running.progress.stage().is_live());
        let calendar = live.map(|(rollout, running)| {
            let (plan, calendar) = (&running.plan, running.plan.policy.calendar());
            RolloutCalendar {
                rollout: *rollout,
                name: format!("{} version {}", running.claim.name, running.claim.version),
                not_before: plan.not_before,
                expires: plan.expires,
                windows: plan.policy.windows.clone(),
                freezes: plan.policy.freezes.clone(),
                now: calendar.at(now),
                opens: calendar.opens(now.max(plan.not_before)).filter(|opens| *opens < plan.expires),
            }
        });
        Ok(calendar.collect())
    }
}
