//! What hosts that were watched prove: bounds at 95 % confidence, and how many hosts a bound takes.

/// The confidence of every bound that is printed.
pub const CONFIDENCE: f64 = 0.95;

/// The 95 % quantile of the normal distribution.
const Z: f64 = 1.644_853_626_951_472_2;

/// The highest rate that `bad` of `hosts` are compatible with, at 95 % confidence; 1 if there are no hosts.
///
/// Without failures it is exact (`1 - 0.05^(1/n)`, the rate at which `n` clean hosts are seen once in twenty
/// times); with failures it is Wilson's one-sided bound (*Journal of the American Statistical Association* 22,
/// 1927), which can be a little below the exact one.
pub fn upper(bad: u32, hosts: u32) -> f64 {
    if hosts == 0 {
        return 1.0;
    }
    let n = f64::from(hosts);
    if bad == 0 {
        return 1.0 - (1.0 - CONFIDENCE).powf(1.0 / n);
    }
    let p = f64::from(bad.min(hosts)) / n;
    let zz = Z * Z;
    let centre = p + zz / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + zz / (4.0 * n * n)).sqrt();
    ((centre + half) / (1.0 + zz / n)).min(1.0)
}

/// How many hosts show a failure of rate `rate` at least once, with 95 % confidence: `ln 0.05 / ln(1 - p)`.
/// Rates outside of 0 to 1 are never seen.
pub fn hosts_to_see(rate: f64) -> u32 {
    if !(rate > 0.0 && rate < 1.0) {
        return if rate >= 1.0 { 1 } else { u32::MAX };
    }
    ((1.0 - CONFIDENCE).ln() / (1.0 - rate).ln()).ceil() as u32
}

/// The lowest rate per host and day that `hosts` watched for `bake_days` show at least once, at 95 % confidence
/// (the rule of three: `n T >= 3 / r`). Infinite if nobody is watched.
pub fn slowest_seen(hosts: u32, bake_days: f64) -> f64 {
    3.0 / (f64::from(hosts) * bake_days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_to_see_a_rate_are_those_of_the_tables() {
        assert_eq!([0.05, 0.01, 0.001].map(hosts_to_see), [59, 299, 2_995]);
        assert_eq!(hosts_to_see(0.0), u32::MAX);
        assert_eq!(hosts_to_see(f64::NAN), u32::MAX);
        assert_eq!(hosts_to_see(1.0), 1);
    }

    #[test]
    fn a_clean_bound_is_the_rate_that_so_many_hosts_show() {
        for hosts in [1, 5, 59, 60, 299, 10_000] {
            let bound = upper(0, hosts);
            assert!(((1.0 - bound).powi(hosts as i32) - 0.05).abs() < 1e-9, "{hosts}");
        }
        assert_eq!(upper(0, 0), 1.0);
        assert!((upper(0, 59) - 0.0495).abs() < 1e-4);
    }

    #[test]
    fn wilsons_bound_is_above_the_rate_and_falls_with_more_hosts() {
        // By hand: n = 138, k = 1: (0.00725 + 0.00980 + 0.01553) / 1.0196.
        assert!((upper(1, 138) - 0.0320).abs() < 5e-4, "{}", upper(1, 138));
        assert!(upper(1, 138) < upper(1, 60) && upper(2, 60) > upper(1, 60));
        assert_eq!(upper(60, 60), 1.0);
        assert!(upper(61, 60) <= 1.0);
    }

    #[test]
    fn sixty_hosts_and_a_day_see_five_percent_a_day() {
        assert!((slowest_seen(60, 1.0) - 0.05).abs() < 1e-12);
        assert!(slowest_seen(0, 1.0).is_infinite());
    }
}
