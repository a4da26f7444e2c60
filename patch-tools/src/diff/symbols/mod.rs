//! The symbols of the running objects: which names they have, in which order, and what they export.
//!
//! A livepatch names a symbol by object, name and position among the object's symbols of that name
//! (`sympos`). [`SymbolTable`] answers both questions that follow from it: does the kernel's module loader
//! resolve the name by itself (an export), and if not, what is its position. It can be filled from several
//! sources; the first one that knows an object is the one that counts for it.
//!
//! Positions are those of `klp_find_object_symbol()`: vmlinux counts by address, a module in the order of
//! its symbol table, and both count every symbol of the name, whether local or global.

mod elf;
mod image;
mod kallsyms;

mod place;
mod readelf;
mod symvers;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

use crate::elf::Malformed;
use crate::module::ObjectName;

pub(crate) use place::{Located, Origin, Scope, Wanted};

/// A symbol source that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolsError {
    /// None of the formats.
    #[error(
        "expected kallsyms text, `readelf -s --wide` text, Module.symvers, an ELF file or a kernel image, \
         but found a file that starts with {0:?}"
    )]
    UnknownFormat(String),
    /// A line of a text format.
    #[error("line {line}: expected {expected}, but found {found:?}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The form of a correct line.
        expected: &'static str,
        /// The line.
        found: String,
    },
    /// An ELF file that breaks a rule.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// More than the table can number.
    #[error("more than {} symbols", u32::MAX)]
    TooMany,
    /// The source has no symbol at all.
    #[error("no symbols in it (expected the symbols of {0})")]
    Empty(ObjectName),
}

/// What a symbol is, as far as its source tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SymbolKind {
    /// Code.
    Text,
    /// Anything else.
    Data,
    /// The source does not tell: `readelf` shows assembler's labels without a type.
    Unknown,
}

/// How a symbol is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Visible in its file only.
    Local,
    /// Visible everywhere.
    Global,
    /// Gives way to a global one.
    Weak,
    /// The source does not tell: kallsyms marks per-CPU symbols as absolute.
    Unknown,
}

/// One symbol to add; see [`SymbolTable::add`].
#[derive(Debug, Clone, Copy)]
pub struct NewSymbol<'text> {
    /// As kallsyms prints it.
    pub name: &'text str,
    /// Where it is, or 0 if the source does not tell.
    pub address: u64,
    /// Size in bytes, if the source tells.
    pub size: Option<u64>,
    /// Code or data.
    pub kind: SymbolKind,
    /// Scope.
    pub binding: Binding,
    /// Source file that it was compiled from (`STT_FILE`), if the source tells.
    pub file: Option<&'text str>,
}

/// A name that the module loader resolves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The object that exports it.
    pub owner: ObjectName,
    /// Its symbol namespace, if known to have one.
    pub namespace: Option<String>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: Range<u32>,
    object: u16,
    file: u32,
    address: u64,
    size: u64,
    kind: SymbolKind,
    binding: Binding,
    next: u32,
}

const NONE: u32 = u32::MAX;
const UNKNOWN_SIZE: u64 = u64::MAX;

/// The symbols of some kernel objects.
///
/// Names share one buffer and a chained hash index, so that 200,000 symbols cost about 12 MiB and a lookup
/// does not depend on their number.
#[derive(Clone, Default)]
pub struct SymbolTable {
    text: String,
    entries: Vec<Entry>,
    heads: Vec<u32>,
    hasher: RandomState,
    objects: Vec<ObjectName>,
    files: Vec<String>,
    file_index: HashMap<String, u32>,
    exports: HashMap<String, Export>,
    /// What modules need, by name; those whose files were read.
    needs: HashMap<ObjectName, Vec<ObjectName>>,
    /// Entries of vmlinux by address; made by [`SymbolTable::finish_source`].
    by_address: Vec<u32>,
}

impl SymbolTable {
    /// An empty table: knows no object.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one source and recognises its format. `object` is what a source describes that does not say so
    /// itself: a `readelf` text, or an ELF file.
    pub fn read(&mut self, bytes: &[u8], object: &ObjectName) -> Result<(), SymbolsError> {
        if bytes.starts_with(&object::elf::ELFMAG) {
            return self.read_elf(bytes, object);
        }
        let unknown = || {
            let start = bytes.get(..bytes.len().min(16)).unwrap_or_default();
            SymbolsError::UnknownFormat(String::from_utf8_lossy(start).into_owned())
        };
        let text = std::str::from_utf8(bytes).map_err(|_| unknown())?;
        let first = text.lines().find(|line| !line.trim().is_empty()).ok_or_else(unknown)?;
        if symvers::recognises(first) {
            self.read_symvers(text)
        } else if kallsyms::recognises(first) {
            self.read_kallsyms(text)
        } else if readelf::recognises(first) {
            self.read_readelf(text, object)
        } else {
            Err(unknown())
        }
    }

    /// Adds the symbols of one object, in the order of its symbol table. Ignored if the object is known.
    pub fn add<'text>(
        &mut self,
        object: &ObjectName,
        symbols: impl IntoIterator<Item = NewSymbol<'text>>,
    ) -> Result<(), SymbolsError> {
        if let Some(index) = self.new_object(object) {
            for symbol in symbols {
                self.push(index, &symbol)?;
            }
            self.finish_source();
        }
        Ok(())
    }

    /// Adds names that `owner` exports to all modules.
    pub fn add_exports<'text>(
        &mut self,
        owner: &ObjectName,
        names: impl IntoIterator<Item = (&'text str, Option<&'text str>)>,
    ) {
        for (name, namespace) in names {
            let namespace = namespace.filter(|text| !text.is_empty()).map(str::to_owned);
            self.exports.insert(name.to_owned(), Export { owner: owner.clone(), namespace });
        }
    }

    /// Who exports this name, if anyone known does.
    pub fn export(&self, name: &str) -> Option<&Export> {
        self.exports.get(name)
    }

    /// Whether `object` is known to need `other`, so that it is not loaded without it.
    pub fn needs(&self, object: &ObjectName, other: &ObjectName) -> bool {
        self.needs.get(object).is_some_and(|needs| needs.contains(other))
    }

    /// Whether the table has symbols of this object.
    pub fn knows(&self, object: &ObjectName) -> bool {
        self.objects.contains(object)
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no symbol in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Registers an object, unless an earlier source has it.
    fn new_object(&mut self, object: &ObjectName) -> Option<u16> {
        if self.knows(object) {
            return None;
        }
        self.objects.push(object.clone());
        u16::try_from(self.objects.len() - 1).ok()
    }

    fn push(&mut self, object: u16, symbol: &NewSymbol<'_>) -> Result<(), SymbolsError> {
        let start = u32::try_from(self.text.len()).map_err(|_| SymbolsError::TooMany)?;
        self.text.push_str(symbol.name);
        let end = u32::try_from(self.text.len()).map_err(|_| SymbolsError::TooMany)?;
        let file = match symbol.file {
            None => NONE,
            Some(name) => self.file(name)?,
        };
        if let Some(name) = symbol.name.strip_prefix("__ksymtab_")
            && !self.exports.contains_key(name)
        {
            let owner = self.objects[usize::from(object)].clone();
            self.exports.insert(name.to_owned(), Export { owner, namespace: None });
        }
        self.entries.push(Entry {
            name: start..end,
            object,
            file,
            address: symbol.address,
            size: symbol.size.filter(|&size| size > 0).unwrap_or(UNKNOWN_SIZE),
            kind: symbol.kind,
            binding: symbol.binding,
            next: NONE,
        });
        Ok(())
    }

    fn file(&mut self, name: &str) -> Result<u32, SymbolsError> {
        if let Some(&index) = self.file_index.get(name) {
            return Ok(index);
        }
        let index = u32::try_from(self.files.len()).map_err(|_| SymbolsError::TooMany)?;
        self.files.push(name.to_owned());
        self.file_index.insert(name.to_owned(), index);
        Ok(index)
    }

    /// Rebuilds the indexes after entries were added.
    fn finish_source(&mut self) {
        let buckets = (self.entries.len() * 2).next_power_of_two().max(16);
        self.heads = vec![NONE; buckets];
        // From the back, so that each chain is in the order of insertion.
        for index in (0..self.entries.len()).rev() {
            let bucket = self.bucket(self.name(index));
            self.entries[index].next = self.heads[bucket];
            self.heads[bucket] = index as u32;
        }
        let vmlinux = self.objects.iter().position(|object| *object == ObjectName::Vmlinux);
        self.by_address = (0..self.entries.len() as u32)
            .filter(|&index| Some(usize::from(self.entries[index as usize].object)) == vmlinux)
            .collect();
        let entries = &self.entries;
        self.by_address.sort_by_key(|&index| (entries[index as usize].address, index));
    }

    fn bucket(&self, name: &str) -> usize {
        self.hasher.hash_one(name) as usize & (self.heads.len() - 1)
    }

    fn name(&self, index: usize) -> &str {
        let range = &self.entries[index].name;
        &self.text[range.start as usize..range.end as usize]
    }

    /// Whether that object has a symbol of that name.
    pub(crate) fn has(&self, object: &ObjectName, name: &str) -> bool {
        !self.named(object, name).is_empty()
    }

    /// Entries of that name in that object, in the order in which the kernel counts them.
    fn named(&self, object: &ObjectName, name: &str) -> Vec<usize> {
        let mut found = Vec::new();
        if self.heads.is_empty() {
            return found;
        }
        let mut next = self.heads[self.bucket(name)];
        while next != NONE {
            let entry = &self.entries[next as usize];
            if self.name(next as usize) == name && self.objects[usize::from(entry.object)] == *object {
                found.push(next as usize);
            }
            next = entry.next;
        }
        if *object == ObjectName::Vmlinux {
            found.sort_by_key(|&index| (self.entries[index].address, index));
        }
        found
    }
}

impl fmt::Debug for SymbolTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SymbolTable")
            .field("objects", &self.objects)
            .field("symbols", &self.entries.len())
            .field("exports", &self.exports.len())
            .finish_non_exhaustive()
    }
}
