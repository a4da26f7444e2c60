//! What a file is known by, read within bounds.
//!
//! A build id costs the same whatever the size of the file. A digest needs every byte, so it is worked out only
//! of files that can be among those sought: of the size that the manifest gives, or, where it gives none, of at
//! most [`LARGEST`]. Holes are not read. Whoever has files enough to use up a workload's time ([`Allowance`])
//! leaves the rest of them unknown, not the rest of the host unlooked at.

#![expect(clippy::disallowed_methods, reason = "reading takes real time, and is bounded by it")]

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use manifests::{BuildId, FileIdentity, Sha256};
use nix::unistd::{Whence, lseek};
use sha2::Digest as _;

use crate::files::buildid;
use crate::processes::foreign::Handle;
use crate::processes::unknown::Reason;
use crate::processes::watchdog::Pulse;

/// The largest file of which a digest is worked out without knowing the size of what is sought. The largest
/// libraries that distributions ship have about half of it; databases and images of disks have more.
pub(crate) const LARGEST: u64 = 1 << 30;

/// How long files of one workload may be hashed: some tens of gigabytes, read from memory.
pub(crate) const ALLOWANCE: Duration = Duration::from_secs(30);

/// A file that is sought: by what it is known, and how large it is, if that is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    /// Its build id or digest.
    pub identity: FileIdentity,
    /// In bytes.
    pub size: Option<u64>,
}

impl From<FileIdentity> for Wanted {
    fn from(identity: FileIdentity) -> Self {
        Self { identity, size: None }
    }
}

/// All files that are sought.
#[derive(Debug, Default)]
pub(crate) struct Sought {
    build_ids: HashSet<BuildId>,
    digests: HashSet<Sha256>,
    /// Sizes of those that are sought by digest; `None` stands for one of which it is not known.
    sizes: HashSet<Option<u64>>,
}

impl Sought {
    pub(crate) fn new(wanted: &[Wanted]) -> Self {
        let mut sought = Self::default();
        for Wanted { identity, size } in wanted {
            match identity {
                FileIdentity::BuildId(id) => {
                    sought.build_ids.insert(id.clone());
                }
                FileIdentity::Sha256(digest) => {
                    sought.digests.insert(*digest);
                    sought.sizes.insert(*size);
                }
            }
        }
        sought
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.build_ids.is_empty() && self.digests.is_empty()
    }

    /// Which of the sought files this is, by each of its names.
    pub(crate) fn identify(
        &self,
        handle: &Handle,
        allowance: &mut Allowance,
        pulse: &Pulse,
    ) -> Result<Vec<FileIdentity>, Reason> {
        let mut found = Vec::new();
        let digest = self.is_worth_hashing(handle.size());
        if self.build_ids.is_empty() && !matches!(digest, Ok(true)) {
            return digest.map(|_| found);
        }
        let file = handle.read()?;
        if !self.build_ids.is_empty() {
            let id = buildid::read(&file)?.filter(|id| self.build_ids.contains(id));
            found.extend(id.map(FileIdentity::BuildId));
        }
        if found.is_empty() && digest? {
            let digest = self.digest(&file, handle.size(), allowance, pulse)?;
            found.extend(self.digests.contains(&digest).then_some(FileIdentity::Sha256(digest)));
        }
        Ok(found)
    }

    fn is_worth_hashing(&self, size: u64) -> Result<bool, Reason> {
        if self.sizes.contains(&Some(size)) {
            return Ok(true);
        }
        match self.sizes.contains(&None) {
            true if size > LARGEST => Err(Reason::TooLarge { size }),
            sought => Ok(sought),
        }
    }

    fn digest(
        &self,
        file: &File,
        size: u64,
        allowance: &mut Allowance,
        pulse: &Pulse,
    ) -> Result<Sha256, Reason> {
        let begun = Instant::now();
        let digest = digest(file, size, || {
            pulse.beat();
            if pulse.is_stopped() {
                return Err(Reason::Stopped);
            }
            if begun.elapsed() > allowance.left { Err(Reason::TooSlow { size }) } else { Ok(()) }
        });
        allowance.left = allowance.left.saturating_sub(begun.elapsed());
        digest
    }
}

/// The time that is left for hashing the files of one workload.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: Duration,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: ALLOWANCE }
    }
}

/// What is read at once.
const CHUNK: usize = 1 << 18;

/// The digest of the first `size` bytes; `go_on` is asked between two chunks.
fn digest(file: &File, size: u64, go_on: impl Fn() -> Result<(), Reason>) -> Result<Sha256, Reason> {
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let zeros = vec![0; CHUNK];
    let mut at = 0;
    let mut data_until = 0;
    while at < size {
        go_on()?;
        let chunk = |until: u64| usize::try_from(until.min(size) - at).unwrap_or(CHUNK).min(CHUNK);
        if at >= data_until {
            let data_from = seek(file, at, Whence::SeekData)?.unwrap_or(size);
            if data_from > at {
                let length = chunk(data_from);
                hash.update(&zeros[..length]);
                at += length as u64;
                continue;
            }
            data_until = seek(file, at, Whence::SeekHole)?.unwrap_or(size);
        }
        let length = chunk(data_until.max(at + 1));
        match file.read_at(&mut buffer[..length], at)? {
            // It has become shorter.
            0 => break,
            count => {
                hash.update(&buffer[..count]);
                at += count as u64;
            }
        }
    }
    Ok(Sha256::from_bytes(hash.finalize().into()))
}

/// Where data or a hole begins at or after `at`; `None` if there is none any more. On a file system that does
/// not tell, all is data.
fn seek(file: &File, at: u64, what: Whence) -> io::Result<Option<u64>> {
    let Ok(from) = i64::try_from(at) else { return Ok(None) };
    match lseek(file, from, what) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(nix::Error::ENXIO) => Ok(None),
        Err(nix::Error::EINVAL) if what as i32 == nix::libc::SEEK_DATA => Ok(Some(at)),
        Err(nix::Error::EINVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn holes_count_as_the_zeros_that_they_are() {
        let mut sparse = tempfile::tempfile().unwrap();
        let mut whole = vec![0; 5 << 20];
        for (at, words) in [(0, &b"begin"[..]), (1 << 20, b"middle"), (3 << 20, b"end")] {
            sparse.write_all_at(words, at as u64).unwrap();
            whole[at..at + words.len()].copy_from_slice(words);
        }
        sparse.set_len(whole.len() as u64).unwrap();
        sparse.flush().unwrap();
        assert_eq!(digest(&sparse, whole.len() as u64, || Ok(())).unwrap(), Sha256::of(&whole));
        assert_eq!(digest(&sparse, 7, || Ok(())).unwrap(), Sha256::of(&whole[..7]));
    }

    #[test]
    fn only_files_that_can_be_the_one_sought_are_hashed() {
        let by_digest = |size| Wanted { identity: FileIdentity::Sha256(Sha256::of(b"x")), size };
        let sized = Sought::new(&[by_digest(Some(7))]);
        assert_eq!(sized.is_worth_hashing(7), Ok(true));
        assert_eq!(sized.is_worth_hashing(8 << 40), Ok(false));
        let unsized_too = Sought::new(&[by_digest(Some(7)), by_digest(None)]);
        assert_eq!(unsized_too.is_worth_hashing(LARGEST), Ok(true));
        assert_eq!(unsized_too.is_worth_hashing(8 << 40), Err(Reason::TooLarge { size: 8 << 40 }));
        assert_eq!(Sought::new(&[]).is_worth_hashing(7), Ok(false));
    }

    #[test]
    fn hashing_ends_when_it_is_asked_to() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 40).unwrap();
        let chunks = std::cell::Cell::new(0);
        let result = digest(&file, 8 << 40, || {
            chunks.set(chunks.get() + 1);
            if chunks.get() > 3 { Err(Reason::Stopped) } else { Ok(()) }
        });
        assert_eq!((result, chunks.get()), (Err(Reason::Stopped), 4));
    }
}
