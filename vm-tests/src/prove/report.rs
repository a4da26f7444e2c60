//! What a run found, as JSON for programs and Markdown for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::building::{Attempt, Change, Module, Outcome};
use super::carry::{Carry, RULE};
use super::rules::Right;
use super::selection::Area;
use super::trial::Trial;

/// So many refusals are argued.
const ARGUED: usize = 20;

/// One file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) path: String,
    pub(super) area: Area,
    /// What the source says, before anything is built.
    pub(super) carry: Carry,
    pub(super) build: Attempt,
    /// Absent if there was nothing to load.
    pub(super) trial: Option<Trial>,
}

/// How often each end was reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Built, loaded, used and unloaded without a complaint.
    pub proven: usize,
    /// As [`Self::proven`], but the machine has no hardware for the target module, so its functions were not
    /// redirected.
    pub loaded_only: usize,
    /// No code changed.
    pub unchanged: usize,
    /// Rightly refused.
    pub refused: usize,
    /// Refused, though a livepatch could carry it.
    pub overcautious: usize,
    /// Did not build, load or unload, or did harm.
    pub failed: usize,
    /// Needs other files.
    pub not_self_contained: usize,
    /// Not in this kernel.
    pub not_built: usize,
}

/// How a file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Proven,
    LoadedOnly,
    Unchanged,
    Refused,
    Overcautious,
    Failed,
    NotSelfContained,
    NotBuilt,
}

impl Row {
    /// What was built, if it was.
    pub(super) fn module(&self) -> Option<&Module> {
        match &self.build.outcome {
            Outcome::Built(module) => Some(module),
            _ => None,
        }
    }

    fn end(&self) -> End {
        match (&self.build.outcome, &self.trial) {
            (Outcome::Built(_), Some(trial)) if trial.failure.is_some() => End::Failed,
            (Outcome::Built(module), Some(trial)) if trial.patched.len() < module.objects.len() => {
                // Only what the machine could not load may be left unpatched.
                if module
                    .objects
                    .iter()
                    .all(|object| trial.patched.contains(object) || trial.absent.contains(object))
                {
                    End::LoadedOnly
                } else {
                    End::Failed
                }
            }
            (Outcome::Built(_), Some(_)) => End::Proven,
            (Outcome::Built(_), None) | (Outcome::Failed { .. }, _) => End::Failed,
            (Outcome::Refused { right: Right::Right, .. }, _) => End::Refused,
            (Outcome::Refused { right: Right::Overcautious, .. }, _) => End::Overcautious,
            (Outcome::Unchanged, _) => End::Unchanged,
            (Outcome::NotSelfContained { .. }, _) => End::NotSelfContained,
            (Outcome::NotBuilt, _) => End::NotBuilt,
        }
    }

    pub(super) fn words(&self) -> String {
        let mut words = match (&self.build.outcome, &self.trial) {
            (Outcome::Built(module), Some(Trial { failure: Some(why), .. })) => {
                format!("**failed** in the machine ({} functions): {why}", module.changed)
            }
            (Outcome::Built(module), Some(trial)) if self.end() == End::LoadedOnly => {
                format!("loaded, {} functions; not there: {}", module.changed, trial.absent.join(", "))
            }
            (Outcome::Built(module), Some(trial)) if self.end() == End::Failed => format!(
                "**failed** in the machine: of {} only {} was patched",
                module.objects.join(", "),
                trial.patched.join(", ")
            ),
            (Outcome::Built(module), Some(_)) => {
                format!("proven, {} functions, {} new symbols", module.changed, module.new)
            }
            (outcome, _) => outcome.words(),
        };
        if !self.build.headers.is_empty() {
            let _ = write!(words, "; with hunks of {}", self.build.headers.join(", "));
        }
        words.replace('|', "\\|").replace('\n', " ")
    }
}

impl Counts {
    fn add(&mut self, end: End) {
        *match end {
            End::Proven => &mut self.proven,
            End::LoadedOnly => &mut self.loaded_only,
            End::Unchanged => &mut self.unchanged,
            End::Refused => &mut self.refused,
            End::Overcautious => &mut self.overcautious,
            End::Failed => &mut self.failed,
            End::NotSelfContained => &mut self.not_self_contained,
            End::NotBuilt => &mut self.not_built,
        } += 1;
    }

    /// Fixes that count: of this kernel, and complete in one file.
    pub fn tried(&self) -> usize {
        self.due() + self.refused + self.unchanged
    }

    /// Fixes that a livepatch can carry.
    pub fn due(&self) -> usize {
        self.proven + self.loaded_only + self.overcautious + self.failed
    }

    /// Of those, the share that came through, in percent.
    pub fn share(&self) -> f64 {
        match self.due() {
            0 => 0.0,
            due => 100.0 * (self.proven + self.loaded_only) as f64 / due as f64,
        }
    }
}

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub(super) kernel: String,
    #[serde(default)]
    pub(super) change: Change,
    pub(super) package: String,
    pub(super) old: String,
    pub(super) new: String,
    pub(super) machines: usize,
    /// Seconds that all trials took.
    pub(super) spent: f64,
    pub(super) rows: Vec<Row>,
}

impl Report {
    /// Takes over what an earlier run of the same versions has come to, but what failed, and what was refused although
    /// the rule on the source says that a livepatch can carry it.
    pub(super) fn resume(&mut self, json: &str) -> serde_json::Result<()> {
        let before: Self = serde_json::from_str(json)?;
        let of =
            |report: &Self| (report.kernel.clone(), report.change, report.old.clone(), report.new.clone());
        if of(&before) == of(self) {
            // The program may have been mended since.
            let may_come_through = |row: &Row| match &row.build.outcome {
                Outcome::Failed { .. } => true,
                Outcome::Refused { .. } => !matches!(row.carry, Carry::Cannot(_)),
                _ => row.module().is_some() && row.trial.as_ref().is_none_or(|trial| trial.failure.is_some()),
            };
            let ended = |row: &Row| !may_come_through(row);
            (self.machines, self.spent) = (before.machines, before.spent);
            self.rows = before.rows.into_iter().filter(ended).collect();
        }
        Ok(())
    }

    /// Whether all came to the end that it should come to.
    pub fn is_good(&self) -> bool {
        let total = self.total();
        match self.change {
            Change::Fix => total.failed + total.overcautious == 0,
            Change::MovedLines => total.tried() > 0 && total.unchanged == total.tried(),
        }
    }

    /// Everything together.
    pub fn total(&self) -> Counts {
        let mut counts = Counts::default();
        self.rows.iter().for_each(|row| counts.add(row.end()));
        counts
    }

    fn areas(&self) -> BTreeMap<Area, Counts> {
        let mut areas: BTreeMap<Area, Counts> = BTreeMap::new();
        self.rows.iter().for_each(|row| areas.entry(row.area).or_default().add(row.end()));
        areas
    }

    /// The report as JSON: the counts, then every file.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Whole<'r> {
            total: Counts,
            share: f64,
            areas: BTreeMap<String, Counts>,
            #[serde(flatten)]
            report: &'r Report,
        }
        let areas = self.areas().into_iter().map(|(area, counts)| (area.to_string(), counts)).collect();
        let total = self.total();
        serde_json::to_string_pretty(&Whole { total, share: total.share(), areas, report: self })
    }

    /// The report as Markdown.
    ///
    /// The refusals that are argued are picked by the seed.
    pub(super) fn markdown(&self, seed: u64) -> String {
        match self.change {
            Change::Fix => self.of_fixes(seed) + &self.files(),
            Change::MovedLines => self.of_moved_lines() + &self.files(),
        }
    }

    fn of_moved_lines(&self) -> String {
        let total = self.total();
        format!(
            "# {} {} with moved lines, for {}\n\n\
             Each file got two empty lines at its start, and was built with `patch-tools build`, which has to find \
             nothing that changed.\n\n**So it found in {} of {} files.**\n\n{}",
            self.package,
            self.old,
            self.kernel,
            total.unchanged,
            total.tried(),
            self.summary(),
        )
    }

    fn of_fixes(&self, seed: u64) -> String {
        let total = self.total();
        let mut text = format!(
            "# Fixes of {} {} as livepatches for {}\n\n\
             Each file that differs from {} became a patch of its own, was built with `patch-tools build`, loaded \
             into {}, used, and unloaded ({} machines, {:.0} s).\n\n\
             **{} of {} fixes that a livepatch can carry came through ({:.1} %)**; {} more were rightly refused, \
             {} changed no code.\n\n{}",
            self.package,
            self.new,
            self.kernel,
            self.old,
            self.kernel,
            self.machines,
            self.spent,
            total.proven + total.loaded_only,
            total.due(),
            total.share(),
            total.refused,
            total.unchanged,
            self.summary(),
        );
        text.push_str(&self.by_rule());
        text.push_str(&self.argued(seed));
        text.push_str(&self.times());
        text
    }

    fn files(&self) -> String {
        let mut text = "\n## Files\n\n| file | seconds | outcome |\n|---|---|---|\n".to_owned();
        for row in &self.rows {
            let seconds = format!("{:.1}", row.build.seconds);
            let _ = writeln!(text, "| {} | {seconds} | {} |", row.path, row.words());
        }
        text
    }

    /// What came of the fixes that a livepatch can carry by the rule on the source, and where the program and the
    /// rule differ.
    fn by_rule(&self) -> String {
        let counting = || self.rows.iter().filter(|row| row.build.outcome.counts());
        let came_through = |row: &&Row| matches!(row.end(), End::Proven | End::LoadedOnly);
        let can = || counting().filter(|row| row.carry == Carry::Can && row.end() != End::Unchanged);
        let (through, all) = (can().filter(came_through).count(), can().count());
        let mut text = format!(
            "\n## By the rule on the source\n\n{RULE}\n\n**{through} of {all} fixes that a livepatch can carry by this \
             rule came through ({:.1} %).**\n",
            100.0 * through as f64 / all.max(1) as f64
        );
        let mut list = |title: &str, rows: Vec<&Row>| {
            let _ = writeln!(text, "\n{title}: {}.\n", rows.len());
            for row in rows {
                let _ = writeln!(text, "- {} (livepatch {}): {}", row.path, row.carry, row.words());
            }
        };
        list(
            "Can be carried by the rule, and did not come through",
            can().filter(|row| !came_through(row)).collect(),
        );
        let cannot = counting().filter(|row| matches!(row.carry, Carry::Cannot(_)));
        list(
            "Cannot be carried by the rule, and came through",
            cannot.clone().filter(came_through).collect(),
        );
        list("Cannot be carried by the rule, and did not", cannot.filter(|row| !came_through(row)).collect());
        text
    }

    /// Refusals to be looked through, each with why it is right or that it is not.
    fn argued(&self, seed: u64) -> String {
        let mut rows: Vec<&Row> =
            self.rows.iter().filter(|row| matches!(row.end(), End::Refused | End::Overcautious)).collect();
        rows.sort_by_key(|row| Sha256::digest(format!("{seed} {}", row.path)));
        rows.truncate(ARGUED);
        let mut text = format!("\n## {} refusals, picked by seed {seed}\n\n", rows.len());
        for row in rows {
            let _ = writeln!(text, "- {} (by the rule on the source, livepatch {})", row.path, row.carry);
            let Outcome::Refused { refusals, .. } = &row.build.outcome else { continue };
            let mut told = BTreeSet::new();
            for refusal in refusals.iter().filter(|refusal| told.insert(&refusal.rule)) {
                let why = refusal.why_right().map_or_else(
                    || "**a better program could build it**".to_owned(),
                    |why| format!("right, since {why}"),
                );
                let _ =
                    writeln!(text, "  - `{}`: {}; {why}", refusal.rule, refusal.reason.replace('\n', " "));
            }
        }
        text
    }

    /// The counts by area, as a Markdown table.
    pub fn summary(&self) -> String {
        let mut text =
            "| area | tried | proven | loaded only | rightly refused | unchanged | overcautious | failed \
            | not self-contained | not in this kernel |\n|---|---|---|---|---|---|---|---|---|---|\n"
                .to_owned();
        let areas = self.areas().into_iter().map(|(area, counts)| (area.to_string(), counts));
        for (name, c) in areas.chain([("all".to_owned(), self.total())]) {
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                c.tried(),
                c.proven,
                c.loaded_only,
                c.refused,
                c.unchanged,
                c.overcautious,
                c.failed,
                c.not_self_contained,
                c.not_built
            );
        }
        text
    }

    fn times(&self) -> String {
        let mut phases: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for row in &self.rows {
            if let Outcome::Built(module) = &row.build.outcome {
                module.phases.iter().for_each(|(phase, seconds)| {
                    phases.entry(format!("build: {phase}")).or_default().push(*seconds);
                });
                phases.entry("build: all".to_owned()).or_default().push(row.build.seconds);
            }
            if let Some(trial) = &row.trial {
                for (phase, seconds) in
                    [("guest: transition", trial.patching), ("guest: reverse transition", trial.unpatching)]
                {
                    phases.entry(phase.to_owned()).or_default().extend(seconds);
                }
            }
        }
        let mut text = "\n| seconds | median | 90 % | most |\n|---|---|---|---|\n".to_owned();
        for (phase, mut seconds) in phases.into_iter().filter(|(_, seconds)| !seconds.is_empty()) {
            seconds.sort_by(f64::total_cmp);
            let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share) as usize];
            let _ = writeln!(text, "| {phase} | {:.2} | {:.2} | {:.2} |", at(0.5), at(0.9), at(1.0));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::Refusal;
    use super::*;

    fn refused(path: &str, rule: &str, right: Right) -> Row {
        let refusal =
            Refusal { unit: path.to_owned(), rule: rule.to_owned(), reason: format!("f: {rule} it is") };
        Row {
            path: path.to_owned(),
            area: Area::Fs,
            carry: Carry::Can,
            build: Attempt {
                headers: Vec::new(),
                outcome: Outcome::Refused { refusals: vec![refusal], right },
                seconds: 1.0,
            },
            trial: None,
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        Report {
            change: Change::Fix,
            kernel: "6.12.1".to_owned(),
            package: "linux".to_owned(),
            old: "1".to_owned(),
            new: "2".to_owned(),
            machines: 0,
            spent: 0.0,
            rows,
        }
    }

    #[test]
    fn what_failed_and_what_the_rule_on_the_source_expects_is_tried_again() {
        let mut failed = refused("fs/a.c", "data-changed", Right::Right);
        failed.build.outcome = Outcome::Failed { kind: "link".to_owned(), why: "so".to_owned() };
        let expected = refused("fs/b.c", "no-fentry", Right::Right);
        let mut settled = refused("fs/c.c", "data-changed", Right::Right);
        settled.carry = Carry::Cannot(vec!["data limit".to_owned()]);
        let mut unchanged = refused("fs/d.c", "data-changed", Right::Right);
        unchanged.build.outcome = Outcome::Unchanged;
        let mut report = report(vec![failed, expected, settled, unchanged]);
        let json = report.json().unwrap();
        report.resume(&json).unwrap();
        assert_eq!(report.rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["fs/c.c", "fs/d.c"]);
    }

    #[test]
    fn twenty_refusals_are_argued_and_the_seed_picks_them() {
        let mut rows: Vec<Row> =
            (0..40).map(|number| refused(&format!("fs/{number}.c"), "data-changed", Right::Right)).collect();
        rows.push(refused("fs/last.c", "name-moved", Right::Overcautious));
        let report = report(rows);
        let told: Vec<String> = (0..12).map(|seed| report.argued(seed)).collect();
        assert_eq!(told[1], report.argued(1));
        assert_ne!(told[1], told[2]);
        for text in &told {
            assert_eq!(text.lines().filter(|line| line.starts_with("- fs/")).count(), ARGUED, "{text}");
            assert!(text.contains("`data-changed`: f: data-changed it is; right, since live data"), "{text}");
        }
        let overcautious = told.iter().find(|text| text.contains("fs/last.c")).unwrap();
        assert!(
            overcautious.contains("`name-moved`: f: name-moved it is; **a better program"),
            "{overcautious}"
        );
    }
}
