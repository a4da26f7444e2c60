//! Starts QEMU: the command line of a lab machine, and the promise that it dies with us.
//!
//! Invariant: a QEMU started with [`Lifetime::Owned`] gets SIGKILL from the kernel when this process
//! ends in whatever way. One started with [`Lifetime::Kept`] runs on until it is told to stop.
//!
//! KVM is not tried unless `LAB_ACCEL` asks for it: some machines have `/dev/kvm` and hang with it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::control::{Guest, PORTS};
use super::firmware::BootFiles;
use super::host::program;
use super::spec::MachineSpec;

/// All that TCG can emulate, under the name of a processor that never had Meltdown (page-table isolation
/// would flush the emulated TLB at every system call), nor Retbleed, nor the idle erratum E400 that TCG's
/// default family number stands for. So the stock kernel leaves out the workarounds by itself.
const EMULATED_CPU: &str = "max,vendor=AuthenticAMD,family=18,model=1,stepping=0";

/// What ends a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// The end of the process that started it, or the drop of its handle.
    Owned,
    /// Only an explicit command.
    Kept,
}

/// What a machine's CPUs do first.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin<'a> {
    /// Boot the kernel.
    Boot,
    /// Go on from a saved state (RAM and devices).
    Resume(&'a Path),
}

/// Where one machine keeps its files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// Disk, logs, state.
    pub(crate) dir: &'a Path,
    /// Unix sockets; short, since their paths are limited to 107 bytes.
    pub(crate) sockets: &'a Path,
}

/// A QEMU process.
#[derive(Debug)]
pub(crate) enum Process {
    Child(Child),
    Daemon(i32),
}

impl Process {
    pub(crate) fn id(&self) -> i32 {
        match self {
            Self::Child(child) => child.id() as i32,
            Self::Daemon(pid) => *pid,
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        match self {
            Self::Child(child) => matches!(child.try_wait(), Ok(None)),
            Self::Daemon(pid) => is_qemu(*pid),
        }
    }

    /// SIGKILL, as a power cut: QEMU writes nothing more.
    pub(crate) fn kill(&mut self) -> Result<()> {
        match self {
            Self::Child(child) => {
                child.kill()?;
                child.wait()?;
            }
            Self::Daemon(pid) => {
                if is_qemu(*pid) {
                    kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
                }
                while is_qemu(*pid) {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
        }
        Ok(())
    }
}

/// True when `pid` is a QEMU: a number from a file may belong to someone else by now.
fn is_qemu(pid: i32) -> bool {
    // Not its name: one that runs from a tree of its own has the loader's. A zombie has no command line.
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| String::from_utf8_lossy(&line).split('\0').any(|word| word.contains("qemu-system")))
}

/// A started QEMU and the host port that leads to the guest's ssh.
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) ssh_port: u16,
}

/// Starts QEMU for a machine.
pub(crate) fn start(
    spec: &MachineSpec,
    files: &BootFiles,
    places: Places<'_>,
    lifetime: Lifetime,
    begin: Begin<'_>,
) -> Result<Started> {
    let ssh_port = free_port()?;
    let mut command = match lifetime {
        // QEMU asks to be killed when the thread that started it ends; see `spawn_from_lasting_thread`.
        Lifetime::Owned => {
            let mut wrapped = program("setpriv");
            wrapped.args(["--pdeathsig", "KILL"]).arg(program("qemu-system-x86_64").get_program());
            wrapped
        }
        Lifetime::Kept => {
            let mut plain = program("qemu-system-x86_64");
            plain.args(["-daemonize", "-pidfile"]).arg(places.dir.join("qemu.pid"));
            plain
        }
    };
    arguments(&mut command, spec, files, places, ssh_port)?;
    if let Begin::Resume(state) = begin {
        command.arg("-incoming").arg(format!("exec:cat '{}'", state.display()));
    }
    let log = File::create(places.dir.join("qemu.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let process = match lifetime {
        Lifetime::Owned => Process::Child(spawn_from_lasting_thread(command)?),
        Lifetime::Kept => {
            let status = command.status().context("QEMU could not be started")?;
            if !status.success() {
                bail!("QEMU did not start:\n{}", fs::read_to_string(places.dir.join("qemu.log"))?);
            }
            let pid = fs::read_to_string(places.dir.join("qemu.pid"))?;
            Process::Daemon(pid.trim().parse().context("QEMU's pid file")?)
        }
    };
    Ok(Started { process, ssh_port })
}

fn arguments(
    command: &mut Command,
    spec: &MachineSpec,
    files: &BootFiles,
    places: Places<'_>,
    ssh_port: u16,
) -> Result<()> {
    let kernel = &files.kernel;
    let accel = std::env::var("LAB_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".to_owned());
    let cpu = if accel.starts_with("tcg") { EMULATED_CPU } else { "max" };
    let socket = |name: &str| places.sockets.join(name).display().to_string();
    let file = |name: &str| places.dir.join(name).display().to_string();

    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-accel", &accel, "-cpu", cpu]);
    command.args(["-smp", &spec.cpus.to_string(), "-m", &spec.memory_mib.to_string()]);
    let clock = emulated_clock().filter(|_| accel.starts_with("tcg"));
    let command_line = format!("{}{}", spec.kernel_command_line(), clock.unwrap_or_default());
    match &files.secure_boot {
        None => {
            command.args(["-machine", "q35", "-append", &command_line]);
            command.arg("-kernel").arg(kernel.vmlinux()).arg("-initrd").arg(kernel.initramfs());
        }
        Some(secure_boot) => {
            secure_boot.equip(places.dir, kernel, &command_line)?;
            // System management mode keeps the variables from everybody but the firmware.
            command.args(["-machine", "q35,smm=on"]);
            command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
            let code = secure_boot.code().display().to_string();
            for (unit, flash) in [format!("{code},readonly=on"), file("variables.fd")].iter().enumerate() {
                command.args(["-drive", &format!("if=pflash,format=raw,unit={unit},file={flash}")]);
            }
        }
    }

    command.args(["-chardev", &format!("file,id=console,path={},append=on", file("console.log"))]);
    command.args(["-serial", "chardev:console"]);
    command.args(["-device", "virtio-serial,max_ports=16"]);
    for port in 1..=PORTS {
        port_argument(command, port, &format!("lab.control.{port}"), &socket(&Guest::socket_name(port)), "");
    }
    let log = format!(",logfile={},logappend=on", file("signal.log"));
    port_argument(command, PORTS + 1, "lab.signal", &socket("signal"), &log);

    // Writes are in the host's page cache once QEMU says so, and QEMU's death does not undo them. What
    // the guest has not flushed can be lost: QEMU keeps the layer's tables in memory until a flush.
    command.args([
        "-drive",
        &format!("if=none,id=root,file={},format=qcow2,cache=writeback,discard=unmap", file("disk.qcow2")),
    ]);
    command.args(["-device", "virtio-blk,drive=root"]);
    command.args([
        "-drive",
        &format!("if=none,id=modules,file={},format=raw,readonly=on", kernel.modules_disk().display()),
    ]);
    command.args(["-device", "virtio-blk,drive=modules"]);
    if files.secure_boot.is_some() {
        command.args(["-drive", &format!("if=none,id=esp,file={},format=raw", file("esp.img"))]);
        command.args(["-device", "virtio-blk,drive=esp,bootindex=1"]);
    }

    command.args(["-netdev", &format!("user,id=net,hostfwd=tcp:127.0.0.1:{ssh_port}-:22")]);
    command.args(["-device", "virtio-net,netdev=net"]);
    command.args(["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng,rng=rng"]);
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", socket("qmp"))]);
    Ok(())
}

/// Tells the kernel how fast its time stamp counter runs, which under emulation is the host's own. Left to
/// measure it against emulated timers on a busy host, one kernel in six is wrong by a factor of up to five,
/// and so are all its seconds. None when the host does not say.
fn emulated_clock() -> Option<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").ok()?;
    // Linux derives this number from the counter's speed: two per cycle.
    let line = processors.lines().find(|line| line.starts_with("bogomips"))?;
    let bogomips: f64 = line.split(": ").nth(1)?.trim().parse().ok()?;
    cfg!(target_arch = "x86_64").then(|| format!(" tsc_early_khz={:.0}", bogomips * 500.0))
}

fn port_argument(command: &mut Command, number: u32, name: &str, socket: &str, more: &str) {
    command.args(["-chardev", &format!("socket,id=port{number},path={socket},server=on,wait=off{more}")]);
    command.args(["-device", &format!("virtserialport,chardev=port{number},nr={number},name={name}")]);
}

/// A port of the loopback interface that nothing listens on at this moment.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts a command from a thread that lives as long as the process.
///
/// The kernel sends the "parent died" signal when the *thread* that forked ends, and test runners give
/// each test a thread of its own.
fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in queue {
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let (reply, result) = mpsc::channel();
    spawner.send((command, reply)).map_err(|_| anyhow!("the thread that starts QEMU has ended"))?;
    result.recv()?.context("QEMU could not be started")
}
