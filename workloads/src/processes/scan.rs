//! Which processes still run files that were replaced, deleted, or are known to be at fault.
//!
//! The question of needrestart and checkrestart, answered from what is mapped and not from names:
//!
//! - *outdated*: code is mapped from a file that is not the one under its path any more. The same
//!   build under a new inode (a package installed once more) is not outdated; a deleted file that is
//!   no ELF file (a just-in-time compiler's) is none either. No path is left out by its name.
//! - *at fault*: any mapping of a file whose build-id or SHA-256 is asked for, whatever its path.
//!
//! Each file is looked at once, however many processes map it. A process that ends meanwhile is left
//! out; one that cannot be read is counted, because it may not pass as up to date.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use manifests::{BuildId, FileIdentity};
use serde::Serialize;

use crate::files::buildid;
use crate::model::Pid;
use crate::processes::affected::MappedFiles;
use crate::processes::mapping;
use crate::processes::mapping::{Executable, Mapping};
use crate::processes::procfs;

/// A process that should not go on as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// Its id on the host.
    pub pid: Pid,
    /// Its command name, at most 15 bytes.
    pub comm: String,
    /// Its control group in the unified hierarchy.
    pub cgroup: Option<PathBuf>,
    /// The files, by path.
    pub files: Vec<StaleFile>,
}

/// A file that a process should not go on running.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StaleFile {
    /// Where it is or was, as the process sees it.
    pub path: PathBuf,
    /// Why.
    #[serde(flatten)]
    pub why: Why,
}

/// Why a process should not go on running a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum Why {
    /// Another file is under its path now.
    Replaced {
        /// The build that runs.
        runs: Option<BuildId>,
        /// The build on disk.
        on_disk: Option<BuildId>,
    },
    /// Nothing is under its path any more.
    Deleted {
        /// The build that runs.
        runs: Option<BuildId>,
    },
    /// It is one of those asked for.
    AtFault {
        /// What it is known by.
        identity: FileIdentity,
    },
}

/// What a look at all processes found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// How many processes were looked at.
    pub processes: usize,
    /// How many could not be: they are another user's.
    pub unreadable: usize,
    /// Those that should not go on as they are, by id.
    pub stale: Vec<Stale>,
}

/// Looks at every process of the host. Kernel threads map nothing.
///
/// # Errors
/// When `/proc` itself cannot be read, or a file that is mapped.
pub fn scan(wanted: &[FileIdentity]) -> io::Result<Scan> {
    let mut pids: Vec<Pid> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid))
        .collect();
    pids.sort_unstable();
    let wanted: BTreeSet<&FileIdentity> = wanted.iter().collect();
    let mut look = Look::default();
    let mut result = Scan { processes: 0, unreadable: 0, stale: Vec::new() };
    for pid in pids {
        match look.process(pid, &wanted) {
            Ok(files) => {
                result.processes += 1;
                if !files.is_empty()
                    && let Some(found) = procfs::describe(pid)
                {
                    let cgroup = procfs::cgroup_of(pid);
                    result.stale.push(Stale {
                        pid,
                        comm: found.comm,
                        cgroup,
                        files: files.into_iter().collect(),
                    });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => result.unreadable += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(result)
}

/// A file as a group of processes sees it: device and inode as mapped, its path, and the root that
/// the path begins at.
type Seen = (Vec<u8>, u64, PathBuf, (u64, u64));

#[derive(Default)]
struct Look {
    outdated: HashMap<Seen, Option<Why>>,
    at_fault: MappedFiles,
}

impl Look {
    fn process(&mut self, pid: Pid, wanted: &BTreeSet<&FileIdentity>) -> io::Result<BTreeSet<StaleFile>> {
        let mut files = BTreeSet::new();
        let maps = mapping::read(pid)?;
        let mut code =
            mapping::files(&maps).filter(|mapping| mapping.executable == Executable::Yes).peekable();
        if code.peek().is_none() {
            return Ok(files);
        }
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let Some(at) = there(&root)? else { return Ok(files) };
        for mapping in code {
            let path = mapping.path();
            let key = (mapping.device.to_vec(), mapping.inode, path.clone(), at);
            let why = match self.outdated.get(&key) {
                Some(known) => known,
                None => {
                    let why = outdated(pid, &root, &mapping)?;
                    self.outdated.entry(key).or_insert(why)
                }
            };
            files.extend(why.clone().map(|why| StaleFile { path, why }));
        }
        if !wanted.is_empty() {
            let found = self.at_fault.of_process(pid, wanted)?.into_iter();
            files.extend(found.map(|(identity, path)| StaleFile { path, why: Why::AtFault { identity } }));
        }
        Ok(files)
    }
}

/// Whether the file that is mapped is still the one under its path.
fn outdated(pid: Pid, root: &Path, mapping: &Mapping<'_>) -> io::Result<Option<Why>> {
    let (start, end) = mapping.range;
    let path = mapping.path();
    // Made by `memfd_create(2)`: this never was a path.
    if path.to_string_lossy().starts_with("/memfd:") {
        return Ok(None);
    }
    let under_path = root.join(path.strip_prefix("/").unwrap_or(&path));
    let on_disk = there(&under_path)?;
    let mapped = there(Path::new(&format!("/proc/{pid}/map_files/{start:x}-{end:x}")))?;
    if mapped.is_none() || !mapping.is_deleted() && on_disk == mapped {
        return Ok(None);
    }
    let Some(file) = mapping::open(pid, mapping.range)?.filter(is_elf) else { return Ok(None) };
    let runs = buildid::read(&file)?;
    if on_disk.is_none() {
        return Ok(Some(Why::Deleted { runs }));
    }
    let on_disk = match File::open(&under_path) {
        Ok(file) => buildid::read(&file)?,
        Err(error) if mapping::vanished(&error) => return Ok(Some(Why::Deleted { runs })),
        Err(error) => return Err(error),
    };
    let same_build = runs.is_some() && runs == on_disk;
    Ok((!same_build).then_some(Why::Replaced { runs, on_disk }))
}

/// Device and inode of what is under a path.
fn there(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        // Below a mount point that is gone, or a path through what is a file now.
        Err(error) if mapping::vanished(&error) || error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_elf(file: &File) -> bool {
    use std::os::unix::fs::FileExt as _;
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).is_ok() && &magic == b"\x7fELF"
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
