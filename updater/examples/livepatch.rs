//! Drives the livepatch adapter alone, without a manifest or a transaction, on the kernel that runs.
//!
//! The tests in `vm-tests` use it to hold the adapter against a real kernel:
//!
//! ```text
//! livepatch enable MODULE FILE DEADLINE   load, watch, unblock; turn back past the deadline
//! livepatch remove MODULE DEADLINE        disable, watch, unload
//! livepatch loaded                        what the kernel shows
//! livepatch check FILE                    what the preflight finds about a module
//! livepatch bare MODULE FILE              load and wait, and nothing else: the time to compare with
//! ```
//!
//! Events and the report are lines of JSON on stdout; a failure is one line on stderr and status 1.

use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use manifests::ModuleName;
use patch_tools::check::{KernelFacts, check};
use patch_tools::module::Module;
use system::clock::{Clock, SystemClock, Uninterrupted};
use updater::kernel::sysfs::Roots;
use updater::kernel::transition::TransitionEvent;
use updater::kernel::{Enabled, Livepatch, PatchState, Policy, Sysfs, Watcher, patching};
use workloads::limits::{CgroupFreezer, LeaseStore};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let sysfs = Sysfs::new(Roots::default(), Vec::new())?;
    let freezer = CgroupFreezer::new("/sys/fs/cgroup");
    let leases = LeaseStore::new("/run/update/frozen");
    let watcher = Watcher {
        livepatch: &sysfs,
        freezer: &freezer,
        leases: &leases,
        clock: &SystemClock,
        interrupt: &Uninterrupted,
    };
    let begun = SystemClock.elapsed();
    let report = match args[..] {
        ["enable", module, file, deadline] => {
            let image = open(file)?;
            serde_json::to_value(patching::enable(
                watcher,
                &name(module)?,
                &image,
                &policy(deadline)?,
                &mut tell,
            )?)?
        }
        ["remove", module, deadline] => {
            serde_json::to_value(patching::remove(watcher, &name(module)?, &policy(deadline)?, &mut tell)?)?
        }
        ["loaded"] => serde_json::to_value(sysfs.loaded()?)?,
        ["check", file] => {
            let module = Module::parse(&std::fs::read(file)?)?;
            let facts = KernelFacts::gather(Path::new("/"), &module)?;
            let exports = facts.exports.as_ref().map(HashMap::len);
            serde_json::json!({ "exports": exports, "findings": check(&module, &facts) })
        }
        ["bare", module, file] => {
            let module = name(module)?;
            sysfs.load(&module, &open(file)?)?;
            while sysfs.state(&module)? != PatchState::Settled(Enabled::Enabled) {
                std::thread::yield_now();
            }
            serde_json::Value::Null
        }
        _ => bail!(
            "usage: livepatch enable MODULE FILE DEADLINE | remove MODULE DEADLINE | loaded | check FILE | bare MODULE FILE"
        ),
    };
    println!("{}", serde_json::json!({ "report": report, "took_us": micros(SystemClock.elapsed() - begun) }));
    Ok(())
}

fn tell(event: TransitionEvent) {
    println!("{}", serde_json::json!(event));
}

fn name(text: &str) -> anyhow::Result<ModuleName> {
    Ok(text.parse()?)
}

fn open(path: &str) -> anyhow::Result<File> {
    File::open(Path::new(path)).with_context(|| format!("cannot open {path}"))
}

fn policy(deadline: &str) -> anyhow::Result<Policy> {
    Ok(Policy::with_deadline(humantime::parse_duration(deadline)?))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
