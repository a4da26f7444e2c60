//! One look at mapped files, process by process.
//!
//! Each file is opened for reading once, however many processes map it, and each name is looked up once for
//! each root that it begins at. Where device and inode number are enough to know a file by (not on btrfs, not on an
//! overlay), it is not even asked for again: a process then costs little more than the reading of its maps. Keep a
//! look no longer than one survey: an inode may become another file.
//!
//! What vanishes while it is looked at does not count, unless the process that had mapped it lives on: then the
//! process is looked at again, and is [unknown](Reason::Restless) if it does not keep still.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use manifests::FileIdentity;
use nix::errno::Errno;
use serde::Serialize;

use crate::files::buildid::Elf;
use crate::files::foreign::{self, FileId, Found, Handle, Root, RootId};
use crate::model::{Build, Pid, SeenPath};
use crate::processes::contents::{Allowance, Sought};
use crate::processes::mapping::{self, DELETED, Executable, Mapping};
use crate::processes::program::{Interpreter, Linked, NotProven, Program};
use crate::processes::unknown::Reason;
use crate::processes::watchdog::{Pulse, Subject};

/// How often a process is looked at whose mappings change meanwhile.
const ATTEMPTS: usize = 5;

/// Why a process should not go on running a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum Why {
    /// Another file is under its path now.
    Replaced {
        /// The build that runs.
        runs: Option<Build>,
        /// The build on disk.
        on_disk: Option<Build>,
    },
    /// Nothing is under its path any more.
    Deleted {
        /// The build that runs.
        runs: Option<Build>,
    },
    /// It is one of those asked for.
    AtFault {
        /// What it is known by.
        identity: FileIdentity,
    },
}

/// What is asked about a mapped file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Questions {
    /// Whether it is one of those sought.
    AtFault,
    /// That, and of code whether it is still what is under its path.
    OutdatedToo,
}

/// What was found of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) files: BTreeSet<(SeenPath, Why)>,
    /// The program that it was started with, if that is asked and it is still mapped.
    pub(crate) program: Option<Arc<Program>>,
    /// What it may run that its mappings do not show, if that is asked.
    pub(crate) not_proven: BTreeSet<NotProven>,
    /// What could not be told, and of which file; of the process itself if of none.
    pub(crate) unknown: BTreeSet<(Option<SeenPath>, Reason)>,
}

impl Seen {
    fn take(&mut self, found: &Finding) {
        self.files.extend(found.faults.iter().cloned());
        self.not_proven.extend(found.not_proven);
    }

    /// Of a process of which nothing was found, since `subject` gave no answer.
    pub(crate) fn silent(subject: Option<&Subject>) -> Self {
        let file = subject.map(|subject| subject.file.clone());
        Self { unknown: [(file, Reason::NoAnswer)].into(), ..Self::default() }
    }
}

/// See the module.
pub(crate) struct Look {
    questions: Questions,
    sought: Arc<Sought>,
    /// Devices whose file systems gave no answer.
    silent: HashSet<Vec<u8>>,
    roots: HashMap<RootId, usize>,
    tops: Vec<Top>,
    identities: HashMap<FileId, Result<Vec<FileIdentity>, Reason>>,
    programs: HashMap<(FileId, Vec<u8>), Arc<Program>>,
    maps: Vec<u8>,
}

/// What was found of one mapped file: what is wrong with it, under which path, and what it makes of a process that maps it.
#[derive(Debug, Clone, Default)]
struct Finding {
    faults: Vec<(SeenPath, Why)>,
    not_proven: Option<NotProven>,
}

/// What is known of files whose names begin at one root.
struct Top {
    root: Root,
    standings: HashMap<(FileId, Vec<u8>), Result<Standing, Reason>>,
    /// What was found of mappings that are known by what the kernel prints of them; code apart from data.
    settled: [HashMap<Vec<u8>, Finding>; 2],
    /// The programs among them.
    programs: HashMap<Vec<u8>, Arc<Program>>,
}

/// How mapped code stands to what is under its path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// It is the same.
    Current,
    /// It is not.
    Outdated(Why),
    /// It never was a program or library under a path, or is none any more that anybody could install: made in memory.
    Made,
}

/// The process's mappings changed while they were read.
struct Vanished;

impl Look {
    pub(crate) fn new(questions: Questions, sought: Arc<Sought>, silent: &[Subject]) -> Self {
        Self {
            questions,
            sought,
            silent: silent.iter().map(|subject| subject.device.clone()).collect(),
            roots: HashMap::new(),
            tops: Vec::new(),
            identities: HashMap::new(),
            programs: HashMap::new(),
            maps: Vec::new(),
        }
    }

    /// Looks at one process; of one that is gone nothing is found.
    pub(crate) fn process(&mut self, pid: Pid, allowance: &mut Allowance, pulse: &Pulse) -> Seen {
        for _ in 0..ATTEMPTS {
            let mut maps = mem::take(&mut self.maps);
            let seen = self.attempt(pid, &mut maps, allowance, pulse);
            self.maps = maps;
            match seen {
                Ok(seen) => return seen,
                Err(Vanished) => pulse.begins(None),
            }
        }
        Seen { unknown: [(None, Reason::Restless)].into(), ..Seen::default() }
    }

    /// The file behind a mapping. The kernel's own links are for who may restore checkpoints; to another, a name that
    /// leads to the very inode says as much, where device and number tell files apart.
    fn behind(&self, pid: Pid, top: usize, mapping: &Mapping<'_>) -> io::Result<Found> {
        let refused = match foreign::mapped(pid, mapping.range) {
            Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => error,
            found => return found,
        };
        let root = &self.tops[top].root;
        match foreign::named(root, SeenPath::from(mapping.name).as_path()) {
            Ok(Found::File(handle)) if handle.is_at(mapping.device(), mapping.inode()) => {
                Ok(Found::File(handle))
            }
            _ => Err(refused),
        }
    }

    fn attempt(
        &mut self,
        pid: Pid,
        maps: &mut Vec<u8>,
        allowance: &mut Allowance,
        pulse: &Pulse,
    ) -> Result<Seen, Vanished> {
        let mut seen = Seen::default();
        let pid = match mapping::read(pid, maps) {
            Ok(pid) => pid,
            Err(error) => {
                seen.unknown.insert((None, error.into()));
                return Ok(seen);
            }
        };
        let mapping::Mapped { files, code_without_file } = mapping::mapped(maps);
        if files.is_empty() {
            return Ok(seen);
        }
        let top = match self.top(pid) {
            Ok(top) => top,
            Err(error) if mapping::vanished(&error) => return Ok(seen),
            Err(error) => {
                seen.unknown.insert((None, error.into()));
                return Ok(seen);
            }
        };
        let mut vanished = Ok(());
        let mut programs_and_libraries = 0;
        for mapping in &files {
            if self.sought.is_empty() && mapping.executable == Executable::No {
                continue;
            }
            programs_and_libraries += usize::from(mapping.executable == Executable::Yes);
            if let Some(settled) = self.tops[top].settled[mapping.executable as usize].get(mapping.key) {
                seen.take(settled);
                continue;
            }
            let subject = Subject { device: mapping.device().to_owned(), file: mapping.name.into() };
            if self.silent.contains(mapping.device()) {
                seen.unknown.insert((Some(subject.file), Reason::NoAnswer));
                continue;
            }
            pulse.begins(Some(subject));
            match self.behind(pid, top, mapping) {
                Ok(Found::File(handle)) => {
                    let exact = mapping.is_ambiguous().then(|| foreign::mapped_name(pid, mapping.range).ok());
                    let exact = exact.flatten();
                    let name = exact.as_ref().map_or(mapping.name, |exact| exact.as_bytes());
                    match self.file(top, mapping, name, &handle, allowance, pulse) {
                        Ok(found) => {
                            seen.take(&found);
                            if handle.is_known_by_device(mapping.device()) {
                                let settled = &mut self.tops[top].settled[mapping.executable as usize];
                                settled.insert(mapping.key.to_owned(), found);
                            }
                        }
                        Err((found, reason)) => {
                            seen.take(&found);
                            seen.unknown.insert((Some(name.into()), reason));
                        }
                    }
                }
                Ok(Found::NoFile) => {}
                Ok(Found::Nothing) => vanished = Err(Vanished),
                Err(error) => {
                    seen.unknown.insert((Some(mapping.name.into()), error.into()));
                }
            }
        }
        if self.questions == Questions::OutdatedToo {
            seen.not_proven.extend(code_without_file.then_some(NotProven::Memory));
            // What maps libraries, and of which there is nothing to be told, needs no name.
            if programs_and_libraries == 1 || !seen.files.is_empty() || !seen.not_proven.is_empty() {
                match self.started_with(pid, top, &files) {
                    Ok(program) => seen.program = program,
                    Err(reason) => {
                        seen.unknown.insert((None, reason));
                    }
                }
            }
            // A loader that was started with a program's name has no libraries in it, and maps them.
            let linked = seen.program.as_ref().is_some_and(|program| match program.linked {
                Linked::ByGo => true,
                Linked::Statically => programs_and_libraries == 1,
                Linked::Dynamically | Linked::Unknown => false,
            });
            seen.not_proven.extend(linked.then_some(NotProven::Linked));
        }
        vanished.map(|()| seen)
    }

    /// The program that a process was started with, if it still maps it.
    fn started_with(
        &mut self,
        pid: Pid,
        top: usize,
        files: &[Mapping<'_>],
    ) -> Result<Option<Arc<Program>>, Reason> {
        let Some(name) = program_name(pid) else { return Ok(None) };
        let Some(mapping) = files.iter().find(|mapping| mapping.name == name) else { return Ok(None) };
        if let Some(known) = self.tops[top].programs.get(mapping.key) {
            return Ok(Some(Arc::clone(known)));
        }
        match self.behind(pid, top, mapping)? {
            Found::File(handle) => self.program(top, mapping, &handle).map(Some),
            Found::NoFile | Found::Nothing => Ok(None),
        }
    }

    /// The program in a file.
    fn program(
        &mut self,
        top: usize,
        mapping: &Mapping<'_>,
        handle: &Handle,
    ) -> Result<Arc<Program>, Reason> {
        let name = mapping.name;
        let key = (handle.id(), name.to_owned());
        let program = match self.programs.get(&key) {
            Some(known) => Arc::clone(known),
            None => {
                let program = Program::of(path(&self.tops[top].root, name, handle), handle)?;
                self.programs.insert(key, Arc::clone(&program));
                program
            }
        };
        if handle.is_known_by_device(mapping.device()) {
            self.tops[top].programs.insert(mapping.key.to_owned(), Arc::clone(&program));
        }
        Ok(program)
    }

    /// What is found of one file; with what could not be told, if something could not.
    fn file(
        &mut self,
        top: usize,
        mapping: &Mapping<'_>,
        name: &[u8],
        handle: &Handle,
        allowance: &mut Allowance,
        pulse: &Pulse,
    ) -> Result<Finding, (Finding, Reason)> {
        let mut found = Finding::default();
        let mut trouble = None;
        if self.questions == Questions::OutdatedToo && mapping.executable == Executable::Yes {
            found.not_proven = Interpreter::of(without_remark(name)).map(NotProven::Read);
            if found.not_proven.is_none() && may_be_program(name) {
                match is_by_go(handle) {
                    Ok(by_go) => found.not_proven = by_go.then_some(NotProven::Linked),
                    Err(reason) => trouble = Some(reason),
                }
            }
            match self.tops[top].standing(name, handle) {
                Ok(Standing::Current) => {}
                Ok(Standing::Outdated(why)) => found.faults.push((without_remark(name).into(), why)),
                Ok(Standing::Made) => found.not_proven = Some(NotProven::Memory),
                Err(reason) => trouble = Some(reason),
            }
        }
        match self.identities(handle, allowance, pulse) {
            Ok(identities) if identities.is_empty() => {}
            Ok(identities) => {
                let path = path(&self.tops[top].root, name, handle);
                let faults = identities.into_iter().map(|identity| Why::AtFault { identity });
                found.faults.extend(faults.map(|why| (path.clone(), why)));
            }
            Err(reason) => trouble = Some(reason),
        }
        match trouble {
            None => Ok(found),
            Some(reason) => Err((found, reason)),
        }
    }

    fn identities(
        &mut self,
        handle: &Handle,
        allowance: &mut Allowance,
        pulse: &Pulse,
    ) -> Result<Vec<FileIdentity>, Reason> {
        if self.sought.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(known) = self.identities.get(&handle.id()) {
            return known.clone();
        }
        let found = self.sought.identify(handle, allowance, pulse);
        // Another workload may have the time that this one has used up.
        if !matches!(found, Err(Reason::TooSlow { .. } | Reason::Stopped)) {
            self.identities.insert(handle.id(), found.clone());
        }
        found
    }

    /// The index of what the names of a process begin at.
    fn top(&mut self, pid: Pid) -> io::Result<usize> {
        if let Some(known) = self.roots.get(&RootId::of(pid)?) {
            return Ok(*known);
        }
        let root = Root::above(pid)?;
        let id = root.id()?;
        if let Some(known) = self.roots.get(&id) {
            return Ok(*known);
        }
        self.tops.push(Top {
            root,
            standings: HashMap::new(),
            settled: [HashMap::new(), HashMap::new()],
            programs: HashMap::new(),
        });
        self.roots.insert(id, self.tops.len() - 1);
        Ok(self.tops.len() - 1)
    }
}

impl Top {
    /// How code stands to what is under its path.
    fn standing(&mut self, name: &[u8], handle: &Handle) -> Result<Standing, Reason> {
        let key = (handle.id(), name.to_owned());
        if let Some(known) = self.standings.get(&key) {
            return known.clone();
        }
        let found = standing(&self.root, name, handle);
        self.standings.insert(key, found.clone());
        found
    }
}

/// The path of a file, without the kernel's remark; with it if that is how the file is called.
fn path(root: &Root, name: &[u8], handle: &Handle) -> SeenPath {
    let is_remark =
        name.ends_with(DELETED) && (handle.is_unlinked() || leads_to(root, name, handle) != Ok(true));
    if is_remark { without_remark(name).into() } else { name.into() }
}

fn without_remark(name: &[u8]) -> &[u8] {
    name.strip_suffix(DELETED).unwrap_or(name)
}

fn named(top: &Root, name: &[u8]) -> Result<Found, Reason> {
    Ok(foreign::named(top, SeenPath::from(name).as_path())?)
}

fn leads_to(top: &Root, name: &[u8], handle: &Handle) -> Result<bool, Reason> {
    Ok(matches!(named(top, name)?, Found::File(there) if there.is_same(handle)))
}

/// How the file that is mapped stands to the one under its path.
fn standing(top: &Root, name: &[u8], handle: &Handle) -> Result<Standing, Reason> {
    // First of all as it is: a file may be called `x (deleted)`.
    if leads_to(top, name, handle)? {
        return Ok(Standing::Current);
    }
    let path = without_remark(name);
    // Made by `memfd_create(2)`: this never was a path.
    if path.len() < name.len() && name.starts_with(b"/memfd:") && handle.is_memory() {
        return Ok(Standing::Made);
    }
    let on_disk = named(top, path)?;
    match &on_disk {
        Found::File(there) if there.is_same(handle) => return Ok(Standing::Current),
        // Not unlinked, and not in this namespace: a file of somebody else's, whose path begins elsewhere.
        Found::Nothing
            if path.len() == name.len() && !handle.is_unlinked() && leads_from_here(name, handle) =>
        {
            return Ok(Standing::Current);
        }
        _ => {}
    }
    let file = handle.read()?;
    if !is_elf(&file) {
        return Ok(match on_disk {
            Found::Nothing => Standing::Made,
            _ => Standing::Current,
        });
    }
    let build = |file: &File| Ok::<_, io::Error>(Elf::read(file)?.and_then(|elf| elf.build()));
    let runs = build(&file)?;
    let on_disk = match on_disk {
        Found::Nothing => return Ok(Standing::Outdated(Why::Deleted { runs })),
        Found::NoFile => None,
        Found::File(there) => build(&there.read()?)?,
    };
    let same_build = runs.is_some() && runs == on_disk;
    Ok(if same_build { Standing::Current } else { Standing::Outdated(Why::Replaced { runs, on_disk }) })
}

/// Whether a file that is mapped as code is not called like a library.
fn may_be_program(name: &[u8]) -> bool {
    let file = without_remark(name).rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    !file.windows(3).any(|three| three == b".so")
}

/// Whether Go's linker has made a file.
fn is_by_go(handle: &Handle) -> Result<bool, Reason> {
    Ok(Elf::read(&handle.read()?)?.is_some_and(|elf| elf.go.is_some()))
}

/// The name of the program that a process was started with, as its mappings show it; none if it cannot be told.
fn program_name(pid: Pid) -> Option<Vec<u8>> {
    let name = foreign::program_name(pid).ok()?.into_vec();
    if !name.contains(&b'\n') {
        return Some(name);
    }
    let lines: Vec<&[u8]> = name.split(|byte| *byte == b'\n').collect();
    Some(lines.join(mapping::LINE_FEED))
}

fn leads_from_here(name: &[u8], handle: &Handle) -> bool {
    let own = Root::above(Pid(std::process::id()));
    own.is_ok_and(|own| leads_to(&own, name, handle) == Ok(true))
}

fn is_elf(file: &File) -> bool {
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).is_ok() && &magic == b"\x7fELF"
}
