//! The header for authors of livepatches, put where the compiler finds it.

use std::fs;
use std::path::PathBuf;

use manifests::Sha256;
use system::durable;

use super::Tree;
use crate::build::cache::CacheError;

const HEADER: &str = include_str!("../../../include/update/livepatch.h");

impl Tree {
    /// A directory for the include path that holds `update/livepatch.h`.
    pub(in crate::build) fn author_include(&self) -> Result<PathBuf, CacheError> {
        let digest = Sha256::of(HEADER.as_bytes()).to_string();
        let directory = self.derived(&format!("include-{}", &digest[..12]));
        let header = directory.join("update/livepatch.h");
        if !header.is_file() {
            let parent = directory.join("update");
            fs::create_dir_all(&parent).map_err(CacheError::io("make", &parent))?;
            durable::publish(&header, HEADER.as_bytes()).map_err(CacheError::io("write", &header))?;
        }
        Ok(directory)
    }
}
