//! Hunks onto a file.

use super::{Hunk, Line, SourcePath};

/// Lines of context on each side that make a hunk's place certain where it is the one that the hunk states:
/// what `diff -u` and git write unless told otherwise.
const CONTEXT: usize = 3;

/// A file that a patch does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// No place in the file has the hunk's old lines.
    #[error("{path}: hunk {number} does not apply at line {line}: expected {expected}, found {found}{}", hint(*white_space))]
    NoMatch {
        /// The file.
        path: SourcePath,
        /// The hunk, from 1.
        number: usize,
        /// The first line that differs where the hunk should apply.
        line: usize,
        /// What the hunk has there, with what cannot be seen escaped.
        expected: String,
        /// What the file has there.
        found: String,
        /// What the two differ in, if it is nothing that prints.
        white_space: Option<WhiteSpace>,
    },
    /// The hunk fits at several places, and too little speaks for one of them.
    #[error(
        "{path}: hunk {number} does not apply for certain at line {line}: its lines are at lines {}; refusing to \
         guess (a diff with three lines of context says more)",
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
    /// The hunk only inserts, and has no line of the file beside what it inserts.
    #[error(
        "{path}: hunk {number} inserts behind line {line} without a line of context: nothing shows that this is \
         the place (make the diff with `diff -u` or `git diff`, without -U0)"
    )]
    NoContext {
        /// The file.
        path: SourcePath,
        /// The hunk, from 1.
        number: usize,
        /// The line behind which it says it inserts.
        line: usize,
    },
    /// The hunk ends a file whose last line has no line end, but its place is before the end.
    #[error("{path}: hunk {number} ends the file without a line end, but line {line} follows")]
    NotTheEnd {
        /// The file.
        path: SourcePath,
        /// The hunk, from 1.
        number: usize,
        /// The first line behind it.
        line: usize,
    },
}

/// A difference between two lines that no terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhiteSpace {
    /// The patch has CR LF where the file has LF.
    CarriageReturnInPatch,
    /// The file has CR LF where the patch has LF.
    CarriageReturnInFile,
    /// Blanks or tabs.
    Blanks,
    /// One has no line end, as the last line of some files.
    LineEnd,
}

impl WhiteSpace {
    fn between(expected: &[u8], found: &[u8]) -> Option<Self> {
        let without_end = |line: &[u8]| line.strip_suffix(b"\n").map_or(line.to_vec(), <[u8]>::to_vec);
        let (patch, file) = (without_end(expected), without_end(found));
        let visible = |line: &[u8]| -> Vec<u8> {
            line.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
        };
        if patch == file {
            Some(Self::LineEnd)
        } else if patch.strip_suffix(b"\r") == Some(&file) {
            Some(Self::CarriageReturnInPatch)
        } else if file.strip_suffix(b"\r") == Some(&patch) {
            Some(Self::CarriageReturnInFile)
        } else {
            (visible(&patch) == visible(&file)).then_some(Self::Blanks)
        }
    }
}

fn hint(white_space: Option<WhiteSpace>) -> &'static str {
    match white_space {
        None => "",
        Some(WhiteSpace::CarriageReturnInPatch) => " (the patch has CRLF line ends, the file has not)",
        Some(WhiteSpace::CarriageReturnInFile) => " (the file has CRLF line ends, the patch has not)",
        Some(WhiteSpace::Blanks) => " (they differ in white space only)",
        Some(WhiteSpace::LineEnd) => " (they differ in the line end at the end of the file only)",
    }
}

/// A line in quotes, with everything escaped that may look like something else or like nothing.
fn shown(line: Option<&[u8]>) -> String {
    let Some(line) = line else { return "the end of the file".to_owned() };
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let mut quoted = String::from("\"");
    for chunk in text.utf8_chunks() {
        quoted.extend(chunk.valid().chars().flat_map(|letter| {
            let plain = matches!(letter, ' '..='~') && !matches!(letter, '"' | '\\');
            let escaped = (!plain).then(|| letter.escape_default());
            escaped.into_iter().flatten().chain(plain.then_some(letter))
        }));
        quoted.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    quoted.push('"');
    if text.len() == line.len() {
        quoted.push_str(" without a line end");
    }
    quoted
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
        let at = place(&old, taken, hunk, &wanted, expected)
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
        if taken < old.len() && new.last().is_some_and(|line| line.last() != Some(&b'\n')) {
            return Err(ApplyError::NotTheEnd { path: path.clone(), number: index + 1, line: taken + 1 });
        }
    }
    new.extend(&old[taken..]);
    Ok(Placed { content: new.concat(), removed, added })
}

enum Miss {
    None,
    Several(Vec<usize>),
    NoContext,
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
            Self::NoContext => ApplyError::NoContext { path, number, line: expected },
            Self::Several(places) => {
                let candidates = places.into_iter().take(5).map(|at| at + 1).collect();
                ApplyError::Ambiguous { path, number, line: expected + 1, candidates }
            }
            Self::None => {
                let differs = (0..wanted.len())
                    .find(|&index| old.get(expected + index) != Some(&wanted[index]))
                    .unwrap_or_default();
                let (wanted, found) = (wanted.get(differs).copied(), old.get(expected + differs).copied());
                ApplyError::NoMatch {
                    path,
                    number,
                    line: expected + differs + 1,
                    expected: shown(wanted),
                    found: shown(found),
                    white_space: wanted
                        .zip(found)
                        .and_then(|(wanted, found)| WhiteSpace::between(wanted, found)),
                }
            }
        }
    }
}

/// Where a hunk's old lines, `wanted`, are in `old` at or after line `from`.
///
/// The one place that has them is theirs. Of several it is the one at `expected`, if more than its number
/// speaks for it: as much context as `diff` writes, or the function that the hunk's heading names.
fn place(old: &[&[u8]], from: usize, hunk: &Hunk, wanted: &[&[u8]], expected: usize) -> Result<usize, Miss> {
    if wanted.is_empty() {
        return if old.is_empty() { Ok(0) } else { Err(Miss::NoContext) };
    }
    let fits = |at: usize| old.get(at..at + wanted.len()).is_some_and(|lines| lines == wanted);
    let places: Vec<usize> = (from..old.len()).filter(|&at| fits(at)).collect();
    match places[..] {
        [] => return Err(Miss::None),
        [only] => return Ok(only),
        _ => {}
    }
    let headed: Vec<usize> = places.iter().copied().filter(|&at| is_under(old, at, &hunk.heading)).collect();
    let is_certain = match headed[..] {
        [] => has_whole_context(hunk, expected, wanted.len(), old.len()),
        [only] => only == expected,
        _ => headed.contains(&expected) && has_whole_context(hunk, expected, wanted.len(), old.len()),
    };
    if is_certain && places.contains(&expected) { Ok(expected) } else { Err(Miss::Several(places)) }
}

/// Whether a hunk has as much context as `diff` writes, at line `at` of a file with `end` lines.
fn has_whole_context(hunk: &Hunk, at: usize, length: usize, end: usize) -> bool {
    let is_context = |line: &&Line| matches!(line, Line::Context(_));
    let before = hunk.lines.iter().take_while(is_context).count();
    let after = hunk.lines.iter().rev().take_while(is_context).count();
    (before >= CONTEXT || at == 0) && (after >= CONTEXT || at + length == end)
}

/// Whether the function that line `at` is in begins as a hunk's heading says: `diff -p` and git take the last
/// line before it that begins with a letter, and cut it.
fn is_under(old: &[&[u8]], at: usize, heading: &[u8]) -> bool {
    let begins = |line: &&&[u8]| {
        let label = line.trim_ascii_end().ends_with(b":");
        line.first().is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$')) && !label
    };
    let function = old[..at].iter().rev().find(begins);
    !heading.is_empty() && function.is_some_and(|line| line.starts_with(heading))
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
        let hunks = "@@ -1,4 +1,4 @@\n-a\n+A\n x\n y\n z\n@@ -6,4 +6,4 @@\n x\n y\n z\n-a\n+B\n";
        assert_eq!(
            patched(hunks, "a\nx\ny\nz\n-\nx\ny\nz\na\n").as_deref(),
            Ok("A\nx\ny\nz\n-\nx\ny\nz\nB\n")
        );
        let block = "1\n2\n3\na\n4\n5\n6\n";
        let moved =
            format!("@@ -1,2 +1,2 @@\n y\n-b\n+B\n@@ -3,7 +3,7 @@\n{}", " 1\n 2\n 3\n-a\n+A\n 4\n 5\n 6\n");
        let changed = block.replace('a', "A");
        assert_eq!(
            patched(&moved, &format!("new\ny\nb\n{block}{block}")),
            Ok(format!("new\ny\nB\n{changed}{block}"))
        );
        assert_eq!(
            patched(&moved, &format!("y\nb\nnew\n{block}{block}")),
            Err("f.c: hunk 2 does not apply for certain at line 3: its lines are at lines 4, 11; refusing to \
                 guess (a diff with three lines of context says more)"
                .to_owned())
        );
    }

    #[test]
    fn a_hunk_that_does_not_fit_says_what_it_expected_and_found() {
        assert_eq!(
            patched("@@ -2,2 +2,2 @@\n x\n-a\n+b\n", "1\nx\nz\n"),
            Err("f.c: hunk 1 does not apply at line 3: expected \"a\", found \"z\"".to_owned())
        );
        assert_eq!(
            patched("@@ -9,2 +9,2 @@\n x\n-a\n+b\n", "1\n"),
            Err("f.c: hunk 1 does not apply at line 9: expected \"x\", found the end of the file".to_owned())
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

    #[test]
    fn of_several_places_the_line_number_alone_decides_for_none() {
        let old = "int f()\n{\n\tg();\n}\nint h()\n{\n\tg();\n}\n";
        let refused = |text: &str| {
            let error = patched(text, old).unwrap_err();
            assert!(error.contains("its lines are at lines "), "{error}");
        };
        refused("@@ -3 +3 @@\n-\tg();\n+\tG();\n");
        refused("@@ -2,2 +2,3 @@\n {\n+\ti();\n \tg();\n");
        // The heading speaks for the other place.
        refused("@@ -3 +3 @@ int h()\n-\tg();\n+\tG();\n");
        let headed = patched("@@ -7 +7 @@ int h()\n-\tg();\n+\tG();\n", old).unwrap();
        assert!(headed.ends_with("int h()\n{\n\tG();\n}\n"), "{headed}");
    }

    #[test]
    fn an_insertion_without_context_has_no_place() {
        let old = "int f()\n{\n}\n";
        for hunk in
            ["@@ -2,0 +3 @@ int f()\n+\tg();\n", "@@ -0,0 +1 @@\n+int a;\n", "@@ -3,0 +4 @@\n+int a;\n"]
        {
            let error = patched(hunk, old).unwrap_err();
            assert!(error.contains("without a line of context: nothing shows"), "{error}");
        }
    }

    #[test]
    fn a_difference_that_does_not_print_is_shown() {
        let failed = |expected: &str, found: &str| {
            patched(&format!("@@ -1 +1 @@\n-{expected}\n+new\n"), found).unwrap_err()
        };
        for (expected, found, message) in [
            ("x\r", "x\n", "expected \"x\\r\", found \"x\" (the patch has CRLF line ends, the file has not)"),
            ("x", "x\r\n", "expected \"x\", found \"x\\r\" (the file has CRLF line ends, the patch has not)"),
            ("x ", "x\n", "expected \"x \", found \"x\" (they differ in white space only)"),
            (
                "\tx",
                "        x\n",
                "expected \"\\tx\", found \"        x\" (they differ in white space only)",
            ),
            ("x\u{a0}y", "x y\n", "expected \"x\\u{a0}y\", found \"x y\""),
            ("\u{441}", "c\n", "expected \"\\u{441}\", found \"c\""),
            (
                "x",
                "x",
                "found \"x\" without a line end (they differ in the line end at the end of the file only)",
            ),
        ] {
            let error = failed(expected, found);
            assert!(error.ends_with(message), "{error}");
        }
    }

    #[test]
    fn a_hunk_that_ends_the_file_applies_at_its_end_only() {
        let hunk = "@@ -1,2 +1,2 @@\n a\n-b\n+c\n\\ No newline at end of file\n";
        assert_eq!(patched(hunk, "a\nb\n").as_deref(), Ok("a\nc"));
        let error = patched(hunk, "a\nb\nd\n").unwrap_err();
        assert_eq!(error, "f.c: hunk 1 ends the file without a line end, but line 3 follows");
    }
}
