//! Root file systems in an engine's storage (`containers/storage` of podman, driver overlay): which directories one is
//! made of stands in a file, and the engine mounts them when it starts the container.
//!
//! Below the driver's home, for a layer L: `L/diff` takes changes, `L/work` is the kernel's, `L/merged` is mounted on,
//! `L/link` holds a short name S, `l/S` leads to `../L/diff`, and `L/lower` names the layers below it, topmost first,
//! as `l/S:l/S`. Only links in `l` are followed by the engine, and it takes what they say as relative to `l`.
//!
//! Invariants:
//! - Nothing is changed while the root file system is mounted.
//! - The upper directory keeps its name, since the engine knows no other. For a trial it is renamed aside, and one that was
//!   prepared gets its name; the way back renames it back. What is aside lies below L, so the engine removes it
//!   with the container.
//! - `L/lower` is written first on the way forward and last on the way back, so that whatever was cut short is told by it.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use manifests::Sha256;
use system::durable;

use crate::files::rootfs::{RootfsError, Switched};
use crate::model::{Overlay, Topology, trial_of};

/// The mount point below a layer's directory.
const MERGED: &str = "merged";

/// A fresh upper directory, beside the place where the old one is put.
const PREPARED: &str = "upper";

/// As long as the engine's own short names, and unlike any of them.
const NAME_DIGITS: usize = 20;

/// A layer of a driver's home.
#[derive(Debug)]
pub(crate) struct Layer {
    home: PathBuf,
    directory: PathBuf,
}

impl Layer {
    /// The layer that is mounted on `rootfs`, if that is a place in a storage.
    pub(crate) fn mounted_on(rootfs: &Path) -> Option<Self> {
        let directory = rootfs.parent().filter(|_| rootfs.ends_with(MERGED))?;
        let home = directory.parent()?;
        let parts = [directory.join("lower"), directory.join("link"), home.join("l")];
        parts
            .iter()
            .all(|part| part.exists())
            .then(|| Self { home: home.into(), directory: directory.into() })
    }

    fn links(&self) -> PathBuf {
        self.home.join("l")
    }

    fn diff(&self) -> PathBuf {
        self.directory.join("diff")
    }

    fn lower_file(&self) -> PathBuf {
        self.directory.join("lower")
    }

    /// What it is made of.
    pub(crate) fn topology(&self) -> Result<Topology, RootfsError> {
        self.overlay().map(Topology::Stored)
    }

    fn overlay(&self) -> Result<Overlay, RootfsError> {
        let path = self.lower_file();
        let text = fs::read_to_string(&path).map_err(read(&path))?;
        let lower: Result<Vec<PathBuf>, RootfsError> = text
            .trim()
            .split(':')
            .map(|entry| {
                let link = self.home.join(entry);
                let target = fs::read_link(&link).map_err(read(&link))?;
                Ok(lexical(&self.links().join(target)))
            })
            .collect();
        let (upper, work) = (Some(self.diff()), Some(self.directory.join("work")));
        Ok(Overlay { lower: lower?, upper, work, options: Vec::new(), flags: Vec::new() })
    }

    /// Makes it what `to` says. It must not be mounted.
    pub(crate) fn switch(&self, rootfs: &Path, to: &Overlay) -> Result<Switched, RootfsError> {
        let now = self.overlay()?;
        let aside = |overlay: &Overlay| overlay.put_aside(&self.directory).cloned().collect::<Vec<_>>();
        let (old, new) = (aside(&now), aside(to));
        let going = old.iter().filter(|path| !new.contains(path));
        let mut coming: Vec<&PathBuf> = new.iter().filter(|path| !path.exists()).collect();
        if !self.diff().exists() {
            // It was put aside, and nothing has its name yet.
            coming.extend(new.iter().find(|path| path.exists()));
        }
        if now.lower == to.lower && coming.is_empty() {
            return Ok(Switched::AlreadySo);
        }
        if let Some(path) = to.lower.iter().find(|path| !new.contains(path) && !path.is_dir()) {
            return Err(RootfsError::Missing { rootfs: rootfs.to_owned(), path: path.clone() });
        }
        // Topmost first on the way back, and last on the way forward.
        going.into_iter().try_for_each(|aside| self.take_back(aside))?;
        self.write_lower(to)?;
        coming.iter().rev().try_for_each(|aside| self.put_aside(aside))?;
        let found = self.overlay()?;
        match found.lower == to.lower && self.diff().is_dir() {
            true => Ok(Switched::Changed),
            false => Err(RootfsError::NotSwitched {
                rootfs: rootfs.to_owned(),
                found: Box::new(Topology::Stored(found)),
            }),
        }
    }

    /// The upper directory goes aside; the one that was prepared for a trial, or what that trial had written before it
    /// went back, gets its name.
    fn put_aside(&self, aside: &Path) -> Result<(), RootfsError> {
        if !aside.exists() {
            self.rename(&self.diff(), aside)?;
        }
        if self.diff().exists() {
            return Ok(());
        }
        let written = trial_of(aside);
        let next = if written.exists() { written } else { aside.with_file_name(PREPARED) };
        self.rename(&next, &self.diff())
    }

    /// What was put aside gets its name back.
    fn take_back(&self, aside: &Path) -> Result<(), RootfsError> {
        if !aside.exists() {
            return Ok(());
        }
        if self.diff().exists() {
            self.rename(&self.diff(), &trial_of(aside))?;
        }
        self.rename(aside, &self.diff())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), RootfsError> {
        let make = |source| RootfsError::Make { path: to.to_owned(), source };
        if let Some(directory) = to.parent() {
            durable::make_directory(directory).map_err(make)?;
        }
        fs::rename(from, to).map_err(make)?;
        for directory in [from, to].into_iter().filter_map(Path::parent) {
            durable::sync_directory(directory).map_err(make)?;
        }
        Ok(())
    }

    fn write_lower(&self, to: &Overlay) -> Result<(), RootfsError> {
        let entries: Result<Vec<String>, RootfsError> =
            to.lower.iter().map(|path| self.entry(path)).collect();
        let path = self.lower_file();
        let make = |source| RootfsError::Make { path: path.clone(), source };
        durable::sync_directory(&self.links()).map_err(make)?;
        durable::replace(&path, entries?.join(":").as_bytes()).map_err(make)
    }

    /// How a directory is named in a `lower` file: the engine's own by its short name, any other by a link that is made
    /// for it.
    fn entry(&self, directory: &Path) -> Result<String, RootfsError> {
        let own =
            directory.parent().filter(|layer| directory.ends_with("diff") && layer.starts_with(&self.home));
        if let Some(Ok(name)) = own.map(|layer| fs::read_to_string(layer.join("link"))) {
            return Ok(format!("l/{}", name.trim()));
        }
        let digest = Sha256::of(directory.as_os_str().as_encoded_bytes()).to_string();
        let name = format!("UPDATE{}", digest[..NAME_DIGITS].to_uppercase());
        let (link, target) = (self.links().join(&name), relative(&self.links(), directory));
        match symlink(&target, &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(|source| RootfsError::Make { path: link.clone(), source })?,
        }
        Ok(format!("l/{name}"))
    }

    /// What it shows, for looking only: an overlay of all of its directories, by their short names.
    pub(crate) fn view(&self) -> Result<Overlay, RootfsError> {
        let text = fs::read_to_string(self.lower_file()).map_err(read(&self.lower_file()))?;
        let below = text.trim().split(':').map(|entry| self.home.join(entry));
        Ok(Overlay {
            lower: [self.diff()].into_iter().chain(below).collect(),
            upper: None,
            work: None,
            // As the engine mounts it: some of its files are only names for those of a lower layer.
            options: vec!["metacopy=on".to_owned(), "redirect_dir=follow".to_owned()],
            flags: vec!["ro".to_owned()],
        })
    }
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> RootfsError {
    let path = path.to_owned();
    move |source| RootfsError::Read { path, source }
}

/// A path without `.` and `..`, as the engine reads it: by its text.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The way from one absolute directory to another.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components()).take_while(|(one, other)| one == other).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::DirBuilderExt as _;

    use super::*;
    use crate::model::FreshUpper;

    /// A home with an image layer `image` and a container's layer `web`, and a fix elsewhere.
    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            for directory in ["o/l", "o/image/diff", "o/web/diff", "o/web/work", "o/web/merged", "fix"] {
                fs::DirBuilder::new().recursive(true).mode(0o755).create(home.path(directory)).unwrap();
            }
            for (layer, name) in [("image", "AAAA"), ("web", "BBBB")] {
                fs::write(home.path("o").join(layer).join("link"), name).unwrap();
                symlink(format!("../{layer}/diff"), home.path("o/l").join(name)).unwrap();
            }
            fs::write(home.path("o/web/lower"), "l/AAAA").unwrap();
            fs::write(home.path("o/web/diff/data"), "old").unwrap();
            home
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(name)
        }

        fn layer(&self) -> Layer {
            Layer::mounted_on(&self.path("o/web/merged")).unwrap()
        }

        fn switch(&self, to: &Topology) -> Switched {
            self.layer().switch(&self.path("o/web/merged"), to.overlay().unwrap()).unwrap()
        }

        /// The topology of a trial, for which everything is prepared.
        fn trial(&self) -> Topology {
            let fresh = FreshUpper {
                upper: self.path("o/web/update-7/upper"),
                work: self.path("o/web/update-7/work"),
            };
            fs::create_dir_all(&fresh.upper).unwrap();
            fs::write(fresh.upper.join("data"), "new").unwrap();
            let original = self.layer().topology().unwrap();
            original.trial(&self.path("o/web/merged"), &[self.path("fix")], &fresh).unwrap()
        }

        fn data(&self) -> String {
            fs::read_to_string(self.path("o/web/diff/data")).unwrap()
        }

        fn lower(&self) -> String {
            fs::read_to_string(self.path("o/web/lower")).unwrap()
        }
    }

    #[test]
    fn a_trial_gets_the_name_of_the_upper_directory_and_gives_it_back() {
        let home = Home::new();
        let original = home.layer().topology().unwrap();
        assert_eq!(original.overlay().unwrap().lower, [home.path("o/image/diff")]);
        let trial = home.trial();
        assert_eq!(home.switch(&trial), Switched::Changed);
        assert_eq!(home.switch(&trial), Switched::AlreadySo);
        assert_eq!(home.data(), "new");
        assert_eq!(fs::read_to_string(home.path("o/web/update-7/old/data")).unwrap(), "old");
        assert!(home.layer().topology().unwrap().shows_the_same_as(&trial));
        // What the engine follows are links in `l`, whose words it takes as relative to it.
        for entry in home.lower().split(':') {
            let target = fs::read_link(home.path("o").join(entry)).unwrap();
            assert!(target.is_relative() && home.path("o/l").join(target).is_dir(), "{entry}");
        }
        assert_eq!(home.switch(&original), Switched::Changed);
        assert_eq!((home.data().as_str(), home.lower().as_str()), ("old", "l/AAAA"));
        assert_eq!(fs::read_to_string(home.path("o/web/update-7/trial/data")).unwrap(), "new");
        // A way back that is itself undone.
        assert_eq!(home.switch(&trial), Switched::Changed);
        assert_eq!(home.data(), "new");
    }

    #[test]
    fn the_fix_can_be_taken_out_and_what_was_written_since_stays() {
        let home = Home::new();
        let trial = home.trial();
        home.switch(&trial);
        let without = trial.without(&[home.path("fix")], Path::new("/unused")).unwrap();
        assert_eq!(home.switch(&without), Switched::Changed);
        assert_eq!(home.data(), "new");
        assert_eq!(
            without.overlay().unwrap().lower,
            [home.path("o/web/update-7/old"), home.path("o/image/diff")]
        );
    }

    #[test]
    fn a_switch_that_was_cut_short_anywhere_goes_on_and_back() {
        let cuts: [fn(&Home, &Topology); 3] = [
            |home, trial| home.layer().write_lower(trial.overlay().unwrap()).unwrap(),
            |home, _| fs::rename(home.path("o/web/diff"), home.path("o/web/update-7/old")).unwrap(),
            |home, _| fs::rename(home.path("o/web/update-7/upper"), home.path("o/web/diff")).unwrap(),
        ];
        for reached in 1..=cuts.len() {
            for forward in [true, false] {
                let home = Home::new();
                let original = home.layer().topology().unwrap();
                let trial = home.trial();
                cuts[..reached].iter().for_each(|cut| cut(&home, &trial));
                home.switch(if forward { &trial } else { &original });
                assert_eq!(home.data(), if forward { "new" } else { "old" }, "{reached} {forward}");
                let now = home.layer().topology().unwrap();
                assert!(
                    now.shows_the_same_as(if forward { &trial } else { &original }),
                    "{reached} {forward}"
                );
            }
        }
    }

    #[test]
    fn a_directory_that_only_looks_like_a_storage_is_none() {
        let home = Home::new();
        assert!(Layer::mounted_on(&home.path("o/image/merged")).is_none());
        assert!(Layer::mounted_on(&home.path("fix")).is_none());
    }

    #[test]
    fn a_layer_that_is_not_there_is_missed_before_anything_is_renamed() {
        let home = Home::new();
        let trial = home.trial();
        fs::remove_dir(home.path("fix")).unwrap();
        let error = home.layer().switch(&home.path("o/web/merged"), trial.overlay().unwrap()).unwrap_err();
        assert!(matches!(error, RootfsError::Missing { .. }), "{error:?}");
        assert_eq!((home.data().as_str(), home.lower().as_str()), ("old", "l/AAAA"));
    }
}
