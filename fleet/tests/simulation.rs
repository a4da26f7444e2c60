//! The simulator agrees with the theory, with fixed seeds.

use std::thread;

use fleet::policy::RolloutPolicy;
use fleet::rollout::Plan;
use fleet::simulate::inventory::Synthetic;
use fleet::simulate::{Assumptions, Forecast, Play, forecast, play};
use manifests::{Period, Sha256};

fn plan(hosts: u32, more: &str) -> Plan {
    let policy = format!("schema: 1\nselector: {{groups: [fleet]}}\n{more}");
    let policy = RolloutPolicy::parse(policy.as_bytes()).unwrap();
    let inventory = Synthetic { hosts, ..Synthetic::default() }.inventory();
    let (start, end) = ("2026-11-02T00:00:00Z".parse().unwrap(), "2027-02-01T00:00:00Z".parse().unwrap());
    Plan::new(Sha256::of(b"a rollout"), policy, &inventory, start, end)
}

fn at_rate(failure_rate: f64) -> Assumptions {
    Assumptions { failure_rate, ..Assumptions::default() }
}

/// Two halves, on two cores.
fn forecasts(plan: &Plan, assumptions: &Assumptions, plays: u32) -> [Forecast; 2] {
    thread::scope(|scope| {
        let other = scope.spawn(|| forecast(plan, assumptions, plays / 2, 1_010_000));
        [forecast(plan, assumptions, plays / 2, 10_000), other.join().unwrap()]
    })
}

#[test]
fn of_600_healthy_releases_none_is_stopped() {
    // Looked at every 20 minutes, so that 600 plays of 10,000 hosts take seconds.
    let healthy = Assumptions { look: Period::from_secs(1200), ..at_rate(0.001) };
    let halves = forecasts(&plan(10_000, ""), &healthy, 600);
    let sum = |of: fn(&Forecast) -> u32| halves.iter().map(of).sum::<u32>();
    println!(
        "healthy: {} completed, {} halted, {} paused",
        sum(|f| f.completed),
        sum(|f| f.halted),
        sum(|f| f.paused)
    );
    assert_eq!(sum(|forecast| forecast.halted), 0);
    assert!(sum(|forecast| forecast.paused) <= 6, "{halves:?}");
    assert_eq!(sum(|forecast| forecast.completed + forecast.paused), 600);
}

#[test]
fn a_release_that_hurts_5_percent_is_stopped_with_3_or_4_hosts_hurt() {
    let halves = forecasts(&plan(10_000, ""), &at_rate(0.05), 200);
    for forecast in &halves {
        println!("5 %: {forecast:?}");
        assert!(f64::from(forecast.halted) >= 0.95 * f64::from(forecast.plays), "{forecast:?}");
        assert!(forecast.hurt.0 <= 4, "{forecast:?}");
        assert_eq!(forecast.completed, 0);
    }
}

#[test]
fn a_release_that_hurts_2_percent_is_stopped_or_waits_for_people() {
    let halves = forecasts(&plan(10_000, ""), &at_rate(0.02), 200);
    let halted: u32 = halves.iter().map(|forecast| forecast.halted).sum();
    println!("2 %: {halves:?}");
    assert!(halted >= 160, "{halted}");
    assert!(halves.iter().all(|forecast| forecast.completed == 0), "{halves:?}");
}

#[test]
fn failures_that_show_late_are_found_all_the_same() {
    let late = Assumptions { shows_within: Period::from_secs(20 * 3600), ..at_rate(0.05) };
    let forecast = forecast(&plan(10_000, ""), &late, 100, 7);
    println!("5 %, late: {forecast:?}");
    assert!(forecast.halted >= 95, "{forecast:?}");
    assert_eq!(forecast.completed, 0);
}

#[test]
fn a_seed_gives_the_same_play() {
    let plan = plan(1000, "");
    let played: Vec<Play> = (0..4).map(|seed| play(&plan, &at_rate(0.02), seed)).collect();
    let again: Vec<Play> = (0..4).map(|seed| play(&plan, &at_rate(0.02), seed)).collect();
    assert_eq!(played, again);
    assert!(played.iter().any(|play| *play != played[0]));
}

#[test]
fn a_clean_rollout_takes_what_waves_pace_and_bake_add_up_to() {
    let played = play(&plan(10_000, ""), &at_rate(0.0), 1);
    assert_eq!((played.hurt, played.begun, played.waves), (0, 10_000, 7));
    // Seven waves of 28 hours, and up to one look more for each.
    let hours = played.seconds as f64 / 3600.0;
    assert!((7.0 * 27.9..7.0 * 28.7).contains(&hours), "{hours}");
}

#[test]
fn hosts_begin_in_windows_only_and_the_rollout_takes_as_long() {
    let nights = "windows: [{zone: Europe/Berlin, days: [mon, tue, wed, thu], at: '22:00', for: 6h}]\n";
    let played = play(&plan(1000, nights), &at_rate(0.0), 1);
    assert_eq!((played.begun, played.hurt), (1000, 0));
    let open = play(&plan(1000, ""), &at_rate(0.0), 1);
    assert!(played.seconds > open.seconds + 2 * 86_400, "{played:?} {open:?}");
}
