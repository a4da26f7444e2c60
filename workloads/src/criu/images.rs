//! Reading CRIU's image files: what a checkpoint holds and what it cost.
//!
//! Bytes in, values out, but for the thin functions that open a named image of a checkpoint. The
//! connections, files and processes are taken from here and not from `/proc` because the images are
//! exact (they *are* what a restore brings back) and reading them costs no frozen time.
//!
//! Format (CRIU `criu/include/magic.h`, `images/*.proto`; unchanged since 2.0): two little-endian
//! 32-bit magics, a common one and one of the file's kind, then entries of a 32-bit length and a
//! protobuf message. Only the fields used here are declared; protobuf skips the others. Names are declared as bytes:
//! CRIU writes what the kernel says, which need not be UTF-8.
//!
//! What this does not do: memory pages, and writing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::model::{CheckpointStats, Comm, SeenPath};

const IMAGE: u32 = 0x5456_4319;
const SERVICE: u32 = 0x5510_5940;
const FILES: u32 = 0x5630_3138;
const PSTREE: u32 = 0x5027_3030;
const MOUNTS: u32 = 0x5556_3928;
const CORE: u32 = 0x5505_3847;
const STATS: u32 = 0x5709_3306;

/// The largest image read whole. `files.img` has about 100 bytes per open or mapped file.
const LARGEST: u64 = 256 << 20;

/// The largest single message; CRIU's own are far smaller.
const LARGEST_MESSAGE: usize = 16 << 20;

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be opened or read.
    #[error("could not read the checkpoint image {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is larger than any real image of its kind.
    #[error("the checkpoint image {path} has {size} bytes, expected at most {LARGEST}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// The file is not an image of the expected kind.
    #[error("the checkpoint image {path} is malformed")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        source: FormatError,
    },
}

/// What is wrong with an image's bytes.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FormatError {
    /// The first eight bytes are not those of the expected kind.
    #[error("expected the magics {expected:08x?}, found {found:08x?}")]
    Magic {
        /// Common magic, kind.
        expected: [u32; 2],
        /// What is there.
        found: [u32; 2],
    },
    /// The bytes end inside an entry, or an entry claims an absurd length.
    #[error("entry at byte {at} claims {claimed} bytes, {left} are left")]
    Length {
        /// Where the entry begins.
        at: usize,
        /// What it claims.
        claimed: usize,
        /// What there is.
        left: usize,
    },
    /// A message is not the expected protobuf.
    #[error("entry at byte {at} is not the expected message")]
    Message {
        /// Where the entry begins.
        at: usize,
        /// Why.
        source: prost::DecodeError,
    },
    /// An address does not have the length of its family.
    #[error("socket {id} of family {family} has an address of {words} words")]
    Address {
        /// The socket's number in the image.
        id: u32,
        /// Its address family.
        family: u32,
        /// 32-bit words of address.
        words: usize,
    },
    /// There is no entry where one must be.
    #[error("no entry")]
    Empty,
}

/// One TCP connection, seen from the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Connection {
    /// The container's end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

impl std::fmt::Display for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <-> {}", self.local, self.peer)
    }
}

/// Where a file of a checkpoint lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilePlace {
    /// In the root file system.
    Root,
    /// On a mount that comes from outside (a volume); its files are not part of any snapshot.
    Volume {
        /// Where it is mounted in the container.
        mountpoint: SeenPath,
    },
    /// On a file system whose content is in the checkpoint or made up by the kernel (tmpfs, proc).
    Private,
}

/// A regular file that a process has open or mapped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckpointedFile {
    /// Its absolute path inside the container.
    pub path: SeenPath,
    /// Where it lies.
    pub place: FilePlace,
    /// The size with which CRIU expects to find it.
    pub size: Option<u64>,
}

/// What a checkpoint needs from its surroundings to come back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckpointContent {
    /// TCP connections with a peer outside the checkpoint.
    pub connections: Vec<Connection>,
    /// Regular files, sorted, each once.
    pub files: Vec<CheckpointedFile>,
    /// Living processes.
    pub processes: Vec<CheckpointedProcess>,
}

/// A process that lives in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckpointedProcess {
    /// Its id inside the container.
    pub pid: u32,
    /// Its command name when it was dumped; it may have another now.
    pub comm: Comm,
}

impl std::fmt::Display for CheckpointedProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.pid, self.comm)
    }
}

#[derive(Clone, PartialEq, Message)]
struct FileEntry {
    #[prost(uint32, tag = "2")]
    id: u32,
    #[prost(message, optional, tag = "3")]
    reg: Option<RegFileEntry>,
    #[prost(message, optional, tag = "4")]
    isk: Option<InetSkEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct RegFileEntry {
    #[prost(bytes = "vec", tag = "6")]
    name: Vec<u8>,
    #[prost(sint32, optional, tag = "7")]
    mnt_id: Option<i32>,
    #[prost(uint64, optional, tag = "8")]
    size: Option<u64>,
    #[prost(bool, optional, tag = "9")]
    ext: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct InetSkEntry {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(uint32, tag = "3")]
    family: u32,
    #[prost(uint32, tag = "5")]
    proto: u32,
    #[prost(uint32, tag = "6")]
    state: u32,
    #[prost(uint32, tag = "7")]
    src_port: u32,
    #[prost(uint32, tag = "8")]
    dst_port: u32,
    #[prost(uint32, repeated, packed = "false", tag = "11")]
    src_addr: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "12")]
    dst_addr: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct PstreeEntry {
    #[prost(uint32, tag = "1")]
    pid: u32,
}

#[derive(Clone, PartialEq, Message)]
struct CoreEntry {
    #[prost(message, optional, tag = "3")]
    tc: Option<TaskCoreEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct TaskCoreEntry {
    #[prost(uint32, tag = "1")]
    task_state: u32,
    #[prost(bytes = "vec", tag = "6")]
    comm: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct MountEntry {
    #[prost(uint32, tag = "1")]
    fstype: u32,
    #[prost(uint32, tag = "2")]
    mnt_id: u32,
    #[prost(bytes = "vec", tag = "7")]
    mountpoint: Vec<u8>,
    #[prost(bool, optional, tag = "13")]
    ext_mount: Option<bool>,
    #[prost(bytes = "vec", optional, tag = "18")]
    ext_key: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct StatsEntry {
    #[prost(message, optional, tag = "1")]
    dump: Option<DumpStatsEntry>,
    #[prost(message, optional, tag = "2")]
    restore: Option<RestoreStatsEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct RestoreStatsEntry {
    #[prost(uint32, tag = "3")]
    forking_time: u32,
    #[prost(uint32, tag = "4")]
    restore_time: u32,
}

#[derive(Clone, PartialEq, Message)]
struct DumpStatsEntry {
    #[prost(uint32, tag = "1")]
    freezing_time: u32,
    #[prost(uint32, tag = "2")]
    frozen_time: u32,
    #[prost(uint32, tag = "3")]
    memdump_time: u32,
    #[prost(uint32, tag = "4")]
    memwrite_time: u32,
    #[prost(uint64, tag = "5")]
    pages_scanned: u64,
    #[prost(uint64, tag = "6")]
    pages_skipped_parent: u64,
    #[prost(uint64, tag = "7")]
    pages_written: u64,
}

/// Splits an image into its messages.
fn entries<M: Message + Default>(bytes: &[u8], expected: [u32; 2]) -> Result<Vec<M>, FormatError> {
    let word = |at: usize| {
        bytes.get(at..at + 4).map_or(0, |four| u32::from_le_bytes(four.try_into().expect("four bytes")))
    };
    let found = [word(0), word(4)];
    if found != expected {
        return Err(FormatError::Magic { expected, found });
    }
    let mut messages = Vec::new();
    let mut at = 8;
    while at < bytes.len() {
        let claimed = if bytes.len() - at < 4 { usize::MAX } else { word(at) as usize };
        let left = bytes.len().saturating_sub(at + 4);
        if claimed > left || claimed > LARGEST_MESSAGE {
            return Err(FormatError::Length { at, claimed, left });
        }
        let message = M::decode(&bytes[at + 4..at + 4 + claimed])
            .map_err(|source| FormatError::Message { at, source })?;
        messages.push(message);
        at += 4 + claimed;
    }
    Ok(messages)
}

/// The kernel's numbers (`include/net/tcp_states.h`, `<linux/in.h>`).
const TCP: u32 = 6;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

impl InetSkEntry {
    fn connection(&self) -> Result<Option<Connection>, FormatError> {
        if self.proto != TCP || matches!(self.state, 0 | TCP_CLOSE | TCP_LISTEN) {
            return Ok(None);
        }
        let local = SocketAddr::new(self.address(&self.src_addr)?, self.src_port as u16);
        let peer = SocketAddr::new(self.address(&self.dst_addr)?, self.dst_port as u16);
        Ok(Some(Connection { local, peer }))
    }

    /// The words are the socket's address bytes as they lay in memory. An IPv4 connection of a
    /// dual-stack socket is stored as IPv6 but travels as IPv4.
    fn address(&self, words: &[u32]) -> Result<IpAddr, FormatError> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let malformed = FormatError::Address { id: self.id, family: self.family, words: words.len() };
        match self.family as i32 {
            libc::AF_INET => <[u8; 4]>::try_from(bytes).map(|four| Ipv4Addr::from(four).into()),
            libc::AF_INET6 => <[u8; 16]>::try_from(bytes).map(|all| Ipv6Addr::from(all).to_canonical()),
            _ => return Err(malformed),
        }
        .map_err(|_| malformed)
    }
}

/// The TCP connections in a `files.img`, without those that have both ends in it: nobody outside
/// waits for them.
fn connections(files: &[FileEntry]) -> Result<Vec<Connection>, FormatError> {
    let mut all = BTreeSet::new();
    for socket in files.iter().filter_map(|file| file.isk.as_ref()) {
        all.extend(socket.connection()?);
    }
    let inside = |one: &&Connection| all.contains(&Connection { local: one.peer, peer: one.local });
    Ok(all.iter().filter(|one| !inside(one)).copied().collect())
}

/// `fstype` numbers of `mnt.proto` whose content CRIU keeps in the images or the kernel makes up:
/// everything it knows by name but overlayfs and FUSE.
fn is_private(fstype: u32) -> bool {
    const UNSUPPORTED: u32 = 0;
    const FUSE: u32 = 15;
    const AUTO: u32 = 16;
    const OVERLAYFS: u32 = 17;
    !matches!(fstype, UNSUPPORTED | FUSE | AUTO | OVERLAYFS)
}

fn checkpointed_files(files: &[FileEntry], mounts: &[MountEntry]) -> Vec<CheckpointedFile> {
    let by_id: BTreeMap<u32, &MountEntry> = mounts.iter().map(|mount| (mount.mnt_id, mount)).collect();
    let place = |file: &RegFileEntry| {
        let Some(mount) = file.mnt_id.and_then(|id| by_id.get(&(id as u32))) else { return FilePlace::Root };
        let root = matches!(&*mount.mountpoint, b"/" | b"./" | b".");
        if root {
            FilePlace::Root
        } else if mount.ext_mount == Some(true) || mount.ext_key.is_some() || !is_private(mount.fstype) {
            let relative = mount.mountpoint.strip_prefix(b".").unwrap_or(&mount.mountpoint);
            let relative = relative.strip_prefix(b"/").unwrap_or(relative);
            FilePlace::Volume { mountpoint: [b"/", relative].concat().as_slice().into() }
        } else {
            FilePlace::Private
        }
    };
    let found: BTreeSet<CheckpointedFile> = files
        .iter()
        .filter_map(|file| file.reg.as_ref())
        .filter(|file| file.ext != Some(true))
        .map(|file| CheckpointedFile {
            path: file.name.as_slice().into(),
            place: place(file),
            size: file.size,
        })
        .collect();
    found.into_iter().collect()
}

/// CRIU's task states (`compel/include/uapi/task-state.h`): dead ones are restored as zombies.
const TASK_DEAD: u32 = 2;
const TASK_ZOMBIE: u32 = 6;

fn living(images: &Path, processes: &[PstreeEntry]) -> Result<Vec<CheckpointedProcess>, ImageError> {
    let mut found = Vec::new();
    for process in processes {
        let path = images.join(format!("core-{}.img", process.pid));
        let cores: Vec<CoreEntry> = read_entries(&path, [IMAGE, CORE])?;
        let task = cores.into_iter().next().and_then(|core| core.tc);
        let task = task.ok_or(ImageError::Malformed { path, source: FormatError::Empty })?;
        if !matches!(task.task_state, TASK_DEAD | TASK_ZOMBIE) {
            found.push(CheckpointedProcess { pid: process.pid, comm: task.comm.as_slice().into() });
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let failed = |source| ImageError::Read { path: path.to_owned(), source };
    let size = path.metadata().map_err(failed)?.len();
    if size > LARGEST {
        return Err(ImageError::TooLarge { path: path.to_owned(), size });
    }
    std::fs::read(path).map_err(failed)
}

fn read_entries<M: Message + Default>(path: &Path, magics: [u32; 2]) -> Result<Vec<M>, ImageError> {
    entries(&read(path)?, magics).map_err(|source| ImageError::Malformed { path: path.to_owned(), source })
}

impl CheckpointContent {
    /// Reads the images of a finished checkpoint.
    pub fn read(images: &Path) -> Result<Self, ImageError> {
        let files_path = images.join("files.img");
        let files: Vec<FileEntry> = read_entries(&files_path, [IMAGE, FILES])?;
        let processes: Vec<PstreeEntry> = read_entries(&images.join("pstree.img"), [IMAGE, PSTREE])?;
        let mut mounts: Vec<MountEntry> = Vec::new();
        let listing = |source| ImageError::Read { path: images.to_owned(), source };
        for entry in std::fs::read_dir(images).map_err(listing)? {
            let entry = entry.map_err(listing)?;
            if entry.file_name().to_string_lossy().starts_with("mountpoints-") {
                mounts.extend(read_entries::<MountEntry>(&entry.path(), [IMAGE, MOUNTS])?);
            }
        }
        Ok(Self {
            connections: connections(&files)
                .map_err(|source| ImageError::Malformed { path: files_path, source })?,
            files: checkpointed_files(&files, &mounts),
            processes: living(images, &processes)?,
        })
    }
}

fn microseconds(count: u32) -> Duration {
    Duration::from_micros(count.into())
}

/// Reads one of the statistics in CRIU's work directory. Times there are in microseconds.
fn stats<T>(work: &Path, name: &str, part: impl FnOnce(StatsEntry) -> Option<T>) -> Result<T, ImageError> {
    let path = work.join(name);
    let parsed: Vec<StatsEntry> = read_entries(&path, [SERVICE, STATS])?;
    let found = parsed.into_iter().next().and_then(part);
    found.ok_or(ImageError::Malformed { path, source: FormatError::Empty })
}

/// Reads `stats-restore`: how long the restore took. CRIU writes it when every thread of every task in the images has
/// been brought to where it goes on by itself, and only then (`criu/cr-restore.c`, `restore_root_task`).
pub fn restore_stats(work: &Path) -> Result<Duration, ImageError> {
    let restore = stats(work, "stats-restore", |entry| entry.restore)?;
    Ok(microseconds(restore.restore_time))
}

/// Reads `stats-dump`.
pub fn dump_stats(work: &Path) -> Result<CheckpointStats, ImageError> {
    let dump = stats(work, "stats-dump", |entry| entry.dump)?;
    Ok(CheckpointStats {
        freezing: microseconds(dump.freezing_time),
        frozen: microseconds(dump.frozen_time),
        memory_dump: microseconds(dump.memdump_time),
        memory_write: microseconds(dump.memwrite_time),
        pages_scanned: dump.pages_scanned,
        pages_skipped: dump.pages_skipped_parent,
        pages_written: dump.pages_written,
    })
}

/// The last error lines of a CRIU log, oldest first, at most `most`.
///
/// CRIU writes `(00.123456) Error (file.c:12): what`, and `(00.12)  1: Error (…` for a task.
pub fn last_errors(log: &str, most: usize) -> Vec<String> {
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("Error (")).collect();
    let from = errors.len().saturating_sub(most);
    errors[from..]
        .iter()
        .map(|line| line[line.find("Error (").unwrap_or(0)..].trim_end().to_owned())
        .collect()
}

/// Reads an image of whatever kind its magic says, and all that is made of one, for [`crate::fuzzing`].
pub(crate) fn read_any(bytes: &[u8]) -> Result<(), FormatError> {
    let kind = bytes.get(4..8).map_or(0, |kind| u32::from_le_bytes(kind.try_into().expect("four bytes")));
    match kind {
        FILES => {
            let files: Vec<FileEntry> = entries(bytes, [IMAGE, FILES])?;
            checkpointed_files(&files, &[]);
            connections(&files).map(drop)
        }
        MOUNTS => {
            let mounts: Vec<MountEntry> = entries(bytes, [IMAGE, MOUNTS])?;
            let on = |mount: &MountEntry| FileEntry {
                reg: Some(RegFileEntry { mnt_id: Some(mount.mnt_id as i32), ..Default::default() }),
                ..Default::default()
            };
            let files: Vec<FileEntry> = mounts.iter().map(on).collect();
            checkpointed_files(&files, &mounts);
            Ok(())
        }
        CORE => entries::<CoreEntry>(bytes, [IMAGE, CORE]).map(drop),
        STATS => entries::<StatsEntry>(bytes, [SERVICE, STATS]).map(drop),
        _ => entries::<PstreeEntry>(bytes, [IMAGE, PSTREE]).map(drop),
    }
}

/// Images as CRIU writes them, for tests.
#[cfg(test)]
pub(crate) mod specimen {
    use super::*;

    pub(super) fn image<M: Message>(magics: [u32; 2], messages: &[M]) -> Vec<u8> {
        let mut bytes: Vec<u8> = magics.iter().flat_map(|magic| magic.to_le_bytes()).collect();
        for message in messages {
            let encoded = message.encode_to_vec();
            bytes.extend((encoded.len() as u32).to_le_bytes());
            bytes.extend(encoded);
        }
        bytes
    }

    /// The images and statistics of a checkpoint without files, connections and living processes, and the statistics
    /// of its restore.
    pub(crate) fn write(images: &Path, work: &Path) {
        write_tasks(images, &[(1, "init", TASK_DEAD)]);
        let dump = StatsEntry { dump: Some(DumpStatsEntry::default()), ..Default::default() };
        let restore = RestoreStatsEntry { forking_time: 9_853, restore_time: 1_613_628 };
        let restore = StatsEntry { restore: Some(restore), ..Default::default() };
        for (path, bytes) in [
            (images.join("files.img"), image::<FileEntry>([IMAGE, FILES], &[])),
            (work.join("stats-dump"), image([SERVICE, STATS], &[dump])),
            (work.join("stats-restore"), image([SERVICE, STATS], &[restore])),
        ] {
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// A process that lives, in images that are there; its number is one that no process of a host has.
    pub(crate) fn add_living(images: &Path, comm: &str) -> CheckpointedProcess {
        let pid = u32::MAX;
        write_tasks(images, &[(1, "init", TASK_DEAD), (pid, comm, 1)]);
        CheckpointedProcess { pid, comm: comm.into() }
    }

    fn write_tasks(images: &Path, tasks: &[(u32, &str, u32)]) {
        let tree: Vec<PstreeEntry> = tasks.iter().map(|(pid, ..)| PstreeEntry { pid: *pid }).collect();
        std::fs::write(images.join("pstree.img"), image([IMAGE, PSTREE], &tree)).unwrap();
        for (pid, comm, task_state) in tasks {
            let tc = TaskCoreEntry { task_state: *task_state, comm: comm.as_bytes().to_vec() };
            let core = image([IMAGE, CORE], &[CoreEntry { tc: Some(tc) }]);
            std::fs::write(images.join(format!("core-{pid}.img")), core).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::specimen::image;
    use super::*;

    fn socket(local: &str, peer: &str, state: u32) -> FileEntry {
        let words = |address: IpAddr| -> Vec<u32> {
            let bytes = match address {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            bytes.chunks(4).map(|four| u32::from_ne_bytes(four.try_into().unwrap())).collect()
        };
        let (local, peer): (SocketAddr, SocketAddr) = (local.parse().unwrap(), peer.parse().unwrap());
        let isk = InetSkEntry {
            id: 1,
            family: if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u32,
            proto: TCP,
            state,
            src_port: local.port().into(),
            dst_port: peer.port().into(),
            src_addr: words(local.ip()),
            dst_addr: words(peer.ip()),
        };
        FileEntry { id: 1, reg: None, isk: Some(isk) }
    }

    #[test]
    fn connections_of_both_families_are_read_and_mapped_addresses_become_ipv4() {
        let files = [
            socket("10.0.0.2:80", "10.0.0.1:4000", 1),
            socket("[fd00::2]:80", "[fd00::1]:4001", 8),
            socket("[::ffff:10.0.0.2]:80", "[::ffff:10.0.0.1]:4002", 1),
        ];
        let bytes = image([IMAGE, FILES], &files);
        let parsed: Vec<FileEntry> = entries(&bytes, [IMAGE, FILES]).unwrap();
        let shown: Vec<String> = connections(&parsed).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "10.0.0.2:80 <-> 10.0.0.1:4000",
                "10.0.0.2:80 <-> 10.0.0.1:4002",
                "[fd00::2]:80 <-> [fd00::1]:4001"
            ]
        );
    }

    #[test]
    fn listening_closed_and_inward_connections_have_no_waiting_peer() {
        let files = [
            socket("0.0.0.0:80", "0.0.0.0:0", TCP_LISTEN),
            socket("10.0.0.2:9", "0.0.0.0:0", TCP_CLOSE),
            socket("127.0.0.1:80", "127.0.0.1:5000", 1),
            socket("127.0.0.1:5000", "127.0.0.1:80", 1),
        ];
        assert_eq!(connections(&files).unwrap(), []);
    }

    #[test]
    fn files_are_placed_by_their_mount() {
        let file = |name: &str, mnt_id| FileEntry {
            id: 1,
            reg: Some(RegFileEntry { name: name.into(), mnt_id: Some(mnt_id), size: Some(3), ext: None }),
            isk: None,
        };
        let mount = |mnt_id, mountpoint: &str, fstype, ext: bool| MountEntry {
            fstype,
            mnt_id,
            mountpoint: mountpoint.into(),
            ext_mount: Some(ext),
            ext_key: None,
        };
        let mounts = [mount(1, "./", 17, true), mount(2, "./data", 0, true), mount(3, "./run", 5, false)];
        let files = [file("/lib/a.so", 1), file("/data/db", 2), file("/run/pid", 3), file("/lib/a.so", 1)];
        let places: Vec<_> =
            checkpointed_files(&files, &mounts).into_iter().map(|file| (file.path, file.place)).collect();
        assert_eq!(
            places,
            [
                ("/data/db".into(), FilePlace::Volume { mountpoint: "/data".into() }),
                ("/lib/a.so".into(), FilePlace::Root),
                ("/run/pid".into(), FilePlace::Private),
            ]
        );
    }

    #[test]
    fn malformed_images_are_refused_and_never_panic() {
        let good = image([IMAGE, FILES], &[socket("10.0.0.2:80", "10.0.0.1:4000", 1)]);
        let parse = |bytes: &[u8]| entries::<FileEntry>(bytes, [IMAGE, FILES]);
        assert!(matches!(parse(b""), Err(FormatError::Magic { .. })));
        assert!(matches!(parse(&good[..good.len() - 1]), Err(FormatError::Length { .. })));
        assert!(matches!(parse(&good[..10]), Err(FormatError::Length { .. })));
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                if let Ok(files) = parse(&bytes) {
                    let _ = connections(&files);
                }
            }
        }
    }

    #[test]
    fn zombies_of_a_checkpoint_are_not_among_its_living_processes() {
        let directory = tempfile::tempdir().unwrap();
        let tree = [PstreeEntry { pid: 1 }, PstreeEntry { pid: 7 }];
        for (pid, task_state) in [(1, 1), (7, TASK_ZOMBIE)] {
            let core = CoreEntry {
                tc: Some(TaskCoreEntry { task_state, comm: format!("task-{pid}").into_bytes() }),
            };
            let path = directory.path().join(format!("core-{pid}.img"));
            std::fs::write(path, image([IMAGE, CORE], &[core])).unwrap();
        }
        let found = living(directory.path(), &tree).unwrap();
        assert_eq!(found, [CheckpointedProcess { pid: 1, comm: "task-1".into() }]);
    }

    #[test]
    fn names_are_bytes_whatever_the_kernel_cut_them_to() {
        let directory = tempfile::tempdir().unwrap();
        for name in [&b"keeper of five "[..], b"abcdefghijklmn\xc3", b"\xff\xfe", b"", b"\n"] {
            let core = CoreEntry { tc: Some(TaskCoreEntry { task_state: 1, comm: name.to_owned() }) };
            std::fs::write(directory.path().join("core-7.img"), image([IMAGE, CORE], &[core])).unwrap();
            let found = living(directory.path(), &[PstreeEntry { pid: 7 }]).unwrap();
            assert_eq!(found[0].comm.as_bytes(), name);
            let written = serde_json::to_string(&found).unwrap();
            assert_eq!(
                serde_json::from_str::<Vec<CheckpointedProcess>>(&written).unwrap(),
                found,
                "{written}"
            );
        }
        let odd = RegFileEntry { name: b"/srv/\xe9t\xe9".to_vec(), mnt_id: None, size: None, ext: None };
        let files = checkpointed_files(&[FileEntry { id: 1, reg: Some(odd), isk: None }], &[]);
        assert_eq!(files[0].path.as_bytes(), b"/srv/\xe9t\xe9");
    }

    #[test]
    fn the_statistics_of_a_restore_are_those_that_criu_writes() {
        // CRIU 4.1.1, after a restore of three processes.
        const WRITTEN: [u8; 27] = [
            0x40, 0x59, 0x10, 0x55, 0x06, 0x33, 0x09, 0x57, 0x0f, 0, 0, 0, 0x12, 0x0d, 0x08, 0x09, 0x10,
            0x02, 0x18, 0xfd, 0x4c, 0x20, 0xbc, 0xbe, 0x62, 0x28, 0x3d,
        ];
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("stats-restore");
        std::fs::write(&path, WRITTEN).unwrap();
        assert_eq!(restore_stats(work.path()).unwrap(), Duration::from_micros(1_613_628));
        let dump = StatsEntry { dump: Some(DumpStatsEntry::default()), ..Default::default() };
        for wrong in [&WRITTEN[..20], &WRITTEN[..8], &image([SERVICE, STATS], &[dump]), b""] {
            std::fs::write(&path, wrong).unwrap();
            assert!(restore_stats(work.path()).is_err(), "{wrong:x?}");
        }
        std::fs::remove_file(path).unwrap();
        assert!(restore_stats(work.path()).is_err());
    }

    #[test]
    fn dump_statistics_are_microseconds() {
        let entry = StatsEntry {
            dump: Some(DumpStatsEntry { frozen_time: 1_550_000, pages_written: 7, ..Default::default() }),
            ..Default::default()
        };
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("stats-dump"), image([SERVICE, STATS], &[entry])).unwrap();
        let stats = dump_stats(directory.path()).unwrap();
        assert_eq!(stats.frozen, Duration::from_millis(1550));
        assert_eq!(stats.pages_written, 7);
    }

    #[test]
    fn only_the_last_error_lines_of_a_log_are_kept() {
        let log = "(00.01) Warn  (a.c:1): x\n(00.02) Error (b.c:2): first\n(00.03)      1: Error (c.c:3): second\n(00.04) Error (d.c:4): third\n";
        assert_eq!(last_errors(log, 2), ["Error (c.c:3): second", "Error (d.c:4): third"]);
        assert!(last_errors("", 3).is_empty());
    }
}
