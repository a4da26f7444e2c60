//! `update rollout simulate`: a policy played before there is a rollout.

use std::path::PathBuf;

use fleet::assurance::assure;
use fleet::rollout::Plan;
use fleet::simulate::inventory::Synthetic;
use fleet::simulate::{Assumptions, forecast};
use manifests::{Period, Sha256, UtcTime};
use system::clock::{Clock as _, SystemClock};
use system::exit::Failure;
use system::output::{line, object};

use super::Global;
use super::draft::{inventory, rollout_policy, unfit};
use super::hosts::after;

/// Play a policy against a fleet before there is a rollout
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update rollout simulate policy.yaml --hosts 10000 --failure-rate 0.05\n  update rollout simulate policy.yaml --as admin.yaml"
)]
pub(super) struct Args {
    /// The rollout policy
    policy: PathBuf,
    /// A made-up fleet of so many hosts; without, the fleet of the controller
    #[arg(long, value_name = "N")]
    hosts: Option<u32>,
    /// The part of hosts that the release hurts
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    failure_rate: f64,
    /// A hurt host shows it within this time after its change
    #[arg(long, value_name = "TIME", default_value = "0s")]
    shows_within: Period,
    /// How often it is played
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    plays: u32,
    /// Another course of chance for each
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// By the policy's profile for emergencies
    #[arg(long)]
    emergency: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    use system::exit::Exit;
    if !(0.0..=1.0).contains(&args.failure_rate) {
        return Err(Failure::new(Exit::Usage, "--failure-rate").because("0 to 1", args.failure_rate));
    }
    let (policy, _) = rollout_policy(&args.policy)?;
    let policy = match args.emergency {
        false => policy,
        true => policy
            .in_emergency()
            .ok_or_else(|| Failure::new(Exit::Refused, "the policy knows no emergency"))?,
    };
    let fleet = match args.hosts {
        Some(hosts) => {
            let mut fleet = Synthetic { hosts, seed: args.seed, ..Synthetic::default() }.inventory();
            // A made-up fleet is in the group that the policy asks for.
            fleet.iter_mut().for_each(|host| host.groups = policy.selector.groups.clone());
            fleet
        }
        None => inventory(&global.client()?)?,
    };
    let (start, expires) =
        (UtcTime::floor(SystemClock.now()), after(std::time::Duration::from_secs(360 * 24 * 3600))?);
    let plan = Plan::new(Sha256::of(&args.seed.to_be_bytes()), policy, &fleet, start, expires);
    let assurance = assure(&plan.policy, &plan.layout, start, expires).map_err(|why| unfit(&why))?;
    let assumptions = Assumptions {
        failure_rate: args.failure_rate,
        shows_within: args.shows_within,
        ..Assumptions::default()
    };
    let forecast = forecast(&plan, &assumptions, args.plays, args.seed);
    if global.json {
        object(&serde_json::json!({ "assurance": assurance, "forecast": forecast }));
        return Ok(());
    }
    let waves: Vec<String> = assurance.waves.iter().map(ToString::to_string).collect();
    line(&format!("{} hosts in waves of {}", assurance.hosts, waves.join(", ")));
    line(&format!(
        "{} plays at a failure rate of {}: {} completed, {} halted, {} paused, {} out of time",
        forecast.plays,
        args.failure_rate,
        forecast.completed,
        forecast.halted,
        forecast.paused,
        forecast.expired
    ));
    line(&format!("hosts hurt: {} in the median, at most {} in 95 %", forecast.hurt.0, forecast.hurt.1));
    let hours = |seconds: u64| seconds as f64 / 3600.0;
    line(&format!(
        "duration: {:.1} h in the median, at most {:.1} h in 95 %",
        hours(forecast.seconds.0),
        hours(forecast.seconds.1)
    ));
    for (number, rate) in (1..).zip(&forecast.undetectable.rates) {
        line(&format!("not seen by the end of wave {number}: rates below {:.2} %", rate * 100.0));
    }
    Ok(())
}
