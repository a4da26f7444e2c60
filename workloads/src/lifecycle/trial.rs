//! Can this host checkpoint at all? A throw-away container is dumped and brought back.
//!
//! `criu check` says yes on hosts where no dump succeeds (CRIU 4.1.1 on kernel 7.3), so what counts is a dump. The container
//! is a shell and what it starts, on the host's own programs and libraries, mounted read-only: glibc as it is here, with
//! restartable sequences and the processor's registers. It is in no list: runc keeps its state in the same directory as
//! everything else of it, and all of that goes.

#![expect(clippy::disallowed_methods, reason = "what a restore takes is measured in real time")]

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::lifecycle::error::RuntimeError;
use crate::lifecycle::{Checkpointer, Lifecycle, Runc};
use crate::model::{
    CgroupDriver, CheckpointDir, Container, ContainerStatus, DumpBase, NetworkPlace, WorkloadId,
};

/// What a shell needs of the host. Those that are links into `/usr` become links.
const DIRECTORIES: [&str; 5] = ["usr", "bin", "sbin", "lib", "lib64"];

/// What a trial took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// From the request to dump until all was on disk, in milliseconds.
    pub dump_ms: u64,
    /// How long the processes stood still, in milliseconds.
    pub frozen_ms: u64,
    /// From the request to restore until all processes were back, in milliseconds.
    pub restore_ms: u64,
}

/// Makes a container in a directory below `place`, dumps it there, restores it and removes all of it.
///
/// # Errors
/// [`RuntimeError`], of CRIU with its own words; the container is gone.
pub fn trial(place: &Path) -> Result<Trial, RuntimeError> {
    let failed = |source| RuntimeError::Prepare { path: place.to_owned(), source };
    let scratch = tempfile::Builder::new().prefix("trial-").tempdir_in(place).map_err(failed)?;
    let bundle = scratch.path();
    // One of its own for each trial, so that two of them do not meet in one control group.
    let name = bundle.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let id: WorkloadId = name.parse().map_err(|_| failed(io::ErrorKind::InvalidFilename.into()))?;
    prepare(bundle, &id).map_err(failed)?;
    let runc = Runc::new(bundle.join("state")).run_by("runc", bundle.join("under-way"));
    let tried = round(&runc, &container(bundle, id.clone()), &CheckpointDir::new(bundle.join("images")));
    let ended = runc.stop(&id, Duration::ZERO);
    let tried = tried?;
    ended.map(|()| tried)
}

fn round(runc: &Runc, container: &Container, images: &CheckpointDir) -> Result<Trial, RuntimeError> {
    runc.start(container)?;
    let begun = Instant::now();
    let stats = runc.checkpoint(&container.id, images, DumpBase::Nothing)?;
    let dumped = Instant::now();
    runc.restore(container, images)?;
    Ok(Trial {
        dump_ms: millis(dumped - begun),
        frozen_ms: millis(stats.frozen),
        restore_ms: millis(dumped.elapsed()),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn container(bundle: &Path, id: WorkloadId) -> Container {
    Container {
        id,
        status: ContainerStatus::Stopped,
        init: None,
        started: None,
        bundle: bundle.to_owned(),
        rootfs: bundle.join("rootfs"),
        annotations: Default::default(),
        cgroup: None,
        cgroup_driver: CgroupDriver::Cgroupfs,
        network: NetworkPlace::Host,
    }
}

/// The bundle, and the directories that things are mounted on.
fn prepare(bundle: &Path, id: &WorkloadId) -> io::Result<()> {
    let rootfs = bundle.join("rootfs");
    fs::create_dir(&rootfs)?;
    let mut mounted = Vec::new();
    for name in DIRECTORIES {
        let on_host = Path::new("/").join(name);
        match fs::symlink_metadata(&on_host) {
            Ok(found) if found.is_symlink() => symlink(fs::read_link(&on_host)?, rootfs.join(name))?,
            Ok(found) if found.is_dir() => {
                fs::create_dir(rootfs.join(name))?;
                mounted.push(on_host);
            }
            _ => {}
        }
    }
    fs::write(bundle.join("config.json"), serde_json::to_vec(&config(&mounted, id))?)
}

/// In the host's network, since that has no part in it.
fn config(mounted: &[PathBuf], id: &WorkloadId) -> Value {
    let of_host = mounted.iter().map(
        |path| json!({ "destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"] }),
    );
    let own = [
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"] }),
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh", "-c", "while :; do sleep 1; done"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "mounts": own.into_iter().chain(of_host).collect::<Vec<_>>(),
        "linux": {
            "cgroupsPath": format!("/update/{}", id.id),
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" },
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_has_the_hosts_programs_read_only_and_nothing_else_of_it() {
        let bundle = tempfile::tempdir().unwrap();
        let id: WorkloadId = "trial-1".parse().unwrap();
        prepare(bundle.path(), &id).unwrap();
        let config: Value =
            serde_json::from_slice(&fs::read(bundle.path().join("config.json")).unwrap()).unwrap();
        let mounts = config["mounts"].as_array().unwrap();
        let of_host: Vec<_> = mounts.iter().filter(|mount| mount["type"] == "bind").collect();
        assert!(of_host.iter().any(|mount| mount["destination"] == "/usr"));
        assert!(of_host.iter().all(|mount| mount["options"].as_array().unwrap().contains(&json!("ro"))));
        let shell = bundle.path().join("rootfs/bin");
        assert!(shell.is_symlink() || of_host.iter().any(|mount| mount["destination"] == "/bin"));
    }
}
