//! Open descriptors: what each one is, and whether CRIU can make it again.
//!
//! The kernel's names for anonymous files come from `anon_inode_getfd` and friends; the list of those
//! that CRIU knows is that of CRIU 3.17 (`criu/files.c`, `dump_one_file`), and what later versions added.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use nix::sys::statfs::{FsType, statfs};

use crate::criu::obstacles::of;
use crate::criu::obstacles::surroundings::Bundle;
use crate::criu::version::Version;
use crate::files::mountinfo;
use crate::files::mountinfo::Mount;
use crate::lifecycle::{podman, runc};
use crate::model::{Obstacle, ObstacleKind, Pid, RuntimeName};
use crate::processes::procfs::{self, Process};

/// `MQUEUE_MAGIC` of `ipc/mqueue.c`; not in the user-space headers.
const MQUEUE: FsType = FsType(0x1980_0202);

/// What was seen on the way that others need.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Sockets by inode, and one process that has it.
    pub(crate) sockets: BTreeMap<u64, Process>,
}

/// An open descriptor.
struct Open<'a> {
    process: &'a Process,
    number: String,
    link: String,
    info: String,
}

impl Open<'_> {
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", self.process.pid, self.number)
    }

    fn place(&self) -> String {
        format!("descriptor {}", self.number)
    }

    fn obstacle(&self, kind: ObstacleKind, found: impl Into<String>) -> Obstacle {
        of(self.process, kind, self.place(), found)
    }

    /// A field of `fdinfo`.
    fn field(&self, name: &str) -> Option<&str> {
        self.info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The inode in `pipe:[7]` and the like.
    fn inode(&self, kind: &str) -> Option<u64> {
        self.link.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
    }
}

/// The standard streams.
const STREAMS: [&str; 3] = ["0", "1", "2"];

/// Where a container's standard streams lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    /// Wherever it says.
    Its,
    /// To the engine's monitor, which has them made anew when it comes back.
    Monitored,
}

/// What depends on who has CRIU dump.
#[derive(Debug, Clone, Copy)]
struct By {
    streams: Streams,
    ghost_limit: u64,
}

impl By {
    fn of(runtime: &RuntimeName) -> Self {
        match *runtime == podman::NAME {
            true => Self { streams: Streams::Monitored, ghost_limit: podman::GHOST_LIMIT },
            false => Self { streams: Streams::Its, ghost_limit: runc::GHOST_LIMIT },
        }
    }
}

/// Which ends of a pipe the container has.
#[derive(Debug, Default)]
struct Pipe {
    ends: BTreeSet<End>,
    seen: Option<Obstacle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Reads,
    Writes,
}

pub(crate) fn look(
    processes: &[Process],
    runtime: &RuntimeName,
    bundle: &Bundle,
    found: &mut Vec<Obstacle>,
) -> View {
    let by = By::of(runtime);
    // Few containers have a descriptor for which it matters.
    let criu: LazyCell<Option<Version>> = LazyCell::new(Version::installed);
    let mut view = View::default();
    let mut pipes: BTreeMap<u64, Pipe> = BTreeMap::new();
    let mut terminals: Vec<(u64, Obstacle)> = Vec::new();
    let mut masters: BTreeSet<u64> = BTreeSet::new();
    let mut tables: HashMap<String, Vec<Mount>> = HashMap::new();
    for process in processes {
        let namespace = fs::read_link(format!("/proc/{}/ns/mnt", process.pid)).unwrap_or_default();
        let mounts = tables.entry(namespace.to_string_lossy().into_owned()).or_insert_with(|| {
            mountinfo::parse(&fs::read(format!("/proc/{}/mountinfo", process.pid)).unwrap_or_default())
        });
        for open in descriptors(process) {
            if let Some(inode) = open.inode("socket") {
                view.sockets.entry(inode).or_insert_with(|| process.clone());
                found.extend(socket(&open));
            } else if let Some(inode) = open.inode("pipe") {
                if by.streams == Streams::Monitored && STREAMS.contains(&open.number.as_str()) {
                    continue;
                }
                let pipe = pipes.entry(inode).or_default();
                pipe.ends.extend(ends(&open));
                pipe.seen.get_or_insert_with(|| open.obstacle(ObstacleKind::ForeignPipe, &open.link));
            } else if let Some(index) = open.field("tty-index") {
                masters.extend(index.parse::<u64>());
            } else if open.link.starts_with("anon_inode:") {
                found.extend(anonymous(&open, &criu, processes));
            } else if open.link.starts_with('/') {
                match file(&open, mounts, bundle, by.ghost_limit) {
                    Seen::Fine => {}
                    Seen::Obstacle(obstacle) => found.push(obstacle),
                    Seen::Terminal(index) => {
                        terminals.push((index, open.obstacle(ObstacleKind::ForeignTerminal, &open.link)));
                    }
                }
            }
        }
        mappings(process, by.ghost_limit, found);
    }
    let orphans = terminals.into_iter().filter(|(index, _)| !masters.contains(index));
    found.extend(orphans.map(|(_, obstacle)| obstacle));
    foreign_pipes(pipes, processes, found);
    view
}

fn descriptors(process: &Process) -> Vec<Open<'_>> {
    let entries = fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let number = entry.file_name().to_string_lossy().into_owned();
            let link = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            let info = procfs::words(format!("/proc/{}/fdinfo/{number}", process.pid)).ok()?;
            Some(Open { process, number, link, info })
        })
        .collect()
}

/// Anonymous files by the kernel's name for them.
fn anonymous_kind(name: &str) -> Option<ObstacleKind> {
    Some(match name {
        // Those that CRIU knows.
        "[eventpoll]" | "[eventfd]" | "[timerfd]" | "[signalfd]" | "inotify" | "[fanotify]" => return None,
        "[io_uring]" => ObstacleKind::IoUring,
        "[perf_event]" => ObstacleKind::PerfEvent,
        "[userfaultfd]" => ObstacleKind::Userfaultfd,
        "[pidfd]" => ObstacleKind::Pidfd,
        _ if name.trim_start_matches('[').starts_with("bpf") || name == "btf" => ObstacleKind::Bpf,
        _ => ObstacleKind::UnknownDescriptor,
    })
}

fn anonymous(open: &Open<'_>, criu: &LazyCell<Option<Version>>, processes: &[Process]) -> Option<Obstacle> {
    let kind = anonymous_kind(open.link.strip_prefix("anon_inode:")?)?;
    let dumped =
        kind == ObstacleKind::Pidfd && leads_inside(open, processes) && **criu >= Some(Version::DUMPS_PIDFDS);
    (!dumped).then(|| open.obstacle(kind, &open.link))
}

/// Whether the descriptor of a process is of one that goes with it, or of one that has ended (pid -1).
fn leads_inside(open: &Open<'_>, processes: &[Process]) -> bool {
    let pid: Option<i64> = open.field("Pid").and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| pid < 0 || processes.iter().any(|process| i64::from(process.pid.0) == pid))
}

/// Protocols that CRIU 3.17 dumps, by the kernel's name (`struct proto`); anything else is refused.
fn socket_is_known(protocol: &str) -> bool {
    const KNOWN: &[&str] = &[
        "NETLINK",
        "PACKET",
        "RAW",
        "RAWv6",
        "TCP",
        "TCPv6",
        "UDP",
        "UDP-Lite",
        "UDPLITE",
        "UDPLITEv6",
        "UDPv6",
        "UNIX",
        "UNIX-STREAM",
    ];
    KNOWN.contains(&protocol)
}

fn socket(open: &Open<'_>) -> Option<Obstacle> {
    // The kernel answers this for every socket (`net/socket.c`, sockfs_xattr_handlers).
    let protocol = xattr::get_deref(open.path(), "system.sockprotoname").ok()??;
    let protocol = String::from_utf8_lossy(&protocol).trim_end_matches('\0').to_owned();
    let known = socket_is_known(&protocol);
    (!known).then(|| open.obstacle(ObstacleKind::SocketFamily, format!("a {protocol} socket")))
}

fn ends(open: &Open<'_>) -> Vec<End> {
    let flags = open.field("flags").and_then(|flags| u32::from_str_radix(flags, 8).ok()).unwrap_or(0);
    match flags & 3 {
        0 => vec![End::Reads],
        1 => vec![End::Writes],
        _ => vec![End::Reads, End::Writes],
    }
}

/// Pipes of which the container has one end only, while somebody outside has the other.
fn foreign_pipes(pipes: BTreeMap<u64, Pipe>, processes: &[Process], found: &mut Vec<Obstacle>) {
    let half: BTreeMap<u64, Obstacle> = pipes
        .into_iter()
        .filter(|(_, pipe)| pipe.ends.len() < 2)
        .filter_map(|(inode, pipe)| Some((inode, pipe.seen?)))
        .collect();
    if half.is_empty() {
        return;
    }
    let inside: BTreeSet<String> = processes.iter().map(|process| process.pid.to_string()).collect();
    let mut reported = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || inside.contains(&pid) {
            continue;
        }
        for descriptor in fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(link) = fs::read_link(descriptor.path()) else { continue };
            let link = link.to_string_lossy().into_owned();
            let Some(obstacle) = half.iter().find(|(inode, _)| link == format!("pipe:[{inode}]")) else {
                continue;
            };
            if reported.insert(*obstacle.0) {
                let comm = pid.parse().ok().and_then(|pid| procfs::comm(Pid(pid))).unwrap_or_default();
                let outside = format!("its other end is held by {comm} (pid {pid})");
                found.push(Obstacle { found: outside, ..obstacle.1.clone() });
            }
        }
    }
}

enum Seen {
    Fine,
    Obstacle(Obstacle),
    /// A slave pseudo terminal of this index.
    Terminal(u64),
}

/// Kernel-internal mounts that hold these never show in a mount table.
fn is_memory(link: &str) -> bool {
    ["/memfd:", "/SYSV", "/anon_hugepage", "/[aio]", "/dev/zero (deleted)"]
        .iter()
        .any(|prefix| link.starts_with(prefix))
}

fn file(open: &Open<'_>, mounts: &[Mount], bundle: &Bundle, ghost_limit: u64) -> Seen {
    // Gone in the meantime.
    let Ok(metadata) = fs::metadata(open.path()) else { return Seen::Fine };
    if is_memory(&open.link) {
        return Seen::Fine;
    }
    if open.link.starts_with("/dmabuf:") {
        return Seen::Obstacle(open.obstacle(ObstacleKind::UnknownDescriptor, &open.link));
    }
    let kind = metadata.file_type();
    if metadata.is_file() && statfs(Path::new(&open.path())).is_ok_and(|fs| fs.filesystem_type() == MQUEUE) {
        return Seen::Obstacle(open.obstacle(ObstacleKind::MessageQueue, &open.link));
    }
    let mount = open.field("mnt_id").and_then(|id| id.parse().ok());
    let mount = mounts.iter().find(|one| Some(one.id) == mount);
    if kind.is_char_device() {
        match device(&metadata) {
            Device::Memory if mount.is_some() => return Seen::Fine,
            // Pseudo terminals of the host are recognised by their missing master.
            Device::Slave(index) => return Seen::Terminal(index),
            Device::Master => return Seen::Fine,
            Device::Memory => {}
            Device::Other => return Seen::Obstacle(open.obstacle(ObstacleKind::Device, &open.link)),
        }
    }
    if kind.is_block_device() {
        return Seen::Obstacle(open.obstacle(ObstacleKind::Device, &open.link));
    }
    let Some(mount) = mount else {
        return Seen::Obstacle(open.obstacle(ObstacleKind::ForeignFile, &open.link));
    };
    if !metadata.is_file() {
        return Seen::Fine;
    }
    if open.link.ends_with(" (deleted)") {
        return deleted(open, &metadata, ghost_limit).map_or(Seen::Fine, Seen::Obstacle);
    }
    if bundle.is_writable_volume(mount) {
        return Seen::Obstacle(open.obstacle(ObstacleKind::OpenFileOnVolume, &open.link));
    }
    Seen::Fine
}

fn deleted(open: &Open<'_>, metadata: &Metadata, ghost_limit: u64) -> Option<Obstacle> {
    if metadata.nlink() > 0 {
        return Some(open.obstacle(ObstacleKind::DeletedButLinked, &open.link));
    }
    (metadata.size() > ghost_limit).then(|| {
        let what = format!("{}, {} bytes", open.link, metadata.size());
        open.obstacle(ObstacleKind::LargeDeletedFile, what)
    })
}

/// Character devices (kernel `Documentation/admin-guide/devices.txt`).
enum Device {
    /// null, zero, full, random, urandom.
    Memory,
    /// A slave pseudo terminal.
    Slave(u64),
    /// `/dev/ptmx`, `/dev/tty`.
    Master,
    Other,
}

fn device(metadata: &Metadata) -> Device {
    match (major(metadata.rdev()), minor(metadata.rdev())) {
        (1, _) => Device::Memory,
        (5, 0 | 2) => Device::Master,
        (block @ 136..=143, index) => Device::Slave((block - 136) * 256 + index),
        _ => Device::Other,
    }
}

/// Mapped devices, and deleted files that are mapped but not open.
fn mappings(process: &Process, ghost_limit: u64, found: &mut Vec<Obstacle>) {
    let maps = procfs::words(format!("/proc/{}/maps", process.pid)).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for line in maps.lines() {
        let mut fields = line.splitn(6, ' ');
        let (Some(range), Some(path)) = (fields.next(), fields.nth(4).map(str::trim_start)) else { continue };
        if path.is_empty() || is_memory(path) || !seen.insert(path.to_owned()) {
            continue;
        }
        if let Some(kind) = path.strip_prefix("anon_inode:").and_then(anonymous_kind) {
            found.push(of(process, kind, "memory", path));
        } else if path.starts_with("/dev/") && !path.starts_with("/dev/shm/") && path != "/dev/zero" {
            found.push(of(process, ObstacleKind::Device, "memory", path));
        } else if path.starts_with('/') && path.ends_with(" (deleted)") {
            let Some((start, end)) = range.split_once('-') else { continue };
            let trim = |number: &str| u64::from_str_radix(number, 16).unwrap_or(0);
            let link = format!("/proc/{}/map_files/{:x}-{:x}", process.pid, trim(start), trim(end));
            let Ok(metadata) = fs::metadata(&link) else { continue };
            let open = Open { process, number: "memory".into(), link: path.to_owned(), info: String::new() };
            found.extend(
                deleted(&open, &metadata, ghost_limit).map(|one| Obstacle { place: "memory".into(), ..one }),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_files_are_known_or_stand_in_the_way() {
        for name in ["[eventpoll]", "[eventfd]", "[timerfd]", "[signalfd]", "inotify", "[fanotify]"] {
            assert_eq!(anonymous_kind(name), None, "{name}");
        }
        for (name, kind) in [
            ("[io_uring]", ObstacleKind::IoUring),
            ("[perf_event]", ObstacleKind::PerfEvent),
            ("[userfaultfd]", ObstacleKind::Userfaultfd),
            ("[pidfd]", ObstacleKind::Pidfd),
            ("bpf-map", ObstacleKind::Bpf),
            ("bpf-prog", ObstacleKind::Bpf),
            ("bpf_link", ObstacleKind::Bpf),
            ("[landlock-ruleset]", ObstacleKind::UnknownDescriptor),
            ("", ObstacleKind::UnknownDescriptor),
        ] {
            assert_eq!(anonymous_kind(name), Some(kind), "{name}");
        }
    }

    #[test]
    fn sockets_of_other_families_stand_in_the_way() {
        assert!(["TCP", "UDPv6", "UNIX-STREAM", "NETLINK", "PACKET"].into_iter().all(socket_is_known));
        assert!(!["SCTP", "AF_VSOCK", "ALG", "MPTCP", "PING", ""].into_iter().any(socket_is_known));
    }
}
