//! What a program says, kept in memory up to a bound.
//!
//! It goes to a memory file and not to a pipe: a detached grandchild that keeps the descriptor open cannot make the
//! caller wait, it does not die of writing, a full disk cannot lose the message, and CRIU can dump a process that
//! has it.
//!
//! Invariants, whatever the program does to the file:
//! - While it runs, whoever waits for it asks for [`Capture::discard`] again and again: of what is said, no more
//!   than [`KEPT`] stays in memory.
//! - When it has ended, nobody can write any more, not even what it has left behind.
//! - What is read is bounded too, and tells how much there was.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// How much of what a program says is kept in memory while it runs: ten times what the longest listing here has
/// (the packet filter of a host with thousands of services).
const KEPT: u64 = 32 << 20;

/// How much of the end of a program's messages is kept: a screenful; the whole is in the program's log.
pub(crate) const TAIL: usize = 2000;

/// One stream of a program.
#[derive(Debug)]
pub(crate) struct Capture {
    file: File,
}

/// What a program has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// All of it.
    Whole(Vec<u8>),
    /// More than is kept.
    TooMuch {
        /// How many bytes.
        bytes: u64,
    },
}

impl Capture {
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        Ok(Self { file: File::from(file) })
    }

    /// The program's end.
    pub(crate) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Where the program can open it, as long as this lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Gives back the memory of all but the end, if there is too much of it.
    pub(crate) fn discard(&self) -> io::Result<()> {
        let found = self.file.metadata()?;
        // In units of 512 bytes (stat(2)), wherever in the file they are.
        if found.blocks() > KEPT / 512
            && let Ok(until) = i64::try_from(found.len().saturating_sub(TAIL as u64))
            && until > 0
        {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            match fallocate(&self.file, hole, 0, until) {
                // Sealed by the program: nobody writes any more.
                Ok(()) | Err(nix::Error::EPERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Nobody can write from now on, except through a mapping of its own, in its own memory.
    pub(crate) fn close(&self) {
        for seals in [SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_GROW] {
            if fcntl(&self.file, FcntlArg::F_ADD_SEALS(seals)).is_ok() {
                break;
            }
        }
    }

    /// All that was said.
    pub(crate) fn whole(&self) -> io::Result<Said> {
        let bytes = self.file.metadata()?.len();
        if bytes > KEPT {
            return Ok(Said::TooMuch { bytes });
        }
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut said = Vec::new();
        file.take(KEPT).read_to_end(&mut said)?;
        Ok(Said::Whole(said))
    }

    /// The end of a program's messages, on one line per message, whole lines only.
    pub(crate) fn tail(&self) -> io::Result<String> {
        let length = self.file.metadata()?.len();
        let mut bytes = vec![0; TAIL];
        let count = self.file.read_at(&mut bytes, length.saturating_sub(TAIL as u64))?;
        let text = String::from_utf8_lossy(&bytes[..count]);
        // What was discarded reads as zeros.
        let text = text.trim_start_matches('\0');
        let rest = text.split_once('\n').map(|(_, rest)| rest).filter(|rest| !rest.trim().is_empty());
        let whole = if length > TAIL as u64 { rest.unwrap_or(text) } else { text };
        Ok(whole.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn in_memory(capture: &Capture) -> u64 {
        capture.file.metadata().unwrap().blocks() * 512
    }

    #[test]
    fn of_a_flood_the_end_is_kept_and_told_how_much_it_was() {
        let capture = Capture::new("flood").unwrap();
        let mut writer = capture.writer().unwrap();
        for _ in 0..5 {
            writer.write_all(&vec![b'x'; usize::try_from(KEPT).unwrap()]).unwrap();
            capture.discard().unwrap();
            assert!(in_memory(&capture) <= KEPT);
        }
        writer.write_all(b"\nlast words\n").unwrap();
        capture.discard().unwrap();
        assert_eq!(capture.whole().unwrap(), Said::TooMuch { bytes: 5 * KEPT + 12 });
        assert_eq!(capture.tail().unwrap(), "last words");
    }

    #[test]
    fn a_file_that_is_made_huge_by_writing_far_away_is_read_within_bounds() {
        let capture = Capture::new("far").unwrap();
        let writer = capture.writer().unwrap();
        writer.write_all_at(b"far\n", 1 << 42).unwrap();
        for chunk in 0..40 {
            writer.write_all_at(&[1; 1 << 20], chunk << 30).unwrap();
        }
        capture.discard().unwrap();
        assert!(in_memory(&capture) <= KEPT);
        assert!(matches!(capture.whole().unwrap(), Said::TooMuch { .. }));
        assert!(capture.tail().unwrap().ends_with("far"));
    }

    #[test]
    fn what_is_left_behind_cannot_go_on_writing() {
        let capture = Capture::new("left").unwrap();
        let mut writer = capture.writer().unwrap();
        writer.write_all(b"said").unwrap();
        capture.close();
        assert!(writer.write_all(b"more").is_err());
        assert!(writer.write_all_at(b"more", 0).is_err());
        assert_eq!(capture.whole().unwrap(), Said::Whole(b"said".to_vec()));
    }
}
