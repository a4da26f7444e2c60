//! What came of a fix, kernel by kernel: in words for each unit, and as one table at the end.

use std::fmt::Write as _;

use patch_tools::build::report::UnitReport;
use patch_tools::diff::Verdict;

use super::output::style::{BOLD, DIM, GREEN, RED, RESET};

/// What came of one kernel.
pub(super) struct Line<'a> {
    pub(super) kernel: &'a str,
    pub(super) units: &'a [UnitReport],
    pub(super) end: End,
}

/// How it ended.
pub(super) enum End {
    /// A module of this many bytes.
    Built { bytes: u64 },
    /// None, by these rules.
    Refused { why: String },
}

/// The table.
pub(super) fn table(text: &mut String, lines: &[Line<'_>]) {
    let width = lines.iter().map(|line| line.kernel.len()).max().unwrap_or_default().max(6);
    let _ = writeln!(
        text,
        "\n{BOLD}{:<width$}  {:>13}  {:>8}  {:>5}  {:>7}  result{RESET}",
        "kernel", "matched", "replaces", "adds", "bytes"
    );
    for Line { kernel, units, end } in lines {
        let sum = |count: fn(&UnitReport) -> usize| -> String {
            match units.is_empty() {
                true => String::new(),
                false => units.iter().map(count).sum::<usize>().to_string(),
            }
        };
        let matched = match units.is_empty() {
            true => String::new(),
            false => format!("{} of {}", sum(|unit| unit.matched), sum(|unit| unit.functions)),
        };
        let replaces = sum(|unit| unit.changed_functions.len());
        let adds = sum(|unit| unit.new_functions.len() + unit.new_data.len());
        let (bytes, result) = match end {
            End::Built { bytes } => (bytes.to_string(), format!("{GREEN}built{RESET}")),
            End::Refused { why } => (String::new(), format!("{RED}refused{RESET}: {why}")),
        };
        let _ =
            writeln!(text, "{kernel:<width$}  {matched:>13}  {replaces:>8}  {adds:>5}  {bytes:>7}  {result}");
    }
}

/// One unit of a kernel.
pub(super) fn unit(text: &mut String, unit: &UnitReport) {
    let _ = writeln!(
        text,
        "  {} ({}): {} of {} functions are the shipped ones",
        unit.source, unit.object, unit.matched, unit.functions
    );
    let mut row = |what: &str, names: &[String]| {
        if !names.is_empty() {
            let _ = writeln!(text, "    {what}: {}", names.join(", "));
        }
    };
    let replaces = if unit.verdict == Verdict::Refused { "would replace" } else { "replaces" };
    row(replaces, &unit.changed_functions);
    row("adds", &unit.new_functions);
    row("adds data", &unit.new_data);
    if unit.verdict == Verdict::Unchanged {
        let _ = writeln!(text, "    {DIM}no code changed{RESET}");
    }
    for (what, why) in &unit.ignored {
        let _ = writeln!(text, "    {DIM}{what}: {why}{RESET}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use patch_tools::module::ObjectName;

    use super::*;

    fn found(verdict: Verdict) -> UnitReport {
        UnitReport {
            source: "fs/namei.c".to_owned(),
            object: ObjectName::Vmlinux,
            functions: 12,
            matched: 11,
            unmatched: BTreeMap::new(),
            verdict,
            changed_functions: vec!["open".to_owned(), "close".to_owned()],
            new_functions: vec!["check".to_owned()],
            new_data: Vec::new(),
            ignored: Vec::new(),
        }
    }

    #[test]
    fn one_table_tells_what_was_matched_replaced_and_refused() {
        let (built, refused) = ([found(Verdict::Changed)], [found(Verdict::Refused)]);
        let mut text = String::new();
        table(
            &mut text,
            &[
                Line { kernel: "6.1.0-50-amd64", units: &built, end: End::Built { bytes: 9000 } },
                Line {
                    kernel: "6.12.1",
                    units: &refused,
                    end: End::Refused { why: "data-changed".to_owned() },
                },
                Line { kernel: "7.3", units: &[], end: End::Refused { why: "kernel".to_owned() } },
            ],
        );
        unit(&mut text, &refused[0]);
        let plain = anstream::adapter::strip_str(&text).to_string();
        let rows: Vec<Vec<&str>> = plain.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[2], ["6.1.0-50-amd64", "11", "of", "12", "2", "1", "9000", "built"]);
        assert_eq!(rows[3], ["6.12.1", "11", "of", "12", "2", "1", "refused:", "data-changed"]);
        assert_eq!(rows[4], ["7.3", "refused:", "kernel"]);
        assert_eq!(rows[6].join(" "), "would replace: open, close");
    }
}
