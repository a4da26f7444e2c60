//! `/etc/update/update.yaml`: where this host keeps things and how long.
//!
//! Every field has a default; a host without the file works. Unknown fields are refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// Where the file is looked for unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/update/update.yaml";

/// The settings of this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Journal, payloads, checkpoints and layers. Root's alone.
    pub store: PathBuf,
    /// The trust policy.
    pub policy: PathBuf,
    /// Where runc keeps the state of containers (`runc --root`).
    pub runc_root: PathBuf,
    /// How long the checkpoints of a committed transaction are kept.
    #[serde(with = "humantime_text")]
    pub checkpoint_retention: Duration,
    /// A crash within this time after a livepatch was loaded is blamed on it.
    #[serde(with = "humantime_text")]
    pub crash_guard: Duration,
    /// How long a container may take to end by SIGTERM before it is killed.
    #[serde(with = "humantime_text")]
    pub stop_patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: PathBuf::from("/var/lib/update"),
            policy: PathBuf::from("/etc/update/policy.yaml"),
            runc_root: PathBuf::from("/run/runc"),
            checkpoint_retention: Duration::from_secs(7 * 24 * 3600),
            crash_guard: Duration::from_secs(600),
            stop_patience: Duration::from_secs(10),
        }
    }
}

/// The file is there but cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what this program understands.
    #[error("the configuration {path} is not valid")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_yaml::Error,
    },
}

impl Config {
    /// Read the file; the defaults if it was not asked for by name and does not exist.
    ///
    /// # Errors
    /// [`ConfigError`] if it is there and unusable, or was asked for and is not there.
    pub fn load(asked: Option<&Path>) -> Result<Self, ConfigError> {
        let path = asked.unwrap_or(Path::new(DEFAULT_PATH)).to_owned();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && asked.is_none() => {
                return Ok(Self::default());
            }
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        serde_yaml::from_str(&text).map_err(|source| ConfigError::Invalid { path, source })
    }
}

mod humantime_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("update.yaml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path))
    }

    #[test]
    fn an_empty_or_commented_file_means_the_defaults() {
        assert_eq!(load("").unwrap(), Config::default());
        assert_eq!(load("# store: /elsewhere\n").unwrap(), Config::default());
    }

    #[test]
    fn durations_are_written_for_people() {
        assert_eq!(load("crash_guard: 90s\n").unwrap().crash_guard, Duration::from_secs(90));
        assert!(load("crash_guard: soon\n").is_err());
    }

    #[test]
    fn an_unknown_field_is_refused() {
        assert!(matches!(load("stoer: /x\n"), Err(ConfigError::Invalid { .. })));
    }
}
