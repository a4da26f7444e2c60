//! Processes of this host, known by more than their number.
//!
//! The kernel gives a number to another process once its owner is gone, so a process is its number *and* the moment
//! when it began. That is enough for as long as the boot lasts.
//!
//! What this does not do: start, signal or describe them.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that lives or has lived in this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: u32,
    /// When it began, in clock ticks since boot.
    pub started: u64,
}

impl ProcessIdentity {
    /// Who has this number now; `None` if nobody does.
    pub fn of(pid: u32) -> Option<Self> {
        Stat::read(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// Whether it lives. One that has ended and that nobody has waited for yet does not.
    pub fn lives(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && stat.lives())
    }

    /// Whether it lives, or anything in the process group that it led. A number stays taken while a group bears it.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn group_lives(&self) -> io::Result<bool> {
        match Stat::read(self.pid) {
            Some(stat) if stat.started != self.started => return Ok(false),
            Some(stat) if stat.lives() => return Ok(true),
            _ => {}
        }
        let group = self.pid.cast_signed();
        if killpg(Pid::from_raw(group), None) == Err(Errno::ESRCH) {
            return Ok(false);
        }
        // Some member is left, if only as somebody that nobody has waited for.
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if Stat::read(pid).is_some_and(|stat| stat.group == group && stat.lives()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The part of `/proc/PID/stat` that is used (proc_pid_stat(5)).
struct Stat {
    state: u8,
    group: i32,
    started: u64,
}

impl Stat {
    /// `None` of a process that is gone.
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses, and may have anything in it.
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let fields: Vec<&str> = std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_whitespace().collect();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            group: fields.get(2)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "real processes are looked at")]
mod tests {
    use std::io::Read as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_lives_and_another_with_its_number_is_not_it() {
        let me = ProcessIdentity::of(std::process::id()).unwrap();
        assert!(me.lives());
        assert!(!ProcessIdentity { started: me.started + 1, ..me }.lives());
        assert_eq!(ProcessIdentity::of(u32::MAX), None);
    }

    #[test]
    fn what_has_ended_does_not_live_though_nobody_has_waited_for_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        assert!(identity.lives());
        drop(child.stdin.take());
        // The end of its output is the end of it, but for the last few instructions.
        child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
        while identity.lives() {}
        child.wait().unwrap();
        assert!(!identity.group_lives().unwrap());
    }

    #[test]
    fn a_group_lives_on_in_what_its_leader_has_started() {
        let mut leader = Command::new("sh")
            .args(["-c", "exec 3<&0; cat <&3 & exit 0"])
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let identity = ProcessIdentity::of(leader.id()).unwrap();
        let input = leader.stdin.take();
        leader.wait().unwrap();
        assert!(!identity.lives() && identity.group_lives().unwrap());
        drop(input);
        while identity.group_lives().unwrap() {}
    }
}
