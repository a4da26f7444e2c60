//! The unified diff format, as `diff -u` and `git format-patch` write it.

use super::{ChangeKind, FileChange, Hunk, Line, Patch, SourcePath};

/// Larger than any fix; a whole release's diff is larger and is no livepatch.
const MAX_BYTES: usize = 8 << 20;

/// A diff that cannot be read, or that asks for what a livepatch cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Too large.
    #[error("the patch has {0} bytes; at most {MAX_BYTES} are taken")]
    TooLarge(usize),
    /// Nothing in it is a diff.
    #[error("the text holds no unified diff (no `---` / `+++` / `@@` lines)")]
    NoDiff,
    /// A path that is absolute, has `..`, or characters that no kernel source file has.
    #[error(
        "line {line}: `{path}` is not a path inside the source tree (one leading component, as in `a/fs/x.c`, then the file)"
    )]
    HostilePath {
        /// The line of the patch.
        line: usize,
        /// The path as written.
        path: String,
    },
    /// The two header lines name two files.
    #[error("line {line}: renames are not supported: `{old}` becomes `{new}`")]
    Rename {
        /// The line of the patch.
        line: usize,
        /// The old name.
        old: String,
        /// The new name.
        new: String,
    },
    /// A binary file.
    #[error("line {0}: the patch changes a binary file")]
    Binary(usize),
    /// A hunk header or line that does not follow the format.
    #[error("line {line}: {found:?} is not {expected}")]
    Syntax {
        /// The line of the patch.
        line: usize,
        /// What the format has here.
        expected: &'static str,
        /// What is there, shortened.
        found: String,
    },
    /// The patch ends inside a hunk.
    #[error("line {line}: the patch ends inside a hunk that still lacks {old} old and {new} new lines")]
    Truncated {
        /// The line at which the hunk began.
        line: usize,
        /// Old lines missing.
        old: usize,
        /// New lines missing.
        new: usize,
    },
}

/// The text's lines, each with its end.
type Rest<'a> = std::iter::Peekable<std::slice::SplitInclusive<'a, u8, fn(&u8) -> bool>>;

/// The text's lines, and how many were read.
struct Lines<'a> {
    rest: Rest<'a>,
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        self.number += 1;
        self.rest.next()
    }

    fn peek(&mut self) -> Option<&'a [u8]> {
        self.rest.peek().copied()
    }

    fn syntax(&self, expected: &'static str, found: &[u8]) -> ParseError {
        let found = String::from_utf8_lossy(found).trim_end().chars().take(80).collect();
        ParseError::Syntax { line: self.number, expected, found }
    }
}

pub(super) fn patch(text: &[u8]) -> Result<Patch, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError::TooLarge(text.len()));
    }
    let is_end: fn(&u8) -> bool = |byte| *byte == b'\n';
    let mut lines = Lines { rest: text.split_inclusive(is_end).peekable(), number: 0 };
    let mut preamble = Vec::new();
    let mut files = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with(b"GIT binary patch") || line.starts_with(b"Binary files ") {
            return Err(ParseError::Binary(lines.number));
        }
        if line.starts_with(b"--- ") && lines.peek().is_some_and(|next| next.starts_with(b"+++ ")) {
            files.push(file(line, &mut lines)?);
        } else if let Some(old) = line.strip_prefix(b"rename from ") {
            let new = lines.next().and_then(|line| line.strip_prefix(b"rename to ")).unwrap_or_default();
            return Err(ParseError::Rename { line: lines.number, old: lossy(old), new: lossy(new) });
        } else if files.is_empty() {
            preamble.extend_from_slice(line);
        }
    }
    if files.is_empty() {
        return Err(ParseError::NoDiff);
    }
    let preamble = String::from_utf8_lossy(&preamble);
    Ok(Patch { subject: subject(&preamble), cves: cves(&preamble), files })
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_end().to_owned()
}

/// One file's header lines and hunks; `old` is the `---` line.
fn file(old: &[u8], lines: &mut Lines<'_>) -> Result<FileChange, ParseError> {
    let line = lines.number;
    let new = lines.next().unwrap_or_default();
    let (old, new) = (header_name(old), header_name(new));
    let path = |name: &str| {
        SourcePath::from_header(name).ok_or_else(|| ParseError::HostilePath { line, path: name.to_owned() })
    };
    let (path, kind) = match (old.as_str(), new.as_str()) {
        ("/dev/null", new) => (path(new)?, ChangeKind::Created),
        (old, "/dev/null") => (path(old)?, ChangeKind::Deleted),
        (old, new) => {
            let (from, to) = (path(old)?, path(new)?);
            if from != to {
                return Err(ParseError::Rename { line, old: from.to_string(), new: to.to_string() });
            }
            (to, ChangeKind::Modified)
        }
    };
    let mut hunks = Vec::new();
    while lines.peek().is_some_and(|line| line.starts_with(b"@@ ")) {
        hunks.push(hunk(lines)?);
    }
    if hunks.is_empty() {
        let found = lines.peek().unwrap_or_default();
        return Err(lines.syntax("a hunk header `@@ -LINE,COUNT +LINE,COUNT @@`", found));
    }
    Ok(FileChange { path, kind, hunks })
}

/// The name after `--- ` or `+++ `, without the time that `diff -u` puts after a tab.
fn header_name(line: &[u8]) -> String {
    let name = String::from_utf8_lossy(&line[4..]).into_owned();
    name.split('\t').next().unwrap_or_default().trim_end().to_owned()
}

fn hunk(lines: &mut Lines<'_>) -> Result<Hunk, ParseError> {
    let header = lines.next().unwrap_or_default();
    let started = lines.number;
    let (old_start, mut old, mut new) = ranges(header)
        .ok_or_else(|| lines.syntax("a hunk header `@@ -LINE,COUNT +LINE,COUNT @@`", header))?;
    let mut hunk = Hunk { old_start, lines: Vec::new() };
    while old > 0 || new > 0 {
        let Some(line) = lines.next() else {
            return Err(ParseError::Truncated { line: started, old, new });
        };
        let unfinished = |count: usize| count.checked_sub(1);
        let (line, counts) = match line.first() {
            Some(b' ') => (Line::Context(line[1..].to_vec()), unfinished(old).zip(unfinished(new))),
            // Mailers strip the space of an empty context line.
            Some(b'\n') | Some(b'\r') => (Line::Context(line.to_vec()), unfinished(old).zip(unfinished(new))),
            Some(b'-') => (Line::Removed(line[1..].to_vec()), unfinished(old).zip(Some(new))),
            Some(b'+') => (Line::Added(line[1..].to_vec()), Some(old).zip(unfinished(new))),
            Some(b'\\') => {
                without_end(&mut hunk);
                continue;
            }
            _ => return Err(lines.syntax("a line of a hunk (` `, `-`, `+` or `\\`)", line)),
        };
        (old, new) = counts.ok_or_else(|| lines.syntax("within the hunk's line counts", b""))?;
        hunk.lines.push(line);
    }
    if lines.peek().is_some_and(|line| line.starts_with(b"\\ ")) {
        lines.next();
        without_end(&mut hunk);
    }
    Ok(hunk)
}

/// `\ No newline at end of file` speaks of the line before it.
fn without_end(hunk: &mut Hunk) {
    if let Some(Line::Context(text) | Line::Removed(text) | Line::Added(text)) = hunk.lines.last_mut()
        && text.last() == Some(&b'\n')
    {
        text.pop();
    }
}

/// Old start, old count, new count of `@@ -12,7 +12,9 @@ function`.
fn ranges(header: &[u8]) -> Option<(usize, usize, usize)> {
    let text = std::str::from_utf8(header).ok()?.strip_prefix("@@ -")?;
    let (ranges, _) = text.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| -> Option<(usize, usize)> {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        // A count beyond the size limit cannot be met; refusing it here keeps sums from overflowing.
        Some((
            start.parse().ok().filter(|start| *start <= MAX_BYTES)?,
            count.parse().ok().filter(|count| *count <= MAX_BYTES)?,
        ))
    };
    let ((old_start, old), (_, new)) = (range(old)?, range(new)?);
    (old + new > 0).then_some((old_start, old, new))
}

fn subject(preamble: &str) -> Option<String> {
    let mut lines = preamble.lines();
    let subject = match lines.clone().position(|line| line.starts_with("Subject: ")) {
        Some(at) => {
            let mut subject = lines.nth(at)?["Subject: ".len()..].to_owned();
            // A folded header goes on in lines that begin with white space (RFC 5322 2.2.3).
            for folded in lines.take_while(|line| line.starts_with([' ', '\t'])) {
                subject.push(' ');
                subject.push_str(folded.trim());
            }
            subject
        }
        None => lines.find(|line| !line.trim().is_empty() && !line.starts_with("diff "))?.to_owned(),
    };
    let text = subject.trim();
    let text = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_, rest)) => rest.trim(),
        None => text,
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    (!text.is_empty()).then_some(text)
}

fn cves(preamble: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (at, _) in preamble.match_indices("CVE-") {
        let rest = &preamble[at + 4..];
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (year, number) = (digits(rest), rest.get(5..).map_or(0, digits));
        if year == 4 && rest.as_bytes().get(4) == Some(&b'-') && (4..=19).contains(&number) {
            let id = format!("CVE-{}", &rest[..5 + number]);
            if !found.contains(&id) {
                found.push(id);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = "From abc Mon Sep 17 00:00:00 2001\nFrom: A <a@example.org>\nSubject: [PATCH 1/2] fs: check the\n length\n\nFixes CVE-2026-0001 and CVE-2026-0001, CVE-26-1.\n---\n fs/x.c | 2 +-\n\ndiff --git a/fs/x.c b/fs/x.c\nindex 1..2 100644\n--- a/fs/x.c\n+++ b/fs/x.c\n@@ -1,2 +1,2 @@ int f\n one\n-two\n+TWO\n-- \n2.39\n";

    #[test]
    fn a_mailed_patch_gives_subject_cves_and_changes() {
        let patch = Patch::parse(MAIL.as_bytes()).unwrap();
        assert_eq!(patch.subject.as_deref(), Some("fs: check the length"));
        assert_eq!(patch.cves, ["CVE-2026-0001"]);
        assert_eq!(patch.files.len(), 1);
        assert_eq!(patch.files[0].apply(b"one\ntwo\n").unwrap().content, b"one\nTWO\n");
    }

    #[test]
    fn a_plain_diff_needs_no_headers_and_its_times_are_ignored() {
        let text = "--- linux/fs/x.c\t2020-01-01\n+++ new/fs/x.c\t2020-01-02\n@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n";
        let patch = Patch::parse(text.as_bytes()).unwrap();
        assert_eq!(patch.files[0].path.as_str(), "fs/x.c");
        assert_eq!(patch.files[0].apply(b"a\n").unwrap().content, b"b");
    }

    #[test]
    fn what_a_livepatch_cannot_be_is_refused_with_its_line() {
        let hunk = "@@ -1 +1 @@\n-a\n+b\n";
        for (text, expected) in [
            (format!("--- a/../x.c\n+++ b/../x.c\n{hunk}"), "line 1: `a/../x.c` is not a path inside"),
            (format!("--- a/x.c\n+++ b/y.c\n{hunk}"), "line 1: renames are not supported"),
            ("rename from a\nrename to b\n".into(), "line 2: renames are not supported: `a` becomes `b`"),
            ("GIT binary patch\n".into(), "line 1: the patch changes a binary file"),
            ("hello\n".into(), "the text holds no unified diff"),
            ("--- a/x.c\n+++ b/x.c\n".into(), "line 2: \"\" is not a hunk header"),
            ("--- a/x.c\n+++ b/x.c\n@@ -1,99999999999999999999 +1 @@\n".into(), "line 3: \"@@ -1,9999"),
            (
                "--- a/x.c\n+++ b/x.c\n@@ -1,2 +1,2 @@\n a\n".into(),
                "line 3: the patch ends inside a hunk that still lacks 1 old and 1 new",
            ),
            (
                "--- a/x.c\n+++ b/x.c\n@@ -1,2 +1,2 @@\n a\n?\n".into(),
                "line 5: \"?\" is not a line of a hunk",
            ),
            (
                "--- a/x.c\n+++ b/x.c\n@@ -1,1 +1,2 @@\n-a\n-b\n".into(),
                "line 5: \"\" is not within the hunk's line counts",
            ),
        ] {
            let message = Patch::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
