//! Which containers run the files at fault: what their processes have *mapped*, not what lies on disk.
//!
//! One reading of `/proc/PID/maps` per process; each file is opened once, however many processes map
//! it. It is opened through `/proc/PID/map_files`, which leads to the very file that is mapped, also
//! when it was replaced or deleted since, or lies in another mount namespace.
//!
//! What vanishes while it is looked at does not count; what cannot be read for another reason is an
//! error, because a file that cannot be judged must not pass as harmless.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::PathBuf;

use manifests::{FileIdentity, Sha256};
use sha2::Digest;

use crate::files::buildid;
use crate::lifecycle::error::RuntimeError;
use crate::model::{Container, Pid};
use crate::processes::{mapping, procfs};

/// A file at fault that a container has mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// What it was known by.
    pub identity: FileIdentity,
    /// Where it is, as the container sees it.
    pub path: PathBuf,
    /// Who has mapped it.
    pub processes: Vec<Pid>,
}

/// A mapped file: device and inode, as `/proc/PID/maps` prints them.
type FileKey = (Vec<u8>, u64);

/// A look at mapped files that remembers what it has read.
///
/// Keep it no longer than one survey: an inode number may be given to another file.
#[derive(Debug, Default)]
pub struct MappedFiles {
    seen: HashMap<FileKey, Vec<FileIdentity>>,
}

impl MappedFiles {
    /// The files among `wanted` that processes of a container have mapped.
    pub fn matches(
        &mut self,
        container: &Container,
        wanted: &[FileIdentity],
    ) -> Result<Vec<Match>, RuntimeError> {
        let wanted: BTreeSet<&FileIdentity> = wanted.iter().collect();
        let mut found: BTreeMap<(FileIdentity, PathBuf), Vec<Pid>> = BTreeMap::new();
        let pids = container.cgroup.as_deref().map(procfs::pids_in_cgroup).unwrap_or_default();
        for pid in pids {
            let failed = |source| RuntimeError::Maps { id: container.id.clone(), pid, source };
            for key in self.of_process(pid, &wanted).map_err(failed)? {
                found.entry(key).or_default().push(pid);
            }
        }
        let matches = found.into_iter();
        Ok(matches.map(|((identity, path), processes)| Match { identity, path, processes }).collect())
    }

    /// The files among `wanted` that one process has mapped, with their paths as it sees them; none
    /// of a process that is gone.
    pub(crate) fn of_process(
        &mut self,
        pid: Pid,
        wanted: &BTreeSet<&FileIdentity>,
    ) -> io::Result<BTreeSet<(FileIdentity, PathBuf)>> {
        let mut of_process = BTreeSet::new();
        let maps = mapping::read(pid)?;
        for mapping in mapping::files(&maps) {
            let key = (mapping.device.to_vec(), mapping.inode);
            let identities = match self.seen.get(&key) {
                Some(known) => known,
                None => {
                    let identities = identities(pid, mapping.range, wanted)?;
                    self.seen.entry(key).or_insert(identities)
                }
            };
            let here = identities.iter().filter(|identity| wanted.contains(identity));
            of_process.extend(here.map(|identity| (identity.clone(), mapping.path())));
        }
        Ok(of_process)
    }
}

/// What a mapped file is known by, as far as anybody wants to know.
fn identities(
    pid: Pid,
    range: (u64, u64),
    wanted: &BTreeSet<&FileIdentity>,
) -> io::Result<Vec<FileIdentity>> {
    let Some(file) = mapping::open(pid, range)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    if wanted.iter().any(|identity| matches!(identity, FileIdentity::BuildId(_))) {
        found.extend(buildid::read(&file)?.map(FileIdentity::BuildId));
    }
    if wanted.iter().any(|identity| matches!(identity, FileIdentity::Sha256(_))) {
        found.push(FileIdentity::Sha256(digest(&file)?));
    }
    Ok(found)
}

fn digest(mut file: &File) -> io::Result<Sha256> {
    use std::io::Read;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Sha256::from_bytes(hash.finalize().into())),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a real process is looked at")]
    fn a_deleted_library_is_known_by_the_bytes_that_are_mapped() {
        // This test's own program, deleted while it runs.
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("sleeper");
        fs::copy("/bin/sleep", &copy).unwrap();
        let mut child = std::process::Command::new(&copy).arg("60").spawn().unwrap();
        let pid = Pid(child.id());
        let by_build_id = buildid::read(&File::open(&copy).unwrap()).unwrap().unwrap();
        let by_digest = Sha256::of(&fs::read(&copy).unwrap());
        let wanted = [FileIdentity::BuildId(by_build_id), FileIdentity::Sha256(by_digest)];
        let wanted: BTreeSet<&FileIdentity> = wanted.iter().collect();
        fs::remove_file(&copy).unwrap();
        fs::write(&copy, "something else").unwrap();
        let mapped = || {
            let maps = mapping::read(pid).unwrap();
            let found = mapping::files(&maps).find(|mapping| mapping.path().ends_with("sleeper"));
            found.map(|mapping| mapping.range)
        };
        // `spawn` returns before the new program is mapped.
        let range = std::iter::repeat_with(mapped).flatten().next().unwrap();
        let found = identities(pid, range, &wanted).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.iter().all(|one| wanted.contains(one)) && found.len() == 2, "{found:?}");
    }
}
