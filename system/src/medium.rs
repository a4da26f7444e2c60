//! What a directory's files are written to: memory, an encrypted device, or one that whoever takes the disk can read.
//!
//! Sources: `statfs(2)` for file systems in memory; `Documentation/ABI/testing/sysfs-block-dm` and `-block` for devices
//! below `/sys/dev/block`. dm-crypt names its devices `CRYPT-<type>-…` in `dm/uuid` (LUKS1, LUKS2, PLAIN, …);
//! cryptsetup's `CRYPT-VERITY` and `CRYPT-INTEGRITY` do not encrypt. A device that is made of others (`slaves`: LVM,
//! md) is encrypted if all of them are. Memory is only as private as what it is swapped out to.
//!
//! What cannot be told counts as readable: file systems that name no block device (btrfs, overlay, network), and
//! encryption by the file system or the drive itself.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::stat::{major, minor};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};

/// What keeps the files of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    /// Memory: gone with the power.
    Memory,
    /// Memory that goes out to a device that can be read without a key; gone with the power all the same.
    Swapped {
        /// The swap space, and what it is on.
        what: String,
    },
    /// A device that cannot be read without its key.
    Encrypted,
    /// Something that can be read without a key, or of which that cannot be told.
    Readable {
        /// What: a device with its number.
        what: String,
    },
}

impl Medium {
    /// Whether what is written there is gone after a cold boot.
    pub fn is_gone_with_the_power(&self) -> bool {
        matches!(self, Self::Memory | Self::Swapped { .. })
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Encrypted => f.write_str("an encrypted device"),
            Self::Swapped { what } => write!(f, "memory that is swapped out to {what}"),
            Self::Readable { what } => f.write_str(what),
        }
    }
}

/// Where the kernel shows devices and swap spaces.
#[derive(Debug, Clone)]
pub struct Roots {
    /// sysfs.
    pub sys: PathBuf,
    /// procfs.
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into() }
    }
}

impl Roots {
    /// The medium of a directory that is there, or of the nearest one above it that is.
    ///
    /// # Errors
    /// What the kernel says to looking at it.
    pub fn medium(&self, directory: &Path) -> io::Result<Medium> {
        let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        match statfs(there)?.filesystem_type() {
            TMPFS_MAGIC => self.swapped_memory(),
            RAMFS_MAGIC => Ok(Medium::Memory),
            _ => Ok(self.device(fs::metadata(there)?.dev())),
        }
    }

    /// tmpfs, which is swapped out to every swap space.
    fn swapped_memory(&self) -> io::Result<Medium> {
        let text = fs::read_to_string(self.proc.join("swaps"))?;
        // A heading, then one line each: the file's name with spaces as \040, and its type.
        let spaces = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        for name in spaces {
            let path = PathBuf::from(name.replace("\\040", " "));
            let found = fs::metadata(&path)?;
            let device = if found.rdev() == 0 { found.dev() } else { found.rdev() };
            if let Medium::Readable { what } = self.device(device) {
                return Ok(Medium::Swapped { what: format!("{name}, {what}") });
            }
        }
        Ok(Medium::Memory)
    }

    fn device(&self, number: libc::dev_t) -> Medium {
        let (major, minor) = (major(number), minor(number));
        let place = self.sys.join(format!("dev/block/{major}:{minor}"));
        match fs::canonicalize(&place) {
            Err(_) => {
                Medium::Readable { what: format!("a file system without a block device ({major}:{minor})") }
            }
            Ok(place) => match readable_part(&place) {
                None => Medium::Encrypted,
                Some(device) => {
                    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    Medium::Readable {
                        what: format!("device {name} without encryption (of {major}:{minor})"),
                    }
                }
            },
        }
    }
}

/// `linux/magic.h`.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// The first device below this one, itself included, that can be read without a key.
fn readable_part(device: &Path) -> Option<PathBuf> {
    let uuid = fs::read_to_string(device.join("dm/uuid")).unwrap_or_default();
    let encrypts = uuid
        .strip_prefix("CRYPT-")
        .is_some_and(|rest| !["VERITY", "INTEGRITY"].iter().any(|other| rest.starts_with(other)));
    if encrypts || is_in_memory(device) {
        return None;
    }
    // A partition is read through its whole device.
    if device.join("partition").exists() {
        return readable_part(device.parent()?);
    }
    let slaves = fs::read_dir(device.join("slaves")).into_iter().flatten().flatten();
    let slaves: Vec<PathBuf> = slaves.filter_map(|slave| fs::canonicalize(slave.path()).ok()).collect();
    if slaves.is_empty() {
        return Some(device.to_owned());
    }
    slaves.iter().find_map(|slave| readable_part(slave))
}

/// Compressed memory that is written to no device (`Documentation/admin-guide/blockdev/zram.rst`).
fn is_in_memory(device: &Path) -> bool {
    let zram = device.file_name().is_some_and(|name| name.to_string_lossy().starts_with("zram"));
    let backing = fs::read_to_string(device.join("backing_dev"));
    zram && backing.map_or(true, |backing| backing.trim_end() == "none")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sysfs with these block devices: name, `dm/uuid`, devices below it.
    fn devices(list: &[(&str, Option<&str>, &[&str])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, uuid, slaves) in list {
            let at = root.path().join("block").join(name);
            fs::create_dir_all(at.join("slaves")).unwrap();
            if let Some(uuid) = uuid {
                fs::create_dir_all(at.join("dm")).unwrap();
                fs::write(at.join("dm/uuid"), format!("{uuid}\n")).unwrap();
            }
            for slave in *slaves {
                symlink(root.path().join("block").join(slave), at.join("slaves").join(slave)).unwrap();
            }
        }
        root
    }

    fn is_private(list: &[(&str, Option<&str>, &[&str])], device: &str) -> bool {
        let root = devices(list);
        readable_part(&root.path().join("block").join(device)).is_none()
    }

    const CRYPT: Option<&str> = Some("CRYPT-LUKS2-0123-root");
    const LVM: Option<&str> = Some("LVM-0123");

    #[test]
    fn a_device_is_private_if_every_device_below_it_is_encrypted() {
        assert!(is_private(&[("sda", None, &[]), ("dm-0", CRYPT, &["sda"])], "dm-0"));
        assert!(is_private(
            &[("sda", None, &[]), ("dm-0", CRYPT, &["sda"]), ("dm-1", LVM, &["dm-0"])],
            "dm-1"
        ));
        assert!(!is_private(&[("sda", None, &[])], "sda"));
        assert!(!is_private(&[("sda", None, &[]), ("dm-0", LVM, &["sda"])], "dm-0"));
        let half = [
            ("sda", None, &[][..]),
            ("sdb", None, &[]),
            ("dm-0", CRYPT, &["sda"]),
            ("md0", None, &["dm-0", "sdb"]),
        ];
        assert!(!is_private(&half, "md0"), "one of two can be read");
    }

    #[test]
    fn what_dm_crypt_is_kin_to_does_not_encrypt() {
        for uuid in ["CRYPT-VERITY-0123-usr", "CRYPT-INTEGRITY-data", "mpath-3600", ""] {
            assert!(!is_private(&[("sda", None, &[]), ("dm-0", Some(uuid), &["sda"])], "dm-0"), "{uuid:?}");
        }
        assert!(is_private(&[("sda", None, &[]), ("dm-0", Some("CRYPT-PLAIN-swap"), &["sda"])], "dm-0"));
    }

    #[test]
    fn a_partition_is_as_private_as_its_whole_device() {
        let root = devices(&[("sda", None, &[]), ("dm-0", CRYPT, &["sda"])]);
        for (whole, private) in [("sda", false), ("dm-0", true)] {
            let part = root.path().join("block").join(whole).join("part1");
            fs::create_dir(&part).unwrap();
            fs::write(part.join("partition"), "1\n").unwrap();
            assert_eq!(readable_part(&part).is_none(), private, "{whole}");
        }
    }

    #[test]
    fn memory_is_as_private_as_what_it_is_swapped_out_to() {
        let sys = devices(&[]);
        let swap = tempfile::NamedTempFile::new().unwrap();
        let proc = tempfile::tempdir().unwrap();
        let roots = Roots { sys: sys.path().to_owned(), proc: proc.path().to_owned() };
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        fs::write(proc.path().join("swaps"), heading).unwrap();
        assert_eq!(roots.swapped_memory().unwrap(), Medium::Memory);
        let line = format!("{heading}{}  file\t\t1024\t\t0\t\t-2\n", swap.path().display());
        fs::write(proc.path().join("swaps"), line).unwrap();
        let swapped = roots.swapped_memory().unwrap();
        assert!(swapped.is_gone_with_the_power() && swapped != Medium::Memory, "{swapped:?}");
        let words = swapped.to_string();
        assert!(words.starts_with("memory that is swapped out to /"), "{words}");
    }

    #[test]
    fn a_file_system_without_a_block_device_is_not_taken_for_private() {
        let medium = Roots::default().medium(Path::new("/proc/self")).unwrap();
        assert!(matches!(medium, Medium::Readable { .. }), "{medium:?}");
        let missing = Roots::default().medium(Path::new("/proc/self/no/such/directory")).unwrap();
        assert_eq!(medium, missing, "what is not there yet is on what is above it");
    }
}
