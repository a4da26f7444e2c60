//! Which workload: its runtime, and its id there.
//!
//! Two runtimes may give the same id, so an id alone names nothing. The default runtime goes unsaid: `web` is
//! `runc:web`, in what people type and read, and in journals and manifests, which were written so when there was no
//! other runtime.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use manifests::{ContainerId, NameError};
use serde::{Deserialize, Serialize};

/// A runtime's name: `runc`, `podman`, …
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuntimeName(Cow<'static, str>);

impl RuntimeName {
    /// The runtime of an id that names none.
    pub const DEFAULT: Self = Self(Cow::Borrowed("runc"));

    /// The name of a runtime that this program knows.
    pub(crate) const fn literal(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RuntimeName {
    type Err = WorkloadIdError;

    fn from_str(text: &str) -> Result<Self, WorkloadIdError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let well_formed = (1..=32).contains(&text.len())
            && text.as_bytes()[0].is_ascii_lowercase()
            && text.bytes().all(allowed);
        if well_formed {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(WorkloadIdError::Runtime { found: text.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for RuntimeName {
    type Error = WorkloadIdError;

    fn try_from(text: String) -> Result<Self, WorkloadIdError> {
        text.parse()
    }
}

impl From<RuntimeName> for String {
    fn from(name: RuntimeName) -> Self {
        name.to_string()
    }
}

/// A text that names no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadIdError {
    /// The part before the colon.
    #[error(
        "{found:?} is not a runtime's name: expected 1 to 32 characters of a-z, 0-9, '-', starting with a letter"
    )]
    Runtime {
        /// The part, shortened.
        found: String,
    },
    /// The part after it.
    #[error(transparent)]
    Id(#[from] NameError),
}

/// A workload: the runtime that has it, and its id there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadId {
    /// Who starts and stops it.
    pub runtime: RuntimeName,
    /// What that runtime calls it.
    pub id: ContainerId,
}

impl WorkloadId {
    /// A workload of this runtime.
    pub fn new(runtime: RuntimeName, id: ContainerId) -> Self {
        Self { runtime, id }
    }

    /// A name for a directory of its own, different for each workload. Without a colon, which would end a directory
    /// in the options of an overlay mount; no id holds a `@`.
    pub fn directory_name(&self) -> String {
        if self.runtime == RuntimeName::DEFAULT {
            self.id.to_string()
        } else {
            format!("{}@{}", self.runtime, self.id)
        }
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.runtime != RuntimeName::DEFAULT {
            write!(f, "{}:", self.runtime)?;
        }
        self.id.fmt(f)
    }
}

impl FromStr for WorkloadId {
    type Err = WorkloadIdError;

    fn from_str(text: &str) -> Result<Self, WorkloadIdError> {
        let (runtime, id) = match text.split_once(':') {
            Some((runtime, id)) => (runtime.parse()?, id),
            None => (RuntimeName::DEFAULT, text),
        };
        Ok(Self { runtime, id: id.parse()? })
    }
}

impl TryFrom<String> for WorkloadId {
    type Error = WorkloadIdError;

    fn try_from(text: String) -> Result<Self, WorkloadIdError> {
        text.parse()
    }
}

impl From<WorkloadId> for String {
    fn from(id: WorkloadId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> WorkloadId {
        text.parse().unwrap()
    }

    #[test]
    fn an_id_without_a_runtime_is_the_default_runtimes() {
        assert_eq!(id("web"), id("runc:web"));
        assert_eq!(id("runc:web").to_string(), "web");
        assert_eq!(id("podman:web").to_string(), "podman:web");
        assert_ne!(id("podman:web"), id("web"));
    }

    #[test]
    fn what_was_written_before_there_were_other_runtimes_is_still_read() {
        assert_eq!(serde_json::from_str::<WorkloadId>(r#""web""#).unwrap(), id("runc:web"));
        assert_eq!(serde_json::to_string(&id("runc:web")).unwrap(), r#""web""#);
        let other = serde_json::to_string(&id("podman:web")).unwrap();
        assert_eq!(serde_json::from_str::<WorkloadId>(&other).unwrap(), id("podman:web"));
    }

    #[test]
    fn two_workloads_never_share_a_directory_and_no_name_holds_a_colon() {
        let names = ["web", "podman:web", "docker:web"].map(|text| id(text).directory_name());
        assert_eq!(names, ["web", "podman@web", "docker@web"]);
    }

    #[test]
    fn half_a_name_is_no_name() {
        for text in ["", ":", "runc:", ":web", "a:b:c", "Podman:web", "runc:..", "9p:web", "web@x"] {
            assert!(text.parse::<WorkloadId>().is_err(), "{text:?} was taken");
        }
    }
}
