//! `update scan`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use manifests::Component;
use serde::Serialize;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure};
use workloads::model::{CgroupOwner, Owners};
use workloads::processes::scan::{Scan, Stale, Why, scan};
use workloads::processes::watchdog::Progress;
use workloads::processes::{LookError, Onlooker, Unknown, Wanted};

use crate::cli::output::{line, object, waited, waiting};
use crate::cli::{Global, failures};
use crate::config::Config;
use crate::operations::host::{Known, known_containers};
use crate::operations::trust;
use crate::state::floors::{FloorSeen, look_at_floor};

/// Show which processes and containers still run outdated or vulnerable files
///
/// Outdated is code that is mapped from a file that was replaced or deleted on disk; the same build
/// installed once more is not. With a signed manifest, files that it replaces are vulnerable wherever
/// they are mapped. Changes nothing; without root, only your own processes are looked at.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  update scan\n  update scan --manifest greet-fix.manifest.json --json")]
pub(super) struct Args {
    /// Look for the files that this signed manifest replaces, too
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let settings = global.settings()?;
    let wanted = match &args.manifest {
        Some(manifest) => replaced_by(manifest, &settings)?,
        None => Vec::new(),
    };
    let found = scan(&wanted, Onlooker { told: &tell, ..Onlooker::NOBODY });
    waited();
    let found = found.map_err(|error| match &error {
        LookError::List(_) => Failure::new(Exit::Refused, error).next("mount /proc"),
        _ => Failure::new(Exit::Refused, error).next("try again"),
    })?;
    // Without root there is nothing to be asked of the runtime; names of groups tell most.
    let known = match nix::unistd::geteuid().is_root() {
        true => known_containers(&settings),
        false => Known::default(),
    };
    let report = Report::new(found, known);
    if global.json {
        object(&report);
    } else {
        report.lines().iter().for_each(|text| line(text));
    }
    Ok(())
}

/// How far a scan that takes long has come.
fn tell(progress: &Progress) {
    let file = progress.file.as_ref().map(|file| format!(", reading {file}")).unwrap_or_default();
    waiting(&format!("{} of {} processes{file}", progress.done, progress.all));
}

/// The files that a manifest replaces, if the manifest is authentic here.
fn replaced_by(manifest: &std::path::Path, settings: &Config) -> Result<Vec<Wanted>, Failure> {
    let floor = match look_at_floor(&settings.store).map_err(|error| failures::trust(error.into()))? {
        FloorSeen::Floor(floor) => floor,
        FloorSeen::Unreadable => manifests::TrustFloor::default(),
    };
    let manifest = trust::authenticate(manifest, &settings.policy, &floor, SystemClock.now())
        .map_err(failures::trust)?;
    let layers = manifest.components.iter().filter_map(|component| match component {
        Component::Layer(layer) => Some(layer),
        Component::Livepatch(_) => None,
    });
    Ok(layers
        .flat_map(|layer| {
            layer
                .replaces
                .iter()
                .map(|file| Wanted { size: file.size, ..Wanted::from(file.identity.clone()) })
        })
        .collect())
}

/// What was found, by whose it is.
#[derive(Debug, Serialize)]
struct Report {
    processes: usize,
    unreadable: usize,
    unknown: Vec<Unknown>,
    groups: Vec<Group>,
    /// Containers of which the runtime's entry could not be read.
    unreadable_containers: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Group {
    owner: CgroupOwner,
    stale: Vec<Stale>,
}

impl Report {
    fn new(scan: Scan, known: Known) -> Self {
        let owners = Owners::new(None, known.containers);
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for stale in scan.stale {
            let cgroup = stale.cgroup.as_ref().and_then(|path| path.as_path().to_str()?.parse().ok());
            let owner = cgroup.map_or(CgroupOwner::Unknown, |cgroup| owners.owner(&cgroup));
            let group = groups.entry(owner.to_string());
            group.or_insert_with(|| Group { owner, stale: Vec::new() }).stale.push(stale);
        }
        Self {
            processes: scan.processes,
            unreadable: scan.unreadable,
            unknown: scan.unknown,
            groups: groups.into_values().collect(),
            unreadable_containers: known.unreadable,
        }
    }

    /// For a person.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for group in &self.groups {
            lines.push(group.owner.to_string());
            for stale in &group.stale {
                lines.push(format!("    {} (pid {})", stale.comm, stale.pid));
                let files = stale.files.iter();
                lines.extend(files.map(|file| format!("        {}  {}", file.path, words(&file.why))));
            }
        }
        // To another user all processes are unknown, for one reason.
        let forbidden = |unknown: &&Unknown| unknown.reason.is_forbidden();
        lines.extend(
            self.unknown.iter().filter(|one| !forbidden(one)).map(|unknown| format!("UNKNOWN {unknown}")),
        );
        lines.extend(self.unreadable_containers.iter().map(|why| format!("note: {why}")));
        let stale: usize = self.groups.iter().map(|group| group.stale.len()).sum();
        let more = match self.unreadable {
            0 => String::new(),
            some => format!("; {some} could not be looked at whole and may do so, too"),
        };
        let of = self.processes + self.unreadable;
        lines.push(format!("{stale} of {of} processes run outdated or vulnerable files{more}"));
        lines
    }
}

fn words(why: &Why) -> &'static str {
    match why {
        Why::Replaced { .. } => "replaced on disk",
        Why::Deleted { .. } => "deleted on disk",
        Why::AtFault { .. } => "VULNERABLE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use workloads::model::KnownContainer;
    use workloads::model::Pid;
    use workloads::processes::Reason;
    use workloads::processes::scan::StaleFile;

    fn stale(pid: u32, comm: &[u8], cgroup: &str, why: Why) -> Stale {
        let files = vec![StaleFile { path: "/usr/lib/libgreet.so.1".into(), why }];
        Stale { pid: Pid(pid), comm: comm.into(), cgroup: Some(cgroup.into()), files }
    }

    #[test]
    fn processes_are_told_by_container_and_service() {
        let unreadable = |pid, file, errno| Unknown {
            pid: Pid(pid),
            comm: "odd".into(),
            file,
            reason: Reason::Unreadable { errno },
        };
        let scan = Scan {
            processes: 120,
            unreadable: 2,
            unknown: vec![
                unreadable(17, None, nix::libc::EACCES),
                unreadable(18, Some("/mnt/gone\nerror: no".into()), nix::libc::ENOTCONN),
            ],
            stale: vec![
                stale(7, b"cron", "/system.slice/cron.service", Why::Replaced { runs: None, on_disk: None }),
                stale(
                    812,
                    b"greetd",
                    "/runc/web-1",
                    Why::AtFault { identity: crate::simulated::containers::vulnerable() },
                ),
                stale(813, b"\x1b[31m\xff", "/runc/web-1", Why::Deleted { runs: None }),
                stale(900, b"bash", "/user.slice/session-1.scope", Why::Deleted { runs: None }),
            ],
        };
        let web = KnownContainer { id: "web-1".parse().unwrap(), cgroup: "/runc/web-1".parse().unwrap() };
        let known = Known {
            containers: vec![web],
            unreadable: vec!["container old cannot be read: could not read /c/old/config.json".to_owned()],
        };
        let report = Report::new(scan, known);
        insta::assert_snapshot!(report.lines().join("\n"));
    }
}
