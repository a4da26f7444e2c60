//! What a rollout promises, in words and with its figures: sentences for people.

use super::event::Limit;
use super::state::{Plan, Progress};
use crate::assurance::Rule;
use crate::test::bounds;

/// What the rollout promises, and what is known by now. A sentence each.
pub fn guarantee(plan: &Plan, progress: &Progress) -> Vec<String> {
    let hosts = progress.hosts().len() as u32;
    let first = plan.layout.ends.first().copied().unwrap_or(0) as u32;
    let mut sentences = match plan.rule {
        Rule::Test => by_the_test(plan),
        Rule::EveryHost => vec![format!(
            "It is for {hosts} hosts, fewer than the {} that the test needs: any host that is hurt or falls silent \
             halts it, and all have to be good.",
            plan.test.least()
        )],
    };
    let bound = |hosts| percent(bounds::upper(0, hosts));
    sentences.push(format!(
        "After a clean first wave of {first} hosts at most {} of such hosts would be hurt, after a clean rollout to \
         all {hosts} at most {} (at 95 %).",
        bound(first),
        bound(hosts)
    ));
    let budgets = &plan.policy.budgets;
    let limit = |limit| {
        let budget = match limit {
            Limit::Failed => budgets.failed,
            Limit::Lost => budgets.lost,
            Limit::Splats => budgets.splats,
        };
        format!("{budget} {limit} (now {})", progress.at_limit(limit))
    };
    sentences
        .push(format!("Budgets that halt it whatever the test says: {}.", Limit::ALL.map(limit).join(", ")));
    let unproven: Vec<&str> = plan.layout.unproven(&plan.test).map(|stratum| stratum.name.as_str()).collect();
    if plan.rule == Rule::Test && !unproven.is_empty() {
        sentences.push(format!("Too few to prove anything by themselves: {}.", unproven.join(", ")));
    }
    let good: u32 = (0..progress.waves()).map(|wave| progress.count(wave).good).sum();
    let hurt = progress.failures().len() as u32;
    if good + hurt > 0 {
        sentences.push(format!(
            "So far {good} hosts were watched to the end and {hurt} were hurt: at 95 % at most {} of such hosts are.",
            percent(bounds::upper(hurt, good + hurt))
        ));
    }
    sentences
}

fn by_the_test(plan: &Plan) -> Vec<String> {
    let crate::test::Parameters { p0, p1, alpha, beta } = plan.policy.test;
    vec![
        format!(
            "A release that hurts {} of hosts or fewer is ever halted with a probability of at most {}; a wave of one \
             that hurts {} or more passes with at most {}.",
            percent(p0),
            percent(alpha),
            percent(p1),
            percent(beta)
        ),
        format!(
            "A wave passes with {} good hosts and none hurt, or with {} and one; {} hurt hosts are the fewest that \
             halt it.",
            plan.test.needed(0),
            plan.test.needed(1),
            plan.test.failures_to_halt()
        ),
    ]
}

/// A probability as people write it, with two figures that count.
fn percent(part: f64) -> String {
    let percent = part * 100.0;
    let places = if percent > 0.0 { (1.0 - percent.log10().floor()).clamp(0.0, 6.0) as usize } else { 0 };
    let text = format!("{percent:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn percents_have_two_figures_that_count() {
        let all = [0.05, 0.001, 0.0487, 0.000_299_6, 1.0, 0.0, 0.123].map(percent);
        assert_eq!(all, ["5 %", "0.1 %", "4.9 %", "0.03 %", "100 %", "0 %", "12 %"]);
    }

    #[test]
    fn a_large_fleet_is_judged_by_the_test_and_a_small_one_by_every_host() {
        let words = |hosts| {
            let (not_before, expires) =
                ("2026-11-02T00:00:00Z".parse().unwrap(), "2026-12-31T00:00:00Z".parse().unwrap());
            let inventory = sample::inventory(hosts);
            let plan = Plan::new(sample::rollout(), sample::policy(), &inventory, not_before, expires);
            guarantee(&plan, &Progress::new(&plan)).join(" ")
        };
        let large = words(10_000);
        assert!(
            large.contains("A wave passes with 60 good hosts and none hurt, or with 138 and one"),
            "{large}"
        );
        assert!(large.contains("first wave of 60 hosts at most 4.9 %"), "{large}");
        assert!(!large.contains("So far"), "{large}");
        let small = words(12);
        assert!(small.contains("fewer than the 60 that the test needs: any host that is hurt"), "{small}");
    }
}
