//! What a container stands on and is held by: bundle, network, supervisor; programs and kernel modules.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use system::command;

use crate::files::mountinfo::Mount;
use crate::lifecycle::podman;
use crate::model::{Container, NetworkPlace, Pid, RuntimeName};
use crate::model::{Obstacle, ObstacleKind, ObstacleProcess};
use crate::processes::procfs;

/// CRIU cannot lock a network without iptables.
const PROGRAMS: &[&str] = &["criu", "nft", "iptables-restore", "ip6tables-restore"];
/// CRIU reads sockets through these.
const MODULES: &[&str] =
    &["unix_diag", "inet_diag", "tcp_diag", "udp_diag", "netlink_diag", "af_packet_diag"];

/// What the bundle's `config.json` says that matters here.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    terminal: Terminal,
    volumes: Vec<PathBuf>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Terminal {
    Wanted,
    #[default]
    NotWanted,
}

#[derive(Debug, Deserialize)]
struct Config {
    process: Option<ConfigProcess>,
    #[serde(default)]
    mounts: Vec<ConfigMount>,
}

#[derive(Debug, Deserialize)]
struct ConfigProcess {
    #[serde(default)]
    terminal: bool,
}

#[derive(Debug, Deserialize)]
struct ConfigMount {
    destination: PathBuf,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    options: Vec<String>,
}

impl Bundle {
    pub(crate) fn read(container: &Container, found: &mut Vec<Obstacle>) -> Self {
        let path = container.bundle.join("config.json");
        let config = fs::read(&path)
            .map_err(|error| error.to_string())
            .and_then(|json| serde_json::from_slice::<Config>(&json).map_err(|error| error.to_string()));
        match config {
            Ok(config) => Self::from_config(config),
            Err(error) => {
                found.push(Obstacle::of_all(ObstacleKind::Unreadable, path.display().to_string(), error));
                Self::default()
            }
        }
    }

    fn from_config(config: Config) -> Self {
        let bound = |mount: &ConfigMount| {
            mount.kind.as_deref() == Some("bind")
                || mount.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"))
        };
        let terminal = config.process.is_some_and(|process| process.terminal);
        Self {
            terminal: if terminal { Terminal::Wanted } else { Terminal::NotWanted },
            volumes: config.mounts.into_iter().filter(bound).map(|mount| mount.destination).collect(),
        }
    }

    /// Whether a mount brings in files from outside that the container may change.
    pub(crate) fn is_writable_volume(&self, mount: &Mount) -> bool {
        let read_only = mount.options.split(',').any(|option| option == "ro");
        !read_only && self.volumes.iter().any(|volume| mount.point.starts_with(volume))
    }
}

/// What the host lacks for checkpoints by this runtime.
pub(crate) fn host(runtime: &RuntimeName) -> Vec<Obstacle> {
    let own = [runtime.as_str()];
    let programs = own
        .iter()
        .chain(PROGRAMS)
        .filter(|program| command::find(program).is_none())
        .map(|program| Obstacle::of_all(ObstacleKind::MissingProgram, *program, "not installed"));
    let modules = Modules::read();
    let absent = MODULES.iter().filter(|module| !modules.has(module)).map(|module| {
        Obstacle::of_all(ObstacleKind::MissingModule, *module, "not available for the running kernel")
    });
    programs.chain(absent).collect()
}

/// Modules that are loaded, built in, or can be loaded.
struct Modules(Vec<String>);

impl Modules {
    fn read() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let directory = Path::new("/lib/modules").join(release.trim());
        let mut names = Vec::new();
        let loaded = fs::read_to_string("/proc/modules").unwrap_or_default();
        names.extend(loaded.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned));
        for list in ["modules.builtin", "modules.dep"] {
            let text = fs::read_to_string(directory.join(list)).unwrap_or_default();
            names.extend(text.lines().filter_map(module_of_path));
        }
        Self(names)
    }

    fn has(&self, module: &str) -> bool {
        self.0.iter().any(|name| name == module)
    }
}

/// `kernel/net/unix/unix_diag.ko.xz: …` names `unix_diag`; dashes and underscores are one.
fn module_of_path(line: &str) -> Option<String> {
    let file = line.split(':').next()?.rsplit('/').next()?;
    Some(file.split(".ko").next()?.replace('-', "_"))
}

/// What holds the container as a whole.
pub(crate) fn container(container: &Container, init: Pid, bundle: &Bundle, found: &mut Vec<Obstacle>) {
    let mut report = |kind, place: &str, what: String| {
        found.push(Obstacle::of_all(kind, place, what));
    };
    // An engine's monitor holds the other side of a terminal, and waits for the end of what it started.
    let monitored = container.id.runtime == podman::NAME;
    if bundle.terminal == Terminal::Wanted && !monitored {
        let what = "`process.terminal` is true".to_owned();
        report(ObstacleKind::TerminalWanted, "config.json", what);
    }
    match &container.network {
        NetworkPlace::Own => {
            let foreign = interfaces(init);
            if !foreign.is_empty() {
                report(ObstacleKind::OwnInterfaces, "its own network namespace", foreign.join(", "));
            }
        }
        NetworkPlace::Path(path) | NetworkPlace::Engine(path)
            if identity(path) != identity(&own_namespace(init, "net")) =>
        {
            let what = "it is not the namespace that its processes are in".to_owned();
            report(ObstacleKind::NetworkMoved, &path.display().to_string(), what);
        }
        // Of a bundle that cannot be read its reading has told.
        NetworkPlace::Path(_) | NetworkPlace::Engine(_) | NetworkPlace::Host | NetworkPlace::Unknown(_) => {}
    }
    if identity(&own_namespace(init, "pid")) == identity(Path::new("/proc/self/ns/pid")) {
        let what = "the host's pid namespace".to_owned();
        report(ObstacleKind::SharedPidNamespace, "its processes", what);
    }
    found.extend(supervisor(init).filter(|_| !monitored));
}

fn own_namespace(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{name}"))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino())).ok()
}

/// Interfaces besides the loopback one.
fn interfaces(pid: Pid) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    names.filter(|name| *name != "lo").map(str::to_owned).collect()
}

/// The parent of a detached container's first process is the host's init, or a user's systemd; any
/// other waits for its end: a foreground `runc run`, a shim, conmon.
fn supervisor(init: Pid) -> Option<Obstacle> {
    let parent = procfs::parent(init).filter(|parent| parent.0 > 1)?;
    let comm = procfs::comm(parent)?.to_string();
    (comm != "systemd").then(|| Obstacle {
        kind: ObstacleKind::Supervised,
        process: Some(ObstacleProcess { pid: parent, comm: comm.clone() }),
        place: "its first process".into(),
        found: format!("{comm} waits for it"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_the_bind_mounts_of_the_bundle() {
        let config = r#"{"process": {"terminal": true}, "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rw"]},
            {"destination": "/etc/hosts", "source": "/x", "options": ["bind", "ro"]}]}"#;
        let bundle = Bundle::from_config(serde_json::from_str(config).unwrap());
        assert_eq!(bundle.terminal, Terminal::Wanted);
        let mount = |point: &str, options: &str| Mount {
            id: 1,
            device: "8:1".into(),
            root: "/".into(),
            point: point.into(),
            options: options.into(),
            kind: "ext4".into(),
            super_options: String::new(),
        };
        assert!(bundle.is_writable_volume(&mount("/data", "rw,relatime")));
        assert!(bundle.is_writable_volume(&mount("/data/below", "rw")));
        assert!(!bundle.is_writable_volume(&mount("/etc/hosts", "ro,relatime")));
        assert!(!bundle.is_writable_volume(&mount("/", "rw")));
    }

    #[test]
    fn modules_are_found_by_name_whatever_their_suffix() {
        for line in [
            "kernel/net/unix/unix_diag.ko: ",
            "kernel/net/unix/unix-diag.ko.xz: a.ko",
            "kernel/x/unix_diag.ko",
        ] {
            assert_eq!(module_of_path(line).as_deref(), Some("unix_diag"), "{line}");
        }
    }
}
