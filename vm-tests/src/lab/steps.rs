//! What took how long: steps are announced as they begin, and listed at the end.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

static FINISHED: Mutex<Vec<Finished>> = Mutex::new(Vec::new());

#[derive(Debug, Clone)]
struct Finished {
    what: String,
    took: Duration,
    /// The part that was spent waiting for package servers.
    fetching: Duration,
}

static FETCHING: Mutex<Duration> = Mutex::new(Duration::ZERO);

/// A step that takes long enough to be announced: says what begins and how long it took, on stderr.
#[derive(Debug)]
pub struct Step {
    what: String,
    begun: Instant,
    fetched_before: Duration,
}

impl Step {
    /// Announces `what`.
    pub fn begin(what: &str) -> Self {
        eprintln!("lab: {what} ...");
        Self { what: what.to_owned(), begun: Instant::now(), fetched_before: fetching() }
    }

    /// Reports the time taken, and keeps it for [`split`].
    pub fn end(self) {
        let took = self.begun.elapsed();
        eprintln!("lab: {} took {:.1} s", self.what, took.as_secs_f64());
        let fetching = fetching().saturating_sub(self.fetched_before);
        record(Finished { what: self.what, took, fetching });
    }
}

fn record(step: Finished) {
    if let Ok(mut finished) = FINISHED.lock() {
        finished.push(step);
    }
}

/// Counts time that a command spent on downloads.
pub(super) fn fetched(time: Duration) {
    if let Ok(mut total) = FETCHING.lock() {
        *total += time;
    }
}

fn fetching() -> Duration {
    FETCHING.lock().map(|total| *total).unwrap_or_default()
}

/// A number of `/proc/self/stat` (proc(5)), in clock ticks, as a time; fields count from 1.
fn own_time(field: usize) -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(field - 3)?.parse().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Duration::try_from_secs_f64(ticks / per_second as f64).ok()
}

/// The time from the start of this process until now, which under `cargo run` includes compiling: Cargo becomes the
/// program that it has built. None when the kernel does not say.
pub fn since_start() -> Option<Duration> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(uptime).ok()?.checked_sub(own_time(22)?)
}

/// What this process and all that it has waited for have computed, on however many processors.
pub fn computed() -> Option<Duration> {
    (14..=17).map(own_time).sum()
}

/// A table of all steps that have ended, with `first` before and `last` after them.
pub fn split(first: (&str, Duration), last: (&str, Duration)) -> String {
    let own =
        |(what, took): (&str, Duration)| Finished { what: what.to_owned(), took, fetching: Duration::ZERO };
    let steps = FINISHED.lock().map(|finished| finished.clone()).unwrap_or_default();
    table(&[&[own(first)], steps.as_slice(), &[own(last)]].concat())
}

fn table(steps: &[Finished]) -> String {
    let (mut text, mut total, mut fetching) = (String::new(), Duration::ZERO, Duration::ZERO);
    for step in steps {
        total += step.took;
        fetching += step.fetching;
        let _ = write!(text, "{:8.1} s  {}", step.took.as_secs_f64(), step.what);
        if step.fetching >= Duration::from_secs(1) {
            let _ = write!(text, " ({:.1} s of it downloads)", step.fetching.as_secs_f64());
        }
        text.push('\n');
    }
    let apart = total.saturating_sub(fetching).as_secs_f64();
    let _ = write!(text, "{:8.1} s  in all; {apart:.1} s without downloads", total.as_secs_f64());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_adds_up_and_tells_downloads_apart() {
        let step = |what: &str, took, fetching| Finished {
            what: what.to_owned(),
            took: Duration::from_secs(took),
            fetching: Duration::from_secs(fetching),
        };
        let text = table(&[step("compiling", 60, 0), step("preparing a kernel", 30, 20)]);
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        assert_eq!(
            lines,
            [
                "60.0 s  compiling",
                "30.0 s  preparing a kernel (20.0 s of it downloads)",
                "90.0 s  in all; 70.0 s without downloads"
            ]
        );
    }

    #[test]
    fn this_process_started_a_while_ago_and_not_before_the_machine() {
        let since = since_start().expect("the kernel says when this process began");
        assert!(since < Duration::from_secs(24 * 3600), "{since:?}");
    }
}
