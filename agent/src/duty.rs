//! What to do next: from what is remembered, what a controller hints at, and what the executor says. No I/O.

use std::time::Duration;

use fleet::local::Answer;
use fleet::protocol::Offer;
use fleet::rollout::{Action, Outcome, Said};
use manifests::UtcTime;

use crate::memory::{Attempt, Memory, Phase};

/// The longest wait for a controller that does not answer.
pub const LONGEST: Duration = Duration::from_secs(600);

/// The shortest.
const SHORTEST: Duration = Duration::from_secs(2);

/// How often the executor is asked whether a change is still well: it looks at the whole host for that.
pub const LOOK_AFTER: Duration = Duration::from_secs(60);

/// For so long a host that could begin is believed to be able to; then it is looked at again.
pub const READY: Duration = Duration::from_secs(600);

/// For so long what the executor says of the host is believed, as long as nothing was begun.
pub const LOOK: Duration = Duration::from_secs(600);

/// For so long one turn fetches. What came so far stays, and the next one goes on with it.
pub const FETCH: Duration = Duration::from_secs(300);

/// Whether something is as old as this, or was never done.
pub fn is_due(age: Option<Duration>, every: Duration) -> bool {
    age.is_none_or(|age| age >= every)
}

/// When to ask for the next certificate, so that hosts that came together do not ask together: up to a day after it could,
/// which is half of the certificate's life, and an hour from now at least, so that a host whose clock is weeks ahead of the
/// controller's does not ask each time. `chance` is evenly from 0 to 1.
pub fn renewal(renew_at: UtcTime, now: UtcTime, chance: f64) -> UtcTime {
    let after = |time: UtcTime, seconds| {
        let later = time.timestamp().saturating_add(jiff::SignedDuration::from_secs(seconds));
        later.map_or(time, UtcTime::floor)
    };
    after(renew_at, (chance * 86_400.0) as i64).max(after(now, 3600))
}

/// What to tell a controller of an attempt, and how far it has come with that; nothing if it goes on, or if all is well
/// with what it knows.
pub fn news(attempt: &Attempt, answer: &Answer) -> Option<(Said, Phase)> {
    match (answer, attempt.phase) {
        (Answer::NeverBegan, Phase::Asked) => {
            // Closes the grant that there may be; nobody else can use it.
            let said = match attempt.action {
                Action::Apply => Said::Declined { outcome: Outcome::Busy },
                Action::Rollback => Said::NotRolledBack,
            };
            Some((said, Phase::Told))
        }
        (Answer::Said(verdict), Phase::Asked) => {
            let phase = if verdict.said == Said::Applied { Phase::Watched } else { Phase::Told };
            Some((verdict.said, phase))
        }
        // It was applied, and a controller knows. Is it still well?
        (Answer::Said(verdict), Phase::Watched) if matches!(verdict.said, Said::Hurt { .. }) => {
            Some((verdict.said, Phase::Told))
        }
        _ => None,
    }
}

/// The offer to take up now; one at a time. A way back goes first.
pub fn choose<'o>(memory: &Memory, offers: &'o [Offer]) -> Option<&'o Offer> {
    if memory.attempts.iter().any(|attempt| attempt.phase == Phase::Asked) {
        return None;
    }
    let of = |action| offers.iter().find(|offer| offer.action == action);
    of(Action::Rollback).or_else(|| of(Action::Apply))
}

/// How long nobody answered, in whole minutes: less is no news.
pub fn outage(lasted: Duration) -> u32 {
    u32::try_from(lasted.as_secs() / 60).unwrap_or(u32::MAX)
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A controller said when to ask again.
    Told(Duration),
    /// A controller has too much to do and said how long to wait at least.
    Limited(Duration),
    /// None answered.
    Failed,
}

/// How long to wait for the next question: what a controller says, or after so many failures longer and longer. `chance` is
/// evenly from 0 to 1: hosts that failed or were turned away together do not come back together.
pub fn wait(end: End, failures: u32, chance: f64) -> Duration {
    let longer = SHORTEST.saturating_mul(1 << failures.min(16)).min(LONGEST);
    match end {
        // Evenly from half of it on, so that it is never later than what a controller expects.
        End::Told(told) => told.min(LONGEST).mul_f64(0.5 + chance / 2.0),
        // Never sooner than it says, and spread over as much again.
        End::Limited(least) => {
            let half = LONGEST / 2;
            let least = least.min(half);
            least + longer.max(least).min(half).mul_f64(chance)
        }
        End::Failed => SHORTEST + longer.mul_f64(chance),
    }
}

#[cfg(test)]
mod tests {
    use fleet::local::Verdict;
    use fleet::rollout::Fault;
    use manifests::{Nonce, Sha256};

    use super::*;

    fn attempt(action: Action, phase: Phase) -> Attempt {
        let since = "2026-11-02T00:00:00Z".parse().unwrap();
        Attempt { rollout: Sha256::of(b"rollout"), action, nonce: Nonce::from_bytes([1; 16]), phase, since }
    }

    fn said(said: Said) -> Answer {
        Answer::Said(Verdict { said, why: String::new(), transaction: None })
    }

    #[test]
    fn what_became_of_an_attempt_is_told_once_and_watched_while_it_bakes() {
        let (asked, watched) = (attempt(Action::Apply, Phase::Asked), attempt(Action::Apply, Phase::Watched));
        assert_eq!(news(&asked, &Answer::Running), None);
        assert_eq!(news(&asked, &said(Said::Applied)), Some((Said::Applied, Phase::Watched)));
        let hurt = Said::Hurt { fault: Fault::Splat };
        assert_eq!(news(&asked, &said(hurt)), Some((hurt, Phase::Told)));
        assert_eq!(news(&watched, &said(Said::Applied)), None);
        assert_eq!(news(&watched, &said(hurt)), Some((hurt, Phase::Told)));
        assert_eq!(news(&attempt(Action::Apply, Phase::Told), &said(hurt)), None);
        let busy = Said::Declined { outcome: Outcome::Busy };
        assert_eq!(news(&asked, &Answer::NeverBegan), Some((busy, Phase::Told)));
        let back = attempt(Action::Rollback, Phase::Asked);
        assert_eq!(news(&back, &Answer::NeverBegan), Some((Said::NotRolledBack, Phase::Told)));
        assert_eq!(news(&back, &said(Said::RolledBack)), Some((Said::RolledBack, Phase::Told)));
    }

    #[test]
    fn one_thing_is_done_at_a_time_and_a_way_back_first() {
        let offer = |action| Offer {
            rollout: Sha256::of(b"rollout"),
            manifest: Sha256::of(b"manifest"),
            action,
            earliest: "2026-11-02T00:00:00Z".parse().unwrap(),
        };
        let offers = [offer(Action::Apply), offer(Action::Rollback)];
        let mut memory = Memory::default();
        assert_eq!(choose(&memory, &offers).unwrap().action, Action::Rollback);
        assert_eq!(choose(&memory, &offers[..1]).unwrap().action, Action::Apply);
        assert_eq!(choose(&memory, &[]), None);
        memory.attempts = vec![attempt(Action::Apply, Phase::Watched)];
        assert!(choose(&memory, &offers).is_some());
        memory.attempts = vec![attempt(Action::Apply, Phase::Asked)];
        assert_eq!(choose(&memory, &offers), None);
    }

    #[test]
    fn a_certificate_is_renewed_within_a_day_of_its_half_life_and_nothing_is_done_too_often() {
        let at: UtcTime = "2026-11-02T00:00:00Z".parse().unwrap();
        let made: UtcTime = "2026-10-18T00:00:00Z".parse().unwrap();
        assert_eq!(renewal(at, made, 0.0), at);
        assert_eq!(renewal(at, made, 1.0).to_string(), "2026-11-03T00:00:00Z");
        let ahead: UtcTime = "2027-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(renewal(at, ahead, 0.5).to_string(), "2027-01-01T01:00:00Z");
        assert!(is_due(None, READY) && is_due(Some(READY), READY));
        assert!(!is_due(Some(READY - Duration::from_secs(1)), READY));
        // The watchdog is fed once a turn, and waits 21 minutes.
        assert!(FETCH + LONGEST < Duration::from_secs(21 * 60));
    }

    #[test]
    fn waits_are_spread_and_bounded() {
        let minute = Duration::from_secs(60);
        assert_eq!(wait(End::Told(minute), 0, 0.0), minute / 2);
        assert_eq!(wait(End::Told(minute), 9, 1.0), minute);
        assert_eq!(wait(End::Told(Duration::from_secs(86_400)), 0, 1.0), LONGEST);
        assert!(wait(End::Failed, 1, 1.0) < wait(End::Failed, 5, 1.0));
        assert_eq!(wait(End::Failed, 1000, 1.0), SHORTEST + LONGEST);
        assert_eq!(wait(End::Failed, 1000, 0.0), SHORTEST);
    }

    #[test]
    fn whoever_is_turned_away_waits_at_least_as_long_as_told_and_no_two_alike() {
        let told = Duration::from_secs(20);
        assert_eq!(wait(End::Limited(told), 1, 0.0), told);
        assert_eq!(wait(End::Limited(told), 1, 1.0), told * 2);
        assert!(wait(End::Limited(told), 8, 1.0) > told * 2, "longer if it goes on");
        // A controller that says more than anybody waits.
        assert_eq!(wait(End::Limited(Duration::MAX), 1000, 1.0), LONGEST);
        assert!(wait(End::Limited(Duration::ZERO), 1, 1.0) >= SHORTEST);
    }
}
