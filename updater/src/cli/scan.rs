//! `update scan`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use manifests::text::shown;
use manifests::{Component, FileIdentity};
use serde::Serialize;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure};
use workloads::model::{CgroupOwner, Owners};
use workloads::processes::scan::{Scan, Stale, Why, scan};

use crate::cli::progress::{line, object};
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
    let found = scan(&wanted).map_err(|error| Failure::new(Exit::Refused, error).next("mount /proc"))?;
    // Without root there is nothing to be asked of the runtime; names of groups tell most.
    let known = match nix::unistd::geteuid().is_root() {
        true => known_containers(&settings),
        false => Known::default(),
    };
    let report = Report::new(found, known);
    if global.json {
        object(&report);
    } else {
        line(report.render().trim_end());
    }
    Ok(())
}

/// The files that a manifest replaces, if the manifest is authentic here.
fn replaced_by(manifest: &std::path::Path, settings: &Config) -> Result<Vec<FileIdentity>, Failure> {
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
    Ok(layers.flat_map(|layer| layer.replaces.iter().map(|file| file.identity.clone())).collect())
}

/// What was found, by whose it is.
#[derive(Debug, Serialize)]
struct Report {
    processes: usize,
    unreadable: usize,
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
            let cgroup = stale.cgroup.as_ref().and_then(|path| path.to_str()?.parse().ok());
            let owner = cgroup.map_or(CgroupOwner::Unknown, |cgroup| owners.owner(&cgroup));
            let group = groups.entry(owner.to_string());
            group.or_insert_with(|| Group { owner, stale: Vec::new() }).stale.push(stale);
        }
        Self {
            processes: scan.processes,
            unreadable: scan.unreadable,
            groups: groups.into_values().collect(),
            unreadable_containers: known.unreadable,
        }
    }

    fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        for group in &self.groups {
            writeln!(text, "{}", group.owner)?;
            for stale in &group.stale {
                writeln!(text, "    {} (pid {})", shown(&stale.comm), stale.pid)?;
                for file in &stale.files {
                    writeln!(
                        text,
                        "        {}  {}",
                        shown(&file.path.display().to_string()),
                        words(&file.why)
                    )?;
                }
            }
        }
        for why in &self.unreadable_containers {
            writeln!(text, "note: {}", shown(why))?;
        }
        let stale: usize = self.groups.iter().map(|group| group.stale.len()).sum();
        write!(text, "{stale} of {} processes run outdated or vulnerable files", self.processes)?;
        match self.unreadable {
            0 => writeln!(text),
            some => writeln!(text, "; {some} more could not be looked at"),
        }
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
    use workloads::processes::scan::StaleFile;

    fn stale(pid: u32, comm: &str, cgroup: &str, why: Why) -> Stale {
        let files = vec![StaleFile { path: PathBuf::from("/usr/lib/libgreet.so.1"), why }];
        Stale { pid: Pid(pid), comm: comm.to_owned(), cgroup: Some(PathBuf::from(cgroup)), files }
    }

    #[test]
    fn processes_are_told_by_container_and_service() {
        let scan = Scan {
            processes: 120,
            unreadable: 2,
            stale: vec![
                stale(7, "cron", "/system.slice/cron.service", Why::Replaced { runs: None, on_disk: None }),
                stale(
                    812,
                    "greetd",
                    "/runc/web-1",
                    Why::AtFault { identity: crate::simulated::containers::vulnerable() },
                ),
                stale(813, "\u{1b}[31m", "/runc/web-1", Why::Deleted { runs: None }),
                stale(900, "bash", "/user.slice/session-1.scope", Why::Deleted { runs: None }),
            ],
        };
        let web = KnownContainer { id: "web-1".parse().unwrap(), cgroup: "/runc/web-1".parse().unwrap() };
        let known = Known {
            containers: vec![web],
            unreadable: vec!["container old cannot be read: could not read /c/old/config.json".to_owned()],
        };
        let report = Report::new(scan, known);
        insta::assert_snapshot!(report.render());
    }
}
