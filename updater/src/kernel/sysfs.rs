//! [`Livepatch`] over sysfs, procfs, `finit_module(2)` and `delete_module(2)`.
//!
//! Everything that is read is below two roots, so that reading can be tested against a directory.
//! Files: `Documentation/ABI/testing/sysfs-kernel-livepatch`, `sysfs-module`. A patch can disappear
//! between two reads (its directory goes when it is disabled); that is [`PatchState::Absent`], not
//! an error.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use manifests::{BuildId, ModuleName};
use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use nix::libc;
use system::kernel_file::KernelFileError;
use workloads::model::{CgroupPath, KnownContainer, Owners};

use crate::kernel::error::{KernelError, LoadRefusal, UnloadRefusal};
use crate::kernel::kmsg::Tail;
use crate::kernel::livepatch::{
    Blocker, Enabled, Livepatch, LoadedFunction, LoadedObject, LoadedPatch, ModuleIdentity, PatchState,
};
use crate::kernel::tasks::{Suspects, blockers, kill_stuck};

/// Where the kernel's file systems are mounted.
#[derive(Clone, Debug)]
pub struct Roots {
    /// sysfs.
    pub sys: PathBuf,
    /// procfs.
    pub proc: PathBuf,
    /// The kernel log.
    pub kmsg: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), kmsg: "/dev/kmsg".into() }
    }
}

/// The running kernel.
#[derive(Clone, Debug)]
pub struct Sysfs {
    roots: Roots,
    owners: Owners,
}

impl Sysfs {
    /// With these mounts, and the containers that the runtime reports.
    ///
    /// # Errors
    /// [`KernelError::File`] if this program's own control group cannot be read: without it, nobody
    /// could tell which groups must not be frozen.
    pub fn new(roots: Roots, containers: Vec<KnownContainer>) -> Result<Self, KernelError> {
        let path = roots.proc.join("self/cgroup");
        let text = fs::read(&path).map_err(KernelFileError::read(&path))?;
        let own = CgroupPath::from_proc(&String::from_utf8_lossy(&text));
        let owners = Owners::new(own, containers);
        Ok(Self { roots, owners })
    }

    fn patches(&self) -> PathBuf {
        self.roots.sys.join("kernel/livepatch")
    }

    fn patch(&self, module: &ModuleName) -> PathBuf {
        self.patches().join(module.as_str())
    }

    fn loaded_patch(&self, module: ModuleName) -> Result<Option<LoadedPatch>, KernelError> {
        let directory = self.patch(&module);
        let Some(objects) = unless_gone(&directory, objects(&directory))? else { return Ok(None) };
        match self.state(&module)? {
            PatchState::Absent => Ok(None),
            state => Ok(Some(LoadedPatch { identity: self.identity(&module), module, state, objects })),
        }
    }

    /// Which build of a module is loaded; what the kernel does not tell is left out.
    fn identity(&self, module: &ModuleName) -> ModuleIdentity {
        let directory = self.roots.sys.join("module").join(module.as_str());
        ModuleIdentity {
            srcversion: fs::read_to_string(directory.join("srcversion"))
                .ok()
                .map(|text| text.trim().to_owned()),
            build_id: fs::read(directory.join("notes/.note.gnu.build-id")).ok().as_deref().and_then(build_id),
        }
    }

    fn write(&self, module: &ModuleName, file: &str, value: &str) -> Result<(), KernelError> {
        let path = self.patch(module).join(file);
        fs::write(&path, value).map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) => KernelError::TransitionBusy { module: module.clone() },
            Some(libc::EINVAL) => KernelError::NothingToChange { module: module.clone() },
            Some(libc::ENOENT | libc::ENODEV) => KernelError::NoSuchPatch { module: module.clone() },
            _ => KernelFileError::Write { path, value: value.to_owned(), source }.into(),
        })
    }
}

impl Livepatch for Sysfs {
    fn loaded(&self) -> Result<Vec<LoadedPatch>, KernelError> {
        let directory = self.patches();
        let names = match directories(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(KernelError::NoLivepatch { path: directory });
            }
            result => result.map_err(KernelFileError::read(&directory))?,
        };
        let mut patches = Vec::with_capacity(names.len());
        for name in names {
            let module = name.parse().map_err(|_| KernelFileError::Format {
                path: directory.clone(),
                expected: "directories named after modules",
                found: name.clone(),
            })?;
            patches.extend(self.loaded_patch(module)?);
        }
        Ok(patches)
    }

    fn state(&self, module: &ModuleName) -> Result<PatchState, KernelError> {
        let directory = self.patch(module);
        let flag = |file: &str| -> Result<Option<Flag>, KernelError> {
            let path = directory.join(file);
            let Some(text) = unless_gone(&path, fs::read_to_string(&path))? else { return Ok(None) };
            match text.trim_end() {
                "0" => Ok(Some(Flag::Clear)),
                "1" => Ok(Some(Flag::Set)),
                found => Err(KernelFileError::Format {
                    path,
                    expected: "0 or 1",
                    found: found.chars().take(64).collect(),
                }
                .into()),
            }
        };
        let (Some(transition), Some(enabled)) = (flag("transition")?, flag("enabled")?) else {
            return Ok(PatchState::Absent);
        };
        let enabled = match enabled {
            Flag::Set => Enabled::Enabled,
            Flag::Clear => Enabled::Disabled,
        };
        Ok(match transition {
            Flag::Set => PatchState::InTransition(enabled),
            Flag::Clear => PatchState::Settled(enabled),
        })
    }

    fn module(&self, module: &ModuleName) -> Result<Option<ModuleIdentity>, KernelError> {
        let directory = self.roots.sys.join("module").join(module.as_str());
        let found = unless_gone(&directory, fs::metadata(&directory))?;
        Ok(found.map(|_| self.identity(module)))
    }

    fn load(&self, module: &ModuleName, image: &File) -> Result<(), KernelError> {
        let log = Tail::open(&self.roots.kmsg);
        finit_module(image, c"", ModuleInitFlags::empty()).map_err(|errno| KernelError::Load {
            module: module.clone(),
            refusal: LoadRefusal::from(errno),
            words: log.words(),
        })
    }

    fn set_enabled(&self, module: &ModuleName, to: Enabled) -> Result<(), KernelError> {
        self.write(module, "enabled", to.as_str())
    }

    fn unload(&self, module: &ModuleName) -> Result<(), KernelError> {
        let refused = |refusal| KernelError::Unload { module: module.clone(), refusal };
        // A checked name holds no NUL, so this cannot fail; EINVAL is what the kernel would say.
        let name = CString::new(module.as_str())
            .map_err(|_| refused(UnloadRefusal::System(nix::errno::Errno::EINVAL)))?;
        // Without O_NONBLOCK the call would be a forced removal's little brother: the kernel has
        // not waited for references since Linux 3.13, and the flag says that this is known.
        delete_module(&name, DeleteModuleFlags::O_NONBLOCK)
            .map_err(|errno| refused(UnloadRefusal::from(errno)))
    }

    fn blockers(&self) -> Result<Vec<Blocker>, KernelError> {
        let patches = self.loaded()?;
        let moving = patches.iter().find_map(|patch| match patch.state {
            PatchState::InTransition(to) => Some((patch, to)),
            _ => None,
        });
        let Some((patch, to)) = moving else { return Ok(Vec::new()) };
        let suspects = Suspects {
            functions: patch
                .objects
                .iter()
                .flat_map(|object| object.functions.iter().map(|function| function.name.as_str()))
                .collect(),
            modules: patches.iter().map(|patch| patch.module.as_str()).collect::<BTreeSet<_>>(),
        };
        blockers(&self.roots.proc, to, &suspects, &self.owners)
    }

    fn kill_stuck(&self, blocker: &Blocker) -> Result<(), KernelError> {
        let failed = |source| KernelError::Kill { pid: blocker.pid, source };
        kill_stuck(&self.roots.proc, blocker).map_err(failed)
    }
}

enum Flag {
    Clear,
    Set,
}

/// `None` for what vanished: `ENOENT` by path, `ENODEV` through an open file of a removed object.
fn unless_gone<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, KernelError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
        Err(source) => Err(KernelFileError::Read { path: path.to_owned(), source }.into()),
    }
}

/// The names of the directories in a directory, sorted.
fn directories(path: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// `PATCH/OBJECT/FUNCTION,SYMPOS` directories.
fn objects(patch: &Path) -> io::Result<Vec<LoadedObject>> {
    let mut objects = Vec::new();
    for name in directories(patch)? {
        let functions = directories(&patch.join(&name))?
            .iter()
            .filter_map(|entry| {
                let (function, sympos) = entry.rsplit_once(',')?;
                Some(LoadedFunction { name: function.to_owned(), sympos: sympos.parse().ok()? })
            })
            .collect();
        objects.push(LoadedObject { name, functions });
    }
    Ok(objects)
}

/// The description of an `NT_GNU_BUILD_ID` note: a 12-byte header of three native words (name size,
/// description size, type 3), the name `GNU\0`, the description.
fn build_id(note: &[u8]) -> Option<BuildId> {
    const GNU_BUILD_ID: u32 = 3;
    let word = |at: usize| note.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let (name, length, kind) = (word(0)?, word(4)? as usize, word(8)?);
    if name != 4 || kind != GNU_BUILD_ID || note.get(12..16)? != b"GNU\0" {
        return None;
    }
    BuildId::from_bytes(note.get(16..)?.get(..length)?)
}

#[cfg(test)]
#[path = "sysfs_tests.rs"]
mod tests;
