//! What commands print for a person or a program: the one place that does.
//!
//! Words of processes, probes, runtimes and old records come by here too, and anybody may have chosen them. So what
//! is printed is escaped here and nowhere else: nothing acts on a terminal, and what has line breaks in it cannot
//! pass for lines of this program, since all but the first are indented ([`shown`]).
//!
//! A reader that went away does not stop a transaction.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};

use manifests::text::{shown, shown_json};
use serde::Serialize;
use serde_json::json;

/// What a line on a terminal begins with that is written over the one that is there.
const OVER: &str = "\r\x1b[K";

/// A line.
pub fn line(text: &str) {
    raw(format_args!("{}\n", shown(text)));
}

/// A line in the place of what is [under way](under_way).
pub fn line_over(text: &str) {
    raw(format_args!("{OVER}{}\n", shown(text)));
}

/// What is under way; the next line is to be written over it.
pub fn under_way(text: &str) {
    raw(format_args!("{OVER}{}", shown(text)));
}

/// A value as one line of JSON.
pub fn object<T: Serialize>(value: &T) {
    let text = serde_json::to_string(value);
    json_line(&text.unwrap_or_else(|error| json!({ "unprintable": error.to_string() }).to_string()));
}

/// One line of JSON.
pub fn json_line(json: &str) {
    raw(format_args!("{}\n", shown_json(json)));
}

/// What was written line by line.
pub fn page(page: &Page) {
    raw(format_args!("{page}"));
}

/// What a person waits for, if there is one: on stderr, and gone when it is [over](waited).
pub fn waiting(text: &str) {
    let mut out = std::io::stderr().lock();
    if out.is_terminal() {
        let _ = write!(out, "{OVER}{}", shown(text)).and_then(|()| out.flush());
    }
}

/// Nobody waits any more.
pub fn waited() {
    waiting("");
}

fn raw(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}

/// Lines to be printed together, written with `writeln!`: each call is a line, whatever line breaks its arguments
/// have in them.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// What `write!` and `writeln!` call. Writing to a page cannot fail.
    pub fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> fmt::Result {
        let text = arguments.to_string();
        let (words, end) = match text.strip_suffix('\n') {
            Some(words) => (words, "\n"),
            None => (&*text, ""),
        };
        self.text.push_str(&shown(words));
        self.text.push_str(end);
        Ok(())
    }
}

/// As it is printed.
impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_are_no_lines_of_ours_and_do_not_act_on_a_terminal() {
        let mut page = Page::default();
        for said in ["\x1b[2J\x1b]0;title\x07", "no\ntransaction x: committed", "\u{9b}31m\u{202e}", "\r"] {
            writeln!(page, "note: {said}").unwrap();
        }
        assert_eq!(
            page.to_string(),
            "note: \\u{1b}[2J\\u{1b}]0;title\\u{7}\nnote: no\n    transaction x: committed\n\
             note: \\u{9b}31m\\u{202e}\nnote: \\u{d}\n"
        );
    }

    #[test]
    fn json_says_the_same_without_anything_that_acts_on_a_terminal() {
        let said = "\x1b[2J\u{9b}31m\u{7f}\u{202e}\u{feff}gr\u{fc}n\u{e0001}\n";
        let printed = shown_json(&json!({ "said": said }).to_string());
        assert!(printed.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{printed}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap()["said"], said);
    }
}
