//! Whose a mapped file is: the host's own, under a path of the host's, or a copy of it somewhere else.
//!
//! A build id says what a file is, and not where it lies: images of containers have the libraries that their host has. Who runs
//! a package's file and who runs a copy is told by the path that a process of the host has mapped, and in a container, where a
//! path says nothing about the host, by device and inode. Where these do not tell files apart (btrfs, an overlay over the
//! host's root), a container is taken to have a file of its own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use manifests::ContainerPath;
use nix::sys::stat::{major, minor};

use crate::model::{Pid, SeenPath};
use crate::processes::mapping;
use crate::processes::watchdog::{self, LookError, Onlooker, PATIENCE, Pulse, Subject};

/// Paths of files of the host, as they are written and as the kernel shows what lies there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPaths(Vec<PathBuf>);

impl HostPaths {
    /// These, with what their links lead to.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a ContainerPath>) -> Self {
        let mut all = Vec::new();
        for path in paths {
            let path = PathBuf::from(path.as_str());
            all.extend(fs::canonicalize(&path).ok().filter(|real| *real != path));
            all.push(path);
        }
        Self(all)
    }

    /// Whether a process of the host that has mapped this has mapped one of them.
    #[must_use]
    pub fn has(&self, path: &SeenPath) -> bool {
        self.0.iter().any(|own| own == path.as_path())
    }

    /// Device and inode of those that are there, as `/proc/PID/maps` shows them.
    fn places(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let files = self.0.iter().filter_map(|path| fs::metadata(path).ok());
        let place = |file: fs::Metadata| {
            let device = format!("{:02x}:{:02x}", major(file.dev()), minor(file.dev()));
            (device.into_bytes(), file.ino().to_string().into_bytes())
        };
        files.map(place).collect()
    }
}

/// Those of the processes that have mapped the host's own files.
pub(crate) fn mapping_host_files(
    processes: &[Pid],
    paths: &HostPaths,
    onlooker: Onlooker<'_>,
) -> Result<Vec<Pid>, LookError> {
    let places = Arc::new(paths.places());
    let make = |_: &[Subject]| {
        let (places, mut maps) = (Arc::clone(&places), Vec::new());
        move |pid: &Pid, _: &Pulse| {
            mapping::read(*pid, &mut maps).is_ok_and(|_| {
                let files = mapping::mapped(&maps).files;
                let is_here = |(device, inode): &(Vec<u8>, Vec<u8>)| {
                    files.iter().any(|file| (file.device(), file.inode()) == (device, inode))
                };
                places.iter().any(is_here)
            })
        }
    };
    let found = watchdog::over(processes, onlooker, PATIENCE, make, |_, _| false)?;
    let mapping = processes.iter().zip(found).filter(|(_, found)| *found);
    Ok(mapping.map(|(pid, _)| *pid).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This process maps its own program.
    #[test]
    fn who_maps_a_file_of_the_host_is_told_from_who_maps_a_copy() {
        let own = Pid(std::process::id());
        let program = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (link, copy) = (directory.path().join("link"), directory.path().join("copy"));
        std::os::unix::fs::symlink(&program, &link).unwrap();
        fs::write(&copy, "another file").unwrap();
        let paths = |path: &PathBuf| HostPaths::of(&[path.to_str().unwrap().parse().unwrap()]);
        let mapping = |path: &PathBuf| mapping_host_files(&[own], &paths(path), Onlooker::NOBODY).unwrap();
        assert!(paths(&link).has(&SeenPath::from(&*program)) && paths(&link).has(&SeenPath::from(&*link)));
        assert!(!paths(&copy).has(&SeenPath::from(&*program)));
        assert_eq!(mapping(&link), [own]);
        assert_eq!((mapping(&copy), mapping(&directory.path().join("none"))), (vec![], vec![]));
    }
}
