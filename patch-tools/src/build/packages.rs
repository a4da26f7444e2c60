//! Finds the distribution's packages of a kernel: image, headers and source, of one version.
//!
//! A package that is already in the cache is taken from there, so that a build needs no network the second
//! time; else apt fetches it from the suites of the kernel's own Debian release (see `apt`), and checks it against the
//! archive's signature. Nothing is installed and no root is needed. The kernel's headers bring the configuration
//! it was really built with (the one in `/boot` lacks a few settings), the source package must have the image's
//! version.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use manifests::{KernelRelease, Sha256};

use super::apt::{Apt, AptError};
use super::cache::{Cache, CacheError};
use super::debian::{Release, UnknownKernel};
use super::digest::{self, DigestError};
use super::progress::Progress;

/// Why the packages of a kernel are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The kernel is none of a Debian release.
    #[error(transparent)]
    Release(#[from] UnknownKernel),
    /// No such kernel in the cache and none that apt knows.
    #[error("no package {name} in {} and none in the suites of {suite}", cache.display())]
    Unknown {
        /// The package.
        name: String,
        /// The release's suite.
        suite: &'static str,
        /// Where packages are cached.
        cache: PathBuf,
    },
    /// The package is known, but not in the version of the kernel image.
    #[error("package {name} is needed in version {wanted}, but apt knows only {known}")]
    OtherVersions {
        /// The package.
        name: String,
        /// The version of the kernel image.
        wanted: String,
        /// What apt knows.
        known: String,
    },
    /// A version that does not begin with two numbers, from which the source package is named.
    #[error(
        "the version {version} of {name} does not begin with MAJOR.MINOR; cannot tell the source package"
    )]
    Version {
        /// The image package.
        name: String,
        /// Its version.
        version: String,
    },
    /// apt failed.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// A file in the cache cannot be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A package cannot be hashed.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// A package file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where the file is.
    pub path: PathBuf,
    /// What it is.
    pub sha256: Sha256,
}

impl fmt::Display for Package {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.version)
    }
}

/// The packages that a build for a kernel needs, all of one version.
#[derive(Debug, Clone)]
pub struct KernelPackages {
    /// The kernel, up to 6.18 with its modules.
    pub image: Package,
    /// The modules, where they have a package of their own.
    pub modules: Option<Package>,
    /// The configuration, the generated headers and the symbols' CRCs.
    pub headers: Package,
    /// The source, with the distribution's patches applied.
    pub source: Package,
}

impl KernelPackages {
    /// Finds or fetches the packages of `release`.
    pub fn obtain(
        cache: &Cache,
        release: &KernelRelease,
        progress: &dyn Progress,
    ) -> Result<Self, PackageError> {
        let origin = Release::of_kernel(release)?;
        let apt = Apt::of(cache, origin, progress);
        let store = Store { cache, directory: cache.packages(), apt, suite: origin.suite, progress };
        // The signed and the unsigned package hold the same code. Where `linux-binary` is, `linux-image` is empty.
        let names = [
            format!("linux-binary-{release}"),
            format!("linux-binary-unsigned-{release}"),
            format!("linux-image-{release}"),
            format!("linux-image-{release}-unsigned"),
        ];
        let image = match names.iter().find_map(|name| store.cached(name, None)) {
            Some(found) => store.package(found)?,
            None => store.download_first(&names)?,
        };
        let series = series(&image.version).ok_or_else(|| PackageError::Version {
            name: image.name.clone(),
            version: image.version.clone(),
        })?;
        let of_version = |name: String| match store.cached(&name, Some(&image.version)) {
            Some(found) => store.package(found),
            None => store.download(&name, Some(&image.version)),
        };
        let headers = of_version(format!("linux-headers-{release}"))?;
        let source = of_version(format!("linux-source-{series}"))?;
        let modules = match image.name.starts_with("linux-binary-") {
            true => Some(of_version(format!("linux-modules-{release}"))?),
            false => None,
        };
        Ok(Self { image, modules, headers, source })
    }
}

/// `6.1` of `6.1.176-1`.
fn series(version: &str) -> Option<String> {
    let mut parts = version.split(['.', '-']);
    let (major, minor) = (parts.next()?, parts.next()?);
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (number(major) && number(minor)).then(|| format!("{major}.{minor}"))
}

struct Store<'a> {
    cache: &'a Cache,
    directory: PathBuf,
    apt: Apt<'a>,
    suite: &'static str,
    progress: &'a dyn Progress,
}

/// A package file by its name: name, version, path.
type Found = (String, String, PathBuf);

impl Store<'_> {
    /// The cached file of a package, of the given or else the newest version.
    fn cached(&self, name: &str, version: Option<&str>) -> Option<Found> {
        let entries = fs::read_dir(&self.directory).ok()?;
        entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let (found, rest) = path.file_name()?.to_str()?.strip_suffix(".deb")?.split_once('_')?;
                let found_version = rest.split_once('_')?.0.replace("%3a", ":");
                let wanted = found == name && version.is_none_or(|version| version == found_version);
                wanted.then(|| (found.to_owned(), found_version, path.clone()))
            })
            .max_by(|left, right| version_key(&left.1).cmp(&version_key(&right.1)))
    }

    fn package(&self, (name, version, path): Found) -> Result<Package, PackageError> {
        let sha256 = digest::of_cached_file(self.cache, &path)?;
        Ok(Package { name, version, path, sha256 })
    }

    /// The first of several packages that there is.
    fn download_first(&self, names: &[String]) -> Result<Package, PackageError> {
        let mut missing = self.unknown(names.last().map_or("", String::as_str));
        for name in names {
            match self.download(name, None) {
                Err(error @ PackageError::Unknown { .. }) => missing = error,
                other => return other,
            }
        }
        Err(missing)
    }

    fn download(&self, name: &str, version: Option<&str>) -> Result<Package, PackageError> {
        let known = self.apt.versions(name)?;
        let version = match version {
            None => known.first().cloned().ok_or_else(|| self.unknown(name))?,
            Some(version) if known.iter().any(|known| known == version) => version.to_owned(),
            Some(_) if known.is_empty() => return Err(self.unknown(name)),
            Some(version) => {
                let (wanted, known) = (version.to_owned(), known.join(", "));
                return Err(PackageError::OtherVersions { name: name.to_owned(), wanted, known });
            }
        };
        self.progress.step(&format!("downloading {name} {version}"));
        fs::create_dir_all(&self.directory).map_err(CacheError::io("make", &self.directory))?;
        // Under a name of its own first: what bears a package's name in the cache is whole.
        let partial = tempfile::Builder::new()
            .prefix(".partial-")
            .tempdir_in(&self.directory)
            .map_err(CacheError::io("make a directory in", &self.directory))?;
        self.apt.download(name, &version, partial.path())?;
        self.adopt(partial.path()).map_err(CacheError::io("move the download into", &self.directory))?;
        let found = self.cached(name, Some(&version)).ok_or_else(|| self.unknown(name))?;
        self.package(found)
    }

    fn adopt(&self, partial: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(partial)? {
            let entry = entry?;
            fs::rename(entry.path(), self.directory.join(entry.file_name()))?;
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> PackageError {
        PackageError::Unknown { name: name.to_owned(), suite: self.suite, cache: self.directory.clone() }
    }
}

/// Orders versions as Debian does (`deb-version(7)`); a text that is no version comes before all versions.
fn version_key(version: &str) -> Option<debversion::Version> {
    version.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_package_is_named_by_the_first_two_numbers() {
        assert_eq!(series("6.1.176-1").as_deref(), Some("6.1"));
        assert_eq!(series("6.12-1~exp1").as_deref(), Some("6.12"));
        assert_eq!(series("six"), None);
    }

    #[test]
    fn of_several_cached_versions_the_newest_is_taken() {
        assert!(version_key("6.1.192-2") > version_key("6.1.192-1"));
        assert!(version_key("6.1.192-1") > version_key("6.1.99-1"));
        assert!(version_key("6.12~rc7-1~exp1") < version_key("6.12-1"), "a release candidate came first");
        assert!(version_key("6.12.6-1~bpo12+1") < version_key("6.12.6-1"), "a backport came first");
        assert!(version_key("1:1-1") > version_key("6.1-1"), "an epoch goes before all numbers");
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        fs::create_dir_all(cache.packages()).unwrap();
        for file in ["p_6.1.9-1_all.deb", "p_6.1.10-1_all.deb", "p-dbg_9_all.deb", "p_6.1.11-1_all.deb.part"]
        {
            fs::write(cache.packages().join(file), "").unwrap();
        }
        let progress = &super::super::progress::Quiet;
        let bookworm = Release::of_kernel(&"6.1.0-50-amd64".parse().unwrap()).unwrap();
        let apt = Apt::of(&cache, bookworm, progress);
        let store =
            Store { cache: &cache, directory: cache.packages(), apt, suite: bookworm.suite, progress };
        assert_eq!(store.cached("p", None).unwrap().1, "6.1.10-1");
        assert_eq!(store.cached("p", Some("6.1.9-1")).unwrap().1, "6.1.9-1");
        assert_eq!(store.cached("p", Some("7")), None);
    }
}
