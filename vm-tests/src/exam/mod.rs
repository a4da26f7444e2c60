//! What takes longer than a test command may: all of it by `vm-tests exam`, and a rotating tenth in every run of the
//! tests.
//!
//! A [`Subject`] is a numbered series of units, such as the places at which the power can be cut. A [`Seed`] decides
//! which units a run of the tests takes: any ten seeds in a row take every unit once. Without `UPDATE_EXAM_SEED` the
//! seed is the number of eight-hour spans since 1970: it changes three times a day, and a run at the same hour every
//! day meets all residues.

mod subjects;

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

pub use self::subjects::SUBJECTS;
use crate::lab::Lab;

/// Sets the seed of a run of the tests.
pub const SEED_VARIABLE: &str = "UPDATE_EXAM_SEED";

/// In so many seeds in a row everything has its turn.
pub const TURNS: usize = 10;

/// What is said of a subject of which a run takes nothing.
const NOT_NOW: &str = "none of its units has its turn with this seed";

/// Changes thrice a day, which has no factor in common with [`TURNS`].
const SPAN: Duration = Duration::from_secs(8 * 3600);

/// Decides what of the exam a run of the tests takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed that [`SEED_VARIABLE`] says, else that of the hour.
    ///
    /// # Errors
    /// If the variable holds no number.
    pub fn of_this_run() -> Result<Self> {
        match std::env::var(SEED_VARIABLE) {
            Ok(text) => text
                .parse()
                .map(Self)
                .with_context(|| format!("{SEED_VARIABLE} should be a number, and is `{text}`")),
            Err(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                Ok(Self(now.as_secs() / SPAN.as_secs()))
            }
        }
    }

    /// The units of every subject that have their turn.
    pub fn share(self) -> Share {
        Share { every: TURNS, first: (self.0 % TURNS as u64) as usize }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Some units of a numbered series: one of every so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    every: usize,
    first: usize,
}

impl Share {
    /// Every unit.
    pub const ALL: Self = Self { every: 1, first: 0 };

    /// The first unit, and then one of every `every`.
    pub fn one_of_every(every: std::num::NonZeroUsize) -> Self {
        Self { every: every.get(), first: 0 }
    }

    /// Of several series that each cost much to begin, only one has its turn, and so a larger share of it: what is in of
    /// this one of `series`, if it is its turn.
    pub fn of_series(self, number: usize, series: usize) -> Option<Self> {
        if self == Self::ALL {
            return Some(self);
        }
        let turns = (self.every - number).div_ceil(series);
        (self.first % series == number).then_some(Self { every: turns, first: self.first / series })
    }

    /// True if the unit with this number is in.
    pub fn takes(self, unit: usize) -> bool {
        unit % self.every == self.first
    }
}

/// One part of the exam.
#[derive(Debug)]
pub struct Subject {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What its units are.
    pub units: &'static str,
    /// Why not all of it is in the test command.
    pub reason: &'static str,
    examine: fn(&Lab, Share) -> Result<String>,
}

impl Subject {
    /// The subject with this name.
    ///
    /// # Errors
    /// If there is none; all names are listed.
    pub fn named(name: &str) -> Result<&'static Self> {
        SUBJECTS.iter().find(|subject| subject.name == name).with_context(|| {
            let names: Vec<&str> = SUBJECTS.iter().map(|subject| subject.name).collect();
            format!("`{name}` is no subject of the exam; there are {}", names.join(", "))
        })
    }

    /// Goes through a share of it; returns what was done, in words.
    ///
    /// # Errors
    /// If any unit fails; all units are tried.
    pub fn examine(&self, lab: &Lab, share: Share) -> Result<String> {
        (self.examine)(lab, share)
    }
}

/// What a run of the tests takes of one subject.
///
/// # Errors
/// If any unit of it fails.
pub fn sample(name: &str) -> Result<()> {
    let seed = Seed::of_this_run()?;
    let subject = Subject::named(name)?;
    println!("{SEED_VARIABLE}={seed} repeats this sample");
    let done = subject.examine(&Lab::for_test()?, seed.share())?;
    println!("{name}: {done}");
    Ok(())
}

/// Goes through all of these subjects, or all there are, and prints what came of each; the exit code is 1 if any
/// failed.
///
/// # Errors
/// If a name is wrong or the lab cannot be set up.
pub fn run(names: &[String]) -> Result<u8> {
    let chosen = match names {
        [] => SUBJECTS.iter().collect(),
        names => names.iter().map(|name| Subject::named(name)).collect::<Result<Vec<_>>>()?,
    };
    let lab = Lab::open()?;
    let mut lines = Vec::new();
    let mut failed = false;
    for subject in chosen {
        println!("\n== {}: {}", subject.name, subject.units);
        let begun = Instant::now();
        let verdict = match subject.examine(&lab, Share::ALL) {
            Ok(done) => format!("passed: {done}"),
            Err(error) => {
                failed = true;
                format!("FAILED: {error:#}")
            }
        };
        let line = format!("{:7.1} min  {}  {verdict}", begun.elapsed().as_secs_f64() / 60.0, subject.name);
        println!("{line}");
        lines.push(line);
    }
    println!("\n== The exam\n{}", lines.join("\n"));
    Ok(u8::from(failed))
}

/// The page that says what is in the exam, and why.
pub fn page() -> String {
    let mut page = format!(
        "# The exam\n\n\
        What takes longer than the tests' budget allows. `cargo run -p vm-tests -- exam` goes through all of it;\n\
        `cargo run -p vm-tests -- test` takes one unit of every {TURNS} of each subject. Which, is decided by a seed\n\
        that is printed, changes three times a day, and can be set with `--seed` or `{SEED_VARIABLE}`. Any {TURNS}\n\
        seeds in a row take every unit.\n\n\
        This page is what `exam --list` prints; a test compares them.\n\n\
        | subject | units | why it is here |\n|---|---|---|\n"
    );
    for Subject { name, units, reason, .. } in SUBJECTS {
        page += &format!("| `{name}` | {units} | {reason} |\n");
    }
    page
}

/// Runs those of a few units that have their turn, and says which; all are tried even if one fails.
fn some_of(units: &[(&str, &dyn Fn() -> Result<()>)], first_turn: usize, share: Share) -> Result<String> {
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for (number, (name, unit)) in units.iter().enumerate() {
        if share.takes(first_turn + number) {
            match unit() {
                Ok(()) => done.push(*name),
                Err(error) => failures.push(format!("{name}: {error:#}")),
            }
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(if done.is_empty() { NOT_NOW.to_owned() } else { done.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_ten_seeds_in_a_row_take_every_unit_once() {
        for first in [0, 3, 61_234] {
            for unit in 0..500 {
                let takers = (first..first + TURNS as u64).filter(|seed| Seed(*seed).share().takes(unit));
                assert_eq!(takers.count(), 1, "unit {unit}, seeds from {first}");
            }
        }
    }

    #[test]
    fn any_ten_seeds_in_a_row_take_every_unit_of_every_series_once() {
        for (series, unit) in (0..3).flat_map(|series| (0..50).map(move |unit| (series, unit))) {
            let takers = (7..7 + TURNS as u64)
                .filter_map(|seed| Seed(seed).share().of_series(series, 3))
                .filter(|share| share.takes(unit));
            assert_eq!(takers.count(), 1, "unit {unit} of series {series}");
        }
        assert_eq!(Share::ALL.of_series(2, 3), Some(Share::ALL));
    }

    #[test]
    fn a_run_at_the_same_hour_of_ten_days_meets_every_residue() {
        let mut residues: Vec<u64> = (0..10).map(|day| day * 24 * 3600 / SPAN.as_secs() % 10).collect();
        residues.sort_unstable();
        assert_eq!(residues, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn all_is_all() {
        assert!((0..100).all(|unit| Share::ALL.takes(unit)));
    }

    #[test]
    fn every_subject_says_why_it_is_one() {
        for subject in SUBJECTS {
            assert!(subject.reason.len() > 20, "{}", subject.name);
            assert_eq!(Subject::named(subject.name).unwrap().units, subject.units);
        }
    }

    #[test]
    fn a_unit_that_fails_does_not_keep_the_others_from_their_turn() {
        let tried = std::cell::Cell::new(0);
        let bad = || -> Result<()> { bail!("broken") };
        let good = || -> Result<()> {
            tried.set(tried.get() + 1);
            Ok(())
        };
        let error = some_of(&[("bad", &bad), ("good", &good)], 0, Share::ALL).unwrap_err();
        assert_eq!((error.to_string().as_str(), tried.get()), ("bad: broken", 1));
    }

    #[test]
    fn the_page_about_the_exam_is_what_the_program_prints() -> Result<()> {
        let path = crate::product::workspace()?.join("docs/exam.md");
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, page(), "write it anew: cargo run -p vm-tests -- exam --list >{}", path.display());
        Ok(())
    }
}
