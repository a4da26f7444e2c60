//! The files that a subcommand is given: read whole, and named in every failure.

use std::path::{Path, PathBuf};

use patch_tools::check::{ObjectsError, read_module};
use patch_tools::elf::Malformed;
use patch_tools::image::{ImageError, KernelImage};
use patch_tools::module::{Layout, Module};

use system::exit::{Exit, Failure};

/// A file that cannot be used for what it was given for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not a proper kernel module", path.display())]
    Module { path: PathBuf, source: Malformed },
    #[error("{} is not a kernel image that can be read", path.display())]
    Image { path: PathBuf, source: ImageError },
}

/// The bytes of a module, decompressed if its name says that it is compressed.
pub(crate) fn module_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    read_module(path).map_err(|error| match error {
        ObjectsError::Read { path, source } => refuse(FileError::Read { path, source }),
        other => Failure::new(Exit::Refused, other),
    })
}

/// Reads a module's bytes as those of a module for a kernel with that layout.
pub(crate) fn module(path: &Path, data: &[u8], layout: &Layout) -> Result<Module, Failure> {
    Module::parse_with(data, layout)
        .map_err(|source| refuse(FileError::Module { path: path.to_owned(), source }))
}

/// Reads a kernel image.
pub(crate) fn image(path: &Path) -> Result<KernelImage, Failure> {
    let data =
        std::fs::read(path).map_err(|source| refuse(FileError::Read { path: path.to_owned(), source }))?;
    KernelImage::parse(&data).map_err(|source| refuse(FileError::Image { path: path.to_owned(), source }))
}

fn refuse(error: FileError) -> Failure {
    Failure::new(Exit::Refused, error)
}
