//! The command line of the lab: machines by hand.

use std::io;
use std::path::PathBuf;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::demo::{self, Afterwards};
use crate::exam::{self, Seed, Share};
use crate::lab::Lab;
use crate::lab::cache::Cache;
use crate::lab::distribution::Distribution;
use crate::lab::firmware::Firmware;
use crate::lab::host::program;
use crate::lab::machine::Machine;
use crate::lab::needs;
use crate::lab::spec::MachineSpec;
use crate::prove::{self, Beginning, Change};
use crate::scene::{SECRET, Scene};
use crate::stage::Stage;
use crate::suite;
use crate::{bench, cuts, fuzzing, packages};

#[derive(Debug, Parser)]
#[command(name = "vm-tests", about = "Run stock Debian kernels in virtual machines")]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show one host taken through an update, its failure and its rollback
    Demo {
        /// What the host runs
        #[arg(long, value_enum, default_value_t)]
        distribution: Distribution,
        /// Leave the machine running
        #[arg(long)]
        keep: bool,
    },
    /// Cut the power at the step boundaries of a transaction, forward and on the way back
    PowerCuts {
        /// Cut at every so many boundaries
        #[arg(long, default_value = "1")]
        every: std::num::NonZeroUsize,
        /// Cut only a transaction that goes this way
        #[arg(long, value_enum)]
        only: Option<cuts::Direction>,
    },
    /// Measure `update` beside the commands by hand, in the same guest
    Bench {
        /// Measurements of each kind
        #[arg(long, default_value = "5")]
        runs: std::num::NonZeroUsize,
        /// Only this one
        #[arg(long)]
        only: Option<Benchmark>,
    },
    /// Make real fixes of a later kernel version into livepatches, load each and unload it
    ProveFixes(ProveArgs),
    /// Run all tests of the workspace, and a share of the exam
    Test {
        /// Decides which share of the exam; by default it changes three times a day
        #[arg(long)]
        seed: Option<u64>,
        /// Arguments for the test runner
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Go through all that is too much for every run of the tests
    Exam {
        /// Only this subject
        #[arg(long, value_name = "SUBJECT")]
        only: Vec<String>,
        /// Print what it consists of, and why, as Markdown
        #[arg(long)]
        list: bool,
    },
    /// Run the readers of what others wrote under libFuzzer, led by coverage
    Fuzz {
        /// Only this target
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
        /// How long each target runs
        #[arg(long, default_value_t = fuzzing::LED.as_secs())]
        seconds: u64,
    },
    /// Build the Debian packages, a tarball, and the lists of what is in them
    Packages {
        /// Where they go; target/packages by default
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
    },
    /// Install what the lab and the tests need on this machine, and nothing else
    Needs {
        /// Only what machines and the demo need
        #[arg(long)]
        machines: bool,
    },
    /// Install what the lab needs and build its images, without starting a machine
    Prepare(Size),
    /// Start a named machine in the background
    Up {
        /// Name to address the machine by
        #[arg(long)]
        name: String,
        /// Boot instead of continuing a snapshot of a booted machine
        #[arg(long)]
        cold: bool,
        /// With the two containers of the demo running in it
        #[arg(long, conflicts_with = "cold")]
        scene: bool,
        #[command(flatten)]
        size: Size,
    },
    /// Run a command in a named machine; the exit code is the command's
    Exec {
        /// The machine
        name: String,
        /// Seconds to wait for the command
        #[arg(long, default_value_t = 600)]
        timeout: u64,
        /// Program and arguments; nothing is expanded, use `sh -c` for a script
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Copy a file into a named machine
    Push {
        /// The machine
        name: String,
        /// File of this host
        file: PathBuf,
        /// Path in the guest
        target: String,
    },
    /// Copy a file out of a named machine
    Pull {
        /// The machine
        name: String,
        /// Path in the guest
        file: String,
        /// File of this host
        target: PathBuf,
    },
    /// Log in to a named machine
    Shell {
        /// The machine
        name: String,
    },
    /// Print the kernel log that a named machine wrote to its console
    Console {
        /// The machine
        name: String,
    },
    /// Cut the power of a named machine and boot it again from its disk
    Cut {
        /// The machine
        name: String,
    },
    /// Stop a named machine and remove its disk
    Down {
        /// The machines
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// List the named machines
    List,
    /// Run one command in a fresh machine that ends with it
    Run {
        #[command(flatten)]
        size: Size,
        /// Copy a file of this host into the machine first
        #[arg(long, value_name = "FILE:DEST")]
        push: Vec<String>,
        /// Program and arguments
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct ProveArgs {
    /// Kernel release to patch
    #[arg(long, default_value = Distribution::default().kernel())]
    kernel: String,
    /// Version of the source package that has the fixes; the newest by default
    #[arg(long, value_name = "VERSION")]
    later: Option<String>,
    /// Fixes to try, not counting those that are incomplete or not in this kernel
    #[arg(long, default_value_t = 160)]
    limit: usize,
    /// Try only this file
    #[arg(long, value_name = "PATH")]
    only: Vec<String>,
    /// File to write the report to; beside it, the same as .json
    #[arg(long, value_name = "FILE", default_value = "fixes.md")]
    report: PathBuf,
    /// Program to build with, instead of this workspace's
    #[arg(long, value_name = "PATCH-TOOLS")]
    program: Option<PathBuf>,
    /// Fixes to build at once, each with one compiler
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Which refusals the report argues: twenty, picked by this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Go on after the fixes that are in the report
    #[arg(long)]
    resume: bool,
    /// Move each file's lines instead of taking its fix: nothing may count as changed
    #[arg(long)]
    moved_lines: bool,
}

#[derive(Debug, Args)]
struct Size {
    /// What is on its disk
    #[arg(long, value_enum, default_value_t)]
    distribution: Distribution,
    /// Kernel release; by default the distribution's own
    #[arg(long)]
    kernel: Option<String>,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Virtual processors; by default as many as the distribution's kernel bears
    #[arg(long)]
    cpus: Option<u32>,
    /// Word to add to the kernel's command line
    #[arg(long, value_name = "WORD")]
    append: Vec<String>,
    /// Start the packaged kernel by UEFI, shim and GRUB under Secure Boot
    #[arg(long)]
    secure_boot: bool,
}

impl Size {
    fn spec(&self) -> MachineSpec {
        let usual = MachineSpec::of(self.distribution);
        MachineSpec {
            distribution: self.distribution,
            kernel: self.kernel.clone().unwrap_or(usual.kernel),
            firmware: if self.secure_boot { Firmware::SecureBoot } else { Firmware::Direct },
            memory_mib: self.memory,
            cpus: self.cpus.unwrap_or(usual.cpus),
            kernel_arguments: self.append.clone(),
        }
    }
}

/// What `bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// A livepatch, beside insmod
    Livepatch,
    /// For how long a container stands still, beside runc
    Frozen,
    /// A thousand processes looked at, beside needrestart
    Scan,
}

/// Parses the command line and obeys it; returns the exit code.
pub fn run() -> Result<u8> {
    match Cli::parse().command {
        Action::Demo { distribution, keep } => {
            demo::run(distribution, if keep { Afterwards::Keep } else { Afterwards::Discard })?;
            Ok(0)
        }
        Action::PowerCuts { every, only } => {
            let lab = Lab::open()?;
            let stage = Stage::set(&lab)?;
            for direction in only.map_or_else(|| cuts::Direction::ALL.to_vec(), |only| vec![only]) {
                let count = cuts::run(&lab, &stage, direction, Share::one_of_every(every))?;
                println!("{direction:?}: {count} cuts, each ended all old or all new");
            }
            Ok(0)
        }
        Action::Bench { runs, only } => {
            let wanted = only.map_or_else(|| Benchmark::value_variants().to_vec(), |only| vec![only]);
            for benchmark in wanted {
                match benchmark {
                    Benchmark::Livepatch => bench::livepatch(&Lab::open()?, runs)?,
                    Benchmark::Frozen => bench::frozen(&Lab::open()?, runs)?,
                    Benchmark::Scan => {
                        needs::require(&Cache::open()?, &needs::of_machines())?;
                        bench::scan(runs)?;
                    }
                }
            }
            Ok(0)
        }
        Action::ProveFixes(args) => prove_fixes(args),
        Action::Test { seed, arguments } => {
            let seed = seed.map_or_else(Seed::of_this_run, |number| Ok(Seed(number)))?;
            suite::run(seed, &arguments)
        }
        Action::Exam { list: true, .. } => {
            print!("{}", exam::page());
            Ok(0)
        }
        Action::Exam { only, list: false } => exam::run(&only),
        Action::Fuzz { targets, seconds } => {
            needs::require(&Cache::open()?, &needs::of_tests())?;
            fuzzing::led(&targets, Duration::from_secs(seconds))?;
            Ok(0)
        }
        Action::Packages { out } => {
            needs::require(&Cache::open()?, &needs::of_packages())?;
            for path in packages::run_for_users(out)? {
                println!("{}", path.display());
            }
            Ok(0)
        }
        Action::Needs { machines } => {
            let wanted = if machines { needs::of_machines() } else { needs::of_tests() };
            needs::require(&Cache::open()?, &wanted)?;
            Ok(0)
        }
        Action::Prepare(size) => {
            Lab::open()?.ready(&size.spec())?;
            Ok(0)
        }
        Action::Up { name, cold, scene, size } => {
            let lab = Lab::open()?;
            let spec = size.spec();
            let machine = match (scene, cold) {
                (true, _) => Scene::keep(&lab, &name, &spec.kernel_argument(SECRET))?.machine,
                (false, true) => lab.boot_kept(&name, &spec)?,
                (false, false) => lab.up(&name, &spec)?,
            };
            println!("{name} is up; its files are in {}", machine.dir().display());
            println!("log in: {}", machine.ssh().join(" "));
            Ok(0)
        }
        Action::Exec { name, timeout, command } => {
            let machine = running(&name)?;
            pass_through(&machine, &command, Duration::from_secs(timeout))
        }
        Action::Push { name, file, target } => {
            running(&name)?.guest().push(&file, &target)?;
            Ok(0)
        }
        Action::Pull { name, file, target } => {
            running(&name)?.guest().pull(&file, &target)?;
            Ok(0)
        }
        Action::Shell { name } => {
            let line = running(&name)?.ssh();
            let status = program(&line[0]).args(&line[1..]).status().context("ssh")?;
            Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Action::Console { name } => {
            print!("{}", Lab::open()?.attach(&name)?.console()?);
            Ok(0)
        }
        Action::Cut { name } => {
            let mut machine = Lab::open()?.attach(&name)?;
            machine.cut_power()?;
            machine.boot_again()?;
            Ok(0)
        }
        Action::Down { names } => {
            let lab = Lab::open()?;
            names.iter().try_for_each(|name| lab.attach(name)?.discard())?;
            Ok(0)
        }
        Action::List => {
            let lab = Lab::open()?;
            for name in lab.names()? {
                let mut machine = lab.attach(&name)?;
                let state = if machine.is_running() { "running" } else { "stopped" };
                println!("{name}\t{state}\t{}", machine.spec().kernel);
            }
            Ok(0)
        }
        Action::Run { size, push, command } => {
            let machine = Lab::open()?.ready(&size.spec())?;
            for pair in &push {
                let (file, target) = pair.split_once(':').context("--push takes FILE:DEST")?;
                machine.guest().push(file.as_ref(), target)?;
            }
            pass_through(&machine, &command, Duration::from_secs(3600))
        }
    }
}

/// The exit code is 1 if a fix that a livepatch can carry did not come through.
fn prove_fixes(args: ProveArgs) -> Result<u8> {
    let options = prove::Options {
        kernel: args.kernel,
        later: args.later,
        limit: args.limit,
        only: args.only,
        files: usize::MAX,
        share: Share::ALL,
        program: args.program,
        report: args.report,
        jobs: args.jobs,
        seed: args.seed,
        change: if args.moved_lines { Change::MovedLines } else { Change::Fix },
        beginning: if args.resume { Beginning::Resumed } else { Beginning::Anew },
    };
    let report = prove::run(&Lab::open()?, &options)?;
    println!("{}", report.summary());
    Ok(u8::from(!report.is_good()))
}

fn running(name: &str) -> Result<Machine> {
    let mut machine = Lab::open()?.attach(name)?;
    ensure!(
        machine.is_running(),
        "{name} is stopped; `vm-tests cut {name}` boots it, `vm-tests down {name}` removes it"
    );
    Ok(machine)
}

fn pass_through(machine: &Machine, command: &[String], timeout: Duration) -> Result<u8> {
    let status = machine.command(command).timeout(timeout).stream(&mut io::stdout(), &mut io::stderr())?;
    Ok(u8::try_from(status).unwrap_or(1))
}
