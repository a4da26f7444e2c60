//! How many machines of tests run on this host at the same time, however the tests are started.
//!
//! An emulated machine keeps one processor busy and a second one at times, so there is one for each processor, but not
//! more than two: on a host with more, the tests that compile have the rest. Each needs its memory twice, in QEMU and in
//! the page cache.

use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cache::Cache;

const AT_MOST: usize = 2;
const MEMORY_EACH_MIB: u64 = 3 * 1024;

/// The right to run one machine; it ends with the value or the process.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits for a turn.
    ///
    /// # Errors
    /// If the lock files cannot be made.
    pub fn wait(cache: &Cache) -> Result<Self> {
        let places: Vec<PathBuf> =
            (0..machines_at_once()).map(|place| cache.lock_file(&format!("turn-{place}"))).collect();
        loop {
            for place in &places {
                let lock = File::create(place).with_context(|| place.display().to_string())?;
                if lock.try_lock().is_ok() {
                    return Ok(Self { _lock: lock });
                }
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// How many machines this host bears.
pub fn machines_at_once() -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_mib(&text));
    let fitting = memory.map_or(1, |mib| (mib / MEMORY_EACH_MIB) as usize);
    AT_MOST.min(processors).min(fitting).max(1)
}

fn total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mebibytes() {
        assert_eq!(total_mib("MemTotal:        8192000 kB\nMemFree: 1 kB\n"), Some(8000));
        assert_eq!(total_mib("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn there_is_always_room_for_one_machine_and_never_for_three() {
        assert!((1..=2).contains(&machines_at_once()));
    }
}
