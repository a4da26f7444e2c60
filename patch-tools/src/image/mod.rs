//! A kernel image as it is shipped: what can be known about a kernel without booting it and without its debug
//! package.
//!
//! [`KernelImage::parse`] takes the bytes of a `vmlinuz` (or of a `vmlinux`), undoes the compression and reads
//! release, build id, kallsyms, exported symbols with CRCs and ftrace locations. [`KernelImage::btf`] reads
//! structure layouts on request. Nothing is cached and nothing is executed.
//!
//! | file | what it reads |
//! |---|---|
//! | `container` | bzImage header, payload, compression |
//! | `kallsyms` | the compressed symbol table, decoded |
//! | `locate` | where that table is in an image, found by its structure |
//! | `exports` | `__ksymtab*`, `__kcrctab*` |
//! | `identity` | release, banner, vermagic, configuration inside the image |
//! | `config` | the text of a configuration |
//! | `btf` | types: sizes and members of structures |
//!
//! Addresses are those that the kernel is linked for, before KASLR.

mod btf;
mod config;
mod container;
mod exports;
mod identity;
mod kallsyms;
mod locate;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

pub use btf::{Btf, BtfMember, BtfStruct};
pub use config::Config;
pub use container::decompress;
pub use exports::{Export, ExportStrings, ExportTable, Exports, exports};
pub use kallsyms::{Kallsyms, KallsymsSymbol};
pub(crate) use kallsyms::{Origin, Tables};

use crate::elf::{Elf, Malformed, Rule, Section};
use crate::module::Layout;

/// A decompressed kernel has at most this many bytes; Debian's 6.1 has 66 MB.
pub const MAX_IMAGE: usize = 1 << 30;

/// Why a kernel image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It breaks a rule of its format.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its payload does not decompress.
    #[error("the {method} payload at offset {offset:#x} cannot be decompressed")]
    Decompress {
        /// The compression.
        method: &'static str,
        /// Where the payload starts in the file.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// Its payload is compressed in a way that is not supported.
    #[error(
        "the payload at offset {offset:#x} starts with {magic}: neither ELF nor gzip, XZ, LZMA, zstd or LZ4"
    )]
    Compression {
        /// Where the payload starts in the file.
        offset: u64,
        /// Its first bytes in hex.
        magic: String,
    },
}

/// A kernel image, decompressed.
#[derive(Clone)]
pub struct KernelImage {
    data: Vec<u8>,
    sections: Vec<ImageSection>,
    release: String,
    banner: String,
    vermagic: Option<String>,
    build_id: Option<String>,
    config: Option<Config>,
    kallsyms: Arc<Kallsyms>,
    exports: Exports,
    ftrace_sites: Vec<u64>,
}

/// A section of the decompressed kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageSection {
    /// Its name.
    pub name: String,
    /// Its address; zero for per-CPU data.
    pub address: u64,
    /// Its size in memory.
    pub size: u64,
    /// Its `sh_flags`.
    pub flags: u64,
    /// Its bytes in the decompressed file; empty for sections without any.
    range: Range<usize>,
}

impl KernelImage {
    /// Reads a `vmlinuz` or an uncompressed `vmlinux`.
    pub fn parse(image: &[u8]) -> Result<Self, ImageError> {
        Self::of_kernel(container::decompress(image)?)
    }

    /// Reads an uncompressed `vmlinux`, which is not copied.
    pub fn of_kernel(data: Vec<u8>) -> Result<Self, ImageError> {
        let elf = Elf::parse(&data)?;
        let sections: Vec<ImageSection> = elf.sections().iter().map(ImageSection::new).collect();
        let identity = identity::read(&elf)?;
        let kallsyms = locate::kallsyms(&elf)?;
        let exports = exports::read(&elf)?;
        let ftrace_sites = ftrace_sites(&elf, &kallsyms)?;
        let build_id = crate::module::build_id(&elf)?;
        let config = identity::embedded_config(&elf)?;
        drop(elf);
        Ok(Self {
            sections,
            release: identity.release,
            banner: identity.banner,
            vermagic: identity.vermagic,
            build_id,
            config,
            kallsyms: Arc::new(kallsyms),
            exports,
            ftrace_sites,
            data,
        })
    }

    /// `uname -r`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The line in `/proc/version`.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// The string that modules must match.
    pub fn vermagic(&self) -> Option<&str> {
        self.vermagic.as_deref()
    }

    /// The GNU build id in hex, as in `/sys/kernel/notes`.
    pub fn build_id(&self) -> Option<&str> {
        self.build_id.as_deref()
    }

    /// The configuration, if the image carries it (`CONFIG_IKCONFIG`).
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// All symbols.
    pub fn kallsyms(&self) -> &Arc<Kallsyms> {
        &self.kallsyms
    }

    /// Exported symbols with their CRCs.
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Addresses that ftrace can hook, sorted: the `call __fentry__` at the entry of each function.
    pub fn ftrace_sites(&self) -> &[u64] {
        &self.ftrace_sites
    }

    /// All sections in the order of the file.
    pub fn sections(&self) -> &[ImageSection] {
        &self.sections
    }

    /// The bytes of the first section of that name.
    pub fn section(&self, name: &str) -> Option<&[u8]> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        self.data.get(section.range.clone())
    }

    /// `size` bytes at `address`, as linked; `None` if they are not in the file.
    pub fn bytes(&self, address: u64, size: usize) -> Option<&[u8]> {
        let section = self.sections.iter().find(|section| {
            section.address != 0 && address.checked_sub(section.address).is_some_and(|at| at < section.size)
        })?;
        let start = usize::try_from(address - section.address).ok()?;
        self.data.get(section.range.clone())?.get(start..start.checked_add(size)?)
    }

    /// The kernel's types.
    pub fn btf(&self) -> Result<Option<Btf<'_>>, ImageError> {
        let Some(section) = self.sections.iter().find(|section| section.name == ".BTF") else {
            return Ok(None);
        };
        let data = self.data.get(section.range.clone()).unwrap_or_default();
        Ok(Some(Btf::parse(data, section.range.start as u64)?))
    }

    /// The layout of this kernel's livepatch structures, from its BTF.
    pub fn livepatch_layout(&self) -> Result<Option<Layout>, ImageError> {
        let Some(btf) = self.btf()? else { return Ok(None) };
        let size = |name| btf.structure(name).map(|found| u64::from(found.size));
        let sizes = (size("klp_object"), size("klp_func"), size("klp_state"));
        Ok(match sizes {
            (Some(object), Some(function), Some(state)) => Some(Layout { object, function, state }),
            _ => None,
        })
    }
}

impl fmt::Debug for KernelImage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KernelImage")
            .field("release", &self.release)
            .field("build_id", &self.build_id)
            .field("bytes", &self.data.len())
            .field("kallsyms", &self.kallsyms)
            .finish_non_exhaustive()
    }
}

impl ImageSection {
    fn new(section: &Section<'_>) -> Self {
        let start = section.offset as usize;
        Self {
            name: section.name.to_owned(),
            address: section.address,
            size: section.size,
            flags: section.flags,
            // Checked by the reader: the data is a slice of the file that starts there.
            range: if section.data.is_empty() { 0..0 } else { start..start + section.data.len() },
        }
    }
}

/// The table between `__start_mcount_loc` and `__stop_mcount_loc`: 8-byte addresses, sorted when the kernel is
/// built (`CONFIG_BUILDTIME_MCOUNT_SORT`) or, without that, when it boots.
fn ftrace_sites(elf: &Elf<'_>, kallsyms: &Kallsyms) -> Result<Vec<u64>, Malformed> {
    let mark = |name| kallsyms.named(name).next().map(|symbol| symbol.address);
    let (Some(start), Some(stop)) = (mark("__start_mcount_loc"), mark("__stop_mcount_loc")) else {
        return Ok(Vec::new());
    };
    let size = stop.checked_sub(start).and_then(|size| usize::try_from(size).ok());
    let bytes = size.and_then(|size| bytes_at(elf, start, size)).ok_or_else(|| {
        let found = format!("{start:#x} to {stop:#x}");
        Malformed::new(0, Rule::ImageTable, found)
    })?;
    let mut sites: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|site| u64::from_le_bytes(*site)).collect();
    sites.sort_unstable();
    Ok(sites)
}

/// `size` bytes at an address.
fn bytes_at<'data>(elf: &Elf<'data>, address: u64, size: usize) -> Option<&'data [u8]> {
    let section = elf.sections().iter().find(|section| {
        section.address != 0 && address.checked_sub(section.address).is_some_and(|at| at < section.size)
    })?;
    let start = usize::try_from(address - section.address).ok()?;
    section.data.get(start..start.checked_add(size)?)
}
