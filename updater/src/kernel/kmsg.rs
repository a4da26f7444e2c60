//! The kernel's own words about a request that it refused.
//!
//! `finit_module(2)` returns an error number; the sentence that explains it ("disagrees about
//! version of symbol", "symbol 'x' not found in symbol table") goes to the kernel log only. So a
//! [`Tail`] is opened before the request and read after a failure. The log may be unreadable
//! (`dmesg_restrict` without the capability, a container): then there are no words, and no error.
//!
//! Format of a record: `Documentation/ABI/testing/dev-kmsg`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::libc;

/// Longest record that the kernel hands out (`PRINTK_MESSAGE_MAX` is 2048, `CONSOLE_EXT_LOG_MAX`
/// 8192); a shorter buffer would make the read fail.
const RECORD: usize = 8192;

/// Lines kept; a refusal is explained in one or two.
const KEPT: usize = 8;

/// Lines that the kernel logged during one request. Displays as nothing, or as
/// `; the kernel says: "…"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelWords(Vec<String>);

impl KernelWords {
    /// The lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl<S: Into<String>> FromIterator<S> for KernelWords {
    fn from_iter<I: IntoIterator<Item = S>>(lines: I) -> Self {
        Self(lines.into_iter().map(Into::into).collect())
    }
}

impl fmt::Display for KernelWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; the kernel says: {:?}", self.0.join(" / "))
    }
}

/// A position at the end of the kernel log.
#[derive(Debug)]
pub(super) struct Tail(Option<File>);

impl Tail {
    /// Remembers where the log ends now.
    pub(super) fn open(path: &Path) -> Self {
        let open = || -> io::Result<File> {
            let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        Self(open().ok())
    }

    /// What the kernel itself logged since then.
    pub(super) fn words(self) -> KernelWords {
        let Some(mut file) = self.0 else { return KernelWords::default() };
        let mut lines = Vec::new();
        let mut record = vec![0; RECORD];
        loop {
            match file.read(&mut record) {
                Ok(0) => break,
                Ok(length) => lines.extend(kernel_line(&record[..length])),
                // The ring was overwritten under us; the next read goes on with the oldest record.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => break,
            }
        }
        let surplus = lines.len().saturating_sub(KEPT);
        lines.drain(..surplus);
        KernelWords(lines)
    }
}

/// Words with which the kernel says that something is wrong with itself: `WARN`, `BUG`, oops, stalls
/// (`include/asm-generic/bug.h`, `lib/bug.c`, `kernel/watchdog.c`, `kernel/hung_task.c`, `kernel/rcu/tree_stall.h`).
const COMPLAINTS: [&str; 9] = [
    "WARNING: ",
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
    "general protection fault",
    "watchdog: BUG: ",
    "INFO: task ",
    "rcu: INFO: rcu_",
    "Kernel panic",
];

/// How often the kernel complained since this time of its boot, as far as its log still has it. None if it cannot be read.
pub(crate) fn splats(path: &Path, since: Duration) -> u32 {
    let Ok(mut file) = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) else {
        return 0;
    };
    let mut record = vec![0; RECORD];
    let mut found = 0;
    loop {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => found += u32::from(complains(&record[..length], since)),
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    found
}

/// Whether the kernel complains in a record that is of this time or later.
fn complains(record: &[u8], since: Duration) -> bool {
    let prefix = record.split(|byte| *byte == b';').next().unwrap_or_default();
    let time = std::str::from_utf8(prefix).ok().and_then(|prefix| prefix.split(',').nth(2)?.parse().ok());
    let is_later = time.is_some_and(|micros| Duration::from_micros(micros) >= since);
    let words = kernel_line(record);
    is_later && words.is_some_and(|words| COMPLAINTS.iter().any(|word| words.starts_with(word)))
}

/// The message of a record `priority,sequence,time,flags[,…];text`, if the kernel wrote it
/// (facility 0; user space can write to the log too, but never with that facility).
fn kernel_line(record: &[u8]) -> Option<String> {
    let record = std::str::from_utf8(record).ok()?;
    let (prefix, text) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let facility = priority >> 3;
    let line = text.lines().next()?.trim();
    (facility == 0 && !line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_record_gives_its_message_without_prefix_and_continuation() {
        let record = b"3,812,5140900,-;livepatch: symbol 'x' not found in symbol table\n SUBSYSTEM=cpu\n";
        assert_eq!(kernel_line(record).unwrap(), "livepatch: symbol 'x' not found in symbol table");
    }

    #[test]
    fn what_user_space_wrote_to_the_log_is_not_the_kernels_word() {
        assert_eq!(kernel_line(b"12,813,5140901,-;livepatch: all is well\n"), None);
    }

    #[test]
    fn the_kernels_complaints_since_a_time_are_counted_and_nobody_elses() {
        let since = Duration::from_micros(5_000_000);
        for (record, counts) in [
            ("4,812,5140900,-;WARNING: CPU: 0 PID: 1 at kernel/klp.c:1 f+0x1/0x2\n", true),
            ("0,812,5140900,-;watchdog: BUG: soft lockup - CPU#0 stuck for 23s!\n", true),
            ("4,812,4999999,-;WARNING: CPU: 0 PID: 1 at kernel/klp.c:1 f+0x1/0x2\n", false),
            ("12,812,5140900,-;WARNING: said by a program\n", false),
            ("6,812,5140900,-;livepatch: enabling patch 'fix'\n", false),
            ("nothing", false),
        ] {
            assert_eq!(complains(record.as_bytes(), since), counts, "{record}");
        }
    }

    #[test]
    fn an_unreadable_log_gives_no_words_and_no_error() {
        let words = Tail::open(Path::new("/nonexistent/kmsg")).words();
        assert_eq!(words.to_string(), "");
    }

    #[test]
    fn words_are_shown_after_the_refusal() {
        let words: KernelWords = ["a: bad", "b: worse"].into_iter().collect();
        assert_eq!(words.to_string(), "; the kernel says: \"a: bad / b: worse\"");
    }
}
