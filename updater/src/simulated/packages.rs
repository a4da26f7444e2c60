//! A simulated host below the containers: a package manager, services, and what their processes have mapped.
//!
//! There is one package that matters, with the library that every service maps. A service runs the version that was
//! installed when it was started. An installation takes two requests, between which the program may die: then the package
//! is half-way. A package file is the text `NAME VERSION ARCHITECTURE`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use manifests::{PackageVersion, ServiceName};
use system::clock::Clock as _;
use system::command::CommandError;
use workloads::model::{Pid, SeenPath, Units};
use workloads::packages::{Described, Hold, Installed, PackageError, PackageId, PackageState, Packages};
use workloads::processes::scan::{Scan, Stale, StaleFile, Why};
use workloads::processes::{Everywhere, LookError, Onlooker, Stopped, Wanted};
use workloads::services::{Service, ServiceError, Services};

use crate::simulated::containers::vulnerable;
use crate::simulated::machine::FakeMachine;

/// The version with the file at fault, and the one without it.
pub(crate) const OLD: &str = "1.0-1";
pub(crate) const NEW: &str = "1.0-2";

/// The library in it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libgreet.so.1";

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostTrouble {
    /// No service starts on the new version.
    BadFix,
    /// Services on the new version crash once they are started, and systemd starts them again.
    Crashes,
    /// The new version's postinst fails: the package stays half-configured.
    BadScript,
    /// The old version cannot be installed any more.
    NoWayBack,
    /// The package manager is not installed.
    NoDpkg,
    /// Somebody else has the package manager.
    Busy,
    /// Services go on with the old file after a restart.
    OldCopy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FakePackage {
    version: PackageVersion,
    state: PackageState,
    hold: Hold,
}

/// A service, and the version that it runs; nothing while it does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FakeService {
    runs: Option<PackageVersion>,
    run: u32,
    restarts: u32,
    refuses: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    packages: BTreeMap<PackageId, FakePackage>,
    services: BTreeMap<ServiceName, FakeService>,
    /// Somebody who is logged in runs the old version.
    session: bool,
    runs: u32,
    trouble: BTreeSet<HostTrouble>,
}

/// The host.
#[derive(Debug)]
pub(crate) struct FakeHost {
    state: Mutex<State>,
    machine: Arc<FakeMachine>,
}

fn library() -> PackageId {
    PackageId { name: "libgreet1".parse().unwrap(), architecture: "amd64".parse().unwrap() }
}

fn version(text: &str) -> PackageVersion {
    text.parse().unwrap()
}

impl FakeHost {
    /// Without packages and services.
    pub(crate) fn new(machine: Arc<FakeMachine>) -> Self {
        Self { state: Mutex::default(), machine }
    }

    /// Installs the package with the library in this version, as nobody's doing.
    pub(crate) fn install_by_others(&self, text: &str) {
        let package = FakePackage { version: version(text), state: PackageState::Whole, hold: Hold::Free };
        self.lock().packages.insert(library(), package);
    }

    /// Somebody removes it.
    pub(crate) fn remove_by_others(&self) {
        self.lock().packages.clear();
    }

    /// Leaves the package half-way.
    pub(crate) fn break_package(&self, how: &str) {
        self.lock().packages.get_mut(&library()).unwrap().state = PackageState::Broken(how.to_owned());
    }

    /// `apt-mark hold`.
    pub(crate) fn hold_package(&self) {
        self.lock().packages.get_mut(&library()).unwrap().hold = Hold::Held;
    }

    /// Starts services on what is installed.
    pub(crate) fn start(&self, names: &[&str]) {
        let mut state = self.lock();
        for name in names {
            state.start(&name.parse().unwrap());
        }
    }

    /// A service that systemd restarts for nobody.
    pub(crate) fn refuse(&self, name: &str) {
        let mut state = self.lock();
        let service = state.services.get_mut(&name.parse::<ServiceName>().unwrap()).unwrap();
        service.refuses = Some("RefuseManualStop".to_owned());
    }

    /// Somebody logs in.
    pub(crate) fn log_in(&self) {
        self.lock().session = true;
    }

    pub(crate) fn make(&self, trouble: HostTrouble) {
        self.lock().trouble.insert(trouble);
    }

    pub(crate) fn mend(&self) {
        self.lock().trouble.clear();
    }

    /// Power off and on: every service is started on what is installed.
    pub(crate) fn reboot(&self) {
        let mut state = self.lock();
        state.session = false;
        let names: Vec<ServiceName> = state.services.keys().cloned().collect();
        names.iter().for_each(|name| state.start(name));
    }

    /// The installed version, if the package is whole.
    pub(crate) fn installed_version(&self) -> Option<String> {
        let state = self.lock();
        let found = state.packages.get(&library())?;
        (found.state == PackageState::Whole).then(|| found.version.to_string())
    }

    /// The version that a service runs.
    pub(crate) fn runs(&self, name: &str) -> Option<String> {
        let state = self.lock();
        state.services[&name.parse::<ServiceName>().unwrap()].runs.as_ref().map(ToString::to_string)
    }

    /// How often a service was started.
    pub(crate) fn run(&self, name: &str) -> u32 {
        self.lock().services[&name.parse::<ServiceName>().unwrap()].run
    }

    /// Whether what is started now has the fix.
    pub(crate) fn is_fixed(&self) -> bool {
        self.lock().packages.get(&library()).is_some_and(|found| found.version == version(NEW))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request; an error when the program is dead and the request goes nowhere.
    fn request(&self) -> Result<MutexGuard<'_, State>, PackageError> {
        if !self.machine.reached() {
            return Err(failed("ask dpkg", "the process is dead"));
        }
        let state = self.lock();
        match state.trouble.contains(&HostTrouble::NoDpkg) {
            true => Err(PackageError::Command {
                doing: "ask dpkg".to_owned(),
                source: CommandError::Missing { program: "dpkg-query".to_owned() },
            }),
            false => Ok(state),
        }
    }
}

fn failed(doing: &str, why: &str) -> PackageError {
    let source =
        CommandError::Run { program: "dpkg".to_owned(), source: std::io::Error::other(why.to_owned()) };
    PackageError::Command { doing: doing.to_owned(), source }
}

impl State {
    fn start(&mut self, name: &ServiceName) {
        self.runs += 1;
        let installed = self.packages.get(&library()).map(|found| found.version.clone());
        let bad = installed == Some(version(NEW)) && self.trouble.contains(&HostTrouble::BadFix);
        let crashes = installed == Some(version(NEW)) && self.trouble.contains(&HostTrouble::Crashes);
        let refuses = self.services.get(name).and_then(|known| known.refuses.clone());
        let runs = installed.filter(|_| !bad);
        let service = FakeService { runs, run: self.runs, restarts: u32::from(crashes), refuses };
        self.services.insert(name.clone(), service);
    }
}

/// What a package file says, if it is one. It may be read again.
fn read(file: &File) -> Option<(PackageId, PackageVersion)> {
    let mut room = [0; 256];
    let length = file.read_at(&mut room, 0).ok()?;
    let text = std::str::from_utf8(&room[..length]).ok()?;
    let mut words = text.split_whitespace();
    let (name, version, architecture) = (words.next()?, words.next()?, words.next()?);
    let package = PackageId { name: name.parse().ok()?, architecture: architecture.parse().ok()? };
    Some((package, version.parse().ok()?))
}

impl Packages for FakeHost {
    fn installed(&self, package: &PackageId) -> Result<Option<Installed>, PackageError> {
        let state = self.request()?;
        Ok(state.packages.get(package).map(|FakePackage { version, state, hold }| Installed {
            version: version.clone(),
            state: state.clone(),
            hold: *hold,
        }))
    }

    fn broken(&self) -> Result<Vec<(String, String)>, PackageError> {
        let state = self.request()?;
        let broken = state.packages.iter().filter_map(|(package, known)| match &known.state {
            PackageState::Whole => None,
            PackageState::Broken(how) => Some((package.to_string(), how.clone())),
        });
        Ok(broken.collect())
    }

    fn holder(&self) -> Result<Option<String>, PackageError> {
        let busy = self.request()?.trouble.contains(&HostTrouble::Busy);
        Ok(busy.then(|| "pid 4711 (apt-get)".to_owned()))
    }

    fn describe(&self, file: &File) -> Result<Described, PackageError> {
        let (package, version) = read(file).ok_or_else(|| PackageError::Answer {
            about: "a package file".to_owned(),
            found: "no package".to_owned(),
        })?;
        Ok(Described { package, version, scripts: vec!["postinst".to_owned()] })
    }

    fn install(&self, files: &[File]) -> Result<(), PackageError> {
        let new: Vec<_> = files.iter().map(|file| read(file).unwrap()).collect();
        {
            let mut state = self.request()?;
            let back = new.iter().any(|(_, wanted)| *wanted == version(OLD));
            if back && state.trouble.contains(&HostTrouble::NoWayBack) {
                return Err(failed("install packages", "No space left on device"));
            }
            for (package, version) in &new {
                let known = state.packages.get_mut(package).expect("nobody installs one more package");
                (known.version, known.state) = (version.clone(), PackageState::Broken("unpacked".to_owned()));
            }
        }
        let mut state = self.request()?;
        let bad = state.trouble.contains(&HostTrouble::BadScript);
        for (package, wanted) in new {
            let known = state.packages.get_mut(&package).unwrap();
            if bad && wanted == version(NEW) {
                known.state = PackageState::Broken("half-configured".to_owned());
                return Err(failed("install packages", "postinst returned error exit status 1"));
            }
            known.state = PackageState::Whole;
        }
        Ok(())
    }

    fn configure_pending(&self) -> Result<(), PackageError> {
        let mut state = self.request()?;
        if state.trouble.contains(&HostTrouble::BadScript) {
            return Err(failed("finish what dpkg has begun", "postinst returned error exit status 1"));
        }
        state.packages.values_mut().for_each(|known| known.state = PackageState::Whole);
        Ok(())
    }
}

impl Services for FakeHost {
    fn look(&self, names: &[ServiceName]) -> Result<Vec<Service>, ServiceError> {
        let state = self.services_state()?;
        let seen = |name: &ServiceName| {
            let known = state.services.get(name);
            let runs = known.is_some_and(|known| known.runs.is_some());
            Service {
                name: name.clone(),
                active: if runs { "active" } else { "failed" }.to_owned(),
                kind: "notify".to_owned(),
                invocation: known.map(|known| format!("{:032x}", known.run)),
                restarts: known.map_or(0, |known| known.restarts),
                result: if runs { "success" } else { "exit-code" }.to_owned(),
                refuses: known.and_then(|known| known.refuses.clone()),
                sockets: Vec::new(),
                kept_descriptors: 0,
            }
        };
        Ok(names.iter().map(seen).collect())
    }

    fn restart(&self, names: &[ServiceName]) -> Result<(), ServiceError> {
        for name in names {
            self.services_state()?.start(name);
        }
        Ok(())
    }
}

impl FakeHost {
    fn services_state(&self) -> Result<MutexGuard<'_, State>, ServiceError> {
        if !self.machine.reached() {
            let source = std::io::Error::other("the process is dead");
            let source = CommandError::Run { program: "systemctl".to_owned(), source };
            return Err(ServiceError::Command { doing: "ask systemd", source });
        }
        Ok(self.lock())
    }
}

impl Everywhere for FakeHost {
    fn scan(&self, wanted: &[Wanted], onlooker: Onlooker<'_>) -> Result<Scan, LookError> {
        if onlooker.interrupt.asked() {
            return Err(Stopped.into());
        }
        self.machine.sleep(std::time::Duration::from_millis(1));
        let state = self.lock();
        let installed = state.packages.get(&library()).map(|found| found.version.clone());
        let old_copy = state.trouble.contains(&HostTrouble::OldCopy);
        let is_wanted = wanted.iter().any(|wanted| wanted.identity == vulnerable());
        let services = state.services.iter().filter_map(|(name, service)| {
            let runs = if old_copy { Some(version(OLD)) } else { service.runs.clone() };
            Some((format!("/system.slice/{name}"), 100 + service.run, runs?))
        });
        let session = state
            .session
            .then(|| ("/user.slice/user-1000.slice/session-3.scope".to_owned(), 99, version(OLD)));
        let stale = services.chain(session).filter_map(|(cgroup, pid, runs)| {
            let mut files = Vec::new();
            let file = |why| StaleFile { path: LIBRARY.into(), why, is_program: false };
            if installed.as_ref() != Some(&runs) {
                files.push(file(Why::Replaced { runs: None, on_disk: None }));
            }
            if is_wanted && runs == version(OLD) {
                files.push(file(Why::AtFault { identity: vulnerable() }));
            }
            (!files.is_empty()).then(|| Stale {
                pid: Pid(pid),
                comm: "greetd".into(),
                units: Units::of(cgroup.as_bytes()),
                cgroup: Some(SeenPath::from(Path::new(&cgroup))),
                program: None,
                files,
            })
        });
        let stale: Vec<Stale> = stale.collect();
        Ok(Scan {
            processes: state.services.len(),
            unreadable: 0,
            unknown: Vec::new(),
            stale,
            opaque: Vec::new(),
        })
    }
}
