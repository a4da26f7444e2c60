//! Makes one patch of one C file's difference, and takes hunks of headers along that it cannot do without.
//!
//! What is missing is read from the compiler: the names in its messages. A header's hunk is taken if a line that
//! it adds has one of them as a word.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

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

    /// Takes hunks along that add what the compiler misses; tells whether there were any.
    pub(super) fn grow(&mut self, complaint: &str) -> Result<bool> {
        if complaint.contains(MEMBER) {
            return Ok(false);
        }
        let names: Vec<String> =
            missing(complaint).into_iter().filter(|name| self.tried.insert(name.clone())).collect();
        let mut grown = false;
        for name in &names {
            for header in self.headers_with(name)? {
                let difference = difference(self.sources, &header)?;
                let (_, hunks) = split(&difference);
                for (index, hunk) in hunks.iter().enumerate().filter(|(_, hunk)| adds(hunk, name)) {
                    // The guard and the licence of a header are not what is missing.
                    if !hunk.is_empty() {
                        grown |= self.hunks.entry(header.clone()).or_default().insert(index);
                    }
                }
            }
        }
        Ok(grown)
    }

    /// The nearest headers that add a name: those of the file's own directory, else those that every file
    /// can include.
    fn headers_with(&self, name: &str) -> Result<Vec<String>> {
        let directory = self.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let differing = || self.sources.differing.iter().filter(|path| path.ends_with(".h"));
        let near: Vec<&String> = differing().filter(|path| path.starts_with(directory)).collect();
        let public: Vec<&String> = differing()
            .filter(|path| path.starts_with("include/") || path.starts_with("arch/x86/include/"))
            .collect();
        for choice in [near, public] {
            let mut found = Vec::new();
            for path in choice {
                let Ok(text) = std::fs::read(self.sources.later(path)) else { continue };
                if has_word(&String::from_utf8_lossy(&text), name) {
                    let difference = difference(self.sources, path)?;
                    if split(&difference).1.iter().any(|hunk| adds(hunk, name)) {
                        found.push(path.clone());
                    }
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}

/// A unified difference of one file as its two head lines and its hunks.
fn split(difference: &str) -> (&str, Vec<&str>) {
    let mut starts: Vec<usize> = difference.match_indices("\n@@ ").map(|(at, _)| at + 1).collect();
    let head = starts.first().map_or(difference, |&first| &difference[..first]);
    starts.push(difference.len());
    (head, starts.windows(2).map(|pair| &difference[pair[0]..pair[1]]).collect())
}

fn adds(hunk: &str, name: &str) -> bool {
    hunk.lines().any(|line| line.starts_with('+') && has_word(line, name))
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
    fn names_come_from_the_compilers_errors_alone() {
        let complaint = "f.c:1:2: error: 'READ_LATER' undeclared (first use in this function)\n\
            f.c:3:2: error: invalid use of undefined type 'struct fresh'\n\
            f.c:5:2: warning: unused variable 'spare'\n";
        let expected = ["READ_LATER", "fresh"].map(str::to_owned);
        assert_eq!(missing(complaint), BTreeSet::from(expected));
    }
}
