//! What people see of a rollout's way, besides where it stands: how the evidence of each wave grew, and what happened last.
//!
//! Both follow from the events, as everything here does, and are bounded: a wave of any size leaves so many points. Nothing is
//! decided on them.

use std::collections::VecDeque;

use fleet::rollout::{Entry, Plan, Progress};
use fleet::test::Tally;
use manifests::UtcTime;

/// So many points of a wave are kept; of more, every second one goes.
const POINTS: usize = 256;

/// So many events are kept.
const EVENTS: usize = 100;

/// What a wave's test was told at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// When.
    pub at: UtcTime,
    /// How many hosts had been heard of in the wave's test by then; its place on the line.
    pub step: u32,
    /// What.
    pub tally: Tally,
}

/// See [the module](self).
#[derive(Debug, Clone, Default)]
pub(super) struct Trace {
    waves: Vec<Wave>,
    events: VecDeque<(u64, Entry)>,
}

#[derive(Debug, Clone, Default)]
struct Wave {
    points: Vec<Point>,
    steps: u32,
}

impl Wave {
    fn push(&mut self, at: UtcTime, tally: Tally) {
        if self.points.last().is_some_and(|last| last.tally == tally) {
            return;
        }
        self.steps += 1;
        if self.points.len() == POINTS {
            let mut number = 0;
            self.points.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.points.push(Point { at, step: self.steps, tally });
    }
}

impl Trace {
    /// An event was applied; `number` is its entry's in the ledger.
    pub(super) fn see(&mut self, plan: &Plan, progress: &Progress, entry: &Entry, number: u64) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back((number, entry.clone()));
        // After a halt hosts go back, and leave the counts by which it was halted.
        let Some(host) = entry.event.host().filter(|_| progress.stage().is_live()) else { return };
        let wave = progress.wave_of(host);
        if wave >= progress.opened() {
            return;
        }
        if self.waves.len() <= wave {
            self.waves.resize_with(wave + 1, Wave::default);
        }
        self.waves[wave].push(entry.at, progress.tally(plan, wave, None));
    }

    /// How the evidence of a wave grew.
    pub(super) fn points(&self, wave: usize) -> &[Point] {
        self.waves.get(wave).map_or(&[], |wave| &wave.points)
    }

    /// What happened last, the newest first, with its number in the ledger.
    pub(super) fn events(&self) -> impl Iterator<Item = &(u64, Entry)> {
        self.events.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_of_any_size_leaves_so_many_points_and_the_last_is_what_is_known() {
        let at = "2026-11-02T00:00:00Z".parse().unwrap();
        let mut wave = Wave::default();
        for granted in 0..100_000 {
            let tally = Tally { granted, good: granted / 2, bad: 0 };
            wave.push(at, tally);
            wave.push(at, tally);
        }
        assert!((POINTS / 2..=POINTS).contains(&wave.points.len()));
        let last = wave.points.last().unwrap();
        assert_eq!((last.tally.granted, last.step), (99_999, 100_000));
        assert!(wave.points.is_sorted_by_key(|point| point.step));
    }
}
