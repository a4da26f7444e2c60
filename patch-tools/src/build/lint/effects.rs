//! What the changed lines do to locks and reference counts, and which functions they are in.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use super::checklist::{Risk, Topic};
use super::text::Text;
use super::words::{self, Counting, Locking};
use crate::build::units::Step;

/// A function of a file; none for what stands outside of functions, such as a macro.
type Place = (String, Option<String>);

/// How often a word came and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    added: i32,
    removed: i32,
}

/// What the changed lines hold.
#[derive(Debug, Default)]
pub(super) struct Effects {
    words: BTreeMap<Place, BTreeMap<String, Count>>,
    touched: BTreeSet<String>,
}

impl Effects {
    /// Looks at all changed lines of all patches.
    pub(super) fn of(steps: &[Step]) -> Self {
        let mut effects = Self::default();
        for step in steps {
            let (old, new) = (Text::read(&step.old), Text::read(&step.new.content));
            for &line in &step.new.removed {
                effects.line(step, &old, line, |count| count.removed += 1);
            }
            for &line in &step.new.added {
                effects.line(step, &new, line, |count| count.added += 1);
            }
        }
        effects
    }

    fn line(&mut self, step: &Step, text: &Text, line: usize, count: impl Fn(&mut Count)) {
        if !text.is_code(line) {
            return;
        }
        let function = text.function(line).map(str::to_owned);
        self.touched.extend(function.clone());
        let words = self.words.entry((step.path.to_string(), function)).or_default();
        for word in text.calls(line) {
            count(words.entry(word.to_owned()).or_default());
        }
    }

    /// Functions with a changed line.
    pub(super) fn touched(&self) -> &BTreeSet<String> {
        &self.touched
    }

    /// One finding for each function whose locking or counting changes.
    pub(super) fn judge(&self, findings: &mut Findings) {
        for ((file, function), words) in &self.words {
            let subject = function.as_deref().unwrap_or("(outside of functions)");
            let locks = Kind::of(words, |word| words::locking(word).map(|what| what == Locking::Acquire));
            if let Some(locks) = locks {
                // Giving back more than before mends a leak; taking more than is given back makes one, or leaves
                // it to code that may still be the old one.
                let risk =
                    if locks.taken != 0 && locks.taken != locks.given { Risk::High } else { Risk::Medium };
                findings.add(Topic::Locking, risk, file, subject, locks.text);
            }
            let counts = Kind::of(words, |word| words::counting(word).map(|what| what == Counting::Take));
            if let Some(counts) = counts {
                findings.add(Topic::ReferenceCounts, Risk::Medium, file, subject, counts.text);
            }
        }
    }
}

/// The words of one kind in one function.
struct Kind {
    /// Added minus removed.
    taken: i32,
    given: i32,
    text: String,
}

impl Kind {
    /// `takes` says of a word of the kind whether it takes or gives back.
    fn of(words: &BTreeMap<String, Count>, takes: impl Fn(&str) -> Option<bool>) -> Option<Self> {
        let (mut taken, mut given, mut parts) = (0, 0, Vec::new());
        for (word, count) in words {
            let Some(takes) = takes(word) else { continue };
            let into = if takes { &mut taken } else { &mut given };
            *into += count.added - count.removed;
            parts.push(match (count.added, count.removed) {
                (added, 0) => format!("adds {}", times(word, added)),
                (0, removed) => format!("removes {}", times(word, removed)),
                (added, removed) if added == removed => format!("moves {}", times(word, added)),
                (added, removed) => format!("adds {} and removes {removed}", times(word, added)),
            });
        }
        (!parts.is_empty()).then(|| Self { taken, given, text: parts.join(", ") })
    }
}

fn times(word: &str, count: i32) -> String {
    if count == 1 { format!("{word}()") } else { format!("{word}() {count} times") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::patch::Patch;

    fn found(old: &str, hunks: &str) -> Vec<String> {
        let patch = Patch::parse(format!("--- a/f.c\n+++ b/f.c\n{hunks}").as_bytes()).unwrap();
        let new = patch.files[0].apply(old.as_bytes()).unwrap();
        let step = Step { path: patch.files[0].path.clone(), old: old.as_bytes().to_vec(), new };
        let effects = Effects::of(&[step]);
        let mut findings = Findings::default();
        effects.judge(&mut findings);
        let touched = effects.touched().iter().map(|name| format!("touched {name}"));
        let found =
            findings.0.iter().map(|(_, one)| format!("{}: {}: {}", one.risk, one.subject, one.detail));
        found.chain(touched).collect()
    }

    #[test]
    fn a_lock_that_is_taken_and_not_given_back_is_a_high_risk() {
        let old = "int f(void)\n{\n\ta();\n\treturn 0;\n}\n";
        assert_eq!(
            found(old, "@@ -2,3 +2,4 @@\n {\n+\tmutex_lock(&m);\n \ta();\n \treturn 0;\n"),
            ["high: f: adds mutex_lock()", "touched f"]
        );
        assert_eq!(
            found(
                old,
                "@@ -2,3 +2,5 @@\n {\n+\tmutex_lock(&m);\n \ta();\n+\tmutex_unlock(&m);\n \treturn 0;\n"
            ),
            ["medium: f: adds mutex_lock(), adds mutex_unlock()", "touched f"]
        );
    }

    #[test]
    fn moved_locks_and_counts_are_seen_and_comments_are_not() {
        let old = "int f(void)\n{\n\tspin_lock(&l);\n\ta();\n\tdput(d);\n\treturn 0; /* dput(d) */\n}\n";
        assert_eq!(
            found(
                old,
                "@@ -2,6 +2,6 @@\n {\n-\tspin_lock(&l);\n \ta();\n-\tdput(d);\n-\treturn 0; /* dput(d) */\n+\tspin_lock(&l);\n+\t/* dput(d) */\n+\treturn 1;\n }\n"
            ),
            ["medium: f: moves spin_lock()", "medium: f: removes dput()", "touched f"]
        );
    }
}
