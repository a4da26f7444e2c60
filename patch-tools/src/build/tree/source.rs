//! Where a kernel's source comes from.

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use manifests::Sha256;
use sha2::Digest as _;
use system::durable;

use super::TreeError;
use crate::build::cache::{Cache, CacheError};
use crate::build::progress::Progress;
use crate::build::{deb, digest};

/// A kernel's source.
#[derive(Debug, Clone)]
pub enum SourceOrigin {
    /// A Debian `linux-source-*` package.
    Package(PathBuf),
    /// A directory of the user's. It is copied, so that what the user does there later does not matter.
    Directory(PathBuf),
}

impl SourceOrigin {
    /// What identifies the source. For a directory that is names, sizes and times of its files, not their
    /// content: reading 1.3 GB takes longer than building.
    fn digest(&self, cache: &Cache) -> Result<Sha256, TreeError> {
        match self {
            Self::Package(package) => Ok(digest::of_cached_file(cache, package)?),
            Self::Directory(directory) => {
                let mut listing = Vec::new();
                visit(directory, &mut |name, path| {
                    let data = fs::symlink_metadata(path).map_err(CacheError::io("look at", path))?;
                    let line = format!(
                        "{} {} {}.{:09}\n",
                        name.display(),
                        data.size(),
                        data.mtime(),
                        data.mtime_nsec()
                    );
                    listing.extend_from_slice(line.as_bytes());
                    Ok(())
                })?;
                Ok(Sha256::of(&listing))
            }
        }
    }

    /// The source in the cache, and what identifies it.
    pub(in crate::build) fn obtain(
        &self,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<(PathBuf, Sha256), TreeError> {
        let digest = self.digest(cache)?;
        let source = cache.entry("sources", &digest.to_string()[..16], |directory| {
            progress.step("unpacking the kernel source (once per source package)");
            self.unpack(directory)
        })?;
        Ok((source, digest))
    }

    /// What identifies the content of a directory that was copied to `copy`: names and contents of all its files. A
    /// package has a digest of its own.
    pub(in crate::build) fn content(&self, copy: &Path) -> Result<Option<Sha256>, TreeError> {
        if matches!(self, Self::Package(_)) {
            return Ok(None);
        }
        let kept = copy.with_extension("sha256");
        if let Ok(text) = fs::read_to_string(&kept)
            && let Ok(digest) = text.trim().parse()
        {
            return Ok(Some(digest));
        }
        let mut hasher = sha2::Sha256::new();
        visit(copy, &mut |name, path| {
            let content = match path.is_symlink() {
                true => fs::read_link(path).map(|link| link.into_os_string().into_encoded_bytes()),
                false => fs::read(path),
            };
            let content = content.map_err(CacheError::io("read", path))?;
            hasher.update(format!("{}\0{}\0", name.display(), content.len()));
            hasher.update(&content);
            Ok(())
        })?;
        let digest = Sha256::from_bytes(hasher.finalize().into());
        durable::publish(&kept, digest.to_string().as_bytes()).map_err(CacheError::io("write", &kept))?;
        Ok(Some(digest))
    }

    /// Puts the source into `target`.
    fn unpack(&self, target: &Path) -> Result<(), TreeError> {
        match self {
            Self::Package(package) => {
                let is_source = |name: &Path| {
                    name.file_name()
                        .and_then(|name| name.to_str())
                        .is_some_and(|name| name.starts_with("linux-source-") && name.contains(".tar"))
                };
                deb::unpack_inner(package, is_source, |name| {
                    let below: PathBuf = name.components().skip(1).collect();
                    is_needed(&below).then(|| target.join(below))
                })?;
            }
            Self::Directory(directory) => visit(directory, &mut |name, path| {
                let to = target.join(name);
                if let Some(parent) = to.parent() {
                    fs::create_dir_all(parent).map_err(CacheError::io("make", parent))?;
                }
                let is_link = path.is_symlink();
                if is_link {
                    let link = fs::read_link(path).map_err(CacheError::io("read", path))?;
                    std::os::unix::fs::symlink(link, &to).map_err(CacheError::io("link", &to))
                } else {
                    fs::copy(path, &to).map(drop).map_err(CacheError::io("copy", path))
                }
            })?,
        }
        match target.join("Kbuild").is_file() && target.join("scripts/Makefile.build").is_file() {
            true => Ok(()),
            false => {
                Err(TreeError::Absent { what: "scripts/Makefile.build".to_owned(), place: target.to_owned() })
            }
        }
    }
}

/// What compiling for x86-64 can need: not the documentation and not the other architectures.
fn is_needed(name: &Path) -> bool {
    // Kconfig reads all of its files, whatever the architecture, and Makefiles include each other (fs/hostfs one of
    // arch/um).
    let is_of_every_build = name
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("Kconfig") || name.starts_with("Makefile"));
    let mut parts = name.iter().filter_map(|part| part.to_str());
    match (parts.next(), parts.next()) {
        (Some("Documentation" | "LICENSES"), _) => is_of_every_build,
        (Some("arch"), Some(arch)) => is_of_every_build || arch == "x86",
        (Some(_), _) => true,
        (None, _) => false,
    }
}

/// What a build leaves in a source directory, and version control.
fn is_product(name: &Path) -> bool {
    const DIRECTORIES: [&str; 5] =
        [".git", "include/generated", "include/config", "arch/x86/include/generated", ".tmp_versions"];
    let file = name.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    DIRECTORIES.iter().any(|directory| name == Path::new(directory))
        || [".config", "vmlinux", "System.map", "Module.symvers"].contains(&file)
        || [".o", ".ko", ".cmd", ".mod", ".mod.c", ".a"].iter().any(|end| file.ends_with(end))
}

/// Calls `each` for every needed file below `directory`, in the order of names.
fn visit(
    directory: &Path,
    each: &mut dyn FnMut(&Path, &Path) -> Result<(), CacheError>,
) -> Result<(), TreeError> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        let here = directory.join(&below);
        let mut names = list(&here).map_err(CacheError::io("list", &here))?;
        names.sort_by(|left, right| left.0.cmp(&right.0));
        for (name, kind) in names {
            let below = below.join(name);
            if is_product(&below) {
                continue;
            }
            if kind.is_dir() {
                waiting.push(below);
            } else if is_needed(&below) {
                each(&below, &directory.join(&below))?;
            }
        }
    }
    Ok(())
}

fn list(directory: &Path) -> io::Result<Vec<(OsString, FileType)>> {
    fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name(), entry.file_type()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_and_other_architectures_are_left_out() {
        for needed in [
            "Makefile",
            "Documentation/Kconfig",
            "arch/Kconfig",
            "arch/x86/Kconfig",
            "arch/arm/crypto/Kconfig",
            "arch/um/scripts/Makefile.rules",
            "fs/namei.c",
        ] {
            assert!(is_needed(Path::new(needed)), "{needed}");
        }
        for other in
            ["Documentation/x.rst", "arch/arm64/kernel/x.c", "arch/mips/a/b.c", "LICENSES/preferred/MIT"]
        {
            assert!(!is_needed(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn a_source_directory_is_known_by_its_files_and_not_by_its_products() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path().join("cache"));
        let source = root.path().join("linux");
        for file in ["fs/a.c", "fs/a.o", ".config", "include/generated/x.h"] {
            fs::create_dir_all(source.join(file).parent().unwrap()).unwrap();
            fs::write(source.join(file), "1").unwrap();
        }
        let origin = SourceOrigin::Directory(source.clone());
        let before = origin.digest(&cache).unwrap();
        fs::write(source.join("fs/a.o"), "changed").unwrap();
        fs::write(source.join("include/generated/x.h"), "changed").unwrap();
        assert_eq!(origin.digest(&cache).unwrap(), before);
        fs::write(source.join("fs/a.c"), "changed").unwrap();
        assert_ne!(origin.digest(&cache).unwrap(), before);
    }

    #[test]
    fn the_content_of_a_source_directory_is_told_whatever_its_times() {
        let root = tempfile::tempdir().unwrap();
        let of = |name: &str, text: &str| {
            let copy = root.path().join(name);
            fs::create_dir_all(copy.join("fs")).unwrap();
            fs::write(copy.join("fs/a.c"), text).unwrap();
            SourceOrigin::Directory("anywhere".into()).content(&copy).unwrap().unwrap()
        };
        let (first, same, other) = (of("1", "x"), of("2", "x"), of("3", "y"));
        assert!(first == same && first != other);
        assert_eq!(SourceOrigin::Package("p".into()).content(root.path()).unwrap(), None);
    }
}
