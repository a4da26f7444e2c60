//! The line of a wave's test against its bounds.
//!
//! Each step is a word of a host. Up is what speaks against the release: a hurt host lifts the line, a good one lowers it. Two lines,
//! since hosts that have begun and not ended could still come out either way (`fleet::test`): *known* takes only what is known, and
//! passes below the lower bound; *at best* takes those in flight as good, and halts above the upper one. Where only what is known
//! is above that, nobody else begins for now.

use fleet::test::Tally;

use crate::authority::{Point, TestView};

/// The size of the drawing.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;

/// Room for words around the lines.
const EDGE: f64 = 20.0;

/// See [the module](self).
pub(super) struct Line {
    /// The points of the two lines, as SVG has them.
    pub(super) known: String,
    pub(super) at_best: String,
    /// The heights of the bounds, and of nothing.
    pub(super) halts: String,
    pub(super) passes: String,
    pub(super) zero: String,
    /// The last values, and the bounds, in words.
    pub(super) known_now: String,
    pub(super) at_best_now: String,
    pub(super) halt_at: String,
    pub(super) pass_at: String,
}

/// What is known, and what it would come to at best.
fn evidence(test: &TestView, tally: Tally) -> [f64; 2] {
    let Tally { granted, good, bad } = tally;
    let against = f64::from(bad) * test.failure;
    let known = against - f64::from(good) * test.success;
    [known, against - f64::from(granted.saturating_sub(bad)) * test.success]
}

impl Line {
    /// Draws the evidence of a wave; nothing before there is any.
    pub(super) fn of(test: &TestView, points: &[Point]) -> Option<Self> {
        let last = points.last()?;
        let mut values = vec![(0, [0.0, 0.0])];
        values.extend(points.iter().map(|point| (point.step, evidence(test, point.tally))));
        let all = || values.iter().flat_map(|(_, both)| both.iter().copied());
        let (top, bottom) = (all().fold(test.halt_at, f64::max), all().fold(-test.pass_at, f64::min));
        let x = |step: u32| EDGE + f64::from(step) / f64::from(last.step.max(1)) * (WIDTH - 2.0 * EDGE);
        let y = |value: f64| EDGE + (top - value) / (top - bottom).max(f64::EPSILON) * (HEIGHT - 2.0 * EDGE);
        let drawn = |which: usize| {
            let points = values.iter().map(|(step, both)| format!("{:.1},{:.1}", x(*step), y(both[which])));
            points.collect::<Vec<_>>().join(" ")
        };
        let [known_now, at_best_now] = evidence(test, last.tally).map(|value| format!("{value:.2}"));
        let height = |value: f64| format!("{:.1}", y(value));
        Some(Self {
            known: drawn(0),
            at_best: drawn(1),
            halts: height(test.halt_at),
            passes: height(-test.pass_at),
            zero: height(0.0),
            known_now,
            at_best_now,
            halt_at: format!("{:.2}", test.halt_at),
            pass_at: format!("{:.2}", -test.pass_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use fleet::test::{Parameters, Test};

    use super::*;

    fn test() -> TestView {
        let [failure, success, halt_at, pass_at] = Test::new(&Parameters::default(), 7).terms();
        TestView { failure, success, halt_at, pass_at, points: Vec::new() }
    }

    fn line(granted: u32, good: u32, bad: u32) -> Line {
        let at = "2026-11-02T00:00:00Z".parse().unwrap();
        Line::of(&test(), &[Point { at, step: 1, tally: Tally { granted, good, bad } }]).unwrap()
    }

    fn last(points: &str) -> f64 {
        points.rsplit(',').next().unwrap().parse().unwrap()
    }

    #[test]
    fn the_lines_cross_their_bounds_exactly_where_the_test_says() {
        let number = |text: &str| text.parse::<f64>().unwrap();
        let passed = line(60, 60, 0);
        assert!(last(&passed.known) >= number(&passed.passes), "lower is further down");
        let open = line(59, 59, 0);
        assert!(last(&open.known) < number(&open.passes));
        let halted = line(60, 0, 3);
        assert!(last(&halted.at_best) <= number(&halted.halts));
        let held = line(60, 0, 2);
        assert!(last(&held.at_best) > number(&held.halts) && last(&held.known) <= number(&held.halts));
        assert_eq!((halted.at_best_now.as_str(), halted.halt_at.as_str()), ("8.87", "6.55"));
        assert!(Line::of(&test(), &[]).is_none());
    }
}
