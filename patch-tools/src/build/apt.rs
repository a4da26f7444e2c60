//! Packages of one Debian release, whatever this machine runs itself.
//!
//! apt gets a configuration of its own in the cache: a sources list made of the mirrors that this machine uses
//! already and of the release's suites, lists and state of its own, and an empty record of what is installed.
//! Packages are checked against the keys in `debian-archive-keyring`. Nothing is installed, and no root is needed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::cache::{Cache, CacheError, Lock};
use super::debian::Release;
use super::process::{ProcessError, Program};
use super::progress::Progress;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Why apt cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// The archive's keys are not installed.
    #[error("{KEYRING} is not here; install it with `apt-get install debian-archive-keyring`")]
    NoKeys,
    /// This machine has no mirror of Debian.
    #[error(
        "apt of this machine knows no mirror of Debian's archive (no package list whose origin is Debian)"
    )]
    NoMirror,
    /// apt failed.
    #[error("apt cannot {doing}")]
    Failed {
        /// What was being done.
        doing: String,
        /// What apt said.
        source: ProcessError,
    },
    /// The configuration could not be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl AptError {
    fn failed(doing: impl Into<String>) -> impl FnOnce(ProcessError) -> Self {
        let doing = doing.into();
        |source| Self::Failed { doing, source }
    }
}

/// apt with the configuration of one release.
pub(super) struct Apt<'a> {
    release: &'static Release,
    root: PathBuf,
    progress: &'a dyn Progress,
    /// Whether the lists were fetched here; what is still not in them then is not there.
    fresh: AtomicBool,
}

impl<'a> Apt<'a> {
    pub(super) fn of(cache: &Cache, release: &'static Release, progress: &'a dyn Progress) -> Self {
        Self { release, root: cache.apt(release.suite), progress, fresh: AtomicBool::new(false) }
    }

    /// The versions of a package that could be fetched, apt's preferred order first.
    pub(super) fn versions(&self, package: &str) -> Result<Vec<String>, AptError> {
        self.have_lists()?;
        let versions = self.listed(package)?;
        if !versions.is_empty() || self.fresh.load(Ordering::Relaxed) {
            return Ok(versions);
        }
        self.update()?;
        self.listed(package)
    }

    /// Downloads one version of a package into a directory.
    pub(super) fn download(&self, package: &str, version: &str, directory: &Path) -> Result<(), AptError> {
        self.program("apt-get")
            .args(["download", "-q"])
            .arg(format!("{package}={version}"))
            .directory(directory)
            .run()
            .map(drop)
            .map_err(AptError::failed(format!("fetch {package} {version}")))
    }

    /// Downloads packages and all that they depend on into a directory, as if nothing were installed.
    pub(super) fn download_closure(&self, packages: &[&str], directory: &Path) -> Result<(), AptError> {
        self.have_lists()?;
        let partial = directory.join("partial");
        fs::create_dir_all(&partial).map_err(CacheError::io("make", &partial))?;
        self.program("apt-get")
            .args(["install", "-q", "--yes", "--download-only", "--no-install-recommends", "-o"])
            .arg(format!("Dir::Cache::archives={}", directory.display()))
            .args(packages)
            .run()
            .map(drop)
            .map_err(AptError::failed(format!("fetch {}", packages.join(" "))))
    }

    fn listed(&self, package: &str) -> Result<Vec<String>, AptError> {
        let listed = self
            .program("apt-cache")
            .args(["madison", package])
            .run()
            .map_err(AptError::failed(format!("list the versions of {package}")))?;
        // `linux-source-6.1 | 6.1.176-1 | http://… Packages`
        let mut versions = Vec::new();
        for line in String::from_utf8_lossy(&listed).lines() {
            let mut columns = line.split('|').map(str::trim);
            if let (Some(name), Some(version), Some(from)) = (columns.next(), columns.next(), columns.next())
                && name == package
                && from.ends_with("Packages")
                && !versions.iter().any(|known| known == version)
            {
                versions.push(version.to_owned());
            }
        }
        Ok(versions)
    }

    /// The file that says that there are lists.
    fn marker(&self) -> PathBuf {
        self.root.join("fetched")
    }

    /// Fetches the lists if there are none.
    fn have_lists(&self) -> Result<(), AptError> {
        match self.marker().is_file() {
            true => Ok(()),
            false => self.update(),
        }
    }

    /// Fetches the lists.
    fn update(&self) -> Result<(), AptError> {
        let _lock = Lock::wait(&self.root.with_extension("lock"))?;
        if !Path::new(KEYRING).is_file() {
            return Err(AptError::NoKeys);
        }
        self.progress.step(&format!("fetching the package lists of {}", self.release.suite));
        for directory in ["state/lists/partial", "cache/archives/partial"] {
            let directory = self.root.join(directory);
            fs::create_dir_all(&directory).map_err(CacheError::io("make", &directory))?;
        }
        let mirrors = Mirrors::of_this_machine()?;
        for (name, text) in [("status", String::new()), ("sources.list", mirrors.sources(self.release))] {
            let path = self.root.join(name);
            fs::write(&path, text).map_err(CacheError::io("write", &path))?;
        }
        self.program("apt-get")
            .args(["update", "-q"])
            .run()
            .map_err(AptError::failed(format!("fetch the package lists of {}", self.release.suite)))?;
        let marker = self.marker();
        File::create(&marker).map_err(CacheError::io("write", &marker))?;
        self.fresh.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn program(&self, name: &str) -> Program {
        let at = |name: &str| self.root.join(name).display().to_string();
        let options = [
            ("Dir::Etc::SourceList", at("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::State", at("state")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("cache")),
            ("APT::Sandbox::User", String::new()),
            ("APT::Architecture", "amd64".to_owned()),
            ("APT::Architectures::", "amd64".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            // Descriptions for software centres are larger than the lists.
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
        ];
        let options =
            options.into_iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]);
        Program::new(name).args(options)
    }
}

/// Where this machine gets Debian's packages.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    archive: String,
    security: Option<String>,
}

impl Mirrors {
    fn of_this_machine() -> Result<Self, AptError> {
        let targets = Program::new("apt-get")
            .args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"])
            .run()
            .map_err(AptError::failed("list this machine's mirrors"))?;
        Self::among(&String::from_utf8_lossy(&targets)).ok_or(AptError::NoMirror)
    }

    fn among(targets: &str) -> Option<Self> {
        let labelled = |label: &str| {
            let lines = targets.lines().filter_map(|line| line.strip_prefix("Debian|"));
            lines
                .filter_map(|line| line.split_once('|'))
                .find(|(found, _)| *found == label)
                .map(|(_, uri)| uri)
        };
        let security = labelled("Debian-Security").map(str::to_owned);
        Some(Self { archive: labelled("Debian")?.to_owned(), security })
    }

    fn sources(&self, release: &Release) -> String {
        let suites = [release.suite].into_iter().chain(release.additions.iter().copied());
        let archive = suites.map(|suite| (&self.archive, suite));
        let security = self.security.as_ref().zip(release.security);
        let line =
            |(mirror, suite): (&String, &str)| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        archive.chain(security).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_of_another_release_come_from_this_machines_mirrors() {
        let targets = "|Other|https://packages.example/apt/\nDebian|Debian-Security|http://mirror.example/s/\n\
                       Debian|Debian|http://mirror.example/d/\n";
        let mirrors = Mirrors::among(targets).unwrap();
        let trixie = Release::of_kernel(&"6.12.107+deb13-amd64".parse().unwrap()).unwrap();
        let sources = mirrors.sources(trixie);
        for (mirror, suite) in [("d", "trixie"), ("d", "trixie-backports"), ("s", "trixie-security")] {
            let line = format!("deb [signed-by={KEYRING}] http://mirror.example/{mirror}/ {suite} main\n");
            assert!(sources.contains(&line), "{line} is missing in {sources}");
        }
        assert!(!sources.contains("bookworm") && !sources.contains("packages.example"));
    }

    #[test]
    fn a_machine_without_debians_archive_has_no_mirror() {
        assert_eq!(Mirrors::among("Ubuntu|Ubuntu|http://mirror.example/u/\n"), None);
    }
}
