//! A machine: a QEMU process, its disk, and the guest in it.
//!
//! Life of a machine: [`super::Lab`] starts it; [`Machine::cut_power`] and [`Machine::boot_again`] go
//! on with the same disk; [`Machine::snapshot`] turns it into a [`Snapshot`], from which any number of
//! machines start in about a second, each with its own layer of the disk.
//!
//! Invariants: dropping an owned machine ends QEMU and removes its files; a kept machine's files
//! suffice to find it again ([`super::Lab::attach`]).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::console;
use super::control::{Guest, GuestCommand};
use super::firmware::{BootFiles, Firmware};
use super::host::{program, run};
use super::kernel::Kernel;
use super::qemu::{self, Begin, Lifetime, Places, Process};
use super::qmp::Qmp;
use super::signal::Signals;
use super::spec::MachineSpec;

/// An emulated boot takes 10 s on an idle host; a busy one is several times slower.
const BOOT_PATIENCE: Duration = Duration::from_secs(300);

/// What the first program of a boot writes to the console.
const FIRST_PROGRAM: &str = "lab-init: started";
/// A kernel that writes nothing for so long before its first program runs has stopped dead. Under QEMU 7.2
/// without KVM one boot of forty-eight did so on a host at a load of nine.
const STALL: Duration = Duration::from_secs(60);
/// Firmware, shim and GRUB verify a kernel of twelve megabytes in silence, before it unpacks itself in silence.
const STALL_OF_FIRMWARE: Duration = Duration::from_secs(240);
/// How often a kernel is started before its stalling is a failure.
const STARTS: u32 = 3;

/// What another process needs to know to use a kept machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) spec: MachineSpec,
    pub(crate) lifetime: Lifetime,
    pub(crate) pid: i32,
    pub(crate) sockets: PathBuf,
    pub(crate) ssh_port: u16,
    pub(crate) login_key: PathBuf,
}

impl Record {
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        Ok(serde_json::from_slice(&fs::read(dir.join("machine.json"))?)?)
    }
}

/// A machine's own directory, and the lock that says that its owner lives.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    pub(crate) sockets: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes the directory of a new machine.
    pub(crate) fn create(dir: PathBuf) -> Result<Self> {
        fs::create_dir(&dir).with_context(|| format!("a machine already has {}", dir.display()))?;
        let sockets = tempfile::Builder::new().prefix("update-lab-").tempdir()?.keep();
        Self::open(dir, sockets)
    }

    pub(crate) fn open(dir: PathBuf, sockets: PathBuf) -> Result<Self> {
        let lock = File::create(dir.join("lock"))?;
        // A kept machine is used by several processes; only an owner's lock matters.
        let _ = lock.try_lock();
        Ok(Self { dir, sockets, _lock: lock })
    }

    fn places(&self) -> Places<'_> {
        Places { dir: &self.dir, sockets: &self.sockets }
    }

    fn remove(&self) {
        let _ = fs::remove_dir_all(&self.sockets);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A machine that was started here or found again.
#[derive(Debug)]
pub struct Machine {
    pub(crate) home: Home,
    files: BootFiles,
    record: Record,
    process: Option<Process>,
    guest: Guest,
    signals: Option<Signals>,
}

impl Machine {
    /// Starts QEMU on a disk that lies in `home` and waits until the guest is up.
    pub(crate) fn start(
        home: Home,
        spec: MachineSpec,
        files: BootFiles,
        login_key: PathBuf,
        lifetime: Lifetime,
        begin: Begin<'_>,
    ) -> Result<Self> {
        let guest = Guest::new(&home.sockets);
        let sockets = home.sockets.clone();
        let record = Record { spec, lifetime, pid: 0, sockets, ssh_port: 0, login_key };
        let mut machine = Self { home, files, record, process: None, guest, signals: None };
        match machine.power_on(begin) {
            Ok(()) => Ok(machine),
            Err(error) => {
                machine.discard()?;
                Err(error)
            }
        }
    }

    /// Takes over a kept machine that another process has started.
    pub(crate) fn attach(home: Home, files: BootFiles, record: Record) -> Self {
        let guest = Guest::new(&home.sockets);
        let process = Some(Process::Daemon(record.pid));
        Self { home, files, record, process, guest, signals: None }
    }

    /// The guest: run commands, copy files.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Runs a shell script in the guest; see [`Guest::sh`].
    pub fn sh(&self, script: &str) -> Result<String> {
        self.guest.sh(script)
    }

    /// A command for the guest; see [`Guest::command`].
    pub fn command<I: AsRef<str>>(&self, argv: impl IntoIterator<Item = I>) -> GuestCommand {
        self.guest.command(argv)
    }

    /// The kernel that it boots.
    pub fn kernel(&self) -> &Kernel {
        &self.files.kernel
    }

    /// How it was asked for.
    pub fn spec(&self) -> &MachineSpec {
        &self.record.spec
    }

    /// Directory with the disk and the logs.
    pub fn dir(&self) -> &Path {
        &self.home.dir
    }

    /// The ssh command line that logs in as root.
    pub fn ssh(&self) -> Vec<String> {
        let port = self.record.ssh_port.to_string();
        let key = self.record.login_key.display().to_string();
        let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"];
        let mut line = vec!["ssh".to_owned(), "-p".to_owned(), port, "-i".to_owned(), key];
        line.extend(options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
        line.push("root@127.0.0.1".to_owned());
        line
    }

    /// Everything that the guest's kernel has written to its console, over all boots.
    pub fn console(&self) -> Result<String> {
        let bytes = fs::read(self.home.dir.join("console.log"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Signs of harm in the console and in the kernel's log buffer; see [`console::splats`].
    pub fn splats(&self) -> Result<Vec<String>> {
        let log = self.console()? + &self.sh("dmesg")?;
        Ok(console::splats(&log))
    }

    /// The signals that programs in the guest send.
    pub fn signals(&mut self) -> Result<&mut Signals> {
        if self.signals.is_none() {
            self.signals = Some(Signals::listen(&self.home.sockets)?);
        }
        self.signals.as_mut().ok_or_else(|| anyhow!("the signal port is gone"))
    }

    /// Waits until a guest program signals a line that starts with `prefix`.
    pub fn wait_signal(&mut self, prefix: &str, timeout: Duration) -> Result<String> {
        self.signals()?.wait(prefix, timeout)
    }

    /// True while QEMU runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Cuts the power: QEMU gets SIGKILL. What the guest had flushed to its disk is there after
    /// [`Self::boot_again`]; what it had not may be lost.
    pub fn cut_power(&mut self) -> Result<()> {
        self.signals = None;
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Copies the disk as [`Self::cut_power`] would leave it at this instant; the machine goes on.
    pub fn disk_as_if_killed(&mut self, target: &Path) -> Result<()> {
        let process = self.process.as_ref().context("the machine does not run")?;
        let pid = Pid::from_raw(process.id());
        // What QEMU holds back in its own memory is lost to a SIGKILL; a monitor command would flush it.
        kill(pid, Signal::SIGSTOP).context("stopping QEMU")?;
        let copied = fs::copy(self.home.dir.join("disk.qcow2"), target);
        kill(pid, Signal::SIGCONT).context("letting QEMU go on")?;
        copied.with_context(|| format!("copying the disk to {}", target.display()))?;
        Ok(())
    }

    /// Boots from the disk as it is, with the machine's own kernel.
    pub fn boot_again(&mut self) -> Result<()> {
        ensure!(!self.is_running(), "the machine still runs; cut its power first");
        self.power_on(Begin::Boot)
    }

    /// Ends all of userspace in order and starts it anew on the running kernel, then waits until all units are up.
    ///
    /// # Errors
    /// Also where systemd is older than 254 and does not know how.
    pub fn soft_reboot(&mut self) -> Result<()> {
        let asked = ["systemctl", "show", "--property=InvocationID", "--value", "sysinit.target"];
        let before = self.command(asked).check()?;
        // The answer may not come: the runner is stopped too.
        let _ = self.command(["systemctl", "soft-reboot"]).timeout(Duration::from_secs(10)).output();
        let deadline = Instant::now() + BOOT_PATIENCE;
        loop {
            let now = self.command(asked).timeout(Duration::from_secs(5)).check();
            if now.is_ok_and(|now| !now.is_empty() && now != before) {
                // Not before: who waits for an answer would go on if the host went away.
                self.signals = None;
                return self.wait_for_units(deadline);
            }
            ensure!(self.is_running() && Instant::now() < deadline, "userspace was not started anew");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Shuts the guest down in order, then ends QEMU.
    pub fn shut_down(&mut self) -> Result<()> {
        // The answer may not come: the runner is stopped too.
        let _ = self.command(["systemctl", "poweroff"]).timeout(Duration::from_secs(60)).output();
        let deadline = Instant::now() + BOOT_PATIENCE;
        while self.is_running() {
            ensure!(Instant::now() < deadline, "the guest did not power off");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.signals = None;
        self.process = None;
        Ok(())
    }

    /// Freezes the machine into `dir`: its disk and its memory. The machine itself ends.
    pub(crate) fn snapshot_into(mut self, dir: &Path) -> Result<Snapshot> {
        // Dirty pages would be part of the memory image, and a later power cut would lose them.
        self.sh("sync")?;
        self.signals = None;
        let mut qmp = Qmp::connect(&self.home.sockets.join("qmp"), Duration::from_secs(5))?;
        qmp.execute("stop", json!({}))?;
        let unlimited = json!({"max-bandwidth": 1u64 << 40});
        qmp.execute("migrate-set-parameters", unlimited)?;
        let state = dir.join("memory");
        qmp.execute("migrate", json!({"uri": format!("exec:cat > '{}'", state.display())}))?;
        qmp.wait_status("query-migrate", "completed", BOOT_PATIENCE)?;
        drop(qmp);
        self.cut_power()?;
        fs::rename(self.home.dir.join("disk.qcow2"), dir.join("disk.qcow2"))?;
        fs::write(dir.join("spec.json"), serde_json::to_vec_pretty(&self.record.spec)?)?;
        Snapshot::open(dir)
    }

    /// Ends the machine and removes its files.
    pub fn discard(mut self) -> Result<()> {
        self.cut_power()?;
        self.home.remove();
        Ok(())
    }

    /// Switches on, and waits until the guest is up. A kernel that stalls is started again: nothing has touched
    /// the disk by then.
    fn power_on(&mut self, begin: Begin<'_>) -> Result<()> {
        let mut starts = 1;
        while !self.start_kernel(begin).with_context(|| self.what_happened())? {
            ensure!(starts < STARTS, "the kernel stalled {STARTS} times: {}", self.what_happened());
            starts += 1;
            eprintln!("lab: the emulated kernel stalled before its first program; it is started again");
            self.cut_power()?;
        }
        self.wait_until_up(begin).with_context(|| self.what_happened())
    }

    /// Starts QEMU; true once the first program runs, false when the kernel stalls on the way there.
    fn start_kernel(&mut self, begin: Begin<'_>) -> Result<bool> {
        let console = self.home.dir.join("console.log");
        let earlier_boots = fs::metadata(&console).map_or(0, |file| file.len() as usize);
        let record = &mut self.record;
        let started = qemu::start(&record.spec, &self.files, self.home.places(), record.lifetime, begin)?;
        record.pid = started.process.id();
        record.ssh_port = started.ssh_port;
        fs::write(self.home.dir.join("machine.json"), serde_json::to_vec_pretty(&record)?)?;
        self.process = Some(started.process);
        if let Begin::Resume(_) = begin {
            return Ok(true);
        }
        let (mut length, mut last_word) = (earlier_boots, Instant::now());
        let stall = match self.record.spec.firmware {
            Firmware::Direct => STALL,
            Firmware::SecureBoot => STALL_OF_FIRMWARE,
        };
        while last_word.elapsed() < stall {
            ensure!(self.is_running(), "QEMU ended before the guest's first program ran");
            // QEMU makes the file once it runs.
            let log = fs::read(&console).unwrap_or_default();
            let this_boot = log.get(earlier_boots..).unwrap_or_default();
            if String::from_utf8_lossy(this_boot).contains(FIRST_PROGRAM) {
                return Ok(true);
            }
            if log.len() > length {
                (length, last_word) = (log.len(), Instant::now());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }

    fn wait_until_up(&mut self, begin: Begin<'_>) -> Result<()> {
        let deadline = Instant::now() + BOOT_PATIENCE;
        if let Begin::Resume(_) = begin {
            // A snapshot is taken of a stopped machine, so it comes back stopped.
            let mut qmp = Qmp::connect(&self.home.sockets.join("qmp"), Duration::from_secs(10))?;
            qmp.wait_status("query-migrate", "completed", BOOT_PATIENCE)?;
            qmp.execute("cont", json!({}))?;
        }
        let short = Duration::from_secs(5);
        loop {
            match self.command(["true"]).timeout(short).output() {
                Ok(_) => break,
                Err(_) if self.is_running() && Instant::now() < deadline => {}
                Err(error) => return Err(error).context("the guest does not answer"),
            }
        }
        match begin {
            Begin::Boot => self.wait_for_units(deadline),
            // The guest's clock stood still since the snapshot was taken.
            Begin::Resume(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                self.command(["date", "-s", &format!("@{}", now.as_secs())]).check().map(|_| ())
            }
        }
    }

    fn wait_for_units(&self, deadline: Instant) -> Result<()> {
        loop {
            let state = self.command(["systemctl", "is-system-running", "--wait"]).output()?.text();
            match state.trim() {
                "running" => return Ok(()),
                "degraded" => {
                    let failed = self.sh("systemctl --failed --plain --no-legend | cut -d' ' -f1")?;
                    eprintln!("lab: units that failed at boot: {}", failed.replace('\n', " "));
                    return Ok(());
                }
                // The bus was not up yet, or took its time to answer.
                "unknown" | "initializing" | "starting" if Instant::now() < deadline => {}
                other => bail!("the guest's system manager says `{other}` instead of `running`"),
            }
        }
    }

    /// The end of QEMU's own messages and of the console.
    fn what_happened(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read(self.home.dir.join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(15)..].join("\n")
        };
        format!("the machine did not come up\nQEMU: {}\nconsole:\n{}", tail("qemu.log"), tail("console.log"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.record.lifetime == Lifetime::Owned {
            let _ = self.cut_power();
            self.home.remove();
        }
    }
}

/// A machine's disk and memory at one instant.
#[derive(Debug, Clone)]
pub struct Snapshot {
    dir: PathBuf,
    spec: MachineSpec,
}

impl Snapshot {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let spec = serde_json::from_slice(&fs::read(dir.join("spec.json"))?)?;
        Ok(Self { dir: dir.to_owned(), spec })
    }

    /// How the machine was asked for.
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.join("disk.qcow2")
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.dir.join("memory")
    }
}

/// Makes a writable layer on top of a disk image that must not change any more.
pub(crate) fn layer(below: &Path, format: &str, target: &Path) -> Result<()> {
    run(program("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .arg(below)
        .arg(target))?;
    Ok(())
}
