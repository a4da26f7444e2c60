//! The README's test command: every test of the workspace and a share of the exam, with what they need set up first,
//! and a report of what took long.
//!
//! The tests are run by `cargo nextest` where it is installed, else by `cargo test`, which does not say how long a
//! test takes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::exam::{SEED_VARIABLE, Seed};
use crate::lab::host;
use crate::lab::steps::{self, Step};
use crate::lab::{Lab, needs};
use crate::product::{TEST_FEATURES, target_directory, workspace};
use crate::stage::Stage;

/// What the command may take on two cores that have nothing else to do, once everything is fetched.
const BUDGET: Duration = Duration::from_secs(25 * 60);

/// So many of the slowest tests are listed.
const LISTED: usize = 10;

/// Set up the lab, run all tests, and return the runner's exit code. Its output passes through.
///
/// # Errors
/// If the lab cannot be set up or the runner cannot be started.
pub fn run(seed: Seed, arguments: &[String]) -> Result<u8> {
    let lab = Lab::open()?;
    needs::require(lab.cache(), &needs::of_tests())?;
    // Made here once, and not by whichever test comes first while the others wait for it.
    Stage::set(&lab)?;
    drop(lab);
    let runner = Runner::of_this_machine();
    let step = Step::begin("compiling the tests");
    let compiled = runner.command(seed)?.arg("--no-run").status().context("starting cargo")?;
    step.end();
    if !compiled.success() {
        return Ok(1);
    }
    println!("This run's share of the exam: {SEED_VARIABLE}={seed}");
    let times = runner.forget_times()?;
    let begun = Instant::now();
    let status = runner.command(seed)?.args(arguments).status().context("starting cargo")?;
    let took = begun.elapsed();
    let report = times.filter(|path| path.is_file()).map(fs::read_to_string).transpose()?;
    println!("\n{}", summary(report.as_deref(), took));
    println!("{SEED_VARIABLE}={seed} takes the same share of the exam again.");
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// What runs the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    Nextest,
    Cargo,
}

impl Runner {
    fn of_this_machine() -> Self {
        let nextest = host::cargo().args(["nextest", "--version"]).output();
        if nextest.is_ok_and(|out| out.status.success()) { Self::Nextest } else { Self::Cargo }
    }

    fn command(self, seed: Seed) -> Result<Command> {
        let mut command = host::cargo();
        command.current_dir(workspace()?).env(SEED_VARIABLE, seed.to_string());
        match self {
            Self::Nextest => command.args(["nextest", "run"]),
            Self::Cargo => command.arg("test"),
        };
        // As the programs for the machines are built, so that nothing is compiled in two shapes.
        command.args(["--workspace", "--locked", "--features", TEST_FEATURES]);
        Ok(command)
    }

    /// Where the times will be, if the runner keeps any; none are there now.
    fn forget_times(self) -> Result<Option<PathBuf>> {
        if self == Self::Cargo {
            return Ok(None);
        }
        // As `.config/nextest.toml` says.
        let path = target_directory()?.join("nextest/default/junit.xml");
        let _ = fs::remove_file(&path);
        Ok(Some(path))
    }
}

/// One test, as the runner reports it.
#[derive(Debug, Clone, PartialEq)]
struct Case {
    name: String,
    seconds: f64,
}

/// The tests in a JUnit report.
fn cases(junit: &str) -> Vec<Case> {
    let elements = junit.split("<testcase").skip(1).filter_map(|rest| rest.split('>').next());
    let parsed = elements.filter_map(|element| {
        let attribute = |name: &str| {
            // Not the end of a longer name: there are `name` and `classname`.
            let (_, rest) = element.split_once(&format!(" {name}=\""))?;
            rest.split('"').next()
        };
        let name = format!("{} {}", attribute("classname")?, attribute("name")?);
        Some(Case { name, seconds: attribute("time")?.parse().ok()? })
    });
    parsed.collect()
}

fn summary(junit: Option<&str>, took: Duration) -> String {
    let mut text = String::new();
    if let Some(junit) = junit {
        let mut cases = cases(junit);
        cases.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        text += &format!("The slowest of {} tests:\n", cases.len());
        for Case { name, seconds } in cases.iter().take(LISTED) {
            text += &format!("{seconds:8.1} s  {name}\n");
        }
    }
    let minutes = |time: Duration| time.as_secs_f64() / 60.0;
    let all = steps::since_start().unwrap_or(took);
    text += &format!(
        "{:.1} min in all, {:.1} min of it running tests; the budget is {:.0} min on two cores of their own.",
        minutes(all),
        minutes(took),
        minutes(BUDGET)
    );
    if let Some(computed) = steps::computed() {
        text += &format!(" It computed for {:.1} min on one core or the other.", minutes(computed));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUNIT: &str = r#"<testsuites><testsuite name="vm-tests::lab" tests="2">
        <testcase name="a_short_one" classname="vm-tests::lab" timestamp="2026-01-01" time="0.512">
        </testcase>
        <testcase name="a_long_one" classname="updater" timestamp="2026-01-01" time="61.000"/>
        </testsuite></testsuites>"#;

    #[test]
    fn the_slowest_test_comes_first_and_the_budget_last() {
        let text = summary(Some(JUNIT), Duration::from_secs(90));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "The slowest of 2 tests:");
        assert_eq!(lines[1].trim_start(), "61.0 s  updater a_long_one");
        assert_eq!(lines[2].trim_start(), "0.5 s  vm-tests::lab a_short_one");
        assert!(lines[3].contains("1.5 min of it running tests; the budget is 25 min"), "{}", lines[3]);
    }
}
