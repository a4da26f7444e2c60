//! The unified diff format, as `diff -u` and `git format-patch` write it.
//!
//! Nothing of a patch is left out in silence: each line is part of a hunk, a header, or text that cannot be a
//! change. Before the first file that is whatever its author wrote; behind a file's hunks only what begins
//! another file, mail or commit, or a mail's signature. A hunk that follows other text is an error.

use super::path::HeaderName;
use super::{ChangeKind, FileChange, Hunk, Line, Patch};

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
    #[error(
        "line {line}: renames are not supported: `{old}` becomes `{new}` (where one is a copy that was kept \
         for comparing, give both lines the same name)"
    )]
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
    /// A line that no change is made of, where only changes and their headers can stand.
    #[error(
        "line {line}: {found:?} is part of no hunk, and begins no other file, mail or commit: nothing of a \
         patch is left out"
    )]
    Stray {
        /// The line of the patch.
        line: usize,
        /// What is there, shortened.
        found: String,
    },
    /// Text between two hunks of a file.
    #[error(
        "line {line}: {found:?} ends the hunks of the file before it, but line {hunk} is another hunk, of which \
         it cannot be told what file it is for"
    )]
    Interrupted {
        /// The first line that is part of no hunk.
        line: usize,
        /// What is there, shortened.
        found: String,
        /// The line of the hunk that follows.
        hunk: usize,
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

    /// The next line is not what has to stand there.
    fn unexpected(&mut self, expected: &'static str) -> ParseError {
        let found = shortened(self.peek().unwrap_or_default());
        ParseError::Syntax { line: self.number + 1, expected, found }
    }

    /// The line that was read last is not what has to stand there.
    fn syntax(&self, expected: &'static str, found: &[u8]) -> ParseError {
        ParseError::Syntax { line: self.number, expected, found: shortened(found) }
    }
}

/// What the text at hand is part of.
enum Place {
    /// A mail's text and signature, a commit's message, or what stands before the first file: free text.
    Message,
    /// What stands behind a file's hunks, with the first such line, its number and text.
    Behind(Option<(usize, String)>),
}

const HUNK_HEADER: &str = "a hunk header `@@ -LINE,COUNT +LINE,COUNT @@`";

pub(super) fn patch(text: &[u8]) -> Result<Patch, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError::TooLarge(text.len()));
    }
    let is_end: fn(&u8) -> bool = |byte| *byte == b'\n';
    let mut lines = Lines { rest: text.split_inclusive(is_end).peekable(), number: 0 };
    let mut preamble = Vec::new();
    let mut files = Vec::new();
    let mut place = Place::Message;
    while let Some(line) = lines.next() {
        let number = lines.number;
        if line.starts_with(b"GIT binary patch") || line.starts_with(b"Binary files ") {
            return Err(ParseError::Binary(number));
        }
        if line.starts_with(b"--- ") && lines.peek().is_some_and(|next| next.starts_with(b"+++ ")) {
            files.push(file(line, &mut lines)?);
            place = Place::Behind(None);
            continue;
        }
        if line.starts_with(b"diff --git ") {
            extended_header(&mut lines)?;
            place = Place::Behind(None);
            continue;
        }
        if line.starts_with(b"@@") {
            return Err(match place {
                Place::Behind(Some((line, found))) => ParseError::Interrupted { line, found, hunk: number },
                Place::Behind(None) if !files.is_empty() => lines.syntax(HUNK_HEADER, line),
                _ => {
                    lines.syntax("text, and a hunk stands behind the lines `---` and `+++` of its file", line)
                }
            });
        }
        match &mut place {
            Place::Message if files.is_empty() => preamble.extend_from_slice(line),
            Place::Message => {}
            Place::Behind(first) => {
                if begins_text(line) {
                    place = Place::Message;
                } else if !is_separator(line) {
                    return Err(ParseError::Stray { line: number, found: shortened(line) });
                } else if first.is_none() {
                    *first = Some((number, shortened(line)));
                }
            }
        }
    }
    if files.is_empty() {
        return Err(ParseError::NoDiff);
    }
    let preamble = String::from_utf8_lossy(&preamble);
    Ok(Patch { subject: subject(&preamble), cves: cves(&preamble), files })
}

/// Whether a line stands between the hunks of one file and the header lines of the next.
fn is_separator(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
        || [&b"diff "[..], b"Index: ", b"=====", b"RCS file: ", b"retrieving revision "]
            .iter()
            .any(|start| line.starts_with(start))
}

/// Whether a line begins the text of another mail or commit, or a mail's signature (RFC 3676 4.3).
fn begins_text(line: &[u8]) -> bool {
    const STARTS: [&str; 13] = [
        "From ",
        "From:",
        "commit ",
        "Subject:",
        "Date:",
        "Description:",
        "Author:",
        "Origin:",
        "To:",
        "Cc:",
        "Message-ID:",
        "Message-Id:",
        "# HG changeset patch",
    ];
    line.trim_ascii_end() == b"--" || STARTS.iter().any(|start| line.starts_with(start.as_bytes()))
}

/// The lines between git's `diff --git` and what says how the content changes.
fn extended_header(lines: &mut Lines<'_>) -> Result<(), ParseError> {
    const HARMLESS: [&str; 5] = ["index ", "old mode ", "new mode ", "similarity ", "dissimilarity "];
    let mut only_mode = false;
    while let Some(line) = lines.peek() {
        let strip = |start: &str| line.strip_prefix(start.as_bytes());
        if let Some(old) = strip("rename from ").or(strip("copy from ")) {
            let old = lossy(old);
            lines.next();
            let new = lines.next().unwrap_or_default();
            let new = new.strip_prefix(b"rename to ").or(new.strip_prefix(b"copy to ")).unwrap_or_default();
            return Err(ParseError::Rename { line: lines.number, old, new: lossy(new) });
        }
        let is_known = HARMLESS.iter().chain(&["new file mode ", "deleted file mode "]);
        if !is_known.into_iter().any(|start| line.starts_with(start.as_bytes())) {
            break;
        }
        only_mode = line.starts_with(b"old mode ") || (only_mode && line.starts_with(b"new mode "));
        lines.next();
    }
    let follows = |line: &[u8]| {
        ["--- ", "GIT binary patch", "Binary files "].iter().any(|start| line.starts_with(start.as_bytes()))
    };
    if only_mode || lines.peek().is_some_and(follows) {
        return Ok(());
    }
    Err(lines.unexpected("the header line `--- ` of the file that `diff --git` names"))
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_end().to_owned()
}

/// A line for a message: without its end, and not longer than a terminal is wide.
fn shortened(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).chars().take(80).collect()
}

/// One file's header lines and hunks; `old` is the `---` line.
fn file(old: &[u8], lines: &mut Lines<'_>) -> Result<FileChange, ParseError> {
    let line = lines.number;
    let new = lines.next().unwrap_or_default();
    let (old, new) = (header_name(old), header_name(new));
    let checked = |name: &str| {
        HeaderName::new(name).ok_or_else(|| ParseError::HostilePath { line, path: name.to_owned() })
    };
    let named = if new == "/dev/null" { old.clone() } else { new.clone() };
    let (name, mut kind) = match (old.as_str(), new.as_str()) {
        ("/dev/null", new) => (checked(new)?, ChangeKind::Created),
        (old, "/dev/null") => (checked(old)?, ChangeKind::Deleted),
        (old, new) => {
            let (from, to) = (checked(old)?, checked(new)?);
            let name = HeaderName::of_both(from, to);
            (name.map_err(|(old, new)| ParseError::Rename { line, old, new })?, ChangeKind::Modified)
        }
    };
    let mut hunks = Vec::new();
    while lines.peek().is_some_and(|line| line.starts_with(b"@@ ")) {
        hunks.push(hunk(lines)?);
    }
    if hunks.is_empty() {
        return Err(lines.unexpected(HUNK_HEADER));
    }
    // `diff -N` names a file that is not there like any other.
    if let (ChangeKind::Modified, [only]) = (kind, &hunks[..])
        && only.old_start == 0
        && only.old_lines().next().is_none()
    {
        kind = ChangeKind::Created;
    }
    Ok(FileChange { path: name.below, whole: name.whole, named, kind, hunks })
}

/// The name after `--- ` or `+++ `, without the time that `diff -u` puts after a tab.
fn header_name(line: &[u8]) -> String {
    let name = String::from_utf8_lossy(&line[4..]).into_owned();
    name.split('\t').next().unwrap_or_default().trim_end().to_owned()
}

fn hunk(lines: &mut Lines<'_>) -> Result<Hunk, ParseError> {
    let header = lines.next().unwrap_or_default();
    let started = lines.number;
    let Ranges { old_start, mut old, mut new, heading } =
        ranges(header).ok_or_else(|| lines.syntax(HUNK_HEADER, header))?;
    let mut hunk = Hunk { old_start, heading: heading.to_vec(), lines: Vec::new() };
    let mut ended = Ended::default();
    while old > 0 || new > 0 || lines.peek().is_some_and(|line| line.starts_with(b"\\ ")) {
        let Some(line) = lines.next() else {
            return Err(ParseError::Truncated { line: started, old, new });
        };
        if line.starts_with(b"\\") {
            ended.at(&mut hunk);
            continue;
        }
        let unfinished = |count: usize| count.checked_sub(1);
        // An editor may have cut the end off the patch's last line; a file's line without end says so itself.
        let text = |from: usize| {
            let mut text = line[from..].to_vec();
            if text.last() != Some(&b'\n') {
                text.push(b'\n');
            }
            text
        };
        let (part, counts) = match line.first() {
            Some(b' ') => (Line::Context(text(1)), unfinished(old).zip(unfinished(new))),
            // Mailers strip the space of an empty context line.
            Some(b'\n' | b'\r') => (Line::Context(text(0)), unfinished(old).zip(unfinished(new))),
            Some(b'-') => (Line::Removed(text(1)), unfinished(old).zip(Some(new))),
            Some(b'+') => (Line::Added(text(1)), Some(old).zip(unfinished(new))),
            _ => return Err(lines.syntax("a line of a hunk (` `, `-`, `+` or `\\`)", line)),
        };
        (old, new) = counts.ok_or_else(|| lines.syntax("within the hunk's line counts", line))?;
        if !ended.allows(&part) {
            return Err(
                lines.syntax("possible behind the last line of a file that ends without a line end", line)
            );
        }
        hunk.lines.push(part);
    }
    Ok(hunk)
}

/// Which sides of a hunk have come to the end of a file whose last line has no end.
#[derive(Default)]
struct Ended {
    old: bool,
    new: bool,
}

impl Ended {
    /// `\ No newline at end of file` speaks of the line before it.
    fn at(&mut self, hunk: &mut Hunk) {
        let Some(line) = hunk.lines.last_mut() else { return };
        self.old |= !matches!(line, Line::Added(_));
        self.new |= !matches!(line, Line::Removed(_));
        let (Line::Context(text) | Line::Removed(text) | Line::Added(text)) = line;
        if text.last() == Some(&b'\n') {
            text.pop();
        }
    }

    fn allows(&self, line: &Line) -> bool {
        match line {
            Line::Context(_) => !self.old && !self.new,
            Line::Removed(_) => !self.old,
            Line::Added(_) => !self.new,
        }
    }
}

/// What a hunk's header says.
struct Ranges<'a> {
    old_start: usize,
    old: usize,
    new: usize,
    /// The text behind it, which need not be whole characters: `diff -p` cuts it at 40 bytes.
    heading: &'a [u8],
}

/// Reads `@@ -12,7 +12,9 @@ function`.
fn ranges(header: &[u8]) -> Option<Ranges<'_>> {
    let text = header.strip_prefix(b"@@ -")?;
    let at = memchr::memmem::find(text, b" @@")?;
    let (old, new) = std::str::from_utf8(&text[..at]).ok()?.split_once(" +")?;
    let range = |text: &str| -> Option<(usize, usize)> {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        // A count beyond the size limit cannot be met; refusing it here keeps sums from overflowing.
        Some((
            start.parse().ok().filter(|start| *start <= MAX_BYTES)?,
            count.parse().ok().filter(|count| *count <= MAX_BYTES)?,
        ))
    };
    let ((old_start, old), (_, new)) = (range(old)?, range(new)?);
    let heading = text[at + 3..].trim_ascii();
    (old + new > 0).then_some(Ranges { old_start, old, new, heading })
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
            (
                "diff --git a/a b/b\nrename from a\nrename to b\n".into(),
                "line 3: renames are not supported: `a` becomes `b`",
            ),
            (
                "diff --git a/a.c b/a.c\nnew file mode 100644\nindex 0..1\n".into(),
                "line 4: \"\" is not the header line",
            ),
            ("GIT binary patch\n".into(), "line 1: the patch changes a binary file"),
            ("hello\n".into(), "the text holds no unified diff"),
            ("--- a/x.c\n+++ b/x.c\n".into(), "line 3: \"\" is not a hunk header"),
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
                "line 5: \"-b\" is not within the hunk's line counts",
            ),
        ] {
            let message = Patch::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    const FIRST: &str = "--- a/x.c\n+++ b/x.c\n@@ -1,2 +1,2 @@\n a\n-b\n+B\n";
    const HUNK: &str = "@@ -9 +9 @@\n-i\n+I\n";

    #[test]
    fn text_between_two_hunks_is_refused_with_its_line() {
        for text in ["\n", "-- \n2.39\n", "From: A\n", "Index: y.c\n", "diff -u a/y.c b/y.c\n", "\n\n\n"] {
            let error = Patch::parse(format!("{FIRST}{text}{HUNK}").as_bytes()).unwrap_err();
            let message = error.to_string();
            let at = 7 + text.matches('\n').count();
            let named =
                message.starts_with("line 7: ") && message.contains(&format!("line {at} is another hunk"));
            let orphan = message.starts_with(&format!("line {at}: \"@@ -9 +9 @@\" is not text, and a hunk"));
            assert!(named || orphan, "{message}");
        }
    }

    #[test]
    fn what_is_neither_a_change_nor_a_separator_is_refused_with_its_line() {
        for text in [
            "# and the reader too:\n",
            "+more\n",
            "-less\n",
            " context\n",
            "Only in b: y.c\n",
            "Files a/y.c and b/y.c differ\n",
            "--- a/y.c\n",
            "*** 1,5 ****\n",
        ] {
            for rest in ["", HUNK, FIRST] {
                let error = Patch::parse(format!("{FIRST}{text}{rest}").as_bytes()).unwrap_err();
                let expected = format!("line 7: {:?} is part of no hunk", text.trim_end());
                assert!(error.to_string().starts_with(&expected), "{error}");
            }
        }
        for (text, line) in [
            (format!("{FIRST}@@ -9,1 +9,1\n"), 7),
            (format!("{FIRST}@@@ -9 -9 +9 @@@\n"), 7),
            (format!("the second hunk lost its file\n{HUNK}{FIRST}"), 2),
            (format!("\u{feff}{FIRST}"), 3),
            (format!("{FIRST}-- \n2.39\n\n{HUNK}"), 10),
        ] {
            let error = Patch::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}: \"@@")), "{error}");
        }
    }

    #[test]
    fn mails_commits_and_tools_may_say_what_they_like_between_files() {
        let second = FIRST.replace("x.c", "y.c");
        for between in [
            "",
            "\n",
            "diff --git a/y.c b/y.c\nindex 1..2 100644\n",
            "diff --git a/z.sh b/z.sh\nold mode 100644\nnew mode 100755\n",
            "Index: y.c\n===================================================================\n",
            "diff -urN a/y.c b/y.c\n",
            "-- \n2.39.2\n\nFrom 0123 Mon Sep 17 00:00:00 2001\nSubject: [PATCH 2/2] y\n\nrename from x to y\n---\n y.c | 2 +-\n\n",
            "\ncommit 0123456\nAuthor: A <a@example.org>\n\n    y: too\n\n",
            "--\nlist mailing list\n",
        ] {
            let patch = Patch::parse(format!("{FIRST}{between}{second}").as_bytes());
            assert_eq!(patch.map(|patch| patch.files.len()), Ok(2), "{between}");
        }
        let told = format!("fs: do not rename\nrename from a to b broke\n--- not a header\n{FIRST}");
        assert_eq!(Patch::parse(told.as_bytes()).unwrap().files.len(), 1);
    }

    #[test]
    fn a_heading_need_not_be_text() {
        let mut text =
            b"--- a/x.c\n+++ b/x.c\n@@ -1,2 +1,2 @@ MODULE_AUTHOR(\"Zbigniew Bart\xc5\n a\n-b\n+B\n".to_vec();
        assert_eq!(Patch::parse(&text).unwrap().files[0].apply(b"a\nb\n").unwrap().content, b"a\nB\n");
        text.splice(0..0, *b"Subject: Signed by J\xf6rg\n\n");
        assert!(Patch::parse(&text).unwrap().subject.is_some());
    }

    #[test]
    fn only_the_last_line_of_a_side_can_lack_its_end() {
        let mark = "\\ No newline at end of file\n";
        let text = format!("--- a/x.c\n+++ b/x.c\n@@ -1,2 +1,3 @@\n a\n-b\n{mark}+B\n{mark}+C\n");
        let error = Patch::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 9: \"+C\" is not possible behind the last line"), "{error}");
        // Cut off by an editor: the line of the file still ends.
        let patch = Patch::parse(FIRST.trim_end().as_bytes()).unwrap();
        assert_eq!(patch.files[0].apply(b"a\nb\nc\n").unwrap().content, b"a\nB\nc\n");
    }
}
