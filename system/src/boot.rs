//! Which boot this is, and how long it has lasted.
//!
//! The kernel draws a new random boot id at every start, so two equal ids mean that nothing
//! volatile was lost in between: modules, mounts, frozen groups, network namespaces.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Where the kernel shows the id (`Documentation/admin-guide/sysctl/kernel.rst`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The random id of one boot: a lower-case UUID.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId(String);

/// A text that is not a boot id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a boot id: expected a UUID such as 3b18e1b0-8d0c-4f3c-9f21-0d8a7f0f8c11")]
pub struct BootIdError(String);

impl FromStr for BootId {
    type Err = BootIdError;

    fn from_str(text: &str) -> Result<Self, BootIdError> {
        let well_formed = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if well_formed { Ok(Self(text.to_owned())) } else { Err(BootIdError(text.to_owned())) }
    }
}

impl TryFrom<String> for BootId {
    type Error = BootIdError;

    fn try_from(text: String) -> Result<Self, BootIdError> {
        text.parse()
    }
}

impl From<BootId> for String {
    fn from(id: BootId) -> Self {
        id.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the boot cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// There is no procfs.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The kernel's file holds no UUID.
    #[error("{path} holds {found:?}, expected a UUID")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it holds, shortened.
        found: String,
    },
    /// The clock cannot be read, which no Linux since 2.6.39 says.
    #[error("cannot read the time since boot")]
    Clock(#[source] Errno),
}

/// The id of the running boot.
///
/// # Errors
/// [`BootError::Read`], [`BootError::Format`].
pub fn boot_id() -> Result<BootId, BootError> {
    let path = || PathBuf::from(BOOT_ID);
    let text = fs::read_to_string(BOOT_ID).map_err(|source| BootError::Read { path: path(), source })?;
    let found = || text.chars().take(64).collect();
    text.trim_end().parse().map_err(|_| BootError::Format { path: path(), found: found() })
}

/// Time since the running boot began, suspended time included.
///
/// # Errors
/// [`BootError::Clock`].
pub fn uptime() -> Result<Duration, BootError> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).map_err(BootError::Clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lower_case_uuid_is_a_boot_id() {
        assert!("3b18e1b0-8d0c-4f3c-9f21-0d8a7f0f8c11".parse::<BootId>().is_ok());
        for wrong in [
            "",
            "3B18E1B0-8d0c-4f3c-9f21-0d8a7f0f8c11",
            "3b18e1b0-8d0c-4f3c-9f21-0d8a7f0f8c1",
            "3b18e1b0_8d0c-4f3c-9f21-0d8a7f0f8c11",
        ] {
            assert!(wrong.parse::<BootId>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn the_running_boot_has_one_id_and_an_age() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert!(uptime().unwrap() > Duration::ZERO);
    }
}
