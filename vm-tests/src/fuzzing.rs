//! The readers under a fuzzer: led by what the inputs reach, or blindly.
//!
//! libFuzzer needs every crate compiled once more, with SanitizerCoverage, which stable Rust passes on to LLVM. That is
//! minutes of compiling, and so for the exam and for people. Every run of the tests changes the inputs blindly instead,
//! with the ordinary build: other inputs for each seed.
//!
//! What was found to reach more is kept in the target directory, and begins the next run.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::exam::{Seed, Share};
use crate::lab::host::{self, Step, program, run};
use crate::product::{built, cargo_build, cargo_build_beside_tests, executable, workspace};

/// How long each target runs, led by coverage.
pub const LED: Duration = Duration::from_secs(180);

/// How long each target that has its turn runs, blindly.
const BLIND: Duration = Duration::from_secs(5);

/// What `cargo fuzz` gives to LLVM, without a sanitizer: those are what stable Rust does not have.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// With a target of its own, build scripts and macros are compiled without [`FLAGS`].
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// No input may take more: an honest reader's take milliseconds.
const SECONDS_OF_AN_INPUT: u32 = 20;

/// Nor more memory than this, all inputs together.
const MEBIBYTES: u32 = 1024;

/// What a run of one target came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Inputs that were read.
    pub runs: u64,
    /// Places of the program that the inputs of the beginning reached.
    pub covered_before: u64,
    /// Places that were reached in the end.
    pub covered: u64,
}

impl Outcome {
    /// From what libFuzzer says while it runs.
    fn read(said: &str) -> Option<Self> {
        let number = |line: &str, word: &str| -> Option<u64> {
            let mut words = line.split_whitespace();
            words.find(|one| *one == word)?;
            words.next()?.parse().ok()
        };
        let mut covered =
            said.lines().filter(|line| line.starts_with('#')).filter_map(|line| number(line, "cov:"));
        let covered_before = covered.next()?;
        Some(Self {
            runs: said.lines().find_map(|line| number(line, "stat::number_of_executed_units:"))?,
            covered_before,
            covered: covered.next_back().unwrap_or(covered_before),
        })
    }
}

/// A share of the subject `fuzzing`.
pub(crate) fn examine(share: Share) -> Result<String> {
    if share == Share::ALL { led(&[], LED) } else { blindly(share) }
}

/// Runs these targets, or all, each so long; returns what came of each.
///
/// # Errors
/// If a target fails, hangs or takes too much memory on an input, which is then kept; all targets are run.
pub fn led(names: &[String], time: Duration) -> Result<String> {
    let place = target_directory()?.join("fuzzing");
    let step = Step::begin("building the fuzzer with coverage");
    let mut cargo = cargo_build()?;
    // Only libFuzzer's program has what the counters need to be linked.
    cargo.args(["-p", "fuzz", "--bin", "fuzz-coverage", "--features", "coverage", "--profile", "fuzzing"]);
    cargo.args(["--target", TARGET]);
    cargo.arg("--target-dir").arg(&place).env("RUSTFLAGS", FLAGS).env("CXX", "g++");
    let fuzzer = executable(&built(cargo)?, "fuzz-coverage")?;
    let fuzz = ordinary()?;
    step.end();

    let (mut done, mut failures) = (Vec::new(), Vec::new());
    let targets = targets(&fuzz)?;
    for name in names {
        ensure!(targets.iter().any(|target| target.name == *name), "`{name}` is no target of {targets:?}");
    }
    for target in targets.iter().filter(|target| names.is_empty() || names.contains(&target.name)) {
        match one_led(&fuzz, &fuzzer, &place, target, time) {
            Ok(Outcome { runs, covered_before, covered }) => {
                let line = format!("{}: {runs} inputs, {covered_before} to {covered} places", target.name);
                println!("{line}");
                done.push(line);
            }
            Err(error) => failures.push(format!("{}: {error:#}", target.name)),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(done.join("; "))
}

fn one_led(fuzz: &Path, fuzzer: &Path, place: &Path, target: &Target, time: Duration) -> Result<Outcome> {
    let (begin, found) = (place.join("begin").join(&target.name), place.join("found").join(&target.name));
    let failed = place.join("failed").join(&target.name);
    for folder in [&found, &failed] {
        fs::create_dir_all(folder)?;
    }
    run(host::built(fuzz).args(["corpus", &target.name]).arg(&begin))?;
    let mut fuzzer = host::built(fuzzer);
    fuzzer.env("UPDATE_FUZZ_TARGET", &target.name);
    fuzzer.args([&found, &begin]).arg(format!("-artifact_prefix={}/", failed.display()));
    fuzzer.args(["-print_final_stats=1".to_owned(), format!("-max_total_time={}", time.as_secs())]);
    fuzzer.args([format!("-max_len={}", target.longest), format!("-timeout={SECONDS_OF_AN_INPUT}")]);
    fuzzer.arg(format!("-rss_limit_mb={MEBIBYTES}"));
    let mut child = fuzzer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().context("its standard error")?).split(b'\n') {
        said += &String::from_utf8_lossy(&line?);
        said.push('\n');
    }
    let status = child.wait()?;
    if !status.success() {
        let lines: Vec<&str> = said.lines().collect();
        let end = lines[lines.len().saturating_sub(30)..].join("\n");
        bail!("{status}; the input is in {}\n{end}", failed.display());
    }
    let outcome =
        Outcome::read(&said).with_context(|| format!("libFuzzer did not say what it did:\n{said}"))?;
    ensure!(outcome.covered > 0, "nothing is counted: the fuzzer was built without coverage");
    Ok(outcome)
}

/// Runs the targets that have their turn on blind mutants of their inputs.
fn blindly(share: Share) -> Result<String> {
    let fuzz = ordinary()?;
    let seed = Seed::of_this_run()?.to_string();
    let mut done = Vec::new();
    for (_, target) in targets(&fuzz)?.iter().enumerate().filter(|(number, _)| share.takes(*number)) {
        // More memory than this is a fault, and ends the program.
        let mut limited = program("sh");
        limited.args(["-c", "ulimit -v 2097152; exec \"$0\" \"$@\""]).arg(&fuzz);
        limited.args(["mutate", &target.name, &seed, &BLIND.as_secs().to_string()]);
        let said = String::from_utf8_lossy(&run(&mut limited)?).into_owned();
        done.push(said.lines().last().unwrap_or_default().to_owned());
    }
    Ok(format!("blindly: {}", done.join("; ")))
}

/// The program that knows the corpora and changes them blindly.
fn ordinary() -> Result<PathBuf> {
    let mut cargo = cargo_build_beside_tests()?;
    cargo.args(["-p", "fuzz"]);
    executable(&built(cargo)?, "fuzz")
}

#[derive(Debug)]
struct Target {
    name: String,
    longest: u64,
}

fn targets(fuzz: &Path) -> Result<Vec<Target>> {
    let listed = String::from_utf8(run(host::built(fuzz).arg("list"))?)?;
    let targets = listed.lines().map(|line| {
        let (name, longest) = line.split_once(' ').with_context(|| format!("`{line}` is no target"))?;
        Ok(Target { name: name.to_owned(), longest: longest.parse()? })
    });
    targets.collect()
}

fn target_directory() -> Result<PathBuf> {
    let configured = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(workspace()?.join(configured))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "INFO: Running with entropic power schedule (0xFF, 100).
#2	INITED cov: 301 ft: 302 corp: 1/7b exec/s: 0 rss: 30Mb
#90	NEW    cov: 340 ft: 390 corp: 2/15b lim: 8 exec/s: 0 rss: 31Mb L: 8/8 MS: 3
#5000	DONE   cov: 412 ft: 800 corp: 9/90b lim: 43 exec/s: 2500 rss: 40Mb
Done 5000 runs in 2 second(s)
stat::number_of_executed_units: 5000
stat::peak_rss_mb:              40
";

    #[test]
    fn what_libfuzzer_did_is_read_from_what_it_says() {
        assert_eq!(Outcome::read(SAID), Some(Outcome { runs: 5000, covered_before: 301, covered: 412 }));
        assert_eq!(Outcome::read(&SAID.replace("stat::number_of", "")), None);
    }
}
