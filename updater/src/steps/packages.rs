//! Packages of the host, and the services that run on them.
//!
//! What dpkg has is asked before and after each request to it, and decides: a package is in its old version, in its new
//! one, or half-way between, from where either can be installed. A version that is neither is somebody else's, and is left
//! to an operator. Nobody's dpkg is worked beside: a way back waits for one that outlived its caller.
//!
//! A restart of services needs no record of its own. Whether a service was restarted since the plan shows by which run of
//! it this is (its invocation id).

use std::fs::File;
use std::time::Duration;

use manifests::{ReplacedFile, ServiceName, Sha256};
use serde_json::{Value, json};
use workloads::packages::{Installed, PackageError, PackageId, PackageState};
use workloads::processes::scan::{Stale, StaleFile, Why};
use workloads::processes::{HostPaths, Onlooker, Wanted};
use workloads::services::Service;

use crate::plan::Action;
use crate::plan::packages::{PackageFile, PackageSwitch};
use crate::steps::Performer;
use crate::steps::livepatch::micros;
use crate::transaction::driver::{Place, StepError};

/// How long a way back waits for a dpkg that somebody else runs: as long as one is given here.
const TURN: Duration = Duration::from_secs(1800);

/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

fn doing<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &str,
    about: impl std::fmt::Display,
) -> impl FnOnce(E) -> StepError {
    StepError::doing(format!("{what} {about}"))
}

impl Performer<'_> {
    /// The services still run, and are those of the plan.
    pub(super) fn expect_services(
        &self,
        at: &Place<'_>,
        services: &[ServiceName],
    ) -> Result<Value, StepError> {
        let now = self.look(services)?;
        for service in &now {
            let planned = at.plan.services.iter().find(|planned| planned.service.name == service.name);
            if !planned.is_some_and(|planned| planned.service.is_the_same_run_as(service)) {
                return Err(doing("find as planned", &service.name)(format!(
                    "expected it to run as when the plan was made, found it {} and started since",
                    service.standing()
                )));
            }
        }
        Ok(Value::Null)
    }

    pub(super) fn install_packages(&self, switches: &[PackageSwitch]) -> Result<Value, StepError> {
        if let Some(holder) = self.packages.holder().map_err(doing("look at", "the package manager"))? {
            return Err(doing("install", "packages")(PackageError::Busy { holder }));
        }
        let begun = self.clock.elapsed();
        let mut files = Vec::new();
        for PackageSwitch { package, from, to } in switches {
            match self.has(package)? {
                Some(now) if is_at(&now, to) => {}
                Some(now) if is_at(&now, from) => files.push(self.file(package, &to.payload)?),
                now => {
                    return Err(doing("install", package)(format!(
                        "expected {} to be there, found {}: it came after the plan",
                        from.version,
                        told(now.as_ref())
                    )));
                }
            }
        }
        if !files.is_empty() {
            self.packages.install(&files).map_err(doing("install", list(switches)))?;
        }
        self.see(switches, |switch| &switch.to)?;
        Ok(json!({ "took_us": micros(self.clock.elapsed() - begun) }))
    }

    /// Puts the old packages back, wherever the way forward or this one was stopped.
    pub(super) fn reinstall_packages(&self, switches: &[PackageSwitch]) -> Result<Value, StepError> {
        self.await_turn()?;
        let begun = self.clock.elapsed();
        let mut files = Vec::new();
        for PackageSwitch { package, from, to } in switches {
            let now = self.has(package)?;
            let version = now.as_ref().map(|now| &now.version);
            match &now {
                Some(now) if is_at(now, from) => continue,
                _ if version == Some(&from.version) || version == Some(&to.version) => {}
                now => {
                    return Err(doing("put back", package)(format!(
                        "expected {} or {}, found {}: somebody else installed it since; see that it is the right one, \
                         and install {} by hand if not",
                        from.version,
                        to.version,
                        told(now.as_ref()),
                        from.version
                    )));
                }
            }
            files.push(self.file(package, &from.payload)?);
        }
        if files.is_empty() {
            return Ok(json!({ "note": "they are there" }));
        }
        // Over what is half-way, too: its own scripts are asked to finish only if there is no other way.
        if let Err(error) = self.packages.install(&files) {
            tracing::warn!(error = &error as &dyn std::error::Error, "what dpkg has begun is finished first");
            self.packages.configure_pending().map_err(doing("finish", "what dpkg has begun"))?;
            self.packages.install(&files).map_err(doing("put back", list(switches)))?;
        }
        self.see(switches, |switch| &switch.from)?;
        Ok(json!({ "took_us": micros(self.clock.elapsed() - begun) }))
    }

    pub(super) fn restart_services(&self, services: &[ServiceName]) -> Result<Value, StepError> {
        let begun = self.clock.elapsed();
        let asked = self.services.restart(services);
        let now = self.look(services)?;
        // What became of each says more than that not all went well.
        expect_running("restart", &now)?;
        asked.map_err(doing("restart", names(services)))?;
        Ok(json!({ "took_us": micros(self.clock.elapsed() - begun) }))
    }

    /// Restarts what runs on the packages that are gone again: each service that was restarted, or has ended, since the plan.
    /// After a reboot systemd starts them all; what it has started by now may run on what was there a moment ago, or have
    /// failed on it.
    pub(super) fn restart_services_again(
        &self,
        at: &Place<'_>,
        services: &[ServiceName],
    ) -> Result<Value, StepError> {
        let untouched = |now: &Service| {
            let planned = at.plan.services.iter().find(|planned| planned.service.name == now.name);
            now.is_active() && planned.is_some_and(|planned| planned.service.is_the_same_run_as(now))
        };
        let mut now = self.look(services)?;
        if at.since.userspace_is_gone() {
            let outdated = self.outdated(services)?;
            now.retain(|now| now.has_failed() || now.is_active() && outdated.contains(&now.name));
        } else {
            now.retain(|now| !untouched(now));
        }
        let restarted: Vec<ServiceName> = now.into_iter().map(|now| now.name).collect();
        if restarted.is_empty() {
            return Ok(json!({ "note": "none was restarted" }));
        }
        self.restart_services(&restarted)
    }

    /// Those of the services that run code which is not on disk any more.
    fn outdated(&self, services: &[ServiceName]) -> Result<Vec<ServiceName>, StepError> {
        let scan =
            self.everywhere.scan(&[], Onlooker::NOBODY).map_err(doing("look through", names(services)))?;
        let is_outdated = |name: &&ServiceName| scan.stale.iter().any(|stale| is_of(stale, name));
        Ok(services.iter().filter(is_outdated).cloned().collect())
    }

    /// Nobody in these services maps any of these files.
    pub(super) fn confirm_services(
        &self,
        services: &[ServiceName],
        replaced: &[ReplacedFile],
    ) -> Result<Value, StepError> {
        let wanted: Vec<Wanted> =
            replaced.iter().map(|file| Wanted { identity: file.identity.clone(), size: file.size }).collect();
        let onlooker = Onlooker { interrupt: self.interrupt, told: &|_| () };
        let scan = self.everywhere.scan(&wanted, onlooker).map_err(doing("look through", names(services)))?;
        let of = |stale: &&Stale| services.iter().any(|name| is_of(stale, name));
        let places = HostPaths::of(replaced.iter().map(|file| &file.path));
        let found: Vec<String> =
            scan.stale.iter().filter(of).filter_map(|stale| who(stale, &places)).collect();
        if found.is_empty() {
            return Ok(Value::Null);
        }
        Err(doing("see the effect of the fix in", names(services))(format!(
            "expected no process to map a file that it replaces, found {}",
            found.join("; ")
        )))
    }

    /// The same once more before the commit.
    pub(super) fn confirm_services_once_more(&self, at: &Place<'_>) -> Result<(), StepError> {
        at.plan.steps.iter().try_for_each(|step| match &step.action {
            Action::ConfirmServices { services, replaced } => {
                self.confirm_services(services, replaced).map(drop)
            }
            _ => Ok(()),
        })
    }

    /// Every service that was restarted runs, and none had to be started again by systemd since.
    pub(super) fn services_hold(&self, at: &Place<'_>) -> Result<(), StepError> {
        let restarted: Vec<ServiceName> =
            at.plan.restarted_services().map(|planned| planned.service.name.clone()).collect();
        if restarted.is_empty() {
            return Ok(());
        }
        expect_running("see the settle time of", &self.look(&restarted)?)
    }

    fn look(&self, services: &[ServiceName]) -> Result<Vec<Service>, StepError> {
        self.services.look(services).map_err(doing("look at", names(services)))
    }

    fn has(&self, package: &PackageId) -> Result<Option<Installed>, StepError> {
        self.packages.installed(package).map_err(doing("look for package", package))
    }

    fn file(&self, package: &PackageId, payload: &Sha256) -> Result<File, StepError> {
        self.payloads.open(payload).map_err(doing("open the file of package", package))
    }

    /// All packages are whole, and in the version that `wanted` chooses.
    fn see<'a>(
        &self,
        switches: &'a [PackageSwitch],
        wanted: impl Fn(&'a PackageSwitch) -> &'a PackageFile,
    ) -> Result<(), StepError> {
        for switch in switches {
            let (package, wanted) = (&switch.package, wanted(switch));
            let now = self.has(package)?;
            if !now.as_ref().is_some_and(|now| is_at(now, wanted)) {
                return Err(doing("see the installed", package)(format!(
                    "expected {}, found {}",
                    wanted.version,
                    told(now.as_ref())
                )));
            }
        }
        Ok(())
    }

    /// Nobody else has the package manager any more.
    fn await_turn(&self) -> Result<(), StepError> {
        let asked = self.clock.elapsed();
        loop {
            match self.packages.holder().map_err(doing("look at", "the package manager"))? {
                None => return Ok(()),
                Some(holder) if self.clock.elapsed() - asked >= TURN => {
                    return Err(doing("put back", "the old packages")(PackageError::Busy { holder }));
                }
                Some(_) => self.clock.sleep(LOOK_AGAIN),
            }
        }
    }
}

/// Whether a process is one of the service's.
fn is_of(stale: &Stale, service: &ServiceName) -> bool {
    stale.units.user_unit.is_none() && stale.units.unit.as_deref() == Some(service.as_str())
}

fn is_at(now: &Installed, file: &PackageFile) -> bool {
    now.version == file.version && now.state == PackageState::Whole
}

fn told(now: Option<&Installed>) -> String {
    match now {
        None => "nothing installed".to_owned(),
        Some(Installed { version, state: PackageState::Whole, .. }) => version.to_string(),
        Some(Installed { version, state: PackageState::Broken(how), .. }) => format!("{version}, {how}"),
    }
}

/// Each is active, and was not started again by systemd since somebody started it.
fn expect_running(what: &str, services: &[Service]) -> Result<(), StepError> {
    let found: Vec<String> = services
        .iter()
        .filter(|service| !service.is_active() || service.restarts > 0)
        .map(|service| match service.restarts {
            0 => format!("{} is {}", service.name, service.standing()),
            again => format!("{} is {} after {again} restarts by systemd", service.name, service.standing()),
        })
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let all: Vec<ServiceName> = services.iter().map(|service| service.name.clone()).collect();
    Err(doing(what, names(&all))(format!(
        "expected all to be active and to stay so, found {}",
        found.join("; ")
    )))
}

/// Who maps what from where, of files that a package has.
fn who(stale: &Stale, places: &HostPaths) -> Option<String> {
    let is_at_fault = |file: &&StaleFile| matches!(file.why, Why::AtFault { .. }) && places.has(&file.path);
    let at_fault = stale.files.iter().filter(is_at_fault);
    let files: Vec<String> = at_fault.map(|file| file.path.to_string()).collect();
    (!files.is_empty()).then(|| format!("{} ({}) with {}", stale.pid, stale.comm, files.join(", ")))
}

fn names(services: &[ServiceName]) -> String {
    services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}

fn list(switches: &[PackageSwitch]) -> String {
    switches.iter().map(|switch| switch.package.to_string()).collect::<Vec<_>>().join(", ")
}
