//! Running external programs: the only place that does.
//!
//! Invariants:
//! - Programs are found in a fixed search path, never in the caller's `PATH`, and run with a fixed
//!   environment.
//! - Output goes to memory files, and there is a bound to what is kept of it ([`crate::capture`]). Who needs all
//!   of it is told when there was more ([`CommandError::TooMuch`]).
//! - A program that changes a container can be made to hold the host's lock ([`HeldLock`]) for as
//!   long as it runs, so that nothing else starts when this process dies first.
//! - A signal to this process's group, such as a Ctrl-C, does not reach the programs.
//! - A program that must not be killed half-way ([`WhenLate::Leave`]) is left running and reported. Until then it is
//!   known on disk ([`Invocation::known_at`]), so that whoever comes after this process can wait for it.
//! - A program has ended when all of its process group has: what it started works on after a leader that dies. The
//!   exception is one that starts daemons ([`Invocation::may_leave_daemons`]).

#![expect(clippy::disallowed_methods, reason = "programs are run here, and waited for in real time")]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::capture::{Capture, Said};
use crate::clock::{Interrupt, Uninterrupted};
use crate::durable;
use crate::process::ProcessIdentity;

/// Where programs are looked for, in this order.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How often a running child is looked at: short against every command here (CRIU needs hundreds of
/// milliseconds), long against the cost of a `wait4`.
const POLL: Duration = Duration::from_millis(2);

/// How long what was killed may take to be gone. A task in uninterruptible sleep takes longer.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Why an external program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not installed.
    #[error("{program} is not installed (looked in {SEARCH_PATH})")]
    Missing {
        /// Its name.
        program: String,
    },
    /// It could not be started, fed or waited for.
    #[error("could not run {program}")]
    Run {
        /// Its name.
        program: String,
        /// The reason.
        source: std::io::Error,
    },
    /// It ended with a failure.
    #[error("`{line}` failed with {status}{}", said(.stderr_tail))]
    Failed {
        /// The command line.
        line: String,
        /// Its exit status.
        status: ExitStatus,
        /// The end of its stderr.
        stderr_tail: String,
    },
    /// It said more than can be taken in.
    #[error("`{line}` wrote {bytes} bytes, more than are read of any program")]
    TooMuch {
        /// The command line.
        line: String,
        /// How many.
        bytes: u64,
    },
    /// It did not end in time and was killed.
    #[error("`{line}` was killed: it did not end within {limit:?}{}", said(.stderr_tail))]
    Killed {
        /// The command line.
        line: String,
        /// The time it had.
        limit: Duration,
        /// The end of its stderr.
        stderr_tail: String,
    },
    /// The operator asked to stop before it had ended, and it was killed.
    #[error("`{line}` was killed: the operator asked to stop")]
    Interrupted {
        /// The command line.
        line: String,
    },
    /// It did not end in time and, being unsafe to kill, was left running.
    #[error("`{line}` (pid {pid}) still runs after {limit:?}; it is unsafe to kill and was left alone")]
    StillRunning {
        /// The command line.
        line: String,
        /// Its process id.
        pid: u32,
        /// The time it had.
        limit: Duration,
    },
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

/// What to do with a program whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenLate {
    /// Kill it.
    Kill,
    /// Let it run and report that.
    Leave,
}

/// The host's lock, kept by children for as long as they run.
///
/// A lock taken with `flock` belongs to the open file, so a child that has a copy of the descriptor
/// keeps it even when this process is killed. runc marks every descriptor beyond the standard
/// streams close-on-exec before it becomes the container's program, and CRIU closes what it did not
/// open, so the containers themselves never hold it.
#[derive(Debug)]
pub struct HeldLock(OwnedFd);

impl HeldLock {
    /// Shares the lock of an open, locked file.
    pub fn share(lock: impl AsFd) -> std::io::Result<Self> {
        Ok(Self(lock.as_fd().try_clone_to_owned()?))
    }

    /// The same lock once more.
    pub fn again(&self) -> std::io::Result<Self> {
        Self::share(&self.0)
    }

    /// A copy that survives `exec`, to be dropped once the child has been made.
    fn inheritable(&self) -> std::io::Result<OwnedFd> {
        Ok(nix::unistd::dup(&self.0)?)
    }
}

/// One run of an external program.
#[derive(Debug)]
pub struct Invocation<'a> {
    program: OsString,
    args: Vec<OsString>,
    input: Vec<u8>,
    input_file: Option<File>,
    limit: Duration,
    late: WhenLate,
    lock: Option<&'a HeldLock>,
    environment: Vec<(&'static str, OsString)>,
    streams: Streams,
    record: Option<PathBuf>,
    ends: Ends,
}

/// When a program that must not be killed has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// When everything in its process group has.
    WithItsGroup,
    /// When itself has.
    Alone,
}

/// Where what a program says goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    /// stdout and stderr are captured.
    Captured,
    /// Both are `/dev/null`, and messages come from a log of JSON lines given by `--log`.
    Log,
}

/// What a program that ended by itself left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    stdout: Said,
    /// The end of what it wrote to stderr.
    pub stderr_tail: String,
    line: String,
}

impl Finished {
    /// The output of a program that said yes.
    ///
    /// # Errors
    /// [`CommandError::Failed`] if it said no, [`CommandError::TooMuch`] if it said more than is kept.
    pub fn success(self) -> Result<Vec<u8>, CommandError> {
        if !self.status.success() {
            let Self { line, status, stderr_tail, .. } = self;
            return Err(CommandError::Failed { line, status, stderr_tail });
        }
        match self.stdout {
            Said::Whole(bytes) => Ok(bytes),
            Said::TooMuch { bytes } => Err(CommandError::TooMuch { line: self.line, bytes }),
        }
    }
}

/// The full path of an installed program.
pub fn find(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let executable = |path: &Path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| executable(path));
    }
    SEARCH_PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|path| executable(path))
}

impl<'a> Invocation<'a> {
    /// A program by name or absolute path, to be killed after 30 s.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            input: Vec::new(),
            input_file: None,
            limit: Duration::from_secs(30),
            late: WhenLate::Kill,
            lock: None,
            environment: Vec::new(),
            streams: Streams::Captured,
            record: None,
            ends: Ends::WithItsGroup,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// What it reads from its stdin; nothing by default.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// What it reads from its stdin, from where the file is.
    pub fn input_file(mut self, file: File) -> Self {
        self.input_file = Some(file);
        self
    }

    /// How long it may take, and what becomes of it then.
    pub fn limit(mut self, limit: Duration, late: WhenLate) -> Self {
        (self.limit, self.late) = (limit, late);
        self
    }

    /// What it starts and does not wait for is to live on, and is not waited for here either.
    pub fn may_leave_daemons(mut self) -> Self {
        self.ends = Ends::Alone;
        self
    }

    /// Keeps the host's lock for as long as it runs.
    pub fn holding(mut self, lock: Option<&'a HeldLock>) -> Self {
        self.lock = lock;
        self
    }

    /// Writes down who it is ([`ProcessIdentity`], as JSON) in a file that is there for as long as it may run: it stays
    /// when the program is left running, or when this process dies first.
    pub fn known_at(mut self, record: impl Into<PathBuf>) -> Self {
        self.record = Some(record.into());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    /// Standard streams on `/dev/null`: a detached container inherits them, and CRIU cannot dump a
    /// process that has a host file there. Messages come from the log that `--log` and
    /// `--log-format json`, put before the arguments, ask for.
    pub fn speaking_by_log(mut self) -> Self {
        self.streams = Streams::Log;
        self
    }

    fn line(&self) -> String {
        let mut line = self.program.to_string_lossy().into_owned();
        for arg in &self.args {
            line.push(' ');
            line.push_str(&arg.to_string_lossy());
        }
        line
    }

    /// Runs it and returns its output if it said yes.
    pub fn output(self) -> Result<Vec<u8>, CommandError> {
        self.run()?.success()
    }

    /// Runs it to its end, whatever that is.
    pub fn run(self) -> Result<Finished, CommandError> {
        self.run_unless(&Uninterrupted)
    }

    /// Runs it to its end, or kills it as soon as somebody asks to stop.
    pub fn run_unless(self, interrupt: &dyn Interrupt) -> Result<Finished, CommandError> {
        let name = self.program.to_string_lossy().into_owned();
        let path = find(&name).ok_or(CommandError::Missing { program: name.clone() })?;
        let failed = |source| CommandError::Run { program: name.clone(), source };
        let line = self.line();
        let stdout = Capture::new("stdout").map_err(failed)?;
        let stderr = Capture::new("stderr").map_err(failed)?;

        let mut command = Command::new(path);
        if self.streams == Streams::Log {
            // The file has no name; the child opens it through this process.
            command.args(["--log", &stderr.path(), "--log-format", "json"]);
        }
        // In a process group of its own, so that a Ctrl-C at the terminal is ours to answer and does
        // not end a dump half-way.
        command.args(&self.args).current_dir("/").process_group(0);
        command
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("LC_ALL", "C")
            .envs(self.environment.iter().cloned());
        if let Some(file) = &self.input_file {
            command.stdin(file.try_clone().map_err(failed)?);
        } else if self.input.is_empty() {
            command.stdin(Stdio::null());
        } else {
            let mut input = memory_file("stdin").map_err(failed)?;
            input.write_all(&self.input).map_err(failed)?;
            input.seek(SeekFrom::Start(0)).map_err(failed)?;
            command.stdin(input);
        }
        match self.streams {
            Streams::Log => command.stdout(Stdio::null()).stderr(Stdio::null()),
            Streams::Captured => {
                command.stdout(stdout.writer().map_err(failed)?).stderr(stderr.writer().map_err(failed)?)
            }
        };
        let lock = self.lock.map(HeldLock::inheritable).transpose().map_err(failed)?;
        let mut child = command.spawn().map_err(failed)?;
        drop(lock);
        let identity =
            ProcessIdentity::of(child.id()).ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        if let Some(record) = &self.record
            && let Err(error) = write_record(record, &identity)
        {
            // What nobody could wait for later does not begin.
            kill_group(&mut child, &identity).map_err(failed)?;
            return Err(failed(error));
        }

        let captures = [&stdout, &stderr];
        let ends = if self.late == WhenLate::Kill { Ends::Alone } else { self.ends };
        let waited = wait(&mut child, &identity, self.limit, ends, interrupt, captures).map_err(failed)?;
        let status = match waited {
            Waited::Ended(status) => status,
            Waited::Late if self.late == WhenLate::Leave => {
                return Err(CommandError::StillRunning { line, pid: child.id(), limit: self.limit });
            }
            Waited::Late => {
                kill_group(&mut child, &identity).map_err(failed)?;
                captures.iter().for_each(|capture| capture.close());
                self.forget_record().map_err(failed)?;
                let stderr_tail = words(&stderr, self.streams).map_err(failed)?;
                return Err(CommandError::Killed { line, limit: self.limit, stderr_tail });
            }
            Waited::Interrupted => {
                kill_group(&mut child, &identity).map_err(failed)?;
                captures.iter().for_each(|capture| capture.close());
                self.forget_record().map_err(failed)?;
                return Err(CommandError::Interrupted { line });
            }
        };
        self.forget_record().map_err(failed)?;
        captures.iter().for_each(|capture| capture.close());
        let stdout = stdout.whole().map_err(failed)?;
        let stderr_tail = words(&stderr, self.streams).map_err(failed)?;
        Ok(Finished { status, stdout, stderr_tail, line })
    }

    fn forget_record(&self) -> std::io::Result<()> {
        self.record.as_deref().map_or(Ok(()), durable::forget)
    }
}

fn write_record(record: &Path, identity: &ProcessIdentity) -> std::io::Result<()> {
    durable::replace(record, &serde_json::to_vec(identity)?)
}

/// Why waiting for a program was over.
enum Waited {
    Ended(ExitStatus),
    Late,
    Interrupted,
}

/// Kills a child with what it has started, and sees that all of it is gone: it leads its group, and is not reaped yet.
fn kill_group(child: &mut Child, identity: &ProcessIdentity) -> std::io::Result<()> {
    let group = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL)?;
    child.wait()?;
    let deadline = Instant::now() + KILL_PATIENCE;
    while identity.group_lives()? {
        if Instant::now() >= deadline {
            let why = format!("process group {group} lives on after SIGKILL");
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Waits for a child; where it must not be disturbed half-way, for all that works on after it as well.
fn wait(
    child: &mut Child,
    identity: &ProcessIdentity,
    limit: Duration,
    ends: Ends,
    interrupt: &dyn Interrupt,
    captures: [&Capture; 2],
) -> std::io::Result<Waited> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()?
            && (ends == Ends::Alone || !identity.group_lives()?)
        {
            return Ok(Waited::Ended(status));
        }
        captures.iter().try_for_each(|capture| capture.discard())?;
        if Instant::now() >= deadline {
            return Ok(Waited::Late);
        }
        if interrupt.asked() {
            return Ok(Waited::Interrupted);
        }
        std::thread::sleep(POLL);
    }
}

fn memory_file(name: &str) -> std::io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?))
}

/// The end of what a program said, wherever it said it.
fn words(capture: &Capture, streams: Streams) -> std::io::Result<String> {
    let text = capture.tail()?;
    Ok(match streams {
        Streams::Captured => text,
        Streams::Log => log_messages(&text),
    })
}

/// The messages of a log of JSON lines, as logrus writes them, warnings and worse.
fn log_messages(log: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let messages: Vec<String> = log
        .lines()
        .filter_map(|line| match serde_json::from_str::<Line>(line) {
            Ok(line) if matches!(line.level.as_str(), "info" | "debug" | "trace") => None,
            Ok(line) => Some(line.msg),
            Err(_) => Some(line.to_owned()),
        })
        .collect();
    messages.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::TAIL;

    fn shell(script: &str) -> Invocation<'static> {
        Invocation::new("sh").args(["-c", script])
    }

    #[test]
    fn a_failed_command_reports_its_last_words_and_status() {
        let error = shell("echo first >&2; echo last >&2; exit 3").output().unwrap_err();
        let CommandError::Failed { status, stderr_tail, .. } = error else { panic!("{error}") };
        assert_eq!(status.code(), Some(3));
        assert_eq!(stderr_tail, "first\nlast");
    }

    #[test]
    fn only_the_end_of_a_long_stderr_is_kept_and_lines_stay_whole() {
        let finished =
            shell("i=0; while [ $i -lt 1000 ]; do echo line-$i >&2; i=$((i+1)); done").run().unwrap();
        assert!(finished.stderr_tail.len() <= TAIL);
        assert!(finished.stderr_tail.starts_with("line-") && finished.stderr_tail.ends_with("line-999"));
    }

    #[test]
    fn a_program_that_never_stops_talking_does_not_fill_the_memory() {
        let flood = |limit| shell("exec yes").limit(Duration::from_millis(limit), WhenLate::Kill).run();
        let before = memory();
        assert!(matches!(flood(500), Err(CommandError::Killed { .. })));
        let error = shell("yes 'one more line' | head -c 200000000").output().unwrap_err();
        assert!(matches!(error, CommandError::TooMuch { bytes: 200_000_000, .. }), "{error}");
        let finished = shell("yes 'one more line' | head -c 200000000 >&2; echo last >&2").run().unwrap();
        assert!(finished.stderr_tail.ends_with("line\nlast") || finished.stderr_tail.ends_with("last"));
        // 700 MB were said, and some GB by `yes` alone.
        assert!(memory() < before + (256 << 20), "{} from {before}", memory());
    }

    /// The largest this process has been, in bytes.
    fn memory() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    #[test]
    fn what_a_program_leaves_behind_on_purpose_is_neither_waited_for_nor_ended() {
        let patience = Duration::from_secs(30);
        let run = shell("sleep 60 >/dev/null & echo $!").limit(patience, WhenLate::Leave).may_leave_daemons();
        let said = run.output().unwrap();
        let pid: i32 = String::from_utf8(said).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Invocation::new("no-such-program-here").output().unwrap_err();
        assert!(matches!(error, CommandError::Missing { program } if program == "no-such-program-here"));
    }

    #[test]
    fn a_late_command_is_killed_or_left_as_asked() {
        let short = Duration::from_millis(20);
        let error = shell("exec sleep 60").limit(short, WhenLate::Kill).output().unwrap_err();
        assert!(matches!(error, CommandError::Killed { .. }), "{error}");

        let error = shell("exec sleep 60").limit(short, WhenLate::Leave).output().unwrap_err();
        let CommandError::StillRunning { pid, .. } = error else { panic!("{error}") };
        let pid = nix::unistd::Pid::from_raw(pid as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is still there");
        nix::sys::wait::waitpid(pid, None).unwrap();
    }

    #[test]
    fn a_late_command_is_killed_with_what_it_has_started() {
        let directory = tempfile::tempdir().unwrap();
        let pid_file = directory.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait", pid_file.display());
        let error = shell(&script).limit(Duration::from_millis(300), WhenLate::Kill).output().unwrap_err();
        assert!(matches!(error, CommandError::Killed { .. }), "{error}");
        let pid = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        // Known to be dead when the error is told, though perhaps not yet reaped by whoever adopted it.
        assert!(ProcessIdentity::of(pid).is_none_or(|left| !left.lives()));
    }

    #[test]
    fn a_command_does_not_hear_the_signals_of_our_group() {
        let group = shell("cut -d' ' -f5 /proc/$$/stat").output().unwrap();
        let group: i32 = String::from_utf8(group).unwrap().trim().parse().unwrap();
        assert_ne!(group, nix::unistd::getpgrp().as_raw());
    }

    #[test]
    fn a_background_grandchild_does_not_hold_up_the_caller() {
        let begun = Instant::now();
        let output = shell("sleep 5 & echo $!").output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(4));
        let pid: i32 = String::from_utf8(output).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_program_that_may_not_be_disturbed_is_known_on_disk_until_all_of_it_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let (record, fifo) = (directory.path().join("helper.json"), directory.path().join("fifo"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // The leader ends at once; what it has started works on until somebody opens the pipe.
        let script = format!("cat {} & exit 3", fifo.display());
        let run = shell(&script).limit(Duration::from_millis(50), WhenLate::Leave).known_at(&record);
        let error = run.output().unwrap_err();
        let CommandError::StillRunning { pid, .. } = error else { panic!("{error}") };
        let known: ProcessIdentity = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        assert_eq!(known.pid, pid);
        assert!(known.group_lives().unwrap());
        drop(File::options().write(true).open(&fifo).unwrap());
        while known.group_lives().unwrap() {}

        shell("exit 3")
            .limit(Duration::from_secs(60), WhenLate::Leave)
            .known_at(&record)
            .output()
            .unwrap_err();
        assert!(!record.exists(), "it has ended");
    }

    #[test]
    fn a_program_that_cannot_be_made_known_does_not_run() {
        let directory = tempfile::tempdir().unwrap();
        let trace = directory.path().join("trace");
        let script = format!("sleep 60; echo > {}", trace.display());
        let run = shell(&script).known_at(directory.path().join("no/such/directory/helper.json"));
        assert!(matches!(run.output(), Err(CommandError::Run { .. })));
        assert!(!trace.exists());
    }

    #[test]
    fn a_program_on_null_streams_speaks_through_its_log() {
        // The arguments of `sh` begin with `--log FILE --log-format json`; -c makes them $0 and on.
        let line = r#"{"level":"error","msg":"no such thing","time":"t"}"#;
        let finished = Invocation::new("sh").speaking_by_log();
        assert_eq!(
            log_messages(&format!("{line}\n{}", r#"{"level":"info","msg":"x","time":"t"}"#)),
            "no such thing"
        );
        assert!(!finished.run().unwrap().status.success(), "sh has no --log");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(Invocation::new("cat").input("one\ntwo\n").output().unwrap(), b"one\ntwo\n");
        let mut file = memory_file("input").unwrap();
        file.write_all(b"three\n").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(Invocation::new("cat").input_file(file).output().unwrap(), b"three\n");
    }
}
