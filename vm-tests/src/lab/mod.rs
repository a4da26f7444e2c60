//! The lab: stock Debian kernels in virtual machines, made and run without any set-up by hand.
//!
//! | module | what |
//! |---|---|
//! | [`needs`] | what the lab executes on this machine, and that it is there |
//! | [`install`], [`aside`] | packages installed without removing any, or unpacked beside what is installed |
//! | [`host`] | starts programs on this machine |
//! | [`steps`] | what took how long |
//! | [`cache`] | where built things are kept, each built once |
//! | [`apt`] | packages of any Debian suite |
//! | [`bare`] | a bare Debian in a directory, without a machine |
//! | [`kernel`] | kernel packages: image, modules, headers |
//! | [`initramfs`] | the few files that a kernel needs to find its root |
//! | [`distribution`] | the Debian releases that machines run |
//! | [`image`] | the guest's Debian root |
//! | [`turns`] | how many machines of tests run at once |
//! | [`firmware`] | QEMU's own start of a kernel, or UEFI under Secure Boot |
//! | [`python`] | Python programs that only PyPI has |
//! | [`spec`] | what kind of machine is wanted |
//! | [`qemu`], [`qmp`] | QEMU's command line, life and monitor |
//! | [`control`] | run commands in a guest, copy files |
//! | [`signal`] | guest programs tell the host where they are |
//! | [`console`] | the kernel log, and signs of harm in it |
//! | [`machine`] | a machine: power cuts, boots, snapshots |
//!
//! [`Lab`] is the way in.

pub mod apt;
pub mod aside;
pub mod bare;
pub mod cache;
pub mod console;
pub mod control;
pub mod distribution;
pub mod firmware;
pub mod host;
pub mod image;
pub mod initramfs;
pub mod install;
pub mod kernel;
pub mod machine;
pub mod needs;
pub mod python;
pub mod qemu;
mod qmp;
pub mod signal;
pub mod spec;
pub mod steps;
pub mod turns;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use self::cache::{Cache, Recipe};
use self::distribution::Distribution;
use self::firmware::{BootFiles, Firmware, SecureBoot};
use self::host::Step;
use self::image::Image;
use self::kernel::Kernel;
use self::machine::{Home, Machine, Record, Snapshot, layer};
use self::qemu::{Begin, Lifetime};
use self::spec::MachineSpec;
use self::turns::Turn;

/// Everything that machines are made of, ready for use.
#[derive(Debug)]
pub struct Lab {
    cache: Cache,
    turn: Option<Turn>,
}

impl Lab {
    /// Installs what is missing, and clears away what dead runs left.
    pub fn open() -> Result<Self> {
        let cache = Cache::open()?;
        needs::require(&cache, &needs::of_machines())?;
        let lab = Self { cache, turn: None };
        lab.sweep()?;
        Ok(lab)
    }

    /// Like [`Self::open`], but waits until this host bears one more machine beside those of other tests, however the
    /// tests are run.
    pub fn for_test() -> Result<Self> {
        let mut lab = Self::open()?;
        lab.turn = Some(Turn::wait(&lab.cache)?);
        Ok(lab)
    }

    /// How many machines may run at once through this lab.
    pub fn machines_at_once(&self) -> usize {
        if self.turn.is_some() { 1 } else { turns::machines_at_once() }
    }

    /// The store of built things.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// A kernel's files, fetched when they are not there.
    pub fn kernel(&self, release: &str) -> Result<Kernel> {
        Kernel::prepare(&self.cache, release)
    }

    fn image(&self, distribution: Distribution) -> Result<Image> {
        Image::prepare(&self.cache, distribution)
    }

    /// Boots a machine from nothing, and waits until all of its units are up.
    pub fn boot(&self, spec: &MachineSpec) -> Result<Machine> {
        self.begin(self.new_home(None)?, spec, Lifetime::Owned, None)
    }

    /// Like [`Self::boot`], in about a second: continues a snapshot of a booted machine, which is made
    /// the first time and kept in the cache.
    pub fn ready(&self, spec: &MachineSpec) -> Result<Machine> {
        self.restore(&self.ready_snapshot(spec)?)
    }

    /// Boots the disk of another machine, which moves here: what was kept by
    /// [`Machine::disk_as_if_killed`]. The snapshot that it goes on from must still be there.
    pub fn boot_disk(&self, disk: &Path, spec: &MachineSpec) -> Result<Machine> {
        let home = self.new_home(None)?;
        fs::rename(disk, home.dir.join("disk.qcow2"))
            .with_context(|| format!("taking over the disk {}", disk.display()))?;
        let key = self.image(spec.distribution)?.login_key();
        Machine::start(home, spec.clone(), self.boot_files(spec)?, key, Lifetime::Owned, Begin::Boot)
    }

    /// Starts a machine that goes on where the snapshot was taken. One that does not come up is started once more, on a
    /// layer of its own: an emulated machine on a busy host may stall.
    pub fn restore(&self, snapshot: &Snapshot) -> Result<Machine> {
        let start = || self.begin(self.new_home(None)?, snapshot.spec(), Lifetime::Owned, Some(snapshot));
        start().or_else(|error| {
            eprintln!("lab: a machine did not go on from its snapshot and is started again: {error:#}");
            start()
        })
    }

    /// Like [`Self::ready`], but the machine has a name and outlives this process.
    pub fn up(&self, name: &str, spec: &MachineSpec) -> Result<Machine> {
        self.keep(name, &self.ready_snapshot(spec)?)
    }

    /// Like [`Self::restore`], but the machine has a name and outlives this process.
    pub fn keep(&self, name: &str, snapshot: &Snapshot) -> Result<Machine> {
        self.begin(self.new_home(Some(name))?, snapshot.spec(), Lifetime::Kept, Some(snapshot))
    }

    /// Like [`Self::boot`], but the machine has a name and outlives this process.
    pub fn boot_kept(&self, name: &str, spec: &MachineSpec) -> Result<Machine> {
        self.begin(self.new_home(Some(name))?, spec, Lifetime::Kept, None)
    }

    /// A snapshot that is made once by `set_up` on a booted machine, and then found in the cache.
    ///
    /// `recipe` must hold all that decides the outcome of `set_up`; image, kernel and size of the
    /// machine are added here.
    pub fn snapshot(
        &self,
        kind: &str,
        spec: &MachineSpec,
        mut recipe: Recipe,
        set_up: impl FnOnce(&mut Machine) -> Result<()>,
    ) -> Result<Snapshot> {
        let kernel = self.kernel(&spec.kernel)?;
        let qemu = host::run(host::program("qemu-system-x86_64").arg("--version"))?;
        recipe.add("snapshot-1");
        recipe.add(self.image(spec.distribution)?.identity());
        recipe.add(kernel.initramfs().display().to_string());
        recipe.add(serde_json::to_vec(spec)?);
        recipe.add(qemu);
        recipe.add(std::env::var("LAB_ACCEL").unwrap_or_default());
        let dir = self.cache.entry(&format!("snapshot-{kind}"), &recipe, |dir| {
            let step = Step::begin(&format!("booting {} for the snapshot `{kind}`", spec.kernel));
            let mut machine = self.boot(spec)?;
            set_up(&mut machine)?;
            machine.snapshot_into(dir)?;
            step.end();
            Ok(())
        })?;
        Snapshot::open(&dir)
    }

    /// A snapshot of a machine that goes on from another snapshot and is changed by `set_up`, for what differs with every
    /// build: it is kept for as long as it is used every day.
    pub fn snapshot_from(
        &self,
        kind: &str,
        base: &Snapshot,
        mut recipe: Recipe,
        set_up: impl FnOnce(&mut Machine) -> Result<()>,
    ) -> Result<Snapshot> {
        recipe.add(base.disk().as_os_str().as_encoded_bytes());
        let kind = format!("snapshot-{kind}");
        self.cache.retire(&kind)?;
        let dir = self.cache.entry(&kind, &recipe, |dir| {
            let mut machine = self.restore(base)?;
            set_up(&mut machine)?;
            machine.snapshot_into(dir).map(drop)
        })?;
        Snapshot::open(&dir)
    }

    /// A machine started by [`Self::up`], perhaps by another process.
    pub fn attach(&self, name: &str) -> Result<Machine> {
        let dir = self.place_of(name)?;
        let record = Record::read(&dir).with_context(|| format!("there is no machine `{name}`"))?;
        ensure!(record.lifetime == Lifetime::Kept, "the machine `{name}` belongs to another process");
        let files = self.boot_files(&record.spec)?;
        Ok(Machine::attach(Home::open(dir, record.sockets.clone())?, files, record))
    }

    /// Names of the kept machines.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.cache.machines())? {
            let entry = entry?;
            if Record::read(&entry.path()).is_ok_and(|record| record.lifetime == Lifetime::Kept) {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn ready_snapshot(&self, spec: &MachineSpec) -> Result<Snapshot> {
        self.snapshot("ready", spec, Recipe::default(), |_| Ok(()))
    }

    fn begin(
        &self,
        home: Home,
        spec: &MachineSpec,
        lifetime: Lifetime,
        snapshot: Option<&Snapshot>,
    ) -> Result<Machine> {
        let files = self.boot_files(spec)?;
        let disk = home.dir.join("disk.qcow2");
        let image = self.image(spec.distribution)?;
        let key = image.login_key();
        match snapshot {
            None => {
                layer(&image.disk(), "raw", &disk)?;
                Machine::start(home, spec.clone(), files, key, lifetime, Begin::Boot)
            }
            Some(snapshot) => {
                layer(&snapshot.disk(), "qcow2", &disk)?;
                let memory = snapshot.memory();
                Machine::start(home, spec.clone(), files, key, lifetime, Begin::Resume(&memory))
            }
        }
    }

    /// What the machine boots.
    fn boot_files(&self, spec: &MachineSpec) -> Result<BootFiles> {
        let secure_boot = match spec.firmware {
            Firmware::Direct => None,
            Firmware::SecureBoot => Some(SecureBoot::prepare(&self.cache)?),
        };
        Ok(BootFiles { kernel: self.kernel(&spec.kernel)?, secure_boot })
    }

    fn place_of(&self, name: &str) -> Result<PathBuf> {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(fine) {
            bail!("`{name}` is no name for a machine: use letters, digits, `-`, `_` and `.`");
        }
        Ok(self.cache.machines().join(name))
    }

    /// Makes the directory of a new machine, named or with a name that no other has.
    fn new_home(&self, name: Option<&str>) -> Result<Home> {
        let dir = match name {
            Some(name) => self.place_of(name)?,
            None => {
                let unused = tempfile::Builder::new().prefix("~").tempdir_in(self.cache.machines())?;
                let path = unused.path().to_owned();
                unused.close()?;
                path
            }
        };
        let _lock = self.lock_machines()?;
        Home::create(dir)
    }

    /// Held while directories of machines come and go.
    fn lock_machines(&self) -> Result<File> {
        let lock = File::create(self.cache.lock_file("machines"))?;
        lock.lock()?;
        Ok(lock)
    }

    /// Removes the files of machines whose owner is gone, and of those that never started.
    fn sweep(&self) -> Result<()> {
        let _lock = self.lock_machines()?;
        for entry in fs::read_dir(self.cache.machines())? {
            let dir = entry?.path();
            let record = Record::read(&dir).ok();
            if record.as_ref().is_some_and(|record| record.lifetime == Lifetime::Kept) {
                continue;
            }
            let abandoned = File::open(dir.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
            if abandoned {
                if let Some(record) = record {
                    let _ = fs::remove_dir_all(&record.sockets);
                }
                let _ = fs::remove_dir_all(&dir);
            }
        }
        Ok(())
    }
}
