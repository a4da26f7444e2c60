//! `update scan`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use manifests::Component;
use serde::{Serialize, Serializer};
use system::clock::{Clock as _, Interrupt, SystemClock};
use system::error::with_causes;
use system::exit::{Exit, Failure};
use workloads::model::{CgroupOwner, Owners, Pid, Units};
use workloads::processes::procfs;
use workloads::processes::scan::{Opaque, Scan, Stale, StaleFile, Why, scan};
use workloads::processes::watchdog::Progress;
use workloads::processes::{LookError, NotProven, Onlooker, Unknown, Wanted};

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
/// they are mapped. What no mapping shows is said to be not proven: libraries that are part of a program (static, Go),
/// what an interpreter reads, and code in memory. Changes nothing; without root, only your own processes are looked at.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update scan\n  update scan --manifest greet-fix.manifest.json --json\n  update scan --after-upgrade"
)]
pub(super) struct Args {
    /// Look for the files that this signed manifest replaces, too
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Say in a few lines who still runs old code, nothing if nobody does, and never fail: for package managers
    #[arg(long, conflicts_with = "manifest")]
    after_upgrade: bool,
}

/// How long a package manager is kept waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whoever waits has waited long enough.
struct LongEnough {
    until: Duration,
}

impl LongEnough {
    fn after(patience: Duration) -> Self {
        Self { until: SystemClock.elapsed() + patience }
    }
}

impl Interrupt for LongEnough {
    fn asked(&self) -> bool {
        SystemClock.elapsed() > self.until
    }
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    if args.after_upgrade {
        after_upgrade(global);
        return Ok(());
    }
    let settings = global.settings()?;
    let wanted = match &args.manifest {
        Some(manifest) => replaced_by(manifest, &settings)?,
        None => Vec::new(),
    };
    let report = look(&wanted, &settings, Onlooker { told: &tell, ..Onlooker::NOBODY });
    waited();
    let report = report.map_err(|error| match &error {
        LookError::List(_) => Failure::new(Exit::Refused, error).next("mount /proc"),
        _ => Failure::new(Exit::Refused, error).next("try again"),
    })?;
    if global.json {
        object(&report);
    } else {
        report.lines(&procfs::units_of).iter().for_each(|text| line(text));
    }
    Ok(())
}

/// Looks at all processes, and meanwhile asks whose they may be.
fn look(wanted: &[Wanted], settings: &Config, onlooker: Onlooker<'_>) -> Result<Report, LookError> {
    std::thread::scope(|scope| {
        // Without root there is nothing to be asked of the runtime; names of groups tell most.
        let known = nix::unistd::geteuid().is_root().then(|| scope.spawn(|| known_containers(settings)));
        let found = scan(wanted, onlooker)?;
        let known = known.map(|known| known.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        Ok(Report::new(found, known.unwrap_or_default()))
    })
}

/// What whoever upgraded packages should know. An upgrade does not fail for what is said about it.
fn after_upgrade(global: &Global) {
    // In another root the processes are those of somebody else's system.
    if !workloads::processes::is_own_system() {
        return;
    }
    let long_enough = LongEnough::after(PATIENCE);
    let report = global.settings().map_err(|failure| failure.error().to_string()).and_then(|settings| {
        let onlooker = Onlooker { interrupt: &long_enough, ..Onlooker::NOBODY };
        look(&[], &settings, onlooker).map_err(|error| match error {
            LookError::Stopped(_) => format!("looking at all processes took more than {PATIENCE:?}"),
            error => with_causes(&error),
        })
    });
    match report {
        Ok(report) if global.json => object(&report),
        Ok(report) => report.brief().iter().for_each(|text| line(text)),
        Err(why) => line(&format!("update: who still runs old code was not found out: {why}")),
    }
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
    let files = manifest.components.iter().flat_map(Component::replaces);
    Ok(files.map(|file| Wanted { size: file.size, ..Wanted::from(file.identity.clone()) }).collect())
}

/// What was found, by whose it is.
#[derive(Debug, Serialize)]
struct Report {
    processes: usize,
    unreadable: usize,
    unknown: Vec<Unknown>,
    groups: Vec<Group>,
    /// Processes that may run what their mappings do not show, and what that is.
    #[serde(serialize_with = "remarks")]
    not_proven: Vec<Opaque>,
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
            not_proven: scan.opaque,
            unreadable_containers: known.unreadable,
        }
    }

    /// For a person who has just upgraded packages: nothing if all is well.
    fn brief(&self) -> Vec<String> {
        let stale: usize = self.groups.iter().map(|group| group.stale.len()).sum();
        let mut lines = Vec::new();
        if stale > 0 {
            let of = if stale == 1 {
                "1 process still runs".to_owned()
            } else {
                format!("{stale} processes still run")
            };
            lines.push(format!("update: {of} code that is not on disk any more (update scan tells which):"));
            lines.extend(
                self.groups
                    .iter()
                    .take(BRIEF)
                    .map(|group| format!("    {}: {}", group.place(), group.names())),
            );
            let more = self.groups.len().saturating_sub(BRIEF);
            lines
                .extend((more > 0).then(|| format!("    and {more} more services, containers and sessions")));
        }
        if self.unreadable > 0 {
            lines.push(format!(
                "update: {} processes could not be looked at whole, and may run such code",
                self.unreadable
            ));
        }
        lines
    }

    /// For a person.
    fn lines(&self, units_of: &dyn Fn(Pid) -> Units) -> Vec<String> {
        let mut lines = Vec::new();
        for group in &self.groups {
            lines.push(group.owner.to_string());
            for stale in &group.stale {
                let unit = unit_beside(&group.owner, &stale.units);
                lines.push(format!("    {} (pid {}){unit}", stale.comm, stale.pid));
                lines.extend(stale.files.iter().map(|file| format!("        {}", words(file))));
            }
        }
        // To another user all processes are unknown, for one reason.
        let forbidden = |unknown: &&Unknown| unknown.reason.is_forbidden();
        lines.extend(
            self.unknown.iter().filter(|one| !forbidden(one)).map(|unknown| format!("UNKNOWN {unknown}")),
        );
        lines.extend(not_proven(&self.not_proven, units_of));
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

impl Group {
    /// What people restart: the container, the service, or the units that the processes are in.
    fn place(&self) -> String {
        if !matches!(self.owner, CgroupOwner::Unknown | CgroupOwner::Protected) {
            return self.owner.to_string();
        }
        let units: BTreeSet<&str> = self
            .stale
            .iter()
            .filter_map(|stale| stale.units.user_unit.as_deref().or(stale.units.unit.as_deref()))
            .collect();
        let units: Vec<&str> = units.into_iter().take(BRIEF).collect();
        if units.is_empty() { self.owner.to_string() } else { units.join(", ") }
    }

    /// What its processes call themselves, each name once, with how many there are.
    fn names(&self) -> String {
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for stale in &self.stale {
            *names.entry(stale.comm.to_string()).or_default() += 1;
        }
        let more = names.len().saturating_sub(BRIEF);
        let named = names.iter().take(BRIEF).map(|(name, count)| match count {
            1 => name.clone(),
            _ => format!("{name} ({count})"),
        });
        let named: Vec<String> = named.chain((more > 0).then(|| format!("and {more} more"))).collect();
        named.join(", ")
    }
}

/// How many places, and names at each, a brief report has.
const BRIEF: usize = 12;

/// A file, and why it should not be run any more. Of a program itself the build says more than its path.
fn words(file: &StaleFile) -> String {
    let why = match &file.why {
        Why::Replaced { .. } => "replaced on disk",
        Why::Deleted { .. } => "deleted on disk",
        Why::AtFault { .. } => "VULNERABLE",
    };
    let program = match (file.is_program, &file.why) {
        (true, Why::Replaced { runs: Some(runs), on_disk: Some(on_disk) }) => {
            format!(", the program itself: runs build {runs:.16}, on disk is {on_disk:.16}")
        }
        (true, Why::Replaced { runs: Some(runs), .. } | Why::Deleted { runs: Some(runs) }) => {
            format!(", the program itself: runs build {runs:.16}")
        }
        (true, _) => ", the program itself".to_owned(),
        (false, _) => String::new(),
    };
    format!("{}  {why}{program}", file.path)
}

/// The units of a process, where its owner does not say them.
fn unit_beside(owner: &CgroupOwner, units: &Units) -> String {
    let told = |unit: &String| matches!(owner, CgroupOwner::Service(service) if service == unit);
    let units: Vec<&str> =
        units.unit.iter().filter(|unit| !told(unit)).chain(&units.user_unit).map(String::as_str).collect();
    if units.is_empty() { String::new() } else { format!(", {}", units.join(", ")) }
}

/// A process of which not all is proven, for a program.
#[derive(Debug, Serialize)]
struct Remark<'a> {
    #[serde(flatten)]
    opaque: &'a Opaque,
    #[serde(flatten)]
    units: Units,
}

fn remarks<S: Serializer>(opaque: &[Opaque], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(opaque.iter().map(|one| Remark { opaque: one, units: procfs::units_of(one.pid) }))
}

/// What is not proven, in a line for each program.
fn not_proven(opaque: &[Opaque], units_of: &dyn Fn(Pid) -> Units) -> Vec<String> {
    let mut programs: BTreeMap<(Vec<NotProven>, String), Vec<&Opaque>> = BTreeMap::new();
    for process in opaque {
        let program = process.program.as_ref();
        let program =
            program.map_or_else(|| format!("pid {}", process.pid), |program| program.path.to_string());
        programs.entry((process.not_proven.clone(), program)).or_default().push(process);
    }
    let line = |((what, program), processes): ((Vec<NotProven>, String), Vec<&Opaque>)| {
        let what: Vec<String> = what.iter().map(ToString::to_string).collect();
        let build = processes[0].program.as_ref().and_then(|program| program.build.as_ref());
        let build = build.map(|build| format!(" (build {build:.16})")).unwrap_or_default();
        let count = match processes[..] {
            [one] => format!("pid {}", one.pid),
            _ => format!("{} processes", processes.len()),
        };
        // The first few say enough to a person, and the groups of thousands take long to read.
        let units = processes.iter().take(LOOKED_AT).map(|one| units_of(one.pid));
        let units: BTreeSet<String> = units.filter_map(|units| units.user_unit.or(units.unit)).collect();
        let named: String = units.iter().take(UNITS).flat_map(|unit| [", ", unit]).collect();
        let more = if units.len() > UNITS || processes.len() > LOOKED_AT { " and others" } else { "" };
        format!("not proven: {program}{build}: {} ({count}{named}{more})", what.join(", "))
    };
    programs.into_iter().map(line).collect()
}

/// Of how many processes of a line the units are asked for.
const LOOKED_AT: usize = 8;

/// How many units a line names.
const UNITS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use workloads::model::KnownContainer;
    use workloads::model::{Build, GoBuildId};
    use workloads::processes::Program;
    use workloads::processes::Reason;
    use workloads::processes::program::{Interpreter, Linked};

    fn stale(pid: u32, comm: &[u8], cgroup: &str, why: Why) -> Stale {
        let files = vec![StaleFile { path: "/usr/lib/libgreet.so.1".into(), why, is_program: false }];
        let units = Units::of(cgroup.as_bytes());
        Stale { pid: Pid(pid), comm: comm.into(), cgroup: Some(cgroup.into()), units, program: None, files }
    }

    #[test]
    fn processes_are_told_by_container_and_service() {
        let unreadable = |pid, file, errno| Unknown {
            pid: Pid(pid),
            comm: "odd".into(),
            file,
            reason: Reason::Unreadable { errno },
        };
        let program = |path: &str, build: &[u8]| Program {
            path: path.into(),
            build: GoBuildId::from_bytes(build).map(Build::Go),
            linked: Linked::ByGo,
        };
        let opaque =
            |pid, program: Option<Program>, not_proven| Opaque { pid: Pid(pid), program, not_proven };
        let python = |pid| {
            let program = program("/usr/bin/python3.11", b"");
            opaque(pid, Some(program), vec![NotProven::Read(Interpreter::Python)])
        };
        let units_of = |pid: Pid| {
            Units::of(match pid.0 {
                40 => b"/system.slice/greeter.service",
                41 => b"/system.slice/a.service",
                42 | 43 => b"/system.slice/b.service",
                44 => b"/system.slice/c.service",
                45 => b"/user.slice/user-1.slice/user@1.service/app.slice/d.service",
                _ => b"/runc/web-1",
            })
        };
        let mut greeter = stale(40, b"greeter", "/system.slice/greeter.service", Why::Deleted { runs: None });
        greeter.program = Some(program("/usr/bin/greeter", b"one/main/package/content"));
        greeter.files = vec![StaleFile {
            path: "/usr/bin/greeter".into(),
            why: Why::Replaced {
                runs: GoBuildId::from_bytes(b"one/main/package/content").map(Build::Go),
                on_disk: GoBuildId::from_bytes(b"two").map(Build::Go),
            },
            is_program: true,
        }];
        let scan = Scan {
            opaque: vec![
                opaque(40, greeter.program.clone(), vec![NotProven::Linked]),
                python(41),
                python(42),
                python(43),
                python(44),
                python(45),
                opaque(46, None, vec![NotProven::Read(Interpreter::Java), NotProven::Memory]),
            ],
            processes: 120,
            unreadable: 2,
            unknown: vec![
                unreadable(17, None, nix::libc::EACCES),
                unreadable(18, Some("/mnt/gone\nerror: no".into()), nix::libc::ENOTCONN),
            ],
            stale: vec![
                greeter,
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
        insta::assert_snapshot!(report.lines(&units_of).join("\n"));
        insta::assert_snapshot!("brief", report.brief().join("\n"));
    }

    #[test]
    fn after_an_upgrade_that_left_nothing_behind_nothing_is_said() {
        let scan = Scan { processes: 9, unreadable: 0, unknown: vec![], stale: vec![], opaque: vec![] };
        assert_eq!(Report::new(scan, Known::default()).brief(), <[String; 0]>::default());
    }

    #[test]
    fn a_package_manager_is_not_kept_waiting_for_ever() {
        assert!(!LongEnough::after(Duration::from_secs(600)).asked());
        let over = LongEnough { until: Duration::ZERO };
        let onlooker = Onlooker { interrupt: &over, ..Onlooker::NOBODY };
        assert!(matches!(look(&[], &Config::default(), onlooker), Err(LookError::Stopped(_))));
    }
}
