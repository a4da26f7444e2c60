//! The packages of the host, and who runs what they bring: for plans and their ways back. Changes nothing.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};

use fleet::facts::Standing;
use manifests::{Manifest, PackageChange, PackageComponent, ServiceName};
use workloads::model::{CgroupOwner, Container, KnownContainer, Owners, SeenPath};
use workloads::packages::{Installed, PackageError, PackageId};
use workloads::processes::scan::{Scan, Stale, Why};
use workloads::processes::{HostPaths, Onlooker, Unknown};
use workloads::services::Service;

use crate::operations::survey::{host_paths, package_of, wanted};
use crate::operations::{Engine, EngineError, Session};
use crate::plan::Plan;
use crate::plan::facts::{PackageFacts, ServiceFacts, Unmet};

/// How many processes outside of services are named.
const NAMED: usize = 8;

impl Engine {
    /// What planning these components needs to know.
    pub(super) fn survey_packages(
        &self,
        session: &Session,
        components: &[(usize, &PackageComponent)],
        onlooker: Onlooker<'_>,
    ) -> Result<PackageFacts, EngineError> {
        let mut facts = PackageFacts::default();
        let changes = || components.iter().flat_map(|(_, component)| &component.packages);
        match self.installed(changes().map(package_of)) {
            Ok(installed) => facts.installed = installed,
            Err(EngineError::Packages(error)) if error.is_absence() => {
                facts.unmet.push(Unmet {
                    subject: "packages".to_owned(),
                    expected: "a host with dpkg".to_owned(),
                    found: error.to_string(),
                });
                return Ok(facts);
            }
            Err(error) => return Err(error),
        }
        if let Some(holder) = self.host.packages.holder()? {
            return Err(PackageError::Busy { holder }.into());
        }
        let half_way = |(package, how): (String, String)| Unmet {
            subject: format!("package {package}"),
            expected: "all packages of this host whole".to_owned(),
            found: format!("{how} (dpkg --configure --pending goes on with it)"),
        };
        // Those of the manifest are told by the planner, which knows what is wanted of them.
        let is_other = |(package, _): &(String, String)| {
            let name = package.split(':').next().unwrap_or_default();
            !changes().any(|change| change.name.as_str() == name)
        };
        facts.unmet.extend(self.host.packages.broken()?.into_iter().filter(is_other).map(half_way));
        for change in changes().filter(|change| facts.installed.contains_key(&package_of(change))) {
            for payload in [&change.new.payload, &change.old.payload] {
                let described = self.host.packages.describe(&self.payloads.open(&payload.sha256)?)?;
                facts.described.insert(payload.sha256, described);
            }
        }
        if !facts.installed.is_empty() {
            let files = || components.iter().flat_map(|(_, component)| &component.replaces);
            let scan = self.host.everywhere.scan(&wanted(files()), onlooker)?;
            self.tell_who(&scan, &host_paths(files()), session.running()?, &mut facts)?;
        }
        Ok(facts)
    }

    /// What the package manager has of these; those that it does not have are left out.
    pub(super) fn installed(
        &self,
        packages: impl IntoIterator<Item = PackageId>,
    ) -> Result<BTreeMap<PackageId, Installed>, EngineError> {
        let mut found = BTreeMap::new();
        for package in packages {
            if let Some(installed) = self.host.packages.installed(&package)? {
                found.insert(package, installed);
            }
        }
        Ok(found)
    }

    /// How the services stand that a plan restarted.
    pub(super) fn services_of(&self, plan: &Plan) -> Result<Vec<Service>, EngineError> {
        let names: Vec<ServiceName> =
            plan.restarted_services().map(|planned| planned.service.name.clone()).collect();
        Ok(self.host.services.look(&names)?)
    }

    /// Sorts who runs files at fault into services and others. Containers are asked for by their runtimes.
    fn tell_who(
        &self,
        scan: &Scan,
        places: &HostPaths,
        running: Vec<Container>,
        facts: &mut PackageFacts,
    ) -> Result<(), EngineError> {
        let cgroups: Vec<PathBuf> = running.iter().filter_map(|container| container.cgroup.clone()).collect();
        let known = running.into_iter().filter_map(|container| {
            let cgroup = container.cgroup?.to_str()?.parse().ok()?;
            Some(KnownContainer { id: container.id.id, cgroup })
        });
        let owners = Owners::new(None, known.collect());
        let at_fault =
            |stale: &&Stale| stale.files.iter().any(|file| matches!(file.why, Why::AtFault { .. }));
        let mut files: BTreeMap<ServiceName, Vec<PathBuf>> = BTreeMap::new();
        let mut others = Vec::new();
        for stale in scan.stale.iter().filter(at_fault) {
            let found = stale.files.iter().filter(|file| matches!(file.why, Why::AtFault { .. }));
            let (own, copies): (Vec<&SeenPath>, Vec<&SeenPath>) =
                found.map(|file| &file.path).partition(|path| places.has(path));
            let paths = own.iter().map(|path| path.to_text());
            match who(stale, &owners) {
                Who::Container => {}
                _ if own.is_empty() => others.push(format!(
                    "{} (pid {}) runs copies that no package of the manifest replaces: {}",
                    stale.comm,
                    stale.pid,
                    copies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                )),
                Who::Service(name) if holds_containers(&name, &cgroups) => others.push(format!(
                    "{} (pid {}) supervises containers in {name}, and is not restarted under them",
                    stale.comm, stale.pid
                )),
                Who::Service(name) => files.entry(name).or_default().extend(paths),
                Who::Other(place) => others.push(format!(
                    "{} (pid {}) {place} runs {}, and goes on with it until it ends",
                    stale.comm,
                    stale.pid,
                    paths.map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
                )),
            }
        }
        let names: Vec<ServiceName> = files.keys().cloned().collect();
        for (service, (_, mut files)) in self.host.services.look(&names)?.into_iter().zip(files) {
            files.sort();
            files.dedup();
            facts.services.push(ServiceFacts { service, files });
        }
        let more = others.len().saturating_sub(NAMED);
        others.truncate(NAMED);
        others.extend(
            (more > 0).then(|| format!("{more} more processes outside of services do (update scan)")),
        );
        let unknown = scan.unknown.iter().take(NAMED).map(|unknown: &Unknown| {
            format!("a process may run what is replaced, since something cannot be told: {unknown}")
        });
        facts.others = others.into_iter().chain(unknown).collect();
        Ok(())
    }

    /// How exposed the host itself is by the packages of a manifest.
    pub(super) fn package_exposure(&self, component: &PackageComponent) -> Result<Standing, EngineError> {
        let installed = match self.installed(component.packages.iter().map(package_of)) {
            Err(EngineError::Packages(error)) if error.is_absence() => return Ok(Standing::Clear),
            installed => installed?,
        };
        if installed.is_empty() {
            return Ok(Standing::Clear);
        }
        let is_fixed = |change: &PackageChange| {
            let now = installed.get(&package_of(change));
            now.is_none_or(|now| now.version.compare(&change.new.version).is_ge())
        };
        let scan = self.host.everywhere.scan(&wanted(&component.replaces), Onlooker::NOBODY)?;
        let at_fault = |stale: &Stale| stale.files.iter().any(|file| matches!(file.why, Why::AtFault { .. }));
        Ok(if scan.stale.iter().any(at_fault) || !component.packages.iter().all(is_fixed) {
            Standing::Exposed
        } else if !scan.unknown.is_empty() {
            Standing::Unknown
        } else {
            Standing::Fixed
        })
    }
}

/// The components of a manifest that are about packages.
pub(super) fn components(manifest: &Manifest) -> impl Iterator<Item = &PackageComponent> {
    manifest.components.iter().filter_map(|component| match component {
        manifests::Component::Package(component) => Some(component),
        _ => None,
    })
}

/// Whose a process is.
enum Who {
    Service(ServiceName),
    Container,
    /// Somebody's that is told: a login, a user's own services, systemd itself.
    Other(String),
}

fn who(stale: &Stale, owners: &Owners) -> Who {
    let units = &stale.units;
    let owner = stale.cgroup.as_ref().map(|path| owners.place(path.as_bytes()).owner);
    let service = units.unit.as_deref().filter(|_| units.user_unit.is_none());
    match (owner, service.and_then(|unit| unit.parse::<ServiceName>().ok())) {
        (Some(CgroupOwner::Container(_)), _) => Who::Container,
        (_, Some(service)) => Who::Service(service),
        (_, None) => Who::Other(match (&units.unit, &units.user_unit) {
            (None, _) => "outside of units".to_owned(),
            (Some(unit), None) => format!("in {unit}"),
            (Some(unit), Some(own)) => format!("in {own} of {unit}"),
        }),
    }
}

/// Whether containers run below the group of a unit, as those of quadlets do.
fn holds_containers(unit: &ServiceName, cgroups: &[PathBuf]) -> bool {
    let is_unit = |part: Component<'_>| part.as_os_str() == unit.as_str();
    cgroups.iter().any(|cgroup| cgroup.components().any(is_unit))
}
