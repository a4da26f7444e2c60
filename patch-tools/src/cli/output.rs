//! Writing results: text that survives a closed pipe, and JSON.

use std::io::{self, Write};

use serde::Serialize;

use system::exit::{Exit, Failure};

/// Escape sequences for text on a terminal; removed where standard output is none.
pub(crate) mod style {
    pub(crate) const RESET: &str = "\x1b[0m";
    pub(crate) const BOLD: &str = "\x1b[1m";
    pub(crate) const DIM: &str = "\x1b[2m";
    pub(crate) const RED: &str = "\x1b[1;31m";
    pub(crate) const YELLOW: &str = "\x1b[1;33m";
    pub(crate) const GREEN: &str = "\x1b[1;32m";
}

/// Writes `text` to standard output. A reader that has gone away, like `head`, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::AutoStream::auto(io::stdout()).lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::FailedRestored, error))
        }
        _ => Ok(()),
    }
}

/// Writes `value` as indented JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| Failure::new(Exit::Bug, error))?;
    text.push('\n');
    print(&text)
}
