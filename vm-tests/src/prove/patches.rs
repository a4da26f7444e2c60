//! Makes one patch of one C file's difference, and takes hunks of headers along that it cannot do without.
//!
//! What is missing is read from the compiler: the names in its messages. A header's hunk is taken if a line that
//! it adds has one of them as a word.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use super::sources::{Sources, difference};

/// A member of a structure is never taken along: objects that live in the running kernel do not have it.
const MEMBER: &str = "has no member named";

/// Messages that name something which the other version declares in a header.
const MISSING: [&str; 8] = [
    "undeclared",
    "implicit declaration",
    "unknown type name",
    "storage size of",
    "incomplete type",
    "undefined",
    "expected",
    "arguments to function",
];

/// A patch that may grow by hunks of headers.
#[derive(Debug)]
pub(super) struct Draft<'s> {
    sources: &'s Sources,
    path: String,
    file: String,
    /// Chosen hunks by header and place.
    hunks: BTreeMap<String, BTreeSet<usize>>,
    tried: BTreeSet<String>,
}

impl<'s> Draft<'s> {
    /// The difference of a C file.
    pub(super) fn of(sources: &'s Sources, path: &str) -> Result<Self> {
        Ok(Self {
            sources,
            path: path.to_owned(),
            file: difference(sources, path)?,
            hunks: BTreeMap::new(),
            tried: BTreeSet::new(),
        })
    }

    /// Two empty lines at the start of a C file: all of its lines move, and nothing of it changes.
    pub(super) fn moving_lines(sources: &'s Sources, path: &str) -> Result<Self> {
        let text = String::from_utf8_lossy(&std::fs::read(sources.earlier(path))?).into_owned();
        let mut file = format!("--- a/{path}\n+++ b/{path}\n@@ -1,3 +1,5 @@\n+\n+\n");
        ensure!(text.lines().count() > 3, "{path} has hardly a line");
        text.split_inclusive('\n').take(3).for_each(|line| {
            file.push(' ');
            file.push_str(line);
        });
        Ok(Self { sources, path: path.to_owned(), file, hunks: BTreeMap::new(), tried: BTreeSet::new() })
    }

    /// Headers of which hunks were taken along.
    pub(super) fn headers(&self) -> Vec<String> {
        self.hunks.keys().cloned().collect()
    }

    /// The patch.
    pub(super) fn text(&self) -> Result<String> {
        let mut text = String::new();
        for (header, chosen) in &self.hunks {
            let difference = difference(self.sources, header)?;
            let (head, hunks) = split(&difference);
            text.push_str(head);
            chosen.iter().for_each(|&index| text.push_str(hunks[index]));
        }
        Ok(text + &self.file)
    }

    /// Takes hunks along that add what the file newly uses, so that the compiler need not be asked first.
    pub(super) fn foresee(&mut self) -> Result<Growth> {
        let old = String::from_utf8_lossy(&std::fs::read(self.sources.earlier(&self.path))?).into_owned();
        let known: BTreeSet<&str> = words(&old).collect();
        let added: BTreeSet<String> = added(&self.file)
            .flat_map(words)
            .filter(|word| word.len() > 4 && !known.contains(word))
            .map(str::to_owned)
            .collect();
        // Any header may have such a word; what the file includes has it for the file.
        let later = String::from_utf8_lossy(&std::fs::read(self.sources.later(&self.path))?).into_owned();
        let includes = |header: &str| {
            let name = header.rsplit_once("include/").map_or(header, |(_, name)| name);
            later.contains(&format!("#include <{name}>"))
        };
        self.add(added, &includes)
    }

    /// Takes hunks along that add what the compiler misses.
    pub(super) fn grow(&mut self, complaint: &str) -> Result<Growth> {
        if let Some(line) = complaint.lines().find(|line| line.contains(MEMBER)) {
            return Ok(Growth::Never(line.trim().to_owned()));
        }
        self.add(missing(complaint), &|_| true)
    }

    fn add(&mut self, names: BTreeSet<String>, public: &dyn Fn(&str) -> bool) -> Result<Growth> {
        let mut growth = Growth::Nothing;
        for name in names {
            if !self.tried.insert(name.clone()) {
                continue;
            }
            for header in self.headers_with(&name, public)? {
                let later =
                    String::from_utf8_lossy(&std::fs::read(self.sources.later(&header))?).into_owned();
                if let Some(of) = structure_of(&later, &name) {
                    return Ok(Growth::Never(format!("{name} is a new member of {of} in {header}")));
                }
                let difference = difference(self.sources, &header)?;
                let (_, hunks) = split(&difference);
                for (index, _) in hunks.iter().enumerate().filter(|(_, hunk)| adds(hunk, &name)) {
                    if self.hunks.entry(header.clone()).or_default().insert(index) {
                        growth = Growth::Grown;
                    }
                }
            }
        }
        Ok(growth)
    }

    /// The nearest headers that add a name and did not have it: those of the file's own directory, else those
    /// that every file can include and that are `public` enough.
    fn headers_with(&self, name: &str, public: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
        let directory = self.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let differing = || self.sources.differing.iter().filter(|path| path.ends_with(".h"));
        let near: Vec<&String> = differing().filter(|path| path.starts_with(directory)).collect();
        let far: Vec<&String> = differing()
            .filter(|path| path.starts_with("include/") || path.starts_with("arch/x86/include/"))
            .filter(|path| public(path))
            .collect();
        let has = |path: std::path::PathBuf| {
            std::fs::read(path).is_ok_and(|text| has_word(&String::from_utf8_lossy(&text), name))
        };
        for choice in [near, far] {
            let found: Vec<String> = choice
                .into_iter()
                .filter(|path| has(self.sources.later(path)) && !has(self.sources.earlier(path)))
                .cloned()
                .collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}

/// Whether a draft can become complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Growth {
    /// Hunks were added.
    Grown,
    /// None was found.
    Nothing,
    /// It needs what a livepatch must not bring.
    Never(String),
}

/// The structure or union at whose top a name stands, by the way that kernel headers are indented.
fn structure_of(text: &str, name: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| has_word(line, name))?;
    let head =
        lines[..at].iter().rev().find(|line| !line.is_empty() && !line.starts_with([' ', '\t', '#', '/']))?;
    let is_open = lines[at].starts_with([' ', '\t']) && head.trim_end().ends_with('{');
    let kind = ["struct ", "union "].iter().any(|kind| head.contains(kind));
    (is_open && kind && !head.contains('(')).then(|| head.trim_end_matches('{').trim().to_owned())
}

/// The lines that a difference adds.
fn added(difference: &str) -> impl Iterator<Item = &str> {
    difference.lines().filter(|line| line.starts_with('+') && !line.starts_with("+++")).map(|line| &line[1..])
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
}

/// A unified difference of one file as its two head lines and its hunks.
fn split(difference: &str) -> (&str, Vec<&str>) {
    let mut starts: Vec<usize> = difference.match_indices("\n@@ ").map(|(at, _)| at + 1).collect();
    let head = starts.first().map_or(difference, |&first| &difference[..first]);
    starts.push(difference.len());
    (head, starts.windows(2).map(|pair| &difference[pair[0]..pair[1]]).collect())
}

fn adds(hunk: &str, name: &str) -> bool {
    added(hunk).any(|line| has_word(line, name))
}

fn has_word(text: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word)
        .any(|(at, _)| !part(text[..at].chars().next_back()) && !part(text[at + word.len()..].chars().next()))
}

/// The names that a compiler's errors quote.
fn missing(complaint: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in complaint.lines().filter(|line| line.contains("error:")) {
        if !MISSING.iter().any(|sign| line.contains(sign)) {
            continue;
        }
        let quoted = line.split(['\'', '‘', '’']).skip(1).step_by(2);
        for text in quoted {
            let name = text.trim_start_matches("struct ").trim_start_matches("enum ");
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.len() > 2 && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFFERENCE: &str =
        "--- a/x.h\n+++ b/x.h\n@@ -1 +1,2 @@\n int a;\n+int b;\n@@ -9 +10,2 @@\n int c;\n+int bd;\n";

    #[test]
    fn hunks_are_told_apart_and_chosen_by_whole_words() {
        let (head, hunks) = split(DIFFERENCE);
        assert_eq!(head, "--- a/x.h\n+++ b/x.h\n");
        assert_eq!(hunks.len(), 2);
        assert!(adds(hunks[0], "b") && !adds(hunks[1], "b") && !adds(hunks[0], "a"));
    }

    #[test]
    fn a_new_member_is_told_from_a_new_function() {
        let header = "struct a {\n\tint x;\n\tint fresh;\n};\n\nint call(struct a *a,\n\t int other);\nenum {\n\tVALUE,\n};\n";
        assert_eq!(structure_of(header, "fresh").as_deref(), Some("struct a"));
        for name in ["call", "other", "VALUE", "absent"] {
            assert_eq!(structure_of(header, name), None, "{name}");
        }
    }

    #[test]
    fn names_come_from_the_compilers_errors_alone() {
        let complaint = "f.c:1:2: error: 'READ_LATER' undeclared (first use in this function)\n\
            f.c:3:2: error: invalid use of undefined type 'struct fresh'\n\
            f.c:5:2: warning: unused variable 'spare'\n";
        let expected = ["READ_LATER", "fresh"].map(str::to_owned);
        assert_eq!(missing(complaint), BTreeSet::from(expected));
    }
}
