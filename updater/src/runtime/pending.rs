//! Stand-ins for what is still being written; each goes as the real one lands.
#![allow(missing_docs, clippy::todo)]
use super::*;
use manifests::FileIdentity;
use std::path::{Path, PathBuf};
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
pub use super::cgroup::CgroupLimits;
pub use super::hold::NftHold;
pub use super::rootfs::OverlayMounts;
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
