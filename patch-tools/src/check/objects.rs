//! Modules as files: what a livepatch needs to know about a module that it patches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use object::elf::{SHT_RELA, STT_FILE};

use crate::elf::{Elf, Malformed, Place};
use crate::image::{Export, Exports};
use crate::module::{MAX_MODULE, Module};

/// A module file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no proper module.
    #[error("{} is malformed", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Offset and rule.
        source: Malformed,
    },
    /// Its compression is not known or broken.
    #[error("{} cannot be decompressed", path.display())]
    Compression {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a module file offers to a livepatch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ObjectFacts {
    /// Its vermagic.
    pub vermagic: Option<String>,
    /// Its symbols in the order of its symbol table, which is the order that the livepatch core counts in.
    pub symbols: Vec<ObjectSymbol>,
    /// What it exports.
    pub exports: Exports,
}

/// A symbol of a module file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectSymbol {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether ftrace can hook it.
    pub traceable: bool,
}

impl ObjectFacts {
    /// Reads a module that is not compressed.
    pub fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let elf = Elf::parse(data)?;
        let module = Module::parse(data)?;
        let sites = ftrace_sites(&elf)?;
        let mut symbols = Vec::new();
        let mut crcs = HashMap::new();
        let mut namespaces = HashMap::new();
        for symbol in elf.symbols() {
            if let Some(name) = symbol.name.strip_prefix("__crc_") {
                crcs.insert(name, crc(&elf, symbol.place, symbol.value));
            }
            let Place::Section(section) = symbol.place else { continue };
            if let Some(name) = symbol.name.strip_prefix("__kstrtabns_")
                && let Some(namespace) = text(&elf, section, symbol.value)
            {
                namespaces.insert(name, namespace);
            }
            if symbol.name.is_empty() || symbol.kind == STT_FILE || symbol.is_section() {
                continue;
            }
            // An endbr64 (4 bytes) may stand before the ftrace location.
            let site =
                sites.range((section, symbol.value)..=(section, symbol.value.saturating_add(4))).next();
            symbols.push(ObjectSymbol {
                name: symbol.name.to_owned(),
                size: symbol.size,
                traceable: site.is_some(),
            });
        }
        let exports = symbols
            .iter()
            .filter_map(|symbol| symbol.name.strip_prefix("__ksymtab_"))
            .map(|name| {
                let crc = crcs.get(name).copied().flatten();
                (name.to_owned(), Export { crc, namespace: namespaces.get(name).cloned() })
            })
            .collect();
        Ok(Self { vermagic: module.vermagic().map(str::to_owned), symbols, exports })
    }

    /// Reads the modules of these names below `directory` (such as `/lib/modules/RELEASE`), compressed or not.
    ///
    /// Names that have no file there are left out.
    pub fn read(
        directory: &Path,
        names: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, ObjectFacts>, ObjectsError> {
        let mut facts = BTreeMap::new();
        if names.is_empty() {
            return Ok(facts);
        }
        let mut pending = vec![directory.to_owned()];
        while let Some(directory) = pending.pop() {
            let unreadable = |source| ObjectsError::Read { path: directory.clone(), source };
            for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let kind = entry.file_type().map_err(unreadable)?;
                if kind.is_dir() {
                    pending.push(entry.path());
                    continue;
                }
                let file = entry.file_name();
                let Some(name) = file.to_str().and_then(module_name) else { continue };
                if names.contains(name.as_str()) && kind.is_file() {
                    let path = entry.path();
                    let data = read_module(&path)?;
                    let parsed = Self::parse(&data)
                        .map_err(|source| ObjectsError::Malformed { path: path.clone(), source })?;
                    facts.insert(name, parsed);
                }
            }
        }
        Ok(facts)
    }
}

/// The module's name from that of its file: `foo-bar.ko.xz` holds `foo_bar`.
fn module_name(file: &str) -> Option<String> {
    let (stem, ending) = file.split_once(".ko")?;
    matches!(ending, "" | ".xz" | ".zst" | ".gz").then(|| stem.replace('-', "_"))
}

/// Reads a module file and undoes its compression, up to the size limit of modules.
pub fn read_module(path: &Path) -> Result<Vec<u8>, ObjectsError> {
    let unreadable = |source| ObjectsError::Read { path: path.to_owned(), source };
    let broken = |source| ObjectsError::Compression { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let limit = MAX_MODULE as u64 + 1;
    let mut data = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => {
            liblzma::read::XzDecoder::new(file).take(limit).read_to_end(&mut data).map_err(broken)?
        }
        Some("zst") => {
            let decoder = zstd::stream::read::Decoder::new(file).map_err(broken)?;
            decoder.take(limit).read_to_end(&mut data).map_err(broken)?
        }
        Some("gz") => {
            flate2::read::MultiGzDecoder::new(file).take(limit).read_to_end(&mut data).map_err(broken)?
        }
        _ => file.take(limit).read_to_end(&mut data).map_err(unreadable)?,
    };
    Ok(data)
}

/// Section and offset of every ftrace location: the targets of `__mcount_loc`.
fn ftrace_sites(elf: &Elf<'_>) -> Result<BTreeSet<(usize, u64)>, Malformed> {
    let mut sites = BTreeSet::new();
    for section in elf.sections().iter().filter(|section| section.kind == SHT_RELA) {
        let target = elf.sections().get(section.info as usize).map_or("", |target| target.name);
        if target != "__mcount_loc" {
            continue;
        }
        for relocation in elf.relocations(section)? {
            let Some(symbol) = elf.symbols().get(relocation.symbol) else { continue };
            if let Place::Section(section) = symbol.place {
                sites.insert((section, symbol.value.wrapping_add_signed(relocation.addend)));
            }
        }
    }
    Ok(sites)
}

/// A CRC is the value of an absolute symbol, or the four bytes that the symbol stands at.
fn crc(elf: &Elf<'_>, place: Place, value: u64) -> Option<u32> {
    match place {
        Place::Absolute => u32::try_from(value).ok(),
        Place::Section(section) => {
            let start = usize::try_from(value).ok()?;
            let bytes = elf.sections()[section].data.get(start..start.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        }
        _ => None,
    }
}

/// The text at an offset of a section, unless it is empty.
fn text(elf: &Elf<'_>, section: usize, offset: u64) -> Option<String> {
    let tail = elf.sections()[section].data.get(usize::try_from(offset).ok()?..)?;
    let length = memchr::memchr(0, tail)?;
    std::str::from_utf8(&tail[..length]).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}
