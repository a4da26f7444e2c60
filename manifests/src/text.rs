//! Text that people wrote and terminals will show, and paths inside containers.
//!
//! Invariant: no control characters (a summary cannot move the cursor) and none of the
//! bidirectional overrides that make text read differently from its bytes.

use crate::scalar::word;

/// Whether a character can be shown as it is: no control, no bidirectional control
/// (Unicode 15, `Bidi_Control`), no byte order mark, no line or paragraph separator.
pub(crate) fn is_showable(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// `text` as a terminal may have it: what is not [showable](is_showable) is written as `\u{...}`.
///
/// For words that are not ours and of no checked type, such as a parser's message that quotes its
/// input. Line breaks stay, and what follows one is indented, so that it cannot pass for a line of
/// the program itself.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\n    "),
            c if is_showable(c) => shown.push(c),
            c => shown.extend(c.escape_unicode()),
        }
    }
    shown
}

/// JSON as a terminal may have it: what is not [showable](is_showable), which in JSON stands in strings only, is
/// written as `\uXXXX`. It means the same.
pub fn shown_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_showable(c) {
            shown.push(c);
        } else {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}")));
        }
    }
    shown
}

word! {
    /// One line for people.
    Summary,
    what: "summary",
    rule: "one line of 1 to 200 characters without control or direction characters",
    schema: { "minLength": 1, "maxLength": 200 },
    check: |s| (1..=200).contains(&s.chars().count()) && s.chars().all(is_showable) && !s.trim().is_empty()
}

word! {
    /// The value of a label; may be empty.
    LabelValue,
    what: "label value",
    rule: "at most 1024 characters without control or direction characters",
    schema: { "maxLength": 1024 },
    check: |s| s.chars().count() <= 1024 && s.chars().all(is_showable)
}

word! {
    /// An absolute path as a container's processes see it.
    ContainerPath,
    what: "container path",
    rule: "an absolute path of at most 4095 bytes without '.', '..' or empty components and without control characters",
    schema: { "pattern": "^/[^/]", "maxLength": 4095 },
    check: |s| {
        s.len() <= 4095
            && s.chars().all(is_showable)
            && s.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
    }
}

word! {
    /// One argument of a probe's command. May hold line breaks (a script), never a NUL.
    Argument,
    what: "command argument",
    rule: "at most 4096 bytes without NUL",
    schema: { "maxLength": 4096 },
    check: |s| s.len() <= 4096 && !s.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_cannot_talk_to_the_terminal() {
        for bad in ["", "  ", "a\nb", "\u{1b}[2J", "a\u{202e}b", "a\u{85}b", "\u{feff}a"] {
            assert!(bad.parse::<Summary>().is_err(), "{bad:?} was taken");
        }
        assert!("Fix CVE-2026-0001: grüße".parse::<Summary>().is_ok());
    }

    #[test]
    fn foreign_words_are_shown_without_their_power_over_the_terminal() {
        assert_eq!(shown("grüße"), "grüße");
        assert_eq!(shown("a\u{1b}[2Jb\r"), "a\\u{1b}[2Jb\\u{d}");
        assert_eq!(shown("a\nnext: rm"), "a\n    next: rm");
    }

    #[test]
    fn container_paths_are_absolute_and_plain() {
        for bad in ["", "/", "a", "/a/../b", "/a//b", "/a/", "/./a", "/a\n"] {
            assert!(bad.parse::<ContainerPath>().is_err(), "{bad:?} was taken");
        }
        assert!("/usr/lib/libgreet.so.1".parse::<ContainerPath>().is_ok());
    }
}
