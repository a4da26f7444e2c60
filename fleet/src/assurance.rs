//! What a policy is worth for one fleet, before anything begins: what it can see, how long it takes at least, and
//! whether it can ever end well. What can never finish, or never pass its own test, is refused, with the sum.

use std::fmt;

use jiff::SignedDuration;
use manifests::UtcTime;
use serde::Serialize;

use crate::policy::RolloutPolicy;
use crate::test::{Test, bounds};
use crate::waves::Layout;

/// What a rollout of this size can promise.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Assurance {
    /// The hosts that the policy selects.
    pub hosts: u32,
    /// The size of each wave.
    pub waves: Vec<u32>,
    /// The hosts that must mature good for a pass without failures.
    pub least: u32,
    /// Whether there are fewer than that: any bad or silent host halts, all must mature good.
    pub rule: Rule,
    /// After a clean first wave: the highest rate that it is compatible with, at 95 %.
    pub first_wave_bound: f64,
    /// After a clean rollout: the same of all hosts.
    pub bound: f64,
    /// Strata of which nothing is proven by themselves.
    pub unproven: Vec<String>,
    /// When it ends, if nothing ever has to wait but for the calendar, the pace and the bake.
    pub earliest_end: UtcTime,
}

/// By which rule waves are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// By the test.
    Test,
    /// Every host decides: the fleet is too small for the test.
    EveryHost,
}

/// Why a policy does not fit a fleet, each with its arithmetic.
#[derive(Debug, Clone, PartialEq)]
pub enum Unfit {
    /// The selector names nobody.
    Nobody,
    /// The first wave can never pass.
    FirstWave {
        /// Hosts in it.
        first: u32,
        /// Hosts that a pass takes.
        least: u32,
        /// The weight of a success.
        success: f64,
        /// Where it passes.
        pass_at: f64,
    },
    /// One failure halts, and so does one liar.
    OneFailure {
        /// The weight of a failure.
        failure: f64,
        /// Where it halts.
        halt_at: f64,
    },
    /// A healthy release is expected to use up the budget of failures.
    Budget {
        /// The fleet.
        hosts: u32,
        /// The healthy rate.
        p0: f64,
        /// The budget in hosts.
        budget: u32,
    },
    /// There is no time at which hosts may begin.
    NeverOpens {
        /// From when on none was found.
        from: UtcTime,
        /// The wave that has to wait, from 1.
        wave: usize,
    },
    /// It takes longer than its document counts.
    TooLong {
        /// When it would end at the earliest.
        end: UtcTime,
        /// When its document expires.
        expires: UtcTime,
        /// How many waves there are.
        waves: usize,
        /// What each of them takes, in seconds.
        each: u64,
    },
}

impl std::error::Error for Unfit {}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("selector: expected at least one host, found none"),
            Self::FirstWave { first, least, success, pass_at } => write!(
                f,
                "waves.first: expected at least {least} hosts, found {first}: {first} x {success:.4} = {:.3}, \
                 below ln(1/beta) = {pass_at:.3}, so that even {first} clean hosts never pass",
                f64::from(*first) * success
            ),
            Self::OneFailure { failure, halt_at } => write!(
                f,
                "test: expected ln(W/alpha) above ln(p1/p0), found {halt_at:.3} and {failure:.3}: one failure, or \
                 one lying host, would halt the rollout"
            ),
            Self::Budget { hosts, p0, budget } => write!(
                f,
                "budgets.failed: expected more than {hosts} x {p0} = {:.1} hosts, found {budget}: a healthy release \
                 is expected to fail on as many",
                f64::from(*hosts) * p0
            ),
            Self::NeverOpens { from, wave } => {
                write!(f, "windows: expected one to open for wave {wave} from {from} on, found none")
            }
            Self::TooLong { end, expires, waves, each } => write!(
                f,
                "expires: expected {end} or later, found {expires}: {waves} waves x {:.1} h to start and to bake, \
                 and the time until windows open",
                *each as f64 / 3600.0
            ),
        }
    }
}

/// Holds a policy against a fleet that it is laid out over, for a rollout that begins at `start` and whose
/// document counts until `expires`.
///
/// # Errors
/// Everything that does not fit, at once.
pub fn assure(
    policy: &RolloutPolicy,
    layout: &Layout,
    start: UtcTime,
    expires: UtcTime,
) -> Result<Assurance, Vec<Unfit>> {
    let hosts = layout.members.len() as u32;
    if hosts == 0 {
        return Err(vec![Unfit::Nobody]);
    }
    let test = layout.test(policy);
    let mut unfit = Vec::new();
    if rule(layout, &test) == Rule::Test {
        unfit.extend(unfit_for_the_test(policy, layout, &test));
    }
    let end = earliest_end(policy, layout, start);
    match end {
        Ok(end) if end >= expires => unfit.push(Unfit::TooLong {
            end,
            expires,
            waves: layout.waves(),
            each: u64::from(policy.waves.start_over.secs()) + u64::from(policy.waves.bake.secs()),
        }),
        Ok(_) => {}
        Err(ref never) => unfit.push(never.clone()),
    }
    let (Ok(earliest_end), true) = (end, unfit.is_empty()) else { return Err(unfit) };
    let waves = sizes(layout);
    Ok(Assurance {
        hosts,
        least: test.least(),
        rule: rule(layout, &test),
        first_wave_bound: bounds::upper(0, waves[0]),
        bound: bounds::upper(0, hosts),
        unproven: layout.unproven(&test).map(|stratum| stratum.name.clone()).collect(),
        earliest_end,
        waves,
    })
}

/// By which rule the waves of this fleet are judged.
pub fn rule(layout: &Layout, test: &Test) -> Rule {
    if (layout.members.len() as u64) < u64::from(test.least()) { Rule::EveryHost } else { Rule::Test }
}

fn sizes(layout: &Layout) -> Vec<u32> {
    let begins = std::iter::once(&0).chain(&layout.ends);
    layout.ends.iter().zip(begins).map(|(end, begin)| (end - begin) as u32).collect()
}

fn unfit_for_the_test(policy: &RolloutPolicy, layout: &Layout, test: &Test) -> Vec<Unfit> {
    let [failure, success, halt_at, pass_at] = test.terms();
    let (hosts, least) = (layout.members.len() as u32, test.least());
    let first = layout.ends[0] as u32;
    let budget = policy.budgets.failed.rounded_up_of(hosts);
    let p0 = policy.test.p0;
    [
        (first < least).then_some(Unfit::FirstWave { first, least, success, pass_at }),
        (test.failures_to_halt() == 1).then_some(Unfit::OneFailure { failure, halt_at }),
        (f64::from(budget) < f64::from(hosts) * p0).then_some(Unfit::Budget { hosts, p0, budget }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// When the last wave has been watched, if each begins as soon as the calendar lets it.
fn earliest_end(policy: &RolloutPolicy, layout: &Layout, start: UtcTime) -> Result<UtcTime, Unfit> {
    let calendar = policy.calendar();
    let mut at = start;
    for (number, size) in (1..).zip(sizes(layout)) {
        let open = |from: UtcTime| calendar.opens(from).ok_or(Unfit::NeverOpens { from, wave: number });
        let first = open(at)?;
        // The last of the wave begins one slot before all of `start_over` is over.
        let spread = i64::from(policy.waves.start_over.secs()) * i64::from(size - 1) / i64::from(size);
        let last = open(later(first, spread))?;
        at = later(last, i64::from(policy.waves.bake.secs()));
    }
    Ok(at)
}

/// So many seconds later; the end of time at the latest.
pub(crate) fn later(time: UtcTime, seconds: i64) -> UtcTime {
    let sum = time.timestamp().saturating_add(SignedDuration::from_secs(seconds));
    sum.map_or(time, UtcTime::floor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Amount, Window};
    use crate::sample;

    const START: &str = "2026-11-02T08:00:00Z";

    fn assure_with(
        hosts: usize,
        expires: &str,
        change: impl FnOnce(&mut RolloutPolicy),
    ) -> Result<Assurance, String> {
        let mut policy = sample::policy();
        change(&mut policy);
        let layout = Layout::new(&policy, sample::rollout(), &sample::inventory(hosts));
        assure(&policy, &layout, START.parse().unwrap(), expires.parse().unwrap())
            .map_err(|unfit| unfit.iter().map(Unfit::to_string).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn ten_thousand_hosts_take_a_week_and_are_told_what_that_proves() {
        let assurance = assure_with(10_000, "2026-12-01T00:00:00Z", |_| {}).unwrap();
        assert_eq!(assurance.waves, [60, 240, 1200, 2500, 2500, 2500, 1000]);
        assert_eq!((assurance.least, assurance.rule), (60, Rule::Test));
        assert!((assurance.first_wave_bound - 0.0487).abs() < 1e-4);
        assert!((assurance.bound - 0.0003).abs() < 1e-5);
        assert!(assurance.unproven.is_empty());
        assert!(assurance.earliest_end > "2026-11-10T11:00:00Z".parse().unwrap());
        assert!(assurance.earliest_end <= "2026-11-10T12:00:00Z".parse().unwrap());
    }

    #[test]
    fn what_cannot_end_before_its_document_expires_is_refused_with_the_sum() {
        let refusal = assure_with(10_000, "2026-11-05T00:00:00Z", |_| {}).unwrap_err();
        assert!(refusal.contains("7 waves x 28.0 h"), "{refusal}");
    }

    #[test]
    fn a_first_wave_that_can_never_pass_is_refused_with_the_sum() {
        let refusal =
            assure_with(10_000, "2026-12-01T00:00:00Z", |policy| policy.waves.first = 59).unwrap_err();
        assert!(refusal.contains("59 x 0.0503 = 2.967, below ln(1/beta) = 2.996"), "{refusal}");
        assert!(assure_with(10_000, "2026-12-01T00:00:00Z", |policy| policy.waves.first = 60).is_ok());
    }

    #[test]
    fn a_test_that_one_liar_could_halt_is_refused() {
        let refusal = assure_with(60, "2026-12-01T00:00:00Z", |policy| {
            policy.strata.clear();
            policy.test.alpha = 0.05;
        })
        .unwrap_err();
        assert!(refusal.contains("found 2.996 and 3.912"), "{refusal}");
    }

    #[test]
    fn a_budget_that_a_healthy_release_uses_up_is_refused() {
        let tight = |policy: &mut RolloutPolicy| policy.budgets.failed = Amount::Hosts(9);
        let refusal = assure_with(10_000, "2026-12-01T00:00:00Z", tight).unwrap_err();
        assert!(refusal.contains("10000 x 0.001 = 10.0 hosts, found 9"), "{refusal}");
    }

    #[test]
    fn a_small_fleet_is_judged_host_by_host_and_its_bound_is_told() {
        let assurance = assure_with(5, "2026-12-01T00:00:00Z", |_| {}).unwrap();
        assert_eq!(assurance.rule, Rule::EveryHost);
        assert!((assurance.bound - 0.4507).abs() < 1e-4);
        assert!(!assurance.unproven.is_empty());
    }

    #[test]
    fn nobody_and_a_calendar_that_never_opens_are_refused() {
        let other = |policy: &mut RolloutPolicy| policy.selector.groups = vec!["others".parse().unwrap()];
        assert!(assure_with(100, "2026-12-01T00:00:00Z", other).unwrap_err().contains("found none"));
        let frozen_until = |until: &'static str| {
            move |policy: &mut RolloutPolicy| {
                policy.freezes = vec![crate::policy::Freeze {
                    zone: "UTC".parse().unwrap(),
                    from: "2026-11-01 00:00".to_owned(),
                    until: until.to_owned(),
                    reason: "for long".parse().unwrap(),
                }];
                policy.windows = vec![Window {
                    zone: "UTC".parse().unwrap(),
                    days: vec![],
                    at: "22:00".to_owned(),
                    length: "1h".parse().unwrap(),
                }];
            }
        };
        let refusal = assure_with(5, "2026-12-01T00:00:00Z", frozen_until("2028-11-01 00:00")).unwrap_err();
        assert!(refusal.starts_with("expires: expected 2028-11-"), "{refusal}");
        let refusal = assure_with(5, "2026-12-01T00:00:00Z", frozen_until("9999-12-30 22:00")).unwrap_err();
        assert!(refusal.starts_with("windows: expected one to open for wave 1"), "{refusal}");
    }
}
