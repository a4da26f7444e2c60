//! Benchmarks beside the commands that an administrator would type, in the same guest (or bare system) and the same run.
//!
//! | benchmark | by hand |
//! |---|---|
//! | [`frozen`] | `runc checkpoint --pre-dump`, then `runc checkpoint --parent-path` |
//! | [`livepatch`] | `insmod`, then waiting for `transition` to be 0 |
//!
//! | [`scan`] | a plain reader of `/proc/*/maps`, needrestart, checkrestart |
//!
//! Each prints its measurements, the medians and their ratio; the last judges, since it is not emulated. Absolute times are those of emulated
//! processors.

mod scan;

use std::num::NonZeroUsize;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::fixtures::containers::Container;
use crate::fixtures::livepatch::Livepatch;
use crate::lab::Lab;
use crate::lab::machine::Machine;
use crate::product::Build;
use crate::publisher::Draft;
use crate::scene;
use crate::stage::Stage;

pub use self::scan::scan;

/// Memory of the container that is checkpointed, and how much of it is written anew every second.
const HEAP_MIB: &str = "256";
const CHURN_MIB: &str = "8";

/// Freezes the same container by hand and by `update`, in turns; prints for how long its tasks stood still, by
/// CRIU's own account.
///
/// # Errors
/// If anything that is measured fails.
pub fn frozen(lab: &Lab, runs: NonZeroUsize) -> Result<()> {
    let container =
        Container::new("web", 1).memory_mib(600).arguments(&["--heap", HEAP_MIB, "--churn", CHURN_MIB]);
    let stage = Stage::with(lab, Build::Release, vec![container])?;
    let machine = stage.open(lab)?.machine;
    let manifest = stage.publish(&machine, &Draft { livepatch: None, ..Draft::fix() })?;
    let mut table = Table::new("frozen, 256 MiB", "runc, one pre-dump", "update");
    for run in 0..runs.get() {
        let by_hand = machine.sh(
            "set -e; rm -rf /root/hand; mkdir -p /root/hand/work
            cd /root/hand
            runc checkpoint --pre-dump --image-path pre --work-path work web
            runc checkpoint --tcp-established --file-locks --image-path full --work-path work --parent-path ../pre web
            runc restore --detach --tcp-established --file-locks --bundle /srv/web \
                --image-path /root/hand/full --work-path /root/hand/work web </dev/null >log 2>&1 || {
                cat log >&2; exit 1; }",
        );
        by_hand.with_context(|| format!("run {run} by hand"))?;
        let by_hand = frozen_time(&machine.guest().read_file("/root/hand/work/stats-dump")?)?;
        machine.sh(&format!("update apply {manifest} >/dev/null"))?;
        table.add(by_hand, last_story(&machine)?["containers"][0]["frozen_us"].as_f64());
        machine.sh("update rollback >/dev/null")?;
    }
    table.print();
    Ok(())
}

/// Applies the same livepatch by hand and by `update`, in turns.
///
/// # Errors
/// If anything that is measured fails.
pub fn livepatch(lab: &Lab, runs: NonZeroUsize) -> Result<()> {
    let stage = Stage::with(lab, Build::Release, vec![scene::web()])?;
    let machine = stage.open(lab)?.machine;
    let draft = Draft { library: None, settle: "0s".to_owned(), ..Draft::fix() };
    let manifest = stage.publish(&machine, &draft)?;
    let module = Livepatch::Cmdline.module_name();
    let by_hand = format!("/root/{}", Livepatch::Cmdline.file_name());
    machine.guest().push(&stage.props.livepatches.path(Livepatch::Cmdline), &by_hand)?;
    let (load, unload) = (Livepatch::Cmdline.load_by_hand(), Livepatch::Cmdline.unload_by_hand());
    let mut table = Table::new("livepatch step", "insmod and wait", "update");
    for _ in 0..runs.get() {
        let micros = machine.sh(&format!(
            "set -e; sync; begun=$(date +%s%N)
            {load}
            echo $((($(date +%s%N) - begun) / 1000))
            {unload}"
        ))?;
        machine.sh(&format!("update apply {manifest} >/dev/null"))?;
        let steps = last_story(&machine)?;
        let ours = steps["steps"]
            .as_array()
            .context("a story has steps")?
            .iter()
            .filter(|step| step["title"].as_str().is_some_and(|title| title.contains(&module)))
            .filter_map(|step| step["took_us"].as_f64())
            .sum();
        table.add(micros.parse()?, Some(ours));
        machine.sh("update rollback >/dev/null")?;
    }
    table.print();
    Ok(())
}

/// The story of the host's last transaction.
fn last_story(machine: &Machine) -> Result<Value> {
    let last: Value = serde_json::from_str(&machine.sh("update history --json | tail -n 1")?)?;
    let id = last["id"].as_str().context("the history has no entry")?;
    Ok(serde_json::from_str(&machine.sh(&format!("update show {id} --json"))?)?)
}

/// Microseconds that the tasks stood still, out of CRIU's `stats-dump`: two words of magic, the length of one
/// protobuf message, and in it field 1 (`dump`), whose field 2 is the time.
fn frozen_time(stats: &[u8]) -> Result<f64> {
    let mut at = stats.get(12..).context("stats-dump is too short")?;
    if varint(&mut at)? != (1 << 3 | 2) {
        bail!("stats-dump does not begin with the statistics of a dump");
    }
    varint(&mut at)?;
    loop {
        let (key, value) = (varint(&mut at)?, varint(&mut at)?);
        if key == 2 << 3 {
            return Ok(value as f64);
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().context("stats-dump ends early")?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("stats-dump has a number of more than 64 bits")
}

/// Pairs of microseconds, measured in turns.
struct Table {
    what: &'static str,
    names: [&'static str; 2],
    pairs: Vec<[f64; 2]>,
}

impl Table {
    fn new(what: &'static str, peer: &'static str, ours: &'static str) -> Self {
        println!("\n{what}, ms");
        println!("{peer:>20} {ours:>20} {:>8}", "ratio");
        Self { what, names: [peer, ours], pairs: Vec::new() }
    }

    fn add(&mut self, peer: f64, ours: Option<f64>) {
        let pair = [peer, ours.unwrap_or(f64::NAN)];
        println!("{:>20.1} {:>20.1} {:>8.2}", pair[0] / 1000.0, pair[1] / 1000.0, pair[1] / pair[0]);
        self.pairs.push(pair);
    }

    fn print(&self) {
        let median = |side: usize| {
            let mut column: Vec<f64> = self.pairs.iter().map(|pair| pair[side]).collect();
            column.sort_by(f64::total_cmp);
            column[column.len() / 2] / 1000.0
        };
        let (peer, ours) = (median(0), median(1));
        let [peer_name, our_name] = self.names;
        println!(
            "{}: {our_name} {ours:.1} ms, {peer_name} {peer:.1} ms: ratio {:.2} (medians of {})",
            self.what,
            ours / peer,
            self.pairs.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frozen_time_is_found_behind_the_freezing_time() {
        let mut stats = vec![0; 12];
        stats.extend([0x0a, 5, 0x08, 7, 0x10, 0xac, 0x02]);
        assert_eq!(frozen_time(&stats).unwrap(), 300.0);
        assert!(frozen_time(&stats[..16]).is_err());
    }
}
