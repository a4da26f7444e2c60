//! The transition function: what an event makes of a rollout. It serves live running and replay of the ledger alike.
//!
//! It is the last guard, too: whatever a controller comes to believe, an event that would break an invariant of
//! [the module](super) is [`Impossible`], and the store does not take it.

use super::event::{Author, Entry, Event, Fault, Limit, Outcome, Pause, Place, Proof, Wave};
use super::state::{Failure, HostState, Opened, Plan, Progress, Stage};
use crate::assurance::later;
use crate::host::Host;
use crate::policy::RollbackAuthority;
use crate::waves::Member;
use manifests::{Nonce, Share, UtcTime};

/// An event that cannot follow what came before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} cannot follow: expected {expected}, found {found}")]
pub struct Impossible {
    /// The event.
    pub event: String,
    /// What it needs.
    pub expected: &'static str,
    /// What is the case.
    pub found: String,
}

impl Progress {
    /// The state after all `entries`, in order.
    ///
    /// # Errors
    /// [`Impossible`] for the first entry that cannot follow those before it.
    pub fn replay<'e>(plan: &Plan, entries: impl IntoIterator<Item = &'e Entry>) -> Result<Self, Impossible> {
        let mut progress = Self::new(plan);
        for entry in entries {
            progress.apply(plan, entry)?;
        }
        Ok(progress)
    }

    /// Advances by one event.
    ///
    /// # Errors
    /// [`Impossible`] if the event cannot happen in this state; the state is then unchanged.
    pub fn apply(&mut self, plan: &Plan, entry: &Entry) -> Result<(), Impossible> {
        let Entry { at, event } = entry;
        match event {
            Event::Submitted => {
                self.need(event, self.stage == Stage::Draft, "a draft")?;
                let asks = plan.policy.approvals.start > 0;
                self.stage = if asks { Stage::AwaitingApproval } else { Stage::Waiting };
                Ok(())
            }
            Event::Approved { by } => self.approved(plan, event, by),
            Event::ApprovalAsked => {
                let between = self.passed == 1 && self.opened.len() == 1 && self.may_decide();
                self.need(event, between, "a first wave that has passed")?;
                self.stage = Stage::AwaitingApproval;
                Ok(())
            }
            Event::CalendarOpened => {
                self.need(event, self.stage == Stage::Waiting, "to be waiting")?;
                self.stage = Stage::Running;
                Ok(())
            }
            Event::CalendarClosed => {
                self.need(event, self.stage == Stage::Running, "to be running")?;
                self.stage = Stage::Waiting;
                Ok(())
            }
            Event::WaveOpened { wave } => {
                let next = *wave == self.opened.len() && *wave == self.passed && *wave < self.ends.len();
                self.need(
                    event,
                    self.stage == Stage::Running && next,
                    "to run, and all waves before passed",
                )?;
                let places = self.places(*wave);
                self.opened.push(Opened { at: *at, hosts: places.len() as u32, begun: 0 });
                self.offer(plan, places);
                Ok(())
            }
            Event::ToppedUp { wave, hosts } => self.top_up(plan, *at, event, *wave, *hosts),
            Event::WavePassed { wave } => {
                let open = *wave == self.passed && *wave < self.opened.len();
                self.need(event, self.may_decide() && open, "this wave to be open")?;
                self.passed += 1;
                Ok(())
            }
            Event::Completed => {
                let all = self.passed == self.ends.len();
                self.need(event, self.may_decide() && all, "all waves passed")?;
                self.stage = Stage::Completed;
                Ok(())
            }
            Event::Paused { cause } => {
                let can = matches!(self.stage, Stage::Waiting | Stage::Running | Stage::Completed);
                self.need(event, can, "waiting, running or completed")?;
                self.stage = Stage::Paused(cause.clone());
                Ok(())
            }
            Event::Resumed { by } => self.resumed(event, by),
            Event::Halted { cause } => {
                self.need(event, self.stage.is_live(), "a rollout that may go on")?;
                self.stage = Stage::Halted(*cause);
                Ok(())
            }
            Event::Aborted { .. } => {
                self.need(event, self.stage.is_live() || self.stage == Stage::Draft, "one that may go on")?;
                self.stage = Stage::Aborted;
                Ok(())
            }
            Event::Expired => {
                self.need(event, self.stage.is_live(), "a rollout that may go on")?;
                self.stage = Stage::Expired;
                Ok(())
            }
            Event::Superseded { by } => {
                self.need(event, self.stage.is_live(), "a rollout that may go on")?;
                self.stage = Stage::Superseded(*by);
                Ok(())
            }
            Event::Compared { query, comparison } => {
                let asks = plan.policy.health.iter().any(|known| known.name == *query);
                self.need(event, asks && self.stage.is_live(), "a rollout that may go on, and asks that")?;
                self.compared.insert(query.clone(), (*at, *comparison));
                Ok(())
            }
            Event::RollbackBegun { by } => self.rollback_begun(plan, *at, event, by.as_ref()),
            Event::RollbackEnded => {
                self.need(event, self.stage == Stage::RollingBack, "to be rolling back")?;
                let stuck = self.hosts.iter().any(|host| *host == HostState::Stuck || host.is_open());
                let left = (0..self.hosts.len()).any(|host| self.changed_since(host).is_some());
                self.stage = if stuck || left { Stage::Stuck } else { Stage::RolledBack };
                Ok(())
            }
            Event::Joined { host } => self.joined(plan, event, host),
            Event::Offered { host }
            | Event::Ready { host }
            | Event::Declined { host, .. }
            | Event::Granted { host, .. }
            | Event::Applied { host }
            | Event::Failed { host, .. }
            | Event::Matured { host }
            | Event::Silenced { host }
            | Event::Withdrawn { host }
            | Event::Retried { host, .. }
            | Event::Rebooted { host, .. }
            | Event::RollbackGranted { host, .. }
            | Event::RolledBack { host }
            | Event::RollbackFailed { host } => self.of_host(plan, *at, event, *host),
        }
    }

    fn of_host(&mut self, plan: &Plan, at: UtcTime, event: &Event, host: Place) -> Result<(), Impossible> {
        use HostState as H;
        let Some(before) = self.hosts.get(host).copied() else {
            return Err(self.refuse(event, "a host of this rollout", format!("place {host}")));
        };
        let expected = |expected: &'static str| {
            Err(Impossible { event: format!("{event:?}"), expected, found: format!("{before:?}") })
        };
        let after = match event {
            Event::Offered { .. } => match before {
                H::Busy { .. } => H::Offered,
                _ => return expected("a busy host"),
            },
            Event::Ready { .. } => match before {
                H::Offered => H::Ready,
                _ => return expected("a host that was offered the manifest"),
            },
            Event::Declined { outcome, .. } => match before {
                // One that was taken for silent and had never begun: nothing is on it, and it still counts.
                H::Offered | H::Ready | H::Granted { .. } | H::Bad { fault: Fault::Silent, .. } => {
                    match (outcome, before) {
                        (Outcome::Busy, H::Bad { .. }) => return expected("a host that may still begin"),
                        (Outcome::Busy, _) => {
                            H::Busy { until: later(at, i64::from(plan.policy.deadline.busy.secs())) }
                        }
                        (outcome, _) => H::Declined(*outcome),
                    }
                }
                _ => return expected("a host that has not been changed"),
            },
            Event::Granted { nonce, .. } => {
                let begins = matches!(self.stage, Stage::Running | Stage::Completed);
                self.need(event, begins, "a rollout in which hosts begin")?;
                self.need(event, self.wave_of(host) < self.opened.len(), "a wave that was opened")?;
                match before {
                    H::Ready => {
                        let wave = self.wave_of(host);
                        self.opened[wave].begun += 1;
                        H::Granted { since: at, nonce: *nonce }
                    }
                    _ => return expected("a host that is ready"),
                }
            }
            Event::Applied { .. } => match before {
                H::Granted { nonce, .. } => H::Applied { since: at, nonce },
                _ => return expected("a host that was told to begin"),
            },
            Event::Failed { fault, .. } => match before {
                H::Granted { nonce, .. } | H::Applied { nonce, .. } | H::Good { nonce, .. } => {
                    H::Bad { fault: *fault, since: at, nonce }
                }
                // It counts already; what it says now is better known.
                H::Bad { fault: Fault::Silent, since, nonce } => H::Bad { fault: *fault, since, nonce },
                _ => return expected("a host that was told to begin"),
            },
            Event::Silenced { .. } => match before {
                H::Granted { nonce, .. } | H::Applied { nonce, .. } => {
                    H::Bad { fault: Fault::Silent, since: at, nonce }
                }
                _ => return expected("a host that owes an answer"),
            },
            Event::Matured { .. } => match before {
                H::Applied { since, nonce } => H::Good { since, nonce },
                _ => return expected("a host that is watched"),
            },
            Event::Withdrawn { .. } => match before {
                H::Listed | H::Offered | H::Ready | H::Busy { .. } | H::Declined(_) => H::Withdrawn,
                _ => return expected("a host that has not been changed"),
            },
            Event::Retried { by, .. } => {
                self.need(event, by.proof == Proof::Signature, "a signature")?;
                self.need(event, self.stage.is_live(), "a rollout that may go on")?;
                match before {
                    H::Withdrawn | H::Bad { fault: Fault::Restored, .. } => self.before_it_begins(host),
                    _ => return expected("a host that came back, or gets nothing any more"),
                }
            }
            Event::Rebooted { into, .. } => {
                self.need(
                    event,
                    self.is_due_again(plan, host, into),
                    "one that came out with another kernel",
                )?;
                if let H::Good { since, nonce } = before {
                    self.earlier.entry(host).or_default().push((since, nonce));
                }
                self.rebooted.insert(host, Host::clone(into));
                H::Offered
            }
            Event::RollbackGranted { nonce, .. } => {
                self.need(event, self.stage == Stage::RollingBack, "to be rolling back")?;
                if self.changed_since(host).is_none() {
                    return expected("a host with something to take back");
                }
                if before.changed_since().is_none() {
                    // It is this one that goes back.
                    self.take_earlier(host);
                }
                H::RollbackGranted { since: at, nonce: *nonce }
            }
            Event::RolledBack { .. } => match before {
                // Late is better than never. What an earlier attempt brought goes back after what came later.
                H::RollbackGranted { .. } | H::Stuck => match self.take_earlier(host) {
                    Some((since, nonce)) => H::Good { since, nonce },
                    None => H::RolledBack,
                },
                _ => return expected("a host that was told to go back"),
            },
            Event::RollbackFailed { .. } => match before {
                H::RollbackGranted { .. } => H::Stuck,
                _ if self.changed_since(host).is_some() && self.stage == Stage::RollingBack => H::Stuck,
                _ => return expected("a host that was to go back"),
            },
            _ => return Err(self.refuse(event, "an event of a host", "another".to_owned())),
        };
        self.set(plan, host, after);
        if let HostState::Bad { fault, .. } = after {
            self.count_failure(plan, Failure { host, at, fault });
        }
        Ok(())
    }

    fn approved(&mut self, plan: &Plan, event: &Event, by: &Author) -> Result<(), Impossible> {
        self.need(event, self.stage == Stage::AwaitingApproval, "to be awaiting approval")?;
        self.need(event, by.proof == Proof::Signature, "a signature")?;
        self.approvals.insert(by.clone());
        let (needed, have) = self.approval(plan);
        if have >= needed {
            self.approvals.clear();
            self.agreed += 1;
            self.stage = Stage::Waiting;
        }
        Ok(())
    }

    fn top_up(
        &mut self,
        plan: &Plan,
        at: UtcTime,
        event: &Event,
        wave: Wave,
        hosts: usize,
    ) -> Result<(), Impossible> {
        let open = wave == self.passed && wave + 1 == self.opened.len() && self.may_decide();
        self.need(event, open, "this wave to be the open one")?;
        self.need(event, self.top_ups[wave] < plan.policy.waves.top_ups, "a top-up that is left")?;
        let begin = self.ends[wave];
        let left = self.hosts.len() - begin;
        self.need(event, (1..=left).contains(&hosts), "hosts that have not been offered it")?;
        self.ends[wave] += hosts;
        self.top_ups[wave] += 1;
        self.opened[wave] = Opened { at, hosts: hosts as u32, begun: 0 };
        // A wave that has given all its hosts away is none any more.
        let end = self.ends[wave];
        while self.ends.get(wave + 1).is_some_and(|next| *next <= end) {
            self.ends.remove(wave + 1);
            self.top_ups.remove(wave + 1);
            self.counts.remove(wave + 1);
        }
        self.offer(plan, begin..end);
        Ok(())
    }

    fn resumed(&mut self, event: &Event, by: &Author) -> Result<(), Impossible> {
        let Stage::Paused(cause) = self.stage.clone() else {
            return Err(self.refuse(event, "a pause", format!("{:?}", self.stage)));
        };
        let enough = by.proof == Proof::Signature || matches!(cause, Pause::Operator { .. });
        self.need(event, enough, "a signature: the rollout paused by itself")?;
        match cause {
            Pause::Inconclusive { wave } => self.accepted = Some(wave),
            Pause::Veto { query } => {
                self.seen_vetoes.insert(query);
            }
            Pause::Unanswered { query } => {
                self.seen_unanswered.insert(query);
            }
            Pause::Declined { outcome } => self.seen_declined[outcome as usize] = self.declined(outcome),
            Pause::OneHost { limit } => self.seen_limits[limit as usize] = self.at_limit(limit),
            Pause::Operator { .. } | Pause::Outage { .. } => {}
        }
        self.stage = Stage::Waiting;
        Ok(())
    }

    fn rollback_begun(
        &mut self,
        plan: &Plan,
        at: UtcTime,
        event: &Event,
        by: Option<&Author>,
    ) -> Result<(), Impossible> {
        use Stage as S;
        let automatic = plan.policy.rollback.authority == RollbackAuthority::Automatic;
        let can = match (&self.stage, by) {
            (S::Halted(_), None) => automatic,
            (_, None) => false,
            (S::Halted(_) | S::Aborted | S::Expired | S::Superseded(_) | S::Stuck, Some(_)) => true,
            (stage, Some(_)) => stage.is_live(),
        };
        self.need(event, can, "a rollout that may go back, and somebody who may say so")?;
        self.stage = Stage::RollingBack;
        let stuck: Vec<Place> =
            (0..self.hosts.len()).filter(|host| self.hosts[*host] == HostState::Stuck).collect();
        for host in stuck {
            // No attempt's report is waited for: this one is for what is left of all.
            let nonce = Nonce::from_bytes([0; 16]);
            self.set(plan, host, HostState::Bad { fault: Fault::Unrestored, since: at, nonce });
        }
        Ok(())
    }

    fn joined(&mut self, plan: &Plan, event: &Event, host: &Host) -> Result<(), Impossible> {
        self.need(event, self.stage.is_live() && !self.ends.is_empty(), "a rollout that may go on")?;
        self.need(event, plan.policy.selector.selects(host), "a host that the policy selects")?;
        let known = (0..self.hosts.len()).filter_map(|place| self.member(plan, place));
        let is_new = known.into_iter().all(|member| member.host.id != host.id);
        self.need(event, is_new, "a host that is not there yet")?;
        let name = host.stratum(&plan.policy.strata);
        let strata = &plan.layout.strata;
        let stratum = strata.iter().position(|stratum| stratum.name == name).unwrap_or(strata.len());
        let share = Share::of(plan.rollout, host.id);
        self.joined.push(Member { host: host.clone(), stratum, share });
        self.hosts.push(HostState::Listed);
        let last = self.ends.len() - 1;
        self.ends[last] += 1;
        if last < self.opened.len() {
            self.offer(plan, self.hosts.len() - 1..self.hosts.len());
        }
        Ok(())
    }

    /// What an earlier attempt brought is the next to go back.
    fn take_earlier(&mut self, host: Place) -> Option<(UtcTime, Nonce)> {
        let earlier = self.earlier.get_mut(&host)?;
        let last = earlier.pop();
        if earlier.is_empty() {
            self.earlier.remove(&host);
        }
        last
    }

    /// Where a host stands to which nothing has happened, or is as if.
    fn before_it_begins(&self, host: Place) -> HostState {
        let opened = self.wave_of(host) < self.opened.len();
        if opened { HostState::Offered } else { HostState::Listed }
    }

    fn offer(&mut self, plan: &Plan, places: std::ops::Range<Place>) {
        for host in places {
            if self.hosts[host] == HostState::Listed {
                self.set(plan, host, HostState::Offered);
            }
        }
    }

    /// Whether waves are judged and cut: while hosts begin, and while the calendar keeps them from it.
    fn may_decide(&self) -> bool {
        matches!(self.stage, Stage::Waiting | Stage::Running)
    }

    fn need(&self, event: &Event, holds: bool, expected: &'static str) -> Result<(), Impossible> {
        match holds {
            true => Ok(()),
            false => Err(self.refuse(event, expected, format!("{:?}", self.stage))),
        }
    }

    fn refuse(&self, event: &Event, expected: &'static str, found: String) -> Impossible {
        Impossible { event: format!("{event:?}"), expected, found }
    }
}

/// How many hosts a hard limit allows, after what people have seen and gone on from.
pub(super) fn allowed(plan: &Plan, progress: &Progress, limit: Limit) -> u32 {
    let budgets = &plan.policy.budgets;
    let amount = match limit {
        Limit::Failed => budgets.failed,
        Limit::Lost => budgets.lost,
        Limit::Splats => budgets.splats,
    };
    amount.rounded_up_of(progress.hosts.len() as u32).max(progress.seen_limits[limit as usize])
}
