//! The statistical test that lets a wave pass, holds it, or halts the rollout.
//!
//! What is asked: does the release hurt hosts at a rate of `p0` or less, or of `p1` or more? After Wald's
//! sequential probability ratio test (*Sequential Analysis*, 1947), with one change. In a staged start
//! failures are known at once and successes only after the bake. The textbook's one sum takes each as it comes,
//! so early failures stand there without the successes of their own time, and it stops nearly every healthy
//! release. Here the same evidence is summed up three times, each time with the hosts in flight on the side
//! that makes the answer safe:
//!
//! - **halt** when `k f - (g - k) s >= ln(W / alpha)`: even if all in flight turn out good
//! - **hold** (no more grants) while `k f - m s >= ln(W / alpha)`: as long as nothing more is known than now
//! - **pass** when `m s - k f >= ln(1 / beta)`: by those alone who have been watched for the whole bake
//!
//! with `f = ln(p1 / p0)`, `s = ln((1 - p0) / (1 - p1))`, `k` failures, `m` matured good, `g` granted, and `W`
//! tests planned. That a healthy release is ever halted has at most probability `alpha`, over all waves and
//! strata and however often one looks (Ville's inequality, and a union over the `W` tests).
//!
//! - [`bounds`]: what so many clean hosts prove
//! - [`correlation`]: failures with one cause
//! - [`silence`]: hosts that fell silent, and whether that is the release's doing

pub mod bounds;
pub mod correlation;
pub mod silence;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::PolicyError;

/// What the test tells apart, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Parameters {
    /// The rate of hurt hosts that is healthy.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub p0: f64,
    /// The rate that must be found.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub p1: f64,
    /// How probable it may be that a healthy release is halted.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub alpha: f64,
    /// How probable it may be that a wave at `p1` passes.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub beta: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { p0: 0.001, p1: 0.05, alpha: 0.01, beta: 0.05 }
    }
}

impl Parameters {
    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        let refuse = |field, expected, found| Err(PolicyError::Probability { field, expected, found });
        // Written so that what is no number is refused as well.
        if !(self.p0 > 0.0 && self.p0 < 1.0) {
            return refuse("test.p0", "above 0 and below 1", self.p0);
        }
        if !(self.p1 > self.p0 && self.p1 < 1.0) {
            return refuse("test.p1", "above p0 and below 1", self.p1);
        }
        if !(self.alpha > 0.0 && self.alpha <= 0.5) {
            return refuse("test.alpha", "above 0 and at most 0.5", self.alpha);
        }
        if !(self.beta > 0.0 && self.beta <= 0.5) {
            return refuse("test.beta", "above 0 and at most 0.5", self.beta);
        }
        Ok(())
    }
}

/// What is known of the hosts of one test, in hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Tally {
    /// `g`: told to begin, whatever became of them; without those on which nothing was touched.
    pub granted: u32,
    /// `m`: watched for the whole bake, and good.
    pub good: u32,
    /// `k`: hurt, those with one cause counted once.
    pub bad: u32,
}

/// What a tally says.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Enough good ones for these failures.
    Pass,
    /// Neither; more hosts may begin.
    Open,
    /// No more may begin before more is known of those who have.
    Hold,
    /// Stop, and go back.
    Halt,
}

/// One rollout's test: parameters, and how often it will be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Test {
    /// `f`: what a failure weighs.
    failure: f64,
    /// `s`: what a success weighs.
    success: f64,
    /// `ln(W / alpha)`.
    halt_at: f64,
    /// `ln(1 / beta)`.
    pass_at: f64,
}

impl Test {
    /// A test with `tests` planned (waves times strata, and once more per wave for all strata together).
    pub fn new(parameters: &Parameters, tests: u32) -> Self {
        let Parameters { p0, p1, alpha, beta } = *parameters;
        Self {
            failure: (p1 / p0).ln(),
            success: ((1.0 - p0) / (1.0 - p1)).ln(),
            halt_at: (f64::from(tests.max(1)) / alpha).ln(),
            pass_at: (1.0 / beta).ln(),
        }
    }

    /// What `tally` says. Halt comes before hold before pass.
    pub fn judge(&self, tally: Tally) -> Verdict {
        let Tally { granted, good, bad } = tally;
        let failures = f64::from(bad) * self.failure;
        let at_best = f64::from(granted.saturating_sub(bad)) * self.success;
        let known = f64::from(good) * self.success;
        if bad > 0 && failures - at_best >= self.halt_at {
            Verdict::Halt
        } else if bad > 0 && failures - known >= self.halt_at {
            Verdict::Hold
        } else if known - failures >= self.pass_at {
            Verdict::Pass
        } else {
            Verdict::Open
        }
    }

    /// How many must have matured good for a pass with `bad` failures. At least 1.
    pub fn needed(&self, bad: u32) -> u32 {
        let needed = ((self.pass_at + f64::from(bad) * self.failure) / self.success).ceil();
        // Saturates; policies with such parameters fit no fleet.
        (needed as u32).max(1)
    }

    /// The least number of hosts that can pass: all of them good.
    pub fn least(&self) -> u32 {
        self.needed(0)
    }

    /// The fewest failures that halt, if they are all there is.
    pub fn failures_to_halt(&self) -> u32 {
        ((self.halt_at / self.failure).ceil() as u32).max(1)
    }

    /// The terms of the three sums, for whoever shows how far a tally is from its bounds: weight of a failure,
    /// weight of a success, where it halts, where it passes.
    pub fn terms(&self) -> [f64; 4] {
        [self.failure, self.success, self.halt_at, self.pass_at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seven() -> Test {
        Test::new(&Parameters::default(), 7)
    }

    fn judge(granted: u32, good: u32, bad: u32) -> Verdict {
        seven().judge(Tally { granted, good, bad })
    }

    #[test]
    fn sixty_clean_hosts_pass_and_fifty_nine_never_do() {
        assert_eq!(seven().least(), 60);
        assert_eq!(judge(60, 60, 0), Verdict::Pass);
        assert_eq!(judge(59, 59, 0), Verdict::Open);
        assert_eq!(judge(10_000, 59, 0), Verdict::Open);
    }

    #[test]
    fn with_one_failure_a_hundred_and_thirty_eight_good_ones_pass() {
        assert_eq!(seven().needed(1), 138);
        assert_eq!(judge(139, 138, 1), Verdict::Pass);
        assert_eq!(judge(139, 137, 1), Verdict::Open);
    }

    #[test]
    fn those_in_flight_count_as_good_for_a_halt_and_not_at_all_for_a_pass() {
        // Three failures of sixty: 11.74 - 57 * 0.0503 = 8.87, above ln(700) = 6.55.
        assert_eq!(judge(60, 0, 3), Verdict::Halt);
        // Two of sixty: 7.82 - 58 * 0.0503 = 4.91 does not halt; before 26 are known good, nobody goes on.
        assert_eq!(judge(60, 0, 2), Verdict::Hold);
        assert_eq!(judge(60, 25, 2), Verdict::Hold);
        assert_eq!(judge(60, 26, 2), Verdict::Open);
        // Two of the first twenty-seven halt.
        assert_eq!(judge(27, 0, 2), Verdict::Halt);
    }

    #[test]
    fn one_failure_alone_never_halts() {
        assert_eq!(seven().failures_to_halt(), 2);
        for granted in 1..100 {
            assert!(judge(granted, 0, 1) < Verdict::Hold);
        }
    }

    #[test]
    fn more_tests_make_each_of_them_slower_to_halt() {
        let halts = |tests| Test::new(&Parameters::default(), tests).failures_to_halt();
        assert!(halts(1) <= halts(35) && halts(35) < halts(100_000));
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        let good = Parameters::default();
        for bad in [
            Parameters { p0: 0.0, ..good },
            Parameters { p0: f64::NAN, ..good },
            Parameters { p1: 0.001, ..good },
            Parameters { p1: 1.0, ..good },
            Parameters { alpha: 0.0, ..good },
            Parameters { alpha: 0.6, ..good },
            Parameters { beta: f64::INFINITY, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?} was taken");
        }
        assert!(good.check().is_ok());
    }
}
