#![allow(missing_docs, clippy::todo)]
use super::*;
use manifests::FileIdentity;
use std::path::{Path, PathBuf};
pub trait Layers {
    fn unpack(
        &self,
        layer: &manifests::Sha256,
        format: manifests::LayerFormat,
        payload: std::fs::File,
    ) -> Result<Unpacked, LayerError>;
}
#[derive(serde::Serialize)]
pub struct Unpacked {}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct LayerError;
pub struct LayerStore;
impl LayerStore {
    pub fn new(_: &Path) -> Self {
        Self
    }
}
impl Layers for LayerStore {
    fn unpack(
        &self,
        _: &manifests::Sha256,
        _: manifests::LayerFormat,
        _: std::fs::File,
    ) -> Result<Unpacked, LayerError> {
        todo!()
    }
}
pub trait Prober {
    fn until_ready(&self, site: &crate::plan::ProbeSite, p: &manifests::Probe) -> Result<u32, ProbeError>;
    fn once(&self, site: &crate::plan::ProbeSite, p: &manifests::Probe) -> Result<(), ProbeError>;
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ProbeError;
pub struct Probes;
impl Probes {
    pub fn new(_: Runc) -> Self {
        Self
    }
}
impl Prober for Probes {
    fn until_ready(&self, _: &crate::plan::ProbeSite, _: &manifests::Probe) -> Result<u32, ProbeError> {
        todo!()
    }
    fn once(&self, _: &crate::plan::ProbeSite, _: &manifests::Probe) -> Result<(), ProbeError> {
        todo!()
    }
}
#[derive(Default)]
pub struct HostMounts;
impl RootfsMounts for HostMounts {
    fn current(&self, _: &Path) -> Result<Topology, RootfsError> {
        todo!()
    }
    fn switch(&self, _: &Path, _: &Topology) -> Result<Switched, RootfsError> {
        todo!()
    }
    fn tree_digest(&self, _: &Path) -> Result<TreeDigest, RootfsError> {
        todo!()
    }
    fn file_records(&self, _: &Path, _: &[CheckpointedFile]) -> Result<Vec<FileRecord>, RootfsError> {
        todo!()
    }
}
impl dyn RootfsMounts + Sync + '_ {
    pub fn differing_files(&self, _: &Path, _: &[FileRecord]) -> Result<Vec<String>, RootfsError> {
        todo!()
    }
}
impl Topology {
    pub fn shows_the_same_as(&self, _: &Topology) -> bool {
        todo!()
    }
}
#[derive(Default)]
pub struct NetfilterHold;
impl ConnectionHold for NetfilterHold {
    fn hold(&self, _: &NetworkPlace, _: &HoldName, _: &[Connection]) -> Result<(), HoldError> {
        todo!()
    }
    fn clear_checkpoint_lock(&self, _: &NetworkPlace, _: &[Connection]) -> Result<LeftoverLock, HoldError> {
        todo!()
    }
    fn release(&self, _: &NetworkPlace, _: &HoldName) -> Result<(), HoldError> {
        todo!()
    }
    fn reset_peers(&self, _: &NetworkPlace, _: &[Connection]) -> Result<(), HoldError> {
        todo!()
    }
}
pub use super::cgroup::CgroupLimits;
pub use super::runc::Runc;
pub mod affected {
    use super::*;
    pub struct M {
        pub identity: FileIdentity,
        pub path: PathBuf,
    }
    pub fn matches(_: &Container, _: &[FileIdentity]) -> Result<Vec<M>, RuntimeError> {
        todo!()
    }
}
pub mod dumpability {
    use super::*;
    pub struct O;
    impl O {
        pub fn forbids_restart(&self) -> bool {
            todo!()
        }
    }
    impl std::fmt::Display for O {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            todo!()
        }
    }
    pub fn judge(_: &Container, _: &Path) -> Vec<O> {
        todo!()
    }
}
