//! What a file is known by, read within bounds.
//!
//! A build id costs the same whatever the size of the file. A digest needs every byte, so it is worked out only
//! of files that can be among those sought: of the size that the manifest gives, or, where it gives none, of at
//! most [`LARGEST`]. Holes are not read. Whoever has files enough to use up a workload's time ([`Allowance`])
//! leaves the rest of them unknown, not the rest of the host unlooked at.

#![expect(clippy::disallowed_methods, reason = "reading takes real time, and is bounded by it")]

use std::collections::HashSet;
use std::fs::File;
use std::time::{Duration, Instant};

use manifests::{BuildId, FileIdentity, Sha256};

use crate::files::buildid;
use crate::files::foreign::Handle;
use crate::files::hashing;
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
        let digest = hashing::digest(file, 0..size, || {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
