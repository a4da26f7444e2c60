//! The directory of a checkpoint: what is made in it, and when it counts as complete.
//!
//! `complete.json` is written after everything else is on disk, so its presence is the proof. It is taken away before
//! anything beside it changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use system::durable;

use crate::criu::images::{CheckpointContent, dump_stats, restore_stats};
use crate::files::inventory::Inventory;
use crate::lifecycle::error::RuntimeError;
use crate::model::{CheckpointDir, CheckpointStats, WorkloadId};

/// Written beside the images once they are complete and synced.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Complete {
    pub(super) stats: CheckpointStats,
    pub(super) content: CheckpointContent,
    /// How much was there; not in records of before this was kept.
    #[serde(default)]
    pub(super) inventory: Option<Inventory>,
}

/// CRIU's log and statistics of the final dump.
pub(super) fn full_work(dir: &CheckpointDir) -> PathBuf {
    dir.work().join("full")
}

/// CRIU's log and statistics of the last restore.
pub(super) fn restore_work(dir: &CheckpointDir) -> PathBuf {
    dir.work().join("restore")
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Notes in a work directory of CRIU's in which boot it was begun.
pub(super) fn note_boot(work: &Path) -> Result<(), RuntimeError> {
    let path = work.join("boot-id");
    fs::copy(BOOT_ID, &path).map(drop).map_err(|source| RuntimeError::Prepare { path, source })
}

fn begun_since_boot(work: &Path) -> bool {
    let same = |written: String| fs::read_to_string(BOOT_ID).is_ok_and(|now| now == written);
    fs::read_to_string(work.join("boot-id")).is_ok_and(same)
}

/// Whether CRIU finished a dump here in this boot. It writes its statistics last; what was written
/// before a power cut and never synced proves nothing.
pub(super) fn written_since_boot(dir: &CheckpointDir) -> bool {
    begun_since_boot(&full_work(dir)) && dump_stats(&full_work(dir)).is_ok()
}

/// How long CRIU took for the last restore that was begun here, if it was in this boot and is finished.
pub(super) fn restored_since_boot(dir: &CheckpointDir) -> Option<Duration> {
    let work = restore_work(dir);
    begun_since_boot(&work).then(|| restore_stats(&work).ok()).flatten()
}

fn complete_path(dir: &CheckpointDir) -> PathBuf {
    dir.root().join("complete.json")
}

pub(super) fn read_complete(id: &WorkloadId, dir: &CheckpointDir) -> Result<Option<Complete>, RuntimeError> {
    let path = complete_path(dir);
    let json = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|source| RuntimeError::Prepare { path, source })?,
    };
    let complete: Complete = serde_json::from_slice(&json)
        .map_err(|source| RuntimeError::Answer { about: format!("the checkpoint of {id}"), source })?;
    let found = inventory(dir)?;
    if complete.inventory.is_some_and(|known| !found.holds(&known)) {
        return Err(RuntimeError::Incomplete { id: id.clone(), path: dir.root().to_owned() });
    }
    Ok(Some(complete))
}

/// How much there is of the images, those of the pre-dump included.
fn inventory(dir: &CheckpointDir) -> Result<Inventory, RuntimeError> {
    let count = |path: PathBuf| Inventory::of(&path).map_err(|source| RuntimeError::Prepare { path, source });
    Ok(count(dir.full())?.and(count(dir.pre())?))
}

fn write_complete(dir: &CheckpointDir, complete: &Complete) -> Result<(), RuntimeError> {
    let path = complete_path(dir);
    let written = serde_json::to_vec(complete).map_err(io::Error::from);
    written
        .and_then(|json| durable::replace(&path, &json))
        .map_err(|source| RuntimeError::Prepare { path, source })
}

/// What is left to do once CRIU has written everything and the container is gone.
pub(super) fn complete(id: &WorkloadId, dir: &CheckpointDir) -> Result<CheckpointStats, RuntimeError> {
    let unusable = |source| RuntimeError::Images { id: id.clone(), source };
    let stats = dump_stats(&full_work(dir)).map_err(unusable)?;
    let content = CheckpointContent::read(&dir.full()).map_err(unusable)?;
    sync_file_system(&dir.full())?;
    write_complete(dir, &Complete { stats, content, inventory: Some(inventory(dir)?) })?;
    Ok(stats)
}

pub(super) fn forget_complete(dir: &CheckpointDir) -> Result<(), RuntimeError> {
    let path = complete_path(dir);
    durable::forget(&path).map_err(|source| RuntimeError::Prepare { path, source })
}

/// An empty directory that only root can enter: images hold the memory of processes.
pub(super) fn fresh_directory(path: &Path) -> Result<(), RuntimeError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |source| RuntimeError::Prepare { path: path.to_owned(), source };
    durable::remove(path).map_err(failed)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

/// All images at once.
pub(super) fn sync_file_system(directory: &Path) -> Result<(), RuntimeError> {
    durable::sync_file_system(directory)
        .map_err(|source| RuntimeError::Prepare { path: directory.to_owned(), source })
}
