//! Which tasks hold a transition back, and where they are.
//!
//! `patch_state` (`Documentation/livepatch/livepatch.rst`): -1 no transition, 0 unpatched, 1 patched.
//! A task blocks when it is in the other state than the one that the transition moves to. Kernel
//! threads are tasks too; only the idle tasks are not in procfs.
//!
//! Tasks come and go while the directory is read. One that is gone blocks nothing and is left out;
//! what a living task does not show (its stack, for want of `CAP_SYS_ADMIN`) is left empty. A task may call itself
//! and its groups anything, in any bytes: that hides none.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use workloads::model::{CgroupOwner, CgroupPath, Comm, Owners, Place};

use crate::kernel::error::KernelError;
use crate::kernel::livepatch::{Blocker, Enabled, TaskKind, TaskState};
use system::kernel_file::KernelFileError;

/// Stack frames kept of a blocker.
const FRAMES: usize = 16;

/// What a stack frame of a blocker is compared with.
pub(super) struct Suspects<'a> {
    /// The functions that the patch replaces.
    pub(super) functions: BTreeSet<&'a str>,
    /// The livepatch modules, which hold the replacements.
    pub(super) modules: BTreeSet<&'a str>,
}

/// Every task below `proc` that is not in the state `to`.
pub(super) fn blockers(
    proc: &Path,
    to: Enabled,
    suspects: &Suspects<'_>,
    owners: &Owners,
) -> Result<Vec<Blocker>, KernelError> {
    let held_back = to.opposite().as_str();
    let mut found = Vec::new();
    for process in fs::read_dir(proc).map_err(KernelFileError::read(proc))? {
        let process = process.map_err(KernelFileError::read(proc))?;
        let Some(pid) = number(&process.file_name()) else { continue };
        let Ok(threads) = fs::read_dir(process.path().join("task")) else { continue };
        for thread in threads {
            let Ok(thread) = thread else { break };
            let Some(tid) = number(&thread.file_name()) else { continue };
            let path = thread.path();
            match fs::read_to_string(path.join("patch_state")) {
                Ok(state) if state.trim_end() == held_back => {
                    found.extend(blocker(&path, pid, tid, suspects, owners));
                }
                // Not being root must not look like "nobody blocks".
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Err(
                        KernelFileError::Read { path: path.join("patch_state"), source: error }.into()
                    );
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

fn number(name: &std::ffi::OsStr) -> Option<i32> {
    name.to_str()?.parse().ok()
}

/// `None` if the task ended meanwhile.
fn blocker(path: &Path, pid: i32, tid: i32, suspects: &Suspects<'_>, owners: &Owners) -> Option<Blocker> {
    let Stat { comm, task, kind, started } = Stat::parse(&fs::read(path.join("stat")).ok()?)?;
    let groups = fs::read(path.join("cgroup")).unwrap_or_default();
    let place = CgroupPath::bytes_from_proc(&groups).map(|path| owners.place(path));
    let Place { owner, group: cgroup } = place.unwrap_or(Place { owner: CgroupOwner::Unknown, group: None });
    let frames = fs::read(path.join("stack")).unwrap_or_default();
    let frames = String::from_utf8_lossy(&frames);
    let frames: Vec<Frame<'_>> = frames.lines().filter_map(Frame::parse).take(FRAMES).collect();
    let held_in = frames.iter().find(|frame| frame.is_suspect(suspects)).map(Frame::to_string);
    let stack = frames.iter().map(Frame::to_string).collect();
    Some(Blocker { pid, tid, comm, kind, task, started, cgroup, owner, held_in, stack })
}

/// Kills the process of a blocker, if it is still the task that was seen and still stuck; else does nothing.
///
/// Between the look and the signal another process could take the number only if this one ended, and it is stuck.
pub(super) fn kill_stuck(proc: &Path, blocker: &Blocker) -> io::Result<()> {
    let path = proc.join(format!("{}/task/{}/stat", blocker.pid, blocker.tid));
    let stat = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        stat => stat?,
    };
    let is_it = Stat::parse(&stat)
        .is_some_and(|now| now.started == blocker.started && now.task == TaskState::Uninterruptible);
    if is_it && blocker.pid > 1 {
        match kill(Pid::from_raw(blocker.pid), Signal::SIGKILL) {
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// `PF_KTHREAD` of `include/linux/sched.h`.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// What matters here of `/proc/PID/stat` (`Documentation/filesystems/proc.rst`, table 1-4).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: Comm,
    task: TaskState,
    kind: TaskKind,
    started: u64,
}

impl Stat {
    /// `TID (COMM) STATE PPID PGRP SESSION TTY TPGID FLAGS …`. The name may hold spaces and
    /// parentheses, and bytes that are no text.
    fn parse(stat: &[u8]) -> Option<Self> {
        let begin = stat.iter().position(|byte| *byte == b'(')? + 1;
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let tail = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        let task = match *fields.first()? {
            "R" => TaskState::Running,
            "D" => TaskState::Uninterruptible,
            "T" | "t" => TaskState::Stopped,
            "I" => TaskState::Idle,
            "Z" | "X" | "x" => TaskState::Dead,
            // "S", and the short-lived "P" and "W", which a signal wakes just as well.
            _ => TaskState::Sleeping,
        };
        let flags: u32 = fields.get(6)?.parse().ok()?;
        let kind = if flags & KERNEL_THREAD == 0 { TaskKind::User } else { TaskKind::Kernel };
        let started = fields.get(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(0);
        Some(Self { comm: stat.get(begin..end)?.into(), task, kind, started })
    }
}

/// A line of `/proc/PID/stack`: `[<0>] function+0x1c/0x40 [module]`.
struct Frame<'a> {
    function: &'a str,
    module: Option<&'a str>,
}

impl<'a> Frame<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (_, place) = line.split_once("] ")?;
        let (symbol, module) = match place.split_once(" [") {
            Some((symbol, module)) => (symbol, module.strip_suffix(']')),
            None => (place, None),
        };
        let function = symbol.split('+').next()?.trim();
        (!function.is_empty()).then_some(Self { function, module })
    }

    fn is_suspect(&self, suspects: &Suspects<'_>) -> bool {
        // A stack shows one name of several for an address, and of a system call's entry it is not
        // the one that livepatches use (`SYSCALL_ALIAS`, `arch/x86/include/asm/syscall_wrapper.h`).
        let entry = self.function.strip_prefix("__do_sys_").map(|call| format!("__x64_sys_{call}"));
        self.module.is_some_and(|module| suspects.modules.contains(module))
            || suspects.functions.contains(self.function)
            || entry.is_some_and(|entry| suspects.functions.contains(entry.as_str()))
    }
}

impl std::fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.module {
            Some(module) => write!(f, "{} [{module}]", self.function),
            None => f.write_str(self.function),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_state() {
        for name in [&b"a) R (b"[..], b"\xff\xfe", b"new\nline", b" ", b""] {
            let line = [b"7 (", name, b") D 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4711 0"].concat();
            let stat = Stat::parse(&line).unwrap();
            let expected = (TaskState::Uninterruptible, TaskKind::User, 4711);
            assert_eq!((stat.comm.as_bytes(), (stat.task, stat.kind, stat.started)), (name, expected));
        }
    }

    #[test]
    fn a_kernel_thread_is_told_by_its_flag() {
        let stat = Stat::parse(b"15 (rcu_preempt) I 2 0 0 0 -1 2129984 0").unwrap();
        assert_eq!((stat.task, stat.kind), (TaskState::Idle, TaskKind::Kernel));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a real process is not killed")]
    fn only_the_task_that_was_seen_is_killed_and_only_while_it_is_stuck() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let proc = Path::new("/proc");
        let seen = blocker(
            &proc.join(format!("{pid}/task/{pid}")),
            pid,
            pid,
            &Suspects { functions: [].into(), modules: [].into() },
            &Owners::new(None, Vec::new()),
        )
        .unwrap();
        assert!(seen.started > 0);
        for blocker in [seen.clone(), Blocker { started: seen.started + 1, ..seen.clone() }] {
            kill_stuck(proc, &blocker).unwrap();
            assert_eq!(child.try_wait().unwrap(), None, "it sleeps, and may be woken");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kill_stuck(proc, &seen).unwrap();

        let root = tempfile::tempdir().unwrap();
        let task = root.path().join(format!("{0}/task/{0}", i32::MAX));
        fs::create_dir_all(&task).unwrap();
        fs::write(task.join("stat"), "7 (x) D 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4711 0").unwrap();
        let gone = Blocker { pid: i32::MAX, tid: i32::MAX, started: 4711, ..seen };
        kill_stuck(root.path(), &gone).unwrap();
    }

    #[test]
    fn a_frame_names_its_function_and_module() {
        let frame = Frame::parse("[<0>] fixed_show+0x1c/0x40 [livepatch_cmdline]").unwrap();
        assert_eq!((frame.function, frame.module), ("fixed_show", Some("livepatch_cmdline")));
        let frame = Frame::parse("[<0>] do_nanosleep+0x67/0x190").unwrap();
        assert_eq!((frame.function, frame.module), ("do_nanosleep", None));
        assert!(Frame::parse("").is_none());
    }

    #[test]
    fn a_function_of_the_patch_or_of_any_livepatch_module_holds_a_task_back() {
        let suspects = Suspects {
            functions: ["cmdline_proc_show", "__x64_sys_vfork"].into(),
            modules: ["livepatch_cmdline"].into(),
        };
        for (line, suspect) in [
            ("[<0>] cmdline_proc_show+0x10/0x20", Some(())),
            ("[<0>] fixed_show+0x10/0x20 [livepatch_cmdline]", Some(())),
            ("[<0>] __do_sys_vfork+0x10/0x20", Some(())),
            ("[<0>] seq_read_iter+0x10/0x20", None),
            ("[<0>] ext4_read+0x10/0x20 [ext4]", None),
        ] {
            let frame = Frame::parse(line).unwrap();
            assert_eq!(frame.is_suspect(&suspects).then_some(()), suspect, "{line}");
        }
    }
}
