//! Failures with one cause: a switch that dies takes a whole rack along, and is one piece of evidence.
//!
//! Two failures in one domain hang together when the later comes within the policy's `correlated` of the
//! *first* of its cluster, not of the one before: a release that fails hosts of one domain one by one, slowly,
//! cannot hide in one ever growing cluster. Hard limits count every host.

use std::collections::BTreeMap;

use manifests::{Period, UtcTime};

/// How many causes there are at least: clusters of `failures`, each a domain and a time. The order does not
/// matter.
pub fn causes<D: Ord>(failures: impl IntoIterator<Item = (D, UtcTime)>, within: Period) -> u32 {
    let mut by_domain: BTreeMap<D, Vec<UtcTime>> = BTreeMap::new();
    for (domain, at) in failures {
        by_domain.entry(domain).or_default().push(at);
    }
    by_domain.into_values().map(|times| clusters(times, within)).sum()
}

fn clusters(mut times: Vec<UtcTime>, within: Period) -> u32 {
    times.sort_unstable();
    let mut clusters = 0;
    let mut begin: Option<i64> = None;
    for time in times.iter().map(|time| time.timestamp().as_second()) {
        if begin.is_none_or(|begin| time - begin > i64::from(within.secs())) {
            begin = Some(time);
            clusters += 1;
        }
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(failures: &[(&str, &str)]) -> u32 {
        let at = |time: &str| format!("2026-11-01T{time}Z").parse().unwrap();
        causes(failures.iter().map(|(domain, time)| (*domain, at(time))), Period::from_secs(300))
    }

    #[test]
    fn a_rack_that_dies_is_one_cause() {
        assert_eq!(count(&[("r1", "12:00:00"), ("r1", "12:00:03"), ("r1", "12:05:00")]), 1);
        assert_eq!(count(&[]), 0);
    }

    #[test]
    fn other_domains_and_other_times_are_other_causes() {
        assert_eq!(count(&[("r1", "12:00:00"), ("r2", "12:00:00")]), 2);
        assert_eq!(count(&[("r1", "12:00:00"), ("r1", "12:05:01")]), 2);
    }

    #[test]
    fn a_slow_trickle_does_not_hide_in_one_cluster() {
        let trickle = ["12:00:00", "12:04:00", "12:08:00", "12:12:00", "12:16:00"].map(|time| ("r1", time));
        assert_eq!(count(&trickle), 3);
    }

    #[test]
    fn the_order_in_which_failures_are_told_does_not_matter() {
        assert_eq!(count(&[("r1", "12:12:00"), ("r1", "12:00:00"), ("r1", "12:04:00")]), 2);
    }
}
