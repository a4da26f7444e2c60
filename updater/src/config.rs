//! `/etc/update/update.yaml`: where this host keeps things and how long.
//!
//! Every field has a default; a host without the file works. It is read as strictly as a manifest.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::local::Membership;
use manifests::GroupName;
use serde::Deserialize;

/// Where the file is looked for unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/update/update.yaml";

/// The largest file that is read.
const MAX_BYTES: usize = 64 << 10;

/// The settings of this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Journal, payloads, checkpoints and layers. Root's alone.
    pub store: PathBuf,
    /// The trust policy.
    pub policy: PathBuf,
    /// Where runc keeps the state of containers (`runc --root`).
    pub runc_root: PathBuf,
    /// Checkpoints, if not in the store. Root's alone. In memory, they are gone with the power.
    pub checkpoints: Option<PathBuf>,
    /// What checkpoints may be written to.
    pub checkpoint_medium: CheckpointMedium,
    /// How long the checkpoints of a committed transaction are kept: they hold the memory of containers, secrets too.
    #[serde(with = "humantime_text")]
    pub checkpoint_retention: Duration,
    /// How many MiB the checkpoints of ended transactions may take; the oldest go first. No limit unless it is set.
    pub checkpoint_quota_mib: Option<u64>,
    /// How many MiB payloads and unpacked layers may take together; what would be more is refused before it is copied.
    /// No limit unless it is set.
    pub fix_quota_mib: Option<u64>,
    /// How long the journal tells of transactions that are not in force any more.
    #[serde(with = "humantime_text")]
    pub journal_retention: Duration,
    /// The groups of hosts that this one is in; a manifest may be meant for some of them.
    pub groups: Vec<GroupName>,
    /// A crash within this time after a livepatch was loaded is blamed on it.
    #[serde(with = "humantime_text")]
    pub crash_guard: Duration,
    /// Where manifests come from by name; without it, they come as files only.
    pub repository: Option<RepositoryConfig>,
    /// How long a container may take to end by SIGTERM before it is killed.
    #[serde(with = "humantime_text")]
    pub stop_patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: PathBuf::from("/var/lib/update"),
            policy: PathBuf::from("/etc/update/policy.yaml"),
            runc_root: PathBuf::from("/run/runc"),
            checkpoints: None,
            checkpoint_medium: CheckpointMedium::Any,
            checkpoint_retention: Duration::from_secs(24 * 3600),
            checkpoint_quota_mib: None,
            fix_quota_mib: None,
            journal_retention: Duration::from_secs(90 * 24 * 3600),
            groups: Vec::new(),
            crash_guard: Duration::from_secs(600),
            repository: None,
            stop_patience: Duration::from_secs(10),
        }
    }
}

/// What checkpoints, which hold the memory of containers, may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointMedium {
    /// Anything.
    Any,
    /// Memory or an encrypted device: nothing that can be read from a disk without a key. Elsewhere no container can
    /// be checkpointed.
    Private,
}

/// A repository of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// The places that have it, in the order in which they are asked: https, http or file.
    pub places: Vec<String>,
    /// The root that this host trusts to begin with: any version that its people have signed.
    #[serde(default = "default_root")]
    pub root: PathBuf,
    /// The proxy to go through; the environment's is not asked.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Certificate authorities (PEM) to believe instead of the system's.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
    /// The program that speaks HTTP; the default lies beside this one.
    #[serde(default)]
    pub transport: Option<PathBuf>,
}

fn default_root() -> PathBuf {
    PathBuf::from("/etc/update/root.json")
}

/// The file is there but cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody could change it who should not: it names the policy and the store.
    #[error("the configuration {path} is not safe from change")]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// A path in it depends on where the program is started.
    #[error("the configuration {path} names the relative path {found}")]
    Relative {
        /// The file.
        path: PathBuf,
        /// The path in it.
        found: PathBuf,
    },
    /// It is not what this program understands.
    #[error("the configuration {path} is not valid")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: manifests::yaml::YamlError,
    },
}

impl Config {
    /// Where checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.checkpoints.clone().unwrap_or_else(|| self.store.join("checkpoints"))
    }

    /// The same with these groups, too.
    #[must_use]
    pub fn and_in(mut self, groups: &[GroupName]) -> Self {
        for group in groups {
            if !self.groups.contains(group) {
                self.groups.push(group.clone());
            }
        }
        self
    }

    /// Read the file; the defaults if it was not asked for by name and does not exist.
    ///
    /// # Errors
    /// [`ConfigError`] if it is there and unusable, or was asked for and is not there.
    pub fn load(asked: Option<&Path>) -> Result<Self, ConfigError> {
        let path = asked.unwrap_or(Path::new(DEFAULT_PATH)).to_owned();
        let read = |file: File| -> std::io::Result<(String, Metadata)> {
            let facts = file.metadata()?;
            let mut text = String::new();
            file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
            Ok((text, facts))
        };
        let (text, facts) = match File::open(&path).and_then(read) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && asked.is_none() => {
                return Ok(Self::default());
            }
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        expect_unchangeable(&facts, &path)?;
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let config: Self = manifests::yaml::from_slice(text.as_bytes(), MAX_BYTES)
            .map_err(|source| ConfigError::Invalid { path: path.clone(), source })?;
        let repository = config.repository.iter().flat_map(|repository| {
            let RepositoryConfig { root, authorities, transport, .. } = repository;
            [Some(root), authorities.as_ref(), transport.as_ref()].into_iter().flatten()
        });
        let paths = [&config.store, &config.policy, &config.runc_root].into_iter().chain(&config.checkpoints);
        let relative = paths.chain(repository).find(|one| one.is_relative()).cloned();
        match relative {
            Some(found) => Err(ConfigError::Relative { found, path }),
            None => Ok(config),
        }
    }
}

/// What this host is in its fleet, by the file that `update enrol` made; nothing if it is in none.
///
/// # Errors
/// [`ConfigError`] if it is there and unusable.
pub fn membership(path: &Path) -> Result<Option<Membership>, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    expect_unchangeable(&file.metadata().map_err(unreadable)?, path)?;
    // One byte more than it may have: the parser tells that it is too large.
    let mut bytes = Vec::new();
    file.take(Membership::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let parsed = Membership::parse(&bytes);
    parsed.map(Some).map_err(|source| ConfigError::Invalid { path: path.to_owned(), source })
}

/// Refuses a file that others could change.
pub(crate) fn expect_unchangeable(facts: &Metadata, path: &Path) -> Result<(), ConfigError> {
    let owned = [0, nix::unistd::geteuid().as_raw()].contains(&facts.uid());
    if owned && facts.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(ConfigError::Unsafe { path: path.to_owned(), owner: facts.uid(), mode: facts.mode() & 0o7777 })
}

mod humantime_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("update.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        Config::load(Some(&path))
    }

    #[test]
    fn an_empty_or_commented_file_means_the_defaults() {
        assert_eq!(load("").unwrap(), Config::default());
        assert_eq!(load("# store: /elsewhere\n").unwrap(), Config::default());
    }

    #[test]
    fn durations_are_written_for_people() {
        assert_eq!(load("crash_guard: 90s\n").unwrap().crash_guard, Duration::from_secs(90));
        assert!(load("crash_guard: soon\n").is_err());
    }

    #[test]
    fn a_file_that_others_can_write_or_that_names_relative_paths_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("update.yaml");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(Config::load(Some(&path)), Err(ConfigError::Unsafe { mode: 0o666, .. })));
        assert!(matches!(load("store: here\n"), Err(ConfigError::Relative { .. })));
    }

    #[test]
    fn checkpoints_lie_in_the_store_unless_they_are_put_elsewhere() {
        assert_eq!(load("store: /s\n").unwrap().checkpoints(), Path::new("/s/checkpoints"));
        let elsewhere = load("checkpoints: /run/update/checkpoints\ncheckpoint_medium: private\n").unwrap();
        assert_eq!(elsewhere.checkpoints(), Path::new("/run/update/checkpoints"));
        assert_eq!(elsewhere.checkpoint_medium, CheckpointMedium::Private);
        assert!(matches!(load("checkpoints: here\n"), Err(ConfigError::Relative { .. })));
    }

    #[test]
    fn a_repository_is_its_places_and_the_rest_has_defaults() {
        let config = load("repository:\n  places: [\"https://updates.example.org/\"]\n").unwrap();
        assert_eq!(config.repository.unwrap().root, Path::new("/etc/update/root.json"));
        assert!(matches!(load("repository: {places: [], root: here}\n"), Err(ConfigError::Relative { .. })));
        assert!(matches!(load("repository: {places: [], rooot: /x}\n"), Err(ConfigError::Invalid { .. })));
    }

    #[test]
    fn what_a_host_is_in_its_fleet_is_read_as_strictly() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.yaml");
        assert_eq!(membership(&path).unwrap(), None);
        let host = manifests::Sha256::of(b"key");
        let good = format!("host: {host}\ngroups: [web]\ncontrollers: [\"https://one\"]\n");
        std::fs::write(&path, &good).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let found = membership(&path).unwrap().unwrap();
        let config = Config::default().and_in(&found.groups).and_in(&found.groups);
        assert_eq!(config.groups, ["web".parse().unwrap()]);
        for bad in [good.replace("groups", "group"), good.replace("[web]", "web"), " ".repeat(70_000)] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(membership(&path), Err(ConfigError::Invalid { .. })));
        }
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o664)).unwrap();
        assert!(matches!(membership(&path), Err(ConfigError::Unsafe { mode: 0o664, .. })));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        assert!(matches!(load("stoer: /x\n"), Err(ConfigError::Invalid { .. })));
    }
}
