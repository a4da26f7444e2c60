//! `update scan` beside what others do on the same thousand processes, in a bare Debian that has nothing else to do.
//!
//! | beside | what it does |
//! |---|---|
//! | a plain reader | opens, reads and closes `/proc/*/maps`, in C, and makes nothing of it: what nobody can do without |
//! | `needrestart -b -r l -l` | what its apt hook runs, without a look at kernels |
//! | `checkrestart` | the same question by `lsof`, of debian-goodies |
//!
//! Runs alternate, so that a busy machine disturbs all of them, and each is a whole process. What it takes of processors is judged, all
//! threads and children counted: on a machine that has nothing else to do, it is what a program of one thread takes.

use std::fs;
use std::num::NonZeroUsize;

use anyhow::{Context, Result, bail, ensure};

use crate::lab::bare::Bare;
use crate::lab::cache::Cache;
use crate::lab::host::{Step, is_root, program, run};
use crate::product::Product;

const READER: &str = include_str!("../../fixtures/scan/maps.c");
const CROWD: &str = include_str!("../../fixtures/scan/crowd.sh");

/// What runs there beside ours.
const PACKAGES: [&str; 5] = ["needrestart", "debian-goodies", "lsof", "perl", "python3"];

/// Name, command, and the exit codes that are no failure.
const PEERS: [(&str, &str); 4] = [
    ("a plain reader of /proc/*/maps", "/root/maps"),
    ("needrestart -b -r l -l", "needrestart -b -r l -l"),
    ("checkrestart", "checkrestart"),
    ("update scan", "/root/update scan"),
];

/// At most this many times what the plain reader takes.
const GOAL: f64 = 1.3;

/// Measures so many rounds, each of which runs everything once, and prints the medians and their ratios.
///
/// # Errors
/// If a program cannot be built or run, does not find what there is, or is slower than it may be.
pub fn scan(runs: NonZeroUsize) -> Result<()> {
    ensure!(is_root(), "the processes of others are looked at by root only; run this as root");
    let cache = Cache::open()?;
    let update = Product::one_for_users("updater", "update")?;
    let host = Bare::debian(&cache, "bookworm", &PACKAGES)?;
    let room = host.path().join("root");
    fs::copy(&update, room.join("update"))?;
    let source = room.join("maps.c");
    fs::write(&source, READER)?;
    fs::write(room.join("crowd.sh"), CROWD)?;
    run(program("gcc").args(["-O2", "-static", "-o"]).arg(room.join("maps")).arg(&source))?;

    let step = Step::begin("a thousand processes are looked at in turns");
    let commands: String = PEERS.iter().map(|(_, command)| format!("/root/maps time {command}\n")).collect();
    let said = host.sh(&format!(
        "sh /root/crowd.sh
        needrestart -b -r l -l >/root/needrestart 2>&1; checkrestart >/root/checkrestart 2>&1; /root/update scan >/root/scan
        for _ in $(seq {runs}); do
        {commands}
        done"
    ))?;
    step.end();
    let mut lines = said.lines();
    println!("\nprocesses of a host: {}", lines.next().context("nobody counted them")?);
    let found = fs::read_to_string(room.join("scan"))?;
    ensure!(found.contains("70 of 1"), "update scan found something else than what was replaced:\n{found}");

    let mut times = vec![Times::default(); PEERS.len()];
    for (index, line) in lines.enumerate() {
        let (name, _) = PEERS[index % PEERS.len()];
        let words: Vec<&str> = line.split(' ').collect();
        let [took, used, code] = words[..] else { bail!("{line:?} is no time of {name}") };
        // What could not even be started.
        ensure!(code != "127" && code != "-1", "{name} ended with {code}");
        times[index % PEERS.len()].took.push(took.parse()?);
        times[index % PEERS.len()].used.push(used.parse()?);
    }
    let ours = times[PEERS.len() - 1].medians();
    println!("  medians of {runs} runs, ms; and ours / this");
    for ((name, _), times) in PEERS.iter().zip(&times) {
        let (took, used) = times.medians();
        println!(
            "  {name:<32} took {took:>8.1} ({:>6.3})   of processors {used:>8.1} ({:>6.3})",
            ours.0 / took,
            ours.1 / used
        );
    }
    let ratio = ours.1 / times[0].medians().1;
    ensure!(
        ratio <= GOAL,
        "goal: at most {GOAL} times what the plain reader takes of processors, found {ratio:.2}"
    );
    println!("  goal: at most {GOAL} times what the plain reader takes of processors, reached");
    Ok(())
}

/// Microseconds of the runs of one program.
#[derive(Debug, Default, Clone)]
struct Times {
    /// By the clock.
    took: Vec<u64>,
    /// Of processors.
    used: Vec<u64>,
}

impl Times {
    /// Milliseconds, of the clock and of processors.
    fn medians(&self) -> (f64, f64) {
        let median = |times: &[u64]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            times.get(times.len() / 2).copied().unwrap_or_default() as f64 / 1000.0
        };
        (median(&self.took), median(&self.used))
    }
}
