//! Stand-ins for what is still being written; each goes as the real one lands.
#![allow(missing_docs, clippy::todo)]
use super::*;
use manifests::FileIdentity;
use std::path::{Path, PathBuf};
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
