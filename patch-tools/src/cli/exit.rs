//! Exit codes, the same in both binaries, and the failure that carries one.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// How a command ended; the number is the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(dead_code, reason = "the table is kept whole, also where no subcommand uses a row yet")]
pub(crate) enum Exit {
    /// Did what was asked.
    Done = 0,
    /// Failed, and everything is as it was before.
    Failed = 1,
    /// The command line is wrong. Clap uses the same number.
    Usage = 2,
    /// The input is not fit for the operation; nothing was touched.
    Refused = 3,
    /// A signature, digest or policy does not hold.
    NotAuthentic = 4,
    /// Another process holds what this one needs.
    Busy = 5,
    /// A person has to decide; the message names the state.
    NeedsOperator = 6,
    /// A bug in this program.
    Bug = 70,
}

impl Exit {
    /// The word for it in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
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
        ExitCode::from(exit as u8)
    }
}

/// A subcommand's error with the code it ends in and, where there is one, the next step to take.
pub(crate) struct Failure {
    /// The process's exit code.
    pub(crate) exit: Exit,
    /// What went wrong; its sources are printed below it.
    pub(crate) error: Box<dyn Error + Send + Sync>,
    /// The next thing to try.
    pub(crate) hint: Option<String>,
    /// More about it, for a program.
    details: serde_json::Value,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit, error: error.into(), hint: None, details: serde_json::Value::Null }
    }

    /// Adds the next step to take.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what a program can act on; it is shown in JSON only.
    pub(crate) fn details(mut self, details: &impl serde::Serialize) -> Self {
        self.details = serde_json::to_value(details).unwrap_or_default();
        self
    }
}

impl Failure {
    /// The failure for a program that reads JSON, with the same keys as those of `update`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let causes: Vec<String> = system::error::causes(&*self.error).map(ToString::to_string).collect();
        serde_json::json!({
            "error": self.error.to_string(),
            "causes": causes,
            "exit": self.exit as u8,
            "kind": self.exit.name(),
            "next": self.hint,
            "details": self.details,
        })
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.exit, self.error)
    }
}
