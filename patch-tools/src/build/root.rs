//! A build root: a directory with another system's compiler, linker, libraries and shell, in which the programs of a
//! build run.
//!
//! The root of a Debian release is unpacked from its packages, once for each compiler; nothing is installed on this
//! machine and no maintainer script runs. So a module is made by the same programs wherever it is made, and
//! those programs (and what the kernel's build compiles for its own use, like objtool) need not fit this machine's
//! C library. Any other directory that holds a system can serve, such as an exported container image.
//!
//! Programs enter it through a user and a mount namespace, which need no privileges: the cache and the directory of
//! temporary files are there at their own paths, so that a path means the same inside and outside. The root's own
//! files are left as they are. It is no sandbox: what runs there may read and write what this user may.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use manifests::Sha256;
use serde::{Deserialize, Serialize};

use super::apt::{Apt, AptError};
use super::cache::{Cache, CacheError};
use super::deb::{self, UnpackError};
use super::debian::BUILD_PACKAGES;
use super::digest::{self, DigestError};
use super::process::Program;
use super::progress::Progress;

/// Changes whenever the same packages would give another root.
const RECIPE: u32 = 1;

/// Makes a view of the root ($1) in a mount namespace, with further directories of the outside ($2...) in it. It is ready
/// when the view has become the root of who says so: others enter by that.
const VIEW: &str = r#"set -e
root=$1; shift
view=$root/mnt
mount -t tmpfs -o mode=755 view "$view"
cd "$root"
links= directories=
for name in usr bin sbin lib lib32 lib64 libx32 etc opt; do
    if [ -L "$name" ]; then links="$links $name"
    elif [ -d "$name" ]; then directories="$directories $name"
    fi
done
# Few programs: each build starts them all before anything else.
[ -z "$links" ] || cp -P $links "$view"
cd "$view"
set -- /proc /dev "$@"
for shown in "$@"; do set -- "$@" ".$shown"; shift; done
mkdir -p $directories "$@"
for name in $directories; do mount --rbind "$root/$name" "$name"; done
for shown in "$@"; do mount --rbind "${shown#.}" "$shown"; done
exec chroot "$view" /bin/sh -c 'echo ready; read -r end || true'
"#;

/// Why a build root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Packages could not be fetched.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// A package could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// A package could not be hashed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The list of a root's packages is damaged.
    #[error("the list of packages in {} is damaged; remove that directory", place.display())]
    Record {
        /// The root.
        place: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The namespaces could not be made.
    #[error(
        "cannot enter the build root {}: programs in it run in a user and a mount namespace, which this machine does not allow: {said}",
        root.display()
    )]
    Enter {
        /// The root.
        root: PathBuf,
        /// What was said.
        said: String,
    },
    /// A program for namespaces could not be started.
    #[error("cannot run `unshare` (of the package util-linux)")]
    Unshare(#[source] io::Error),
}

/// A package in a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// `NAME_VERSION_ARCH.deb`.
    pub file: String,
    /// The package.
    pub sha256: Sha256,
}

/// A directory with a system in it.
#[derive(Debug)]
pub(super) struct BuildRoot {
    directory: PathBuf,
    /// What it was unpacked from; empty for a directory of the user's.
    pub(super) packages: Vec<Installed>,
    /// Directories of the outside that are seen inside at the same path.
    shown: Vec<PathBuf>,
    entered: OnceLock<Arc<Entered>>,
}

impl BuildRoot {
    /// The root of a Debian release with one compiler (`gcc-14`), unpacked if it is not in the cache.
    /// `version` is what the compiler has to say of itself: a root is of one compiler only.
    pub(super) fn of_release(
        cache: &Cache,
        apt: &Apt<'_>,
        compiler: &str,
        version: &str,
        progress: &dyn Progress,
    ) -> Result<Self, RootError> {
        let key = Sha256::of(format!("{RECIPE} {version} {BUILD_PACKAGES:?}").as_bytes()).to_string();
        let entry = cache.entry("roots", &format!("{compiler}-{}", &key[..16]), |entry| {
            progress.step(&format!("fetching {compiler} and the tools beside it (once per compiler)"));
            let debs = tempfile::tempdir_in(entry).map_err(CacheError::io("make a directory in", entry))?;
            apt.download_closure(&[&[compiler], &BUILD_PACKAGES[..]].concat(), debs.path())?;
            progress.step(&format!("unpacking {compiler} and the tools beside it"));
            unpack_all(debs.path(), &entry.join("root")).and_then(|packages| {
                let list = entry.join("packages.json");
                let text = serde_json::to_vec_pretty(&packages)
                    .map_err(|source| RootError::Record { place: entry.to_owned(), source })?;
                Ok(fs::write(&list, text).map_err(CacheError::io("write", &list))?)
            })
        })?;
        let list = entry.join("packages.json");
        let text = fs::read(&list).map_err(CacheError::io("read", &list))?;
        let packages = serde_json::from_slice(&text)
            .map_err(|source| RootError::Record { place: entry.clone(), source })?;
        Ok(Self { packages, ..Self::at(cache, entry.join("root")) })
    }

    /// A directory of the user's.
    pub(super) fn at(cache: &Cache, directory: PathBuf) -> Self {
        let shown = vec![cache.root().to_owned(), std::env::temp_dir()];
        Self { directory, packages: Vec::new(), shown, entered: OnceLock::new() }
    }

    /// Where it is.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn enter(&self) -> Result<Arc<Entered>, RootError> {
        if let Some(entered) = self.entered.get() {
            return Ok(entered.clone());
        }
        let entered = Entered::new(&self.directory, &self.shown)?;
        Ok(self.entered.get_or_init(|| Arc::new(entered)).clone())
    }
}

/// Where the programs of a build run.
#[derive(Debug, Clone)]
pub(super) struct Tools(Option<Arc<Entered>>);

impl Tools {
    /// On this machine, as installed.
    pub(super) fn of_this_machine() -> Self {
        Self(None)
    }

    /// In a root.
    pub(super) fn within(root: &BuildRoot) -> Result<Self, RootError> {
        root.enter().map(|entered| Self(Some(entered)))
    }

    /// A program, by its name or path there.
    pub(super) fn program(&self, name: impl AsRef<std::ffi::OsStr>) -> Program {
        match &self.0 {
            None => Program::new(name),
            Some(entered) => Program::new(name).within(entered.clone()),
        }
    }
}

/// The namespaces in which a root is `/`. They end when this value does, or this process.
#[derive(Debug)]
pub(super) struct Entered {
    holder: Child,
}

impl Entered {
    fn new(root: &Path, shown: &[PathBuf]) -> Result<Self, RootError> {
        for directory in shown {
            fs::create_dir_all(directory).map_err(CacheError::io("make", directory))?;
        }
        let mut holder = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "--propagation",
                "private",
                "/bin/sh",
                "-c",
                VIEW,
                "view",
            ])
            .arg(root)
            .args(shown)
            .env_clear()
            .envs([("PATH", PATH), ("LC_ALL", "C")])
            // Ends when nobody holds the other end any more.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(RootError::Unshare)?;
        let mut ready = String::new();
        if let Some(output) = holder.stdout.take() {
            // A view that cannot be made says nothing here.
            let _ = BufReader::new(output).read_line(&mut ready);
        }
        if ready == "ready\n" {
            return Ok(Self { holder });
        }
        let mut said = String::new();
        if let Some(mut errors) = holder.stderr.take() {
            let _ = errors.read_to_string(&mut said);
        }
        let _ = holder.wait();
        Err(RootError::Enter { root: root.to_owned(), said: said.trim().to_owned() })
    }

    /// The words that run the program that follows them in the root, in a directory.
    pub(super) fn entrance(&self, directory: &Path) -> Vec<std::ffi::OsString> {
        let words = ["nsenter", "--user", "--preserve-credentials", "--mount", "--root", "--target"];
        let mut words: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
        words.push(self.holder.id().to_string().into());
        words.extend(["--", "/usr/bin/env", "-C"].iter().map(Into::into));
        words.push(directory.into());
        words
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What programs in a root find their programs by, and what finds the programs that lead there.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Directories that a merged `/usr` holds.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What no compiler reads.
const UNREAD: [&str; 6] = ["doc", "man", "locale", "info", "lintian", "bug"];

fn unpack_all(debs: &Path, root: &Path) -> Result<Vec<Installed>, RootError> {
    for name in MERGED {
        let below = root.join("usr").join(name);
        fs::create_dir_all(&below).map_err(CacheError::io("make", &below))?;
        let link = root.join(name);
        std::os::unix::fs::symlink(format!("usr/{name}"), &link).map_err(CacheError::io("link", &link))?;
    }
    for name in ["etc", "mnt"] {
        let directory = root.join(name);
        fs::create_dir_all(&directory).map_err(CacheError::io("make", &directory))?;
    }
    let mut files: Vec<PathBuf> = fs::read_dir(debs)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(CacheError::io("list", debs))?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    files.sort();
    let mut packages = Vec::new();
    for path in files {
        deb::unpack(&path, |name| place(name).map(|below| root.join(below)))?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        packages.push(Installed { file, sha256: digest::of_file(&path)? });
    }
    // Chosen by a maintainer script otherwise.
    let awk = root.join("usr/bin/awk");
    if !awk.exists() {
        std::os::unix::fs::symlink("mawk", &awk).map_err(CacheError::io("link", &awk))?;
    }
    Ok(packages)
}

/// Where a file of a package goes below the root; nowhere if no build reads it.
fn place(name: &Path) -> Option<PathBuf> {
    let mut parts = name.iter().filter_map(|part| part.to_str());
    match (parts.next()?, parts.next(), parts.next()) {
        // The links of a merged /usr, which are there already.
        (first, None, _) if MERGED.contains(&first) => None,
        (first, Some(_), _) if MERGED.contains(&first) => Some(Path::new("usr").join(name)),
        ("usr", Some("share"), Some(unread)) if UNREAD.contains(&unread) => None,
        ("usr" | "etc" | "opt", ..) => Some(name.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_where_a_merged_usr_has_them() {
        let placed = |name: &str| place(Path::new(name)).map(|path| path.display().to_string());
        assert_eq!(
            placed("lib/x86_64-linux-gnu/libc.so.6").as_deref(),
            Some("usr/lib/x86_64-linux-gnu/libc.so.6")
        );
        assert_eq!(placed("usr/bin/gcc-14").as_deref(), Some("usr/bin/gcc-14"));
        for unread in ["bin", "usr/share/doc/gcc-14/copyright", "var/lib/x", "usr/share/man/man1/ld.1.gz"] {
            assert_eq!(placed(unread), None, "{unread}");
        }
    }

    /// A program that came in before that found itself among this machine's programs.
    #[test]
    fn a_root_that_is_ready_is_the_root_of_whoever_enters() {
        use std::os::unix::fs::MetadataExt as _;
        let place = |path: &str| fs::metadata(path).map(|found| (found.dev(), found.ino())).unwrap();
        for _ in 0..5 {
            let entered = Entered::new(Path::new("/"), &[]).unwrap();
            let inside = place(&format!("/proc/{}/root/.", entered.holder.id()));
            assert_ne!(inside, place("/"));
        }
    }

    #[test]
    fn a_directory_without_a_system_cannot_be_entered() {
        let empty = tempfile::tempdir().unwrap();
        let error = Entered::new(empty.path(), &[]).unwrap_err();
        assert!(matches!(error, RootError::Enter { .. }), "{error}");
    }
}
