//! Which containers run the files at fault: what their processes have *mapped*, not what lies on disk.
//!
//! One reading of `/proc/PID/maps` per process; each file is opened once, however many processes map
//! it. It is opened through `/proc/PID/map_files`, which leads to the very file that is mapped, also
//! when it was replaced or deleted since, or lies in another mount namespace.
//!
//! What vanishes while it is looked at does not count; what cannot be read for another reason is an
//! error, because a file that cannot be judged must not pass as harmless.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use manifests::{FileIdentity, Sha256};
use nix::libc;
use sha2::Digest;

use super::buildid;
use super::container::{Container, Pid};
use super::error::RuntimeError;
use super::process;

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

/// One line of `/proc/PID/maps` that maps a file.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    range: (u64, u64),
    device: &'a [u8],
    inode: u64,
    path: &'a [u8],
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
        let pids = container.cgroup.as_deref().map(process::pids_in_cgroup).unwrap_or_default();
        for pid in pids {
            let failed = |source| RuntimeError::Maps { id: container.id.clone(), pid, source };
            let maps = match fs::read(format!("/proc/{pid}/maps")) {
                Ok(maps) => maps,
                Err(error) if vanished(&error) => continue,
                Err(error) => return Err(failed(error)),
            };
            let mut of_process = BTreeSet::new();
            for mapping in maps.split(|byte| *byte == b'\n').filter_map(parse) {
                let key = (mapping.device.to_vec(), mapping.inode);
                let identities = match self.seen.get(&key) {
                    Some(known) => known,
                    None => {
                        let identities = identities(pid, mapping.range, &wanted).map_err(failed)?;
                        self.seen.entry(key).or_insert(identities)
                    }
                };
                let here = identities.iter().filter(|identity| wanted.contains(identity));
                of_process.extend(here.map(|identity| (identity.clone(), shown(mapping.path))));
            }
            for key in of_process {
                found.entry(key).or_default().push(pid);
            }
        }
        let matches = found.into_iter();
        Ok(matches.map(|((identity, path), processes)| Match { identity, path, processes }).collect())
    }
}

/// `start-end perms offset dev inode   path` (proc(5)); only those with a file and a path.
fn parse(line: &[u8]) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let range = std::str::from_utf8(fields.next()?).ok()?;
    let (start, end) = range.split_once('-')?;
    let range = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let device = fields.nth(2)?;
    let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok().filter(|inode| *inode != 0)?;
    let path = fields.next()?.trim_ascii_start();
    path.starts_with(b"/").then_some(Mapping { range, device, inode, path })
}

/// The path without the kernel's remark.
fn shown(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.strip_suffix(b" (deleted)").unwrap_or(path)))
}

fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// What a mapped file is known by, as far as anybody wants to know.
fn identities(
    pid: Pid,
    (start, end): (u64, u64),
    wanted: &BTreeSet<&FileIdentity>,
) -> io::Result<Vec<FileIdentity>> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    let mut options = File::options();
    // A mapped device must not do anything because it is looked at.
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = match fs::metadata(&path)
        .and_then(|found| found.is_file().then(|| options.open(&path)).transpose())
    {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(Vec::new()),
        Err(error) if vanished(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
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
    use super::*;

    #[test]
    fn only_lines_that_map_a_file_count() {
        let line = b"7f1c2a000000-7f1c2a026000 r--p 00000000 08:01 1234                       /usr/lib/a b.so (deleted)";
        let mapping = parse(line).unwrap();
        assert_eq!(mapping.range, (0x7f1c_2a00_0000, 0x7f1c_2a02_6000));
        assert_eq!((mapping.device, mapping.inode), (&b"08:01"[..], 1234));
        assert_eq!(shown(mapping.path), PathBuf::from("/usr/lib/a b.so"));
        for other in [
            &b"7f1c2a000000-7f1c2a026000 rw-p 00000000 00:00 0 "[..],
            b"7ffd0e1f5000-7ffd0e216000 rw-p 00000000 00:00 0                          [stack]",
            b"",
            b"nonsense",
        ] {
            assert_eq!(parse(other), None);
        }
    }

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
            let maps = fs::read(format!("/proc/{pid}/maps")).unwrap();
            let mut mappings = maps.split(|byte| *byte == b'\n').filter_map(parse);
            mappings.find(|mapping| mapping.path.ends_with(b"sleeper (deleted)")).map(|mapping| mapping.range)
        };
        // `spawn` returns before the new program is mapped.
        let range = std::iter::repeat_with(mapped).flatten().next().unwrap();
        let found = identities(pid, range, &wanted).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.iter().all(|one| wanted.contains(one)) && found.len() == 2, "{found:?}");
    }
}
