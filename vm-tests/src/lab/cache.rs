//! The lab's store of built things: images, kernels, keys, snapshots. It lies outside the repository.
//!
//! Invariants: an entry is complete or absent (built in a temporary directory and renamed); its name
//! holds a digest of the recipe it was built from, so a changed recipe builds anew; one process builds
//! an entry while others wait for it.
//!
//! Old entries are not collected, but for kinds that change with every build ([`Cache::retire`]): deleting the
//! directory is always safe while no machine runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

const TOOLS: &str = "tools";
const UNUSED: Duration = Duration::from_secs(24 * 3600);

fn default_root() -> Option<PathBuf> {
    let from_env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from_env("UPDATE_LAB_CACHE")
        .or_else(|| from_env("XDG_CACHE_HOME").map(|dir| dir.join("update-lab")))
        .or_else(|| from_env("HOME").map(|dir| dir.join(".cache/update-lab")))
}

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens `$UPDATE_LAB_CACHE`, else `$XDG_CACHE_HOME/update-lab`, else `~/.cache/update-lab`.
    pub fn open() -> Result<Self> {
        let root = default_root()
            .ok_or_else(|| anyhow!("none of UPDATE_LAB_CACHE, XDG_CACHE_HOME and HOME is set"))?;
        for dir in ["locks", "machines", TOOLS] {
            fs::create_dir_all(root.join(dir))
                .with_context(|| format!("the lab's cache {} cannot be made", root.display()))?;
        }
        Ok(Self { root: root.canonicalize()? })
    }

    /// The directory that holds one subdirectory per machine.
    pub fn machines(&self) -> PathBuf {
        self.root.join("machines")
    }

    /// The directory of programs that run beside what is installed.
    pub fn tools(&self) -> PathBuf {
        self.root.join(TOOLS)
    }

    /// [`Self::tools`] of the cache that [`Self::open`] would open.
    pub fn default_tools() -> Option<PathBuf> {
        default_root().map(|root| root.join(TOOLS))
    }

    /// A directory that is not an entry: what lies in it changes.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.root.join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Path of a file to lock, for what has to happen one after the other.
    pub fn lock_file(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }

    /// Returns the directory of the entry `kind` made from `recipe`, building it first if absent.
    ///
    /// `build` fills the empty directory that it is given.
    pub fn entry(
        &self,
        kind: &str,
        recipe: &Recipe,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let name = format!("{kind}-{}", recipe.digest());
        let ready = self.root.join(&name);
        if ready.is_dir() {
            // Its age is the time since it was last asked for.
            let _ = File::open(&ready).and_then(|dir| dir.set_modified(SystemTime::now()));
            return Ok(ready);
        }
        let lock = File::create(self.lock_file(&name))?;
        lock.lock().with_context(|| format!("waiting for another process that builds {name}"))?;
        if ready.is_dir() {
            return Ok(ready);
        }
        let building = tempfile::Builder::new().prefix(".building-").tempdir_in(&self.root)?;
        build(building.path()).with_context(|| format!("building {kind} for the lab"))?;
        fs::rename(building.keep(), &ready)?;
        Ok(ready)
    }

    /// The entries of a kind that are there.
    pub fn entries(&self, kind: &str) -> Result<Vec<PathBuf>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&format!("{kind}-")) {
                entries.push(entry.path());
            }
        }
        Ok(entries)
    }

    /// Removes the entries of a kind that nobody has asked for in a day.
    pub fn retire(&self, kind: &str) -> Result<()> {
        for entry in self.entries(kind)? {
            let age = fs::metadata(&entry)?.modified()?.elapsed().unwrap_or_default();
            if age > UNUSED {
                let _ = fs::remove_dir_all(entry);
            }
        }
        Ok(())
    }
}

/// Everything that decides what a built entry contains.
#[derive(Debug, Clone, Default)]
pub struct Recipe(Sha256);

impl Recipe {
    /// A recipe of these ingredients, in order.
    pub fn of<I: AsRef<[u8]>>(ingredients: impl IntoIterator<Item = I>) -> Self {
        let mut recipe = Self::default();
        for ingredient in ingredients {
            recipe.add(ingredient);
        }
        recipe
    }

    /// Adds one ingredient; its length is hashed too, so that ingredients do not run into each other.
    pub fn add(&mut self, ingredient: impl AsRef<[u8]>) {
        let bytes = ingredient.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The first 12 hex digits of the digest.
    pub fn digest(&self) -> String {
        hex::encode(&self.0.clone().finalize()[..6])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_asked_for_in_a_day_is_retired_and_other_kinds_are_not() -> Result<()> {
        let root = tempfile::tempdir()?;
        let cache = Cache { root: root.path().to_owned() };
        let old = SystemTime::now() - 2 * UNUSED;
        for name in ["kind-1", "kind-2", "other-1"] {
            fs::create_dir(root.path().join(name))?;
            File::open(root.path().join(name))?.set_modified(old)?;
        }
        File::open(root.path().join("kind-2"))?.set_modified(SystemTime::now())?;
        cache.retire("kind")?;
        let mut left: Vec<_> = fs::read_dir(root.path())?.flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, ["kind-2", "other-1"]);
        Ok(())
    }
}
