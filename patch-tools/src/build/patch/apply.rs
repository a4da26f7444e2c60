//! Hunks onto a file.

use super::{Hunk, Line, SourcePath};

/// A file that a patch does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// No place in the file has the hunk's old lines.
    #[error("{path}: hunk {number} does not apply at line {line}: expected {expected:?}, found {found:?}")]
    NoMatch {
        /// The file.
        path: SourcePath,
        /// The hunk, from 1.
        number: usize,
        /// The first line that differs where the hunk should apply.
        line: usize,
        /// What the hunk has there.
        expected: String,
        /// What the file has there.
        found: String,
    },
    /// The hunk does not fit where it says and fits at several other places.
    #[error(
        "{path}: hunk {number} does not apply at line {line} but would at lines {}; refusing to guess",
        list(candidates)
    )]
    Ambiguous {
        /// The file.
        path: SourcePath,
        /// The hunk, from 1.
        number: usize,
        /// Where it says it applies.
        line: usize,
        /// Where it would apply.
        candidates: Vec<usize>,
    },
}

fn list(lines: &[usize]) -> String {
    lines.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// A file with its hunks in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The new content.
    pub content: Vec<u8>,
    /// Lines of the old file that go, from 0.
    pub removed: Vec<usize>,
    /// Lines of the new file that came, from 0.
    pub added: Vec<usize>,
}

pub(super) fn hunks(path: &SourcePath, hunks: &[Hunk], old: &[u8]) -> Result<Placed, ApplyError> {
    let old: Vec<&[u8]> = old.split_inclusive(|byte| *byte == b'\n').collect();
    let mut new: Vec<&[u8]> = Vec::new();
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    let mut taken = 0;
    let mut offset = 0isize;
    for (index, hunk) in hunks.iter().enumerate() {
        let wanted: Vec<&[u8]> = hunk.old_lines().collect();
        // An empty old side names the line after which to insert, a full one its first line, from 1.
        let stated = if wanted.is_empty() { hunk.old_start } else { hunk.old_start.saturating_sub(1) };
        let expected = stated.saturating_add_signed(offset);
        let at = place(&old, taken, &wanted, expected)
            .map_err(|miss| miss.named(path, index + 1, &old, &wanted, expected))?;
        offset = at as isize - stated as isize;
        new.extend(&old[taken..at]);
        taken = at;
        for line in &hunk.lines {
            match line {
                Line::Context(text) => {
                    taken += 1;
                    new.push(text);
                }
                Line::Removed(_) => {
                    removed.push(taken);
                    taken += 1;
                }
                Line::Added(text) => {
                    added.push(new.len());
                    new.push(text);
                }
            }
        }
    }
    new.extend(&old[taken..]);
    Ok(Placed { content: new.concat(), removed, added })
}

enum Miss {
    None,
    Several(Vec<usize>),
}

impl Miss {
    fn named(
        self,
        path: &SourcePath,
        number: usize,
        old: &[&[u8]],
        wanted: &[&[u8]],
        expected: usize,
    ) -> ApplyError {
        let path = path.clone();
        match self {
            Self::Several(places) => {
                let candidates = places.into_iter().take(5).map(|at| at + 1).collect();
                ApplyError::Ambiguous { path, number, line: expected + 1, candidates }
            }
            Self::None => {
                let differs = (0..wanted.len())
                    .find(|&index| old.get(expected + index) != Some(&wanted[index]))
                    .unwrap_or_default();
                let shown = |line: Option<&&[u8]>| {
                    line.map_or("the end of the file".to_owned(), |line| {
                        String::from_utf8_lossy(line).trim_end().to_owned()
                    })
                };
                ApplyError::NoMatch {
                    path,
                    number,
                    line: expected + differs + 1,
                    expected: shown(wanted.get(differs)),
                    found: shown(old.get(expected + differs)),
                }
            }
        }
    }
}

/// Where `wanted` is in `old` at or after line `from`: at `expected`, else at the one other place.
fn place(old: &[&[u8]], from: usize, wanted: &[&[u8]], expected: usize) -> Result<usize, Miss> {
    let fits = |at: usize| old.get(at..at + wanted.len()).is_some_and(|lines| lines == wanted);
    if expected >= from && fits(expected) {
        return Ok(expected);
    }
    if wanted.is_empty() {
        return Err(Miss::None);
    }
    let places: Vec<usize> = (from..old.len()).filter(|&at| fits(at)).collect();
    match places[..] {
        [] => Err(Miss::None),
        [only] => Ok(only),
        _ => Err(Miss::Several(places)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Patch;

    fn patched(hunks: &str, old: &str) -> Result<String, String> {
        let patch = Patch::parse(format!("--- a/f.c\n+++ b/f.c\n{hunks}").as_bytes()).unwrap();
        let new = patch.files[0].apply(old.as_bytes()).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(new.content).unwrap())
    }

    #[test]
    fn hunks_move_with_the_lines_before_them() {
        let hunks = "@@ -1,2 +1,2 @@\n x\n-a\n+A\n@@ -3,2 +3,2 @@\n x\n-a\n+B\n";
        assert_eq!(
            patched(hunks, "new\nx\na\nx\na\n"),
            Err("f.c: hunk 1 does not apply at line 1 but would at lines 2, 4; refusing to guess".to_owned())
        );
        assert_eq!(patched(hunks, "x\na\nx\na\n").as_deref(), Ok("x\nA\nx\nB\n"));
        let moved = "@@ -1,2 +1,2 @@\n y\n-a\n+A\n@@ -3,2 +3,2 @@\n x\n-a\n+B\n";
        assert_eq!(patched(moved, "new\ny\na\nx\na\nx\na\n").as_deref(), Ok("new\ny\nA\nx\nB\nx\na\n"));
    }

    #[test]
    fn a_hunk_that_does_not_fit_says_what_it_expected_and_found() {
        assert_eq!(
            patched("@@ -2,2 +2,2 @@\n x\n-a\n+b\n", "1\nx\nz\n"),
            Err("f.c: hunk 1 does not apply at line 3: expected \"a\", found \"z\"".to_owned())
        );
        assert_eq!(
            patched("@@ -9,2 +9,2 @@\n x\n-a\n+b\n", "1\n"),
            Err("f.c: hunk 1 does not apply at line 9: expected \"x\", found \"the end of the file\""
                .to_owned())
        );
    }

    #[test]
    fn an_insertion_into_an_empty_file_makes_it() {
        assert_eq!(patched("@@ -0,0 +1,2 @@\n+a\n+b\n", "").as_deref(), Ok("a\nb\n"));
    }

    #[test]
    fn placed_hunks_tell_which_lines_go_and_come() {
        let text = b"--- a/f.c\n+++ b/f.c\n@@ -1,3 +1,4 @@\n a\n-b\n+B\n+BB\n c\n";
        let patch = Patch::parse(text).unwrap();
        let placed = patch.files[0].apply(b"0\na\nb\nc\n").unwrap();
        assert_eq!((placed.removed, placed.added), (vec![2], vec![2, 3]));
        assert_eq!(placed.content, b"0\na\nB\nBB\nc\n");
    }
}
