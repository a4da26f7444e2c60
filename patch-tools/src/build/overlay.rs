//! A second copy of a tree's source in which a patch is applied, so that the prepared tree stays clean.
//!
//! Made once per tree by hard links (1 to 2 s), then used again: only the patch's files are replaced, by
//! renaming new files over the links, and put back before the next use. A list of the replaced files is
//! written before they are, so that an overlay left by a killed build is put back, too. Builds that run at the
//! same time get different overlays.
//!
//! Not a union mount: that would need root or user namespaces. Not symbolic links to directories: `#include
//! "../x.h"` would lead back into the original.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cache::{CacheError, Lock};
use super::jobs;
use super::patch::SourcePath;
use system::durable;

/// A source tree of one's own, until dropped.
#[derive(Debug)]
pub(super) struct Overlay {
    root: PathBuf,
    pristine: PathBuf,
    changed: PathBuf,
    _lock: Lock,
}

impl Overlay {
    /// Takes a free overlay of the tree whose source is `pristine`, or makes one in `pool`.
    pub(super) fn take(pool: &Path, pristine: &Path) -> Result<Self, CacheError> {
        for number in 0_u32.. {
            let at = |suffix: &str| pool.join(format!("{number}{suffix}"));
            let Some(lock) = Lock::attempt(&at(".lock"))? else { continue };
            let overlay =
                Self { root: at(""), pristine: pristine.to_owned(), changed: at(".changed"), _lock: lock };
            let ready = at(".ready");
            if ready.is_file() {
                overlay.restore()?;
            } else {
                if overlay.root.exists() {
                    fs::remove_dir_all(&overlay.root).map_err(CacheError::io("remove", &overlay.root))?;
                }
                link_tree(pristine, &overlay.root)?;
                fs::write(&ready, "").map_err(CacheError::io("write", &ready))?;
            }
            return Ok(overlay);
        }
        unreachable!("a directory cannot hold four thousand million locked overlays")
    }

    /// The top of the source tree.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Gives files other contents; `None` removes one.
    pub(super) fn change(&self, contents: &[(SourcePath, Option<Vec<u8>>)]) -> Result<(), CacheError> {
        let list: String = contents.iter().map(|(path, _)| format!("{path}\n")).collect();
        durable::publish(&self.changed, list.as_bytes()).map_err(CacheError::io("write", &self.changed))?;
        for (path, content) in contents {
            let file = self.root.join(path);
            match content {
                Some(content) => {
                    make_parent(&file)?;
                    durable::publish(&file, content).map_err(CacheError::io("write", &file))?;
                }
                None => fs::remove_file(&file).map_err(CacheError::io("remove", &file))?,
            }
        }
        Ok(())
    }

    fn restore(&self) -> Result<(), CacheError> {
        let list = match fs::read_to_string(&self.changed) {
            Ok(list) => list,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(CacheError::io("read", &self.changed)(error)),
        };
        for path in list.lines().filter_map(SourcePath::new) {
            let (file, original) = (self.root.join(&path), self.pristine.join(&path));
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(CacheError::io("remove", &file)(error));
                }
                _ => {}
            }
            if original.exists() {
                make_parent(&file)?;
                fs::hard_link(&original, &file).map_err(CacheError::io("link", &file))?;
            }
        }
        fs::remove_file(&self.changed).map_err(CacheError::io("remove", &self.changed))
    }
}

fn make_parent(file: &Path) -> Result<(), CacheError> {
    match file.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(CacheError::io("make", parent)),
        None => Ok(()),
    }
}

fn link_tree(from: &Path, to: &Path) -> Result<(), CacheError> {
    let mut directories = vec![PathBuf::new()];
    let mut at = 0;
    let mut files = Vec::new();
    while let Some(below) = directories.get(at).cloned() {
        at += 1;
        fs::create_dir_all(to.join(&below)).map_err(CacheError::io("make", to))?;
        let here = from.join(&below);
        for entry in fs::read_dir(&here).map_err(CacheError::io("list", &here))? {
            let entry = entry.map_err(CacheError::io("list", &here))?;
            let path = below.join::<&OsStr>(&entry.file_name());
            match entry.file_type().map_err(CacheError::io("look at", &here))?.is_dir() {
                true => directories.push(path),
                false => files.push(path),
            }
        }
    }
    let chunks: Vec<&[PathBuf]> = files.chunks(512).collect();
    jobs::map(jobs::processors(), &chunks, |chunk| {
        chunk.iter().try_for_each(|path| {
            let target = to.join(path);
            fs::hard_link(from.join(path), &target).map_err(CacheError::io("link", &target))
        })
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> SourcePath {
        SourcePath::new(path).unwrap()
    }

    #[test]
    fn a_killed_build_leaves_nothing_behind_for_the_next() {
        let root = tempfile::tempdir().unwrap();
        let (pristine, pool) = (root.path().join("source"), root.path().join("pool"));
        fs::create_dir_all(pristine.join("fs")).unwrap();
        fs::write(pristine.join("fs/a.c"), "old").unwrap();
        fs::write(pristine.join("fs/b.c"), "old").unwrap();
        let overlay = Overlay::take(&pool, &pristine).unwrap();
        let change = [
            (path("fs/a.c"), Some(b"new".to_vec())),
            (path("fs/b.c"), None),
            (path("lib/new.h"), Some(b"new".to_vec())),
        ];
        overlay.change(&change).unwrap();
        let at = overlay.root().to_owned();
        assert_eq!(fs::read(at.join("fs/a.c")).unwrap(), b"new");
        assert_eq!(fs::read(pristine.join("fs/a.c")).unwrap(), b"old");
        assert!(!at.join("fs/b.c").exists() && at.join("lib/new.h").exists());
        drop(overlay);

        let again = Overlay::take(&pool, &pristine).unwrap();
        assert_eq!(again.root(), at);
        assert_eq!(fs::read(at.join("fs/a.c")).unwrap(), b"old");
        assert_eq!(fs::read(at.join("fs/b.c")).unwrap(), b"old");
        assert!(!at.join("lib/new.h").exists());
    }

    #[test]
    fn builds_at_the_same_time_do_not_share_an_overlay() {
        let root = tempfile::tempdir().unwrap();
        let (pristine, pool) = (root.path().join("source"), root.path().join("pool"));
        fs::create_dir_all(&pristine).unwrap();
        let first = Overlay::take(&pool, &pristine).unwrap();
        let second = Overlay::take(&pool, &pristine).unwrap();
        assert_ne!(first.root(), second.root());
    }
}
