//! Hosts that fell silent: is it the release, or would they have fallen silent anyway?
//!
//! A silent host is a bad host: a kernel that hangs reports nothing. Unless hosts of the same domain that were
//! *not* touched fell silent alike; then it is an outage, which is no evidence against the release and no time
//! to go on either. "Alike" is Fisher's exact test, one-sided (*The Design of Experiments*, 1935): is the part
//! of silent hosts higher among the changed than chance would have it?

/// Below this probability the difference is not chance.
pub const SIGNIFICANCE: f64 = 0.05;

/// Hosts of one domain, and how many of them are silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Silent ones.
    pub silent: u32,
    /// All of them.
    pub hosts: u32,
}

/// Whose doing silence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The release's, as far as anybody can tell: the silent hosts are bad.
    Release,
    /// Not the release's: the rollout pauses.
    Outage,
}

/// Whose doing the silence of `changed` is, beside that of `held_back` hosts of the same domain.
///
/// An outage has to be seen among those held back; where nobody is held back, nothing speaks for one.
pub fn cause(changed: Group, held_back: Group) -> Cause {
    let alike = held_back.silent > 0 && at_least_as_many(changed, held_back) > SIGNIFICANCE;
    if alike { Cause::Outage } else { Cause::Release }
}

/// The probability that `changed` has at least as many silent hosts as it has, if the silent ones of both groups
/// are spread among all hosts by chance (the upper tail of the hypergeometric distribution).
pub fn at_least_as_many(changed: Group, held_back: Group) -> f64 {
    let silent = changed.silent.min(changed.hosts) + held_back.silent.min(held_back.hosts);
    let all = changed.hosts + held_back.hosts;
    let most = silent.min(changed.hosts);
    let term = |among_changed: u32| {
        let others = silent - among_changed;
        if others > held_back.hosts {
            return 0.0;
        }
        (ln_choose(changed.hosts, among_changed) + ln_choose(held_back.hosts, others)
            - ln_choose(all, silent))
        .exp()
    };
    (changed.silent.min(changed.hosts)..=most).map(term).sum::<f64>().min(1.0)
}

/// The logarithm of a binomial coefficient; exact enough for the few thousand hosts of a domain.
fn ln_choose(n: u32, k: u32) -> f64 {
    let k = k.min(n - k);
    (0..k).map(|i| (f64::from(n - i) / f64::from(i + 1)).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(silent: u32, hosts: u32) -> Group {
        Group { silent, hosts }
    }

    #[test]
    fn the_probability_is_that_of_the_lady_tasting_tea() {
        // Four cups of eight, all four right: 1 / 70; at least three: 17 / 70.
        assert!((at_least_as_many(group(4, 4), group(0, 4)) - 1.0 / 70.0).abs() < 1e-12);
        assert!((at_least_as_many(group(3, 4), group(1, 4)) - 17.0 / 70.0).abs() < 1e-12);
        assert!((at_least_as_many(group(0, 4), group(4, 4)) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_rack_without_power_is_an_outage() {
        assert_eq!(cause(group(3, 3), group(20, 20)), Cause::Outage);
        assert_eq!(cause(group(2, 5), group(6, 20)), Cause::Outage);
    }

    #[test]
    fn silence_among_the_changed_alone_is_the_releases_doing() {
        assert_eq!(cause(group(1, 1), group(0, 20)), Cause::Release);
        assert_eq!(cause(group(3, 3), group(1, 20)), Cause::Release);
    }

    #[test]
    fn where_nobody_is_held_back_nothing_speaks_for_an_outage() {
        assert_eq!(cause(group(5, 5), group(0, 0)), Cause::Release);
        assert_eq!(cause(group(1, 40), group(0, 0)), Cause::Release);
    }

    #[test]
    fn one_dead_host_in_a_large_domain_excuses_nothing() {
        // 1 of 1 beside 1 of 1000: 2 in 1001.
        assert_eq!(cause(group(1, 1), group(1, 1000)), Cause::Release);
    }
}
