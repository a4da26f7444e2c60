//! Which boot this is, how long it has lasted, and which start of userspace in it.
//!
//! The kernel draws a new random boot id at every start, so two equal ids mean that the kernel lost nothing in
//! between: loaded modules, the host's packet filters. `systemctl soft-reboot` (systemd 254 and later) ends all of
//! userspace and starts it anew on the running kernel: the boot id stays, PID 1 and its start time stay, and processes,
//! mounts and the namespaces that they held are gone. What changes then is the invocation id of `sysinit.target`,
//! which systemd draws anew each time it starts userspace and at no other time. (Its own count of soft reboots,
//! `SoftRebootsCount`, came two versions after soft reboots did.)

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::command::{CommandError, Invocation, WhenLate};

/// Where the kernel shows the id (`Documentation/admin-guide/sysctl/kernel.rst`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The directory whose presence says that systemd is the running init (`sd_booted(3)`).
const SYSTEMD_BOOTED: &str = "/run/systemd/system";

/// systemd answers in milliseconds; one that is being shut down may not at all.
const ANSWER: Duration = Duration::from_secs(5);

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

/// One start of userspace: the invocation id of systemd's `sysinit.target`, 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserspaceId(String);

/// A text that is not the id of a start of userspace.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an invocation id: expected 32 digits of 0-9, a-f that are not all 0")]
pub struct UserspaceIdError(String);

impl FromStr for UserspaceId {
    type Err = UserspaceIdError;

    fn from_str(text: &str) -> Result<Self, UserspaceIdError> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match digits && text.len() == 32 && text.bytes().any(|byte| byte != b'0') {
            true => Ok(Self(text.to_owned())),
            false => Err(UserspaceIdError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for UserspaceId {
    type Error = UserspaceIdError;

    fn try_from(text: String) -> Result<Self, UserspaceIdError> {
        text.parse()
    }
}

impl From<UserspaceId> for String {
    fn from(id: UserspaceId) -> Self {
        id.0
    }
}

impl fmt::Display for UserspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which boot, and which start of userspace in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// The boot.
    pub boot_id: BootId,
    /// The start of userspace; `None` where it was not, or could not be, told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userspace: Option<UserspaceId>,
}

impl Incarnation {
    /// What the host has lost between an earlier incarnation and this one. Where either does not tell its start of
    /// userspace, it is taken to be the same.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Since {
        match (&earlier.userspace, &self.userspace) {
            _ if earlier.boot_id != self.boot_id => Since::Rebooted,
            (Some(then), Some(now)) if then != now => Since::SoftRebooted,
            _ => Since::SameBoot,
        }
    }
}

/// What may have happened to a host since some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Nothing volatile was lost.
    SameBoot,
    /// Userspace was started anew: processes, mounts and the namespaces that they held are gone. The kernel has its
    /// modules and packet filters.
    SoftRebooted,
    /// Processes, loaded modules, mounts and network namespaces are gone.
    Rebooted,
}

impl Since {
    /// Whether processes and mounts of then are gone.
    #[must_use]
    pub fn userspace_is_gone(self) -> bool {
        self != Self::SameBoot
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
    /// systemd does not tell when it started userspace.
    #[error("cannot ask systemd when it started userspace")]
    Systemd(#[source] CommandError),
    /// systemd tells something else.
    #[error("cannot tell when systemd started userspace")]
    Userspace(#[from] UserspaceIdError),
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

/// The running start of userspace; `None` on a host that does not run systemd, which cannot start it anew.
///
/// # Errors
/// [`BootError::Systemd`], [`BootError::Userspace`]: a soft reboot would not be noticed.
pub fn userspace() -> Result<Option<UserspaceId>, BootError> {
    if !Path::new(SYSTEMD_BOOTED).is_dir() {
        return Ok(None);
    }
    let asked = Invocation::new("systemctl")
        .args(["show", "--property=InvocationID", "--value", "sysinit.target"])
        .limit(ANSWER, WhenLate::Kill);
    let told = asked.output().map_err(BootError::Systemd)?;
    Ok(Some(String::from_utf8_lossy(&told).trim_end().parse()?))
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
    fn an_invocation_id_has_32_digits_and_is_not_null() {
        assert!("3b18e1b08d0c4f3c9f210d8a7f0f8c11".parse::<UserspaceId>().is_ok());
        // What systemd prints of a unit that does not run, and of none.
        for wrong in ["", "00000000000000000000000000000000", "3B18E1B08D0C4F3C9F210D8A7F0F8C11", "3b18"] {
            assert!(wrong.parse::<UserspaceId>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn what_was_lost_is_told_by_the_boot_first_and_then_by_the_start_of_userspace() {
        let incarnation = |boot: char, userspace: Option<char>| Incarnation {
            boot_id: format!("3b18e1b0-8d0c-4f3c-9f21-0d8a7f0f8c1{boot}").parse().unwrap(),
            userspace: userspace.map(|digit| digit.to_string().repeat(32).parse().unwrap()),
        };
        let now = incarnation('1', Some('a'));
        for (earlier, lost) in [
            (incarnation('1', Some('a')), Since::SameBoot),
            (incarnation('1', Some('b')), Since::SoftRebooted),
            (incarnation('2', Some('a')), Since::Rebooted),
            (incarnation('2', None), Since::Rebooted),
            (incarnation('1', None), Since::SameBoot),
        ] {
            assert_eq!(now.since(&earlier), lost, "{earlier:?}");
        }
        let written_before_this_was_kept = r#"{"boot_id":"3b18e1b0-8d0c-4f3c-9f21-0d8a7f0f8c11"}"#;
        assert_eq!(
            serde_json::from_str::<Incarnation>(written_before_this_was_kept).unwrap(),
            incarnation('1', None)
        );
    }

    #[test]
    fn the_running_boot_has_one_id_and_an_age() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert!(uptime().unwrap() > Duration::ZERO);
    }
}
