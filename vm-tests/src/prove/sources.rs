//! The packaged sources of two versions of one kernel series, reduced to the files in which they differ.
//!
//! Of C files only those are unpacked that [`is_ours`]: the others are kept for an examination of which nobody
//! who works on the programs may know anything. Headers are all there. What is equal in both versions is
//! dropped. The result lies in the lab's cache; nothing of it belongs into the repository.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::lab::apt::Apt;
use crate::lab::cache::{Cache, Recipe};
use crate::lab::host::{Step, program};

/// Changes whenever the same packages would give another entry.
const FORMAT: &str = "fix-sources-1";

/// Headers of hardware registers: a third of the archive, and no fix ever needs a hunk of them.
const REGISTERS: &str = "drivers/gpu/drm/amd/include/";

/// Whether a C file may be looked at: the SHA-256 of its path, like `fs/namei.c`, begins with an even digit.
pub(super) fn is_ours(path: &str) -> bool {
    Sha256::digest(path.as_bytes())[0] >> 4 & 1 == 0
}

/// `linux-source-6.1` of `6.1.0-50-amd64`.
pub(super) fn source_package(release: &str) -> Result<String> {
    let mut parts = release.split('.');
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => Ok(format!("linux-source-{major}.{minor}")),
        _ => bail!("{release} does not begin with MAJOR.MINOR"),
    }
}

/// The files in which two versions differ.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    dir: PathBuf,
    /// Paths of the files that are in both and differ.
    pub(super) differing: BTreeSet<String>,
}

impl Sources {
    /// Fetches and compares both versions of a source package, or finds the result in the cache.
    pub(super) fn prepare(cache: &Cache, apt: &Apt, package: &str, old: &str, new: &str) -> Result<Self> {
        let recipe = Recipe::of([FORMAT, package, old, new]);
        let dir = cache.entry("fix-sources", &recipe, |dir| {
            for (name, version) in [("old", old), ("new", new)] {
                fetch(apt, dir, &dir.join(name), package, version)?;
            }
            let step = Step::begin("comparing the sources");
            let differing = compare(dir)?;
            fs::write(dir.join("differing"), differing.join("\n"))?;
            step.end();
            Ok(())
        })?;
        let differing = fs::read_to_string(dir.join("differing"))?.lines().map(str::to_owned).collect();
        Ok(Self { dir, differing })
    }

    /// A file in the older version.
    pub(super) fn earlier(&self, path: &str) -> PathBuf {
        self.dir.join("old").join(path)
    }

    /// A file in the newer version.
    pub(super) fn later(&self, path: &str) -> PathBuf {
        self.dir.join("new").join(path)
    }
}

fn is_wanted(path: &str) -> bool {
    let mut parts = path.split('/');
    let here = match (parts.next(), parts.next()) {
        (Some("arch"), arch) => arch == Some("x86"),
        (Some("Documentation" | "tools" | "samples" | "scripts" | "usr"), _) => false,
        _ => true,
    };
    here && !path.starts_with(REGISTERS) && (path.ends_with(".h") || path.ends_with(".c") && is_ours(path))
}

fn fetch(apt: &Apt, work: &Path, target: &Path, package: &str, version: &str) -> Result<()> {
    let step = Step::begin(&format!("fetching and unpacking {package} {version}"));
    let debs = tempfile::tempdir_in(work)?;
    apt.download(&[format!("{package}={version}")], debs.path())?;
    let deb = fs::read_dir(debs.path())?.next().context("apt-get download left no file")??.path();
    let mut unpacker = program("dpkg-deb").arg("--fsys-tarfile").arg(&deb).stdout(Stdio::piped()).spawn()?;
    let files = unpacker.stdout.take().context("the output of dpkg-deb")?;
    let mut found = false;
    for entry in tar::Archive::new(files).entries()? {
        let entry = entry?;
        if entry.path()?.extension().is_some_and(|end| end == "xz") {
            unpack(liblzma::read::XzDecoder::new(entry), target)?;
            found = true;
        }
    }
    ensure!(unpacker.wait()?.success() && found, "{} holds no source archive", deb.display());
    step.end();
    Ok(())
}

fn unpack(archive: impl Read, target: &Path) -> Result<()> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path: PathBuf = entry.path()?.components().skip(1).collect();
        let Some(name) = path.to_str().filter(|name| is_wanted(name)) else { continue };
        let file = target.join(name);
        fs::create_dir_all(file.parent().context("a file's directory")?)?;
        entry.unpack(&file)?;
    }
    Ok(())
}

/// Removes what is equal, and returns the paths of what differs.
fn compare(dir: &Path) -> Result<Vec<String>> {
    let (old, new) = (dir.join("old"), dir.join("new"));
    let mut differing = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        for entry in fs::read_dir(old.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                waiting.push(path);
                continue;
            }
            let (left, right) = (old.join(&path), new.join(&path));
            if right.is_file() && fs::read(&left)? != fs::read(&right)? {
                differing.push(path.to_str().context("a path that is no text")?.to_owned());
            } else {
                fs::remove_file(&left)?;
                let _ = fs::remove_file(&right);
            }
        }
    }
    differing.sort();
    Ok(differing)
}

/// The difference of one file as a patch, empty if there is none.
pub(super) fn difference(sources: &Sources, path: &str) -> Result<String> {
    let output = Command::new("diff")
        .args(["-u", "--label", &format!("a/{path}"), "--label", &format!("b/{path}")])
        .args([sources.earlier(path), sources.later(path)])
        .env("LC_ALL", "C")
        .output()
        .context("starting diff")?;
    ensure!(output.status.code().is_some_and(|code| code < 2), "diff of {path} failed");
    // Old files have names in Latin-1.
    String::from_utf8(output.stdout).with_context(|| format!("{path} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_ours_by_the_first_digit_of_its_paths_digest() {
        for path in ["fs/namei.c", "mm/mmap.c", "kernel/fork.c", "net/core/dev.c", "lib/string.c"] {
            let digest = hex::encode(Sha256::digest(path));
            assert_eq!(is_ours(path), "02468ace".contains(&digest[..1]), "{path} {digest}");
        }
    }

    #[test]
    fn foreign_architectures_documentation_and_other_c_files_are_not_unpacked() {
        let kept = |path: &str| is_wanted(path);
        assert!(kept("include/linux/fs.h") && kept("arch/x86/include/asm/page.h"));
        assert!(!kept("arch/arm/mm/mmu.h") && !kept("Documentation/x.h") && !kept("fs/Makefile"));
        let theirs = (0..).map(|number| format!("fs/{number}.c")).find(|path| !is_ours(path)).unwrap();
        assert!(!kept(&theirs));
    }
}
