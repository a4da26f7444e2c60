//! How a command ends: the exit codes, and the failure that carries one.
//!
//! [`Exit::code`] is the only table of codes. A [`Failure`] says what went wrong with its causes,
//! what was expected, what was found, what state the host is in now, and what to do next; it is
//! rendered once, by `main`, for a person and as JSON. Subcommands never print errors themselves.

use std::any::Any;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use manifests::text::{shown, shown_json};
use serde_json::json;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Did what was asked.
    Done,
    /// Failed, and everything was restored.
    FailedRestored,
    /// The command line is wrong.
    Usage,
    /// A precondition does not hold; nothing was touched.
    Refused,
    /// A signature, digest, time or policy does not hold; nothing was touched.
    NotAuthentic,
    /// Another transaction holds the host.
    Busy,
    /// A person has to decide; the message names the state.
    NeedsOperator,
    /// A bug in this program.
    Bug,
}

impl Exit {
    /// The process's exit code. 2 is also what clap uses, and 70 is `EX_SOFTWARE` of sysexits.h.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::FailedRestored => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotAuthentic => 4,
            Self::Busy => 5,
            Self::NeedsOperator => 6,
            Self::Bug => 70,
        }
    }

    /// The code's name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::FailedRestored => "failed-restored",
            Self::Usage => "usage",
            Self::Refused => "refused",
            Self::NotAuthentic => "not-authentic",
            Self::Busy => "busy",
            Self::NeedsOperator => "needs-operator",
            Self::Bug => "bug",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The state that a failure leaves the host in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing was changed.
    Untouched,
    /// Something was changed, and everything is as it was before.
    Restored,
    /// Anything else, in words that name what is where.
    Named(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untouched => f.write_str("nothing was changed"),
            Self::Restored => f.write_str("everything is as it was before"),
            Self::Named(words) => f.write_str(words),
        }
    }
}

/// Why a command did not do what was asked.
pub struct Failure(Box<Details>);

/// Boxed, so that a `Result` with a `Failure` stays small.
struct Details {
    exit: Exit,
    error: Box<dyn Error + Send + Sync>,
    expected: Option<String>,
    found: Option<String>,
    state: State,
    next: Option<String>,
    details: serde_json::Value,
}

impl Failure {
    /// A failure that left the host as it was; [`Failure::state`] says otherwise.
    pub fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Box::new(Details {
            exit,
            error: error.into(),
            expected: None,
            found: None,
            state: State::Untouched,
            next: None,
            details: serde_json::Value::Null,
        }))
    }

    /// What should have been the case, and what was.
    pub fn because(mut self, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        self.0.expected = Some(expected.to_string());
        self.0.found = Some(found.to_string());
        self
    }

    /// The state that the host is in now.
    pub fn state(mut self, state: State) -> Self {
        self.0.state = state;
        self
    }

    /// What to do next: a command where there is one.
    pub fn next(mut self, next: impl fmt::Display) -> Self {
        self.0.next = Some(next.to_string());
        self
    }

    /// More about it, for a program that can act on it; shown in JSON only.
    pub fn details(mut self, details: &impl serde::Serialize) -> Self {
        self.0.details = serde_json::to_value(details).unwrap_or_default();
        self
    }

    /// The failure of a panic caught by [`guard`].
    fn panicked(payload: &(dyn Any + Send), program: &Program) -> Self {
        let words = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown panic".to_owned());
        Self::new(Exit::Bug, format!("this is a bug in {}: {words}", program.name))
            .state(State::Named(program.state_after_a_bug.to_owned()))
            .next(program.next_after_a_bug)
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        self.0.exit
    }

    /// The error itself; its causes are its sources.
    pub fn error(&self) -> &(dyn Error + 'static) {
        &*self.0.error
    }

    /// The causes below the error, outermost first.
    fn causes(&self) -> impl Iterator<Item = String> {
        crate::error::causes(&*self.0.error).map(ToString::to_string)
    }

    /// For a person: the error, its causes, then what to know and do. Errors may quote input, so
    /// nothing in them reaches a terminal as a control character.
    pub fn for_person(&self) -> String {
        let mut text = format!("error: {}\n", shown(&self.0.error.to_string()));
        for cause in self.causes() {
            let _ = writeln!(text, "  because: {}", shown(&cause));
        }
        let facts = [
            ("expected", self.0.expected.as_deref()),
            ("found", self.0.found.as_deref()),
            ("state", Some(&*self.0.state.to_string())),
            ("next", self.0.next.as_deref()),
        ]
        .map(|(label, fact)| fact.map(|fact| (label, fact.to_owned())));
        for (label, fact) in facts.into_iter().flatten() {
            let _ = writeln!(text, "{:<10}{}", format!("{label}:"), shown(&fact));
        }
        text
    }

    /// For a program: one JSON object on one line.
    pub fn for_program(&self) -> String {
        let object = json!({
            "error": self.0.error.to_string(),
            "causes": self.causes().collect::<Vec<_>>(),
            "exit": self.0.exit.code(),
            "kind": self.0.exit.name(),
            "expected": self.0.expected,
            "found": self.0.found,
            "state": self.0.state.to_string(),
            "next": self.0.next,
            "details": self.0.details,
        });
        format!("{}\n", shown_json(&object.to_string()))
    }
}

impl Failure {
    /// Says it: in words on stderr, and with `json` also as one object on stdout, where its reader looks.
    pub fn report(&self, json: bool) {
        // Nobody is left to tell if these are closed.
        let _ = std::io::stderr().write_all(self.for_person().as_bytes());
        if json {
            let _ = std::io::stdout().write_all(self.for_program().as_bytes());
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.for_person(), self.0.exit)
    }
}

/// What a program says of itself when it meets a bug of its own.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// The state that the host may be in.
    pub state_after_a_bug: &'static str,
    /// What to do.
    pub next_after_a_bug: &'static str,
}

/// Runs a command and turns a panic into a [`Failure`]; the panic hook has already printed where.
pub fn guard<T>(program: &Program, run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // The closure's values are dropped by the unwinding and not looked at again.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| Err(Failure::panicked(&*payload, program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::fmt::Error);

    #[test]
    fn a_person_reads_the_error_its_causes_and_what_to_do() {
        let failure =
            Failure::new(Exit::Refused, Outer(std::fmt::Error)).because("a", "b").next("update status");
        assert_eq!(
            failure.for_person(),
            "error: outer\n  because: an error occurred when formatting an argument\nexpected: a\nfound:    b\n\
             state:    nothing was changed\nnext:     update status\n"
        );
    }

    #[test]
    fn a_program_gets_the_same_in_one_line() {
        let line = Failure::new(Exit::NotAuthentic, Outer(std::fmt::Error)).because("a", "b").for_program();
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["exit"], 4);
        assert_eq!(value["kind"], "not-authentic");
        assert_eq!(value["found"], "b");
        assert_eq!(value["next"], serde_json::Value::Null);
    }

    #[test]
    fn a_panic_becomes_a_bug() {
        let program = Program { name: "update", state_after_a_bug: "unknown", next_after_a_bug: "look" };
        let failure = guard::<()>(&program, || panic!("told you")).unwrap_err();
        assert_eq!(failure.exit().code(), 70);
        let words = failure.for_person();
        assert!(words.contains("bug in update: told you") && words.contains("unknown"), "{words}");
    }
}
