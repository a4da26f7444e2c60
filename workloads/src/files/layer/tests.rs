//! Layers as their makers mean them, and as an attacker would make them.
//!
//! Needs root, and the right to mount in a namespace of its own.

mod bombs;
mod forge;
mod good;
mod hostile;
mod mutation;
mod store;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use manifests::{LayerFormat, Sha256};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::files::layer::{Layer, LayerError, LayerStore, Layers, Rule};

/// A directory with a store in it, and beside it something that no layer may touch.
struct Place {
    root: PathBuf,
    /// Removes the directory; `None` on a file system that goes away by itself.
    _own: Option<tempfile::TempDir>,
}

impl Place {
    fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        let root = own.path().to_owned();
        Self::prepare(root, Some(own))
    }

    fn at(root: &Path) -> Self {
        Self::prepare(root.to_owned(), None)
    }

    fn prepare(root: PathBuf, own: Option<tempfile::TempDir>) -> Self {
        fs::create_dir(root.join("store")).unwrap();
        fs::create_dir(root.join("canary")).unwrap();
        fs::write(root.join("canary/file"), "sings").unwrap();
        Self { root, _own: own }
    }

    fn store(&self) -> LayerStore {
        LayerStore::new(self.layers())
    }

    fn unpack(&self, archive: &[u8], format: LayerFormat) -> Result<Layer, LayerError> {
        self.store().unpack(&Sha256::of(archive), &self.payload(archive), format)
    }

    #[track_caller]
    fn refuses(&self, archive: &[u8], format: LayerFormat) -> LayerError {
        let before = self.outside();
        let error = self.unpack(archive, format).expect_err("the layer must be refused");
        assert_eq!(self.outside(), before);
        assert!(self.names_in_layers().is_empty(), "left behind: {:?}", self.names_in_layers());
        assert_eq!(self.records(), 0);
        error
    }

    fn payload(&self, bytes: &[u8]) -> File {
        let path = self.root.join("payload");
        fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        fs::remove_file(path).unwrap();
        file
    }

    fn layers(&self) -> PathBuf {
        self.root.join("store/layers")
    }

    fn layer(&self, archive: &[u8]) -> PathBuf {
        self.layers().join(Sha256::of(archive).to_string())
    }

    /// Everything but `layers/`: names, kinds, owners, modes, sizes, times of change.
    fn outside(&self) -> Vec<String> {
        let mut found = Vec::new();
        describe(&self.root, &mut found, &|path| !path.ends_with("store/layers"));
        // The payload comes and goes in the root, and `layers` in the store.
        found.retain(|line| !line.starts_with(&format!("{:?} ", self.root)));
        found.retain(|line| !line.starts_with(&format!("{:?} ", self.root.join("store"))));
        found
    }

    /// Layers and leftovers of them; the records are not looked at.
    fn names_in_layers(&self) -> Vec<OsString> {
        match fs::read_dir(self.layers()) {
            Ok(names) => {
                names.map(|name| name.unwrap().file_name()).filter(|name| name != ".records").collect()
            }
            Err(_) => Vec::new(),
        }
    }

    /// Records and leftovers of them.
    fn records(&self) -> usize {
        fs::read_dir(self.layers().join(".records")).map_or(0, Iterator::count)
    }
}

fn describe(directory: &Path, found: &mut Vec<String>, wanted: &dyn Fn(&Path) -> bool) {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| wanted(path))
        .collect();
    paths.sort();
    paths.insert(0, directory.to_owned());
    for path in paths {
        let stat = fs::symlink_metadata(&path).unwrap();
        let times = (stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
        found.push(format!(
            "{path:?} {:o} {}:{} {} {times:?}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.size()
        ));
        if stat.is_dir() && path != directory {
            describe(&path, found, wanted);
        }
    }
}

/// Unpacks a layer that must be refused; nothing of it may stay, and nothing else may change.
#[track_caller]
fn refused(archive: &[u8]) -> LayerError {
    refused_as(archive, LayerFormat::Tar)
}

#[track_caller]
fn refused_as(archive: &[u8], format: LayerFormat) -> LayerError {
    Place::new().refuses(archive, format)
}

/// The rule that a layer was refused by, with the name of the entry.
#[track_caller]
fn rule(archive: &[u8]) -> (String, Rule) {
    match refused(archive) {
        LayerError::Refused { entry, rule, .. } => {
            (String::from_utf8_lossy(entry.as_bytes()).into_owned(), rule)
        }
        other => panic!("refused for another reason: {other}"),
    }
}

/// Runs `test` with a file system in memory at the given directory, in a mount namespace of its own.
///
/// The namespace belongs to the thread, and goes away with it.
fn in_memory(size: &str, test: impl FnOnce(&Path) + Send) {
    let mountpoint = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace (needs root)");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let options = format!("size={size},mode=755");
            mount(Some("tmpfs"), mountpoint.path(), Some("tmpfs"), MsFlags::empty(), Some(&*options))
                .unwrap();
            test(mountpoint.path());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}
