//! The files that go with components.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::names::FileName;

/// A file beside the manifest, known by its digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Its name: a plain file name, never a path.
    pub file: FileName,
    /// The digest of all of its bytes.
    pub sha256: Sha256,
    /// Its size in bytes, 1 or more; at most 64 MiB for a livepatch, 4 GiB for a package and 16 GiB for a layer or an image.
    #[schemars(range(min = 1))]
    pub size: u64,
}
