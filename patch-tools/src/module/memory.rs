//! A module's data as it will be after relocation: pointers that lead to sections, and strings.
//!
//! Nothing is applied; a pointer is looked up in the relocations of the section it stands in.

use std::collections::HashMap;

use object::elf::{R_X86_64_64, SHT_RELA};

use crate::elf::{Elf, Malformed, Place, Relocation, Rule, Section, Symbol};
use crate::versions::LONGEST_NAME;

/// A place in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Address {
    /// Index of the section.
    pub(super) section: usize,
    /// Offset in it.
    pub(super) offset: u64,
}

/// What a relocated pointer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pointer {
    /// No relocation and zero in the file.
    Null,
    /// Into a section of this module.
    Local(Address),
    /// To a symbol of another object, by its index.
    External(usize),
}

/// Relocations by section, and functions by place.
pub(super) struct Memory<'elf, 'data> {
    elf: &'elf Elf<'data>,
    /// Relocations of each section, sorted by offset.
    relocations: Vec<Vec<Relocation>>,
    functions: HashMap<Address, usize>,
}

impl<'elf, 'data> Memory<'elf, 'data> {
    pub(super) fn new(elf: &'elf Elf<'data>) -> Result<Self, Malformed> {
        let mut relocations = vec![Vec::new(); elf.sections().len()];
        for section in elf.sections().iter().filter(|section| section.kind == SHT_RELA) {
            let target = section.info as usize;
            // Debug data has most of the relocations and no part in this; livepatch relocations are not
            // applied by the module loader.
            let applies = elf.sections().get(target).is_some_and(Section::is_allocated);
            if applies && !section.name.starts_with(super::klp::SECTION_PREFIX) {
                relocations[target].extend(elf.relocations(section)?);
            }
        }
        for list in &mut relocations {
            list.sort_by_key(|relocation| relocation.offset);
        }
        let mut functions = HashMap::new();
        for (index, symbol) in elf.symbols().iter().enumerate() {
            if let (true, Place::Section(section)) = (symbol.is_function(), symbol.place) {
                functions.entry(Address { section, offset: symbol.value }).or_insert(index);
            }
        }
        Ok(Self { elf, relocations, functions })
    }

    pub(super) fn elf(&self) -> &'elf Elf<'data> {
        self.elf
    }

    /// Relocations of a section, sorted by offset.
    pub(super) fn relocations(&self, section: usize) -> &[Relocation] {
        self.relocations.get(section).map_or(&[], Vec::as_slice)
    }

    pub(super) fn section(&self, address: Address) -> &'elf Section<'data> {
        &self.elf.sections()[address.section]
    }

    /// Offset in the file, for error messages.
    pub(super) fn file_offset(&self, address: Address) -> u64 {
        let section = self.section(address);
        section.offset + address.offset.min(section.data.len() as u64)
    }

    /// `size` bytes as they are in the file.
    pub(super) fn bytes(&self, address: Address, size: u64) -> Result<&'data [u8], Malformed> {
        let section = self.section(address);
        let start = usize::try_from(address.offset).ok();
        let end = address.offset.checked_add(size).and_then(|end| usize::try_from(end).ok());
        start.zip(end).and_then(|(start, end)| section.data.get(start..end)).ok_or_else(|| {
            let found = format!(
                "{size} bytes at {:#x} of {}, which has {:#x}",
                address.offset,
                section.name,
                section.data.len()
            );
            Malformed::new(self.file_offset(address), Rule::KlpTable, found)
        })
    }

    pub(super) fn u64(&self, address: Address) -> Result<u64, Malformed> {
        let bytes = self.bytes(address, 8)?;
        Ok(u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    pub(super) fn u32(&self, address: Address) -> Result<u32, Malformed> {
        let bytes = self.bytes(address, 4)?;
        Ok(u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    /// Fails if a relocation touches `size` bytes or one of them is not zero.
    pub(super) fn expect_zero(&self, address: Address, size: u64, what: &str) -> Result<(), Malformed> {
        let bytes = self.bytes(address, size)?;
        let relocated = self.relocations_in(address, size).first();
        if let Some(relocation) = relocated {
            let found = format!("a relocation in {what}");
            return Err(Malformed::new(relocation.entry_offset, Rule::KlpLayout, found));
        }
        match bytes.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(position) => {
                let offset = self.file_offset(address) + position as u64;
                Err(Malformed::new(offset, Rule::KlpLayout, format!("{:#04x} in {what}", bytes[position])))
            }
        }
    }

    fn relocations_in(&self, address: Address, size: u64) -> &[Relocation] {
        let list = self.relocations(address.section);
        let start = list.partition_point(|relocation| relocation.offset < address.offset);
        let end = address.offset.saturating_add(size);
        let count = list[start..].partition_point(|relocation| relocation.offset < end);
        &list[start..start + count]
    }

    /// The pointer at `address`.
    pub(super) fn pointer(&self, address: Address) -> Result<Pointer, Malformed> {
        let bytes = self.bytes(address, 8)?;
        let broken = |found: String| Malformed::new(self.file_offset(address), Rule::KlpPointer, found);
        match self.relocations_in(address, 8) {
            [] if bytes.iter().all(|byte| *byte == 0) => Ok(Pointer::Null),
            [] => Err(broken(format!("{} without a relocation", hex::encode(bytes)))),
            [one] if one.kind == R_X86_64_64 && one.offset == address.offset => self.target(one, one.addend),
            [one] => Err(broken(format!("relocation type {} at {:#x} of the section", one.kind, one.offset))),
            many => Err(broken(format!("{} relocations", many.len()))),
        }
    }

    /// The place in this module that the pointer at `address` leads to; it must lead to one.
    pub(super) fn local(&self, address: Address) -> Result<Address, Malformed> {
        match self.pointer(address)? {
            Pointer::Local(target) => Ok(target),
            Pointer::Null | Pointer::External(_) => {
                let found = "a pointer that leads nowhere in this module";
                Err(Malformed::new(self.file_offset(address), Rule::KlpTable, found))
            }
        }
    }

    /// What symbol plus `addend` leads to.
    pub(super) fn target(&self, relocation: &Relocation, addend: i64) -> Result<Pointer, Malformed> {
        let broken = |found| Malformed::new(relocation.entry_offset, Rule::KlpPointer, found);
        let Some(symbol) = self.elf.symbols().get(relocation.symbol) else {
            return Err(broken("no symbol".to_owned()));
        };
        match symbol.place {
            Place::Section(section) => {
                let offset = symbol.value.wrapping_add_signed(addend);
                let size = self.elf.sections()[section].size;
                if offset > size {
                    return Err(broken(format!("offset {offset:#x} in a section of {size:#x} bytes")));
                }
                Ok(Pointer::Local(Address { section, offset }))
            }
            Place::Undefined if addend == 0 => Ok(Pointer::External(relocation.symbol)),
            place => Err(broken(format!("symbol {:?} ({place:?}) plus {addend}", symbol.name))),
        }
    }

    /// The text that the pointer at `address` leads to.
    pub(super) fn string(&self, address: Address) -> Result<Option<&'data str>, Malformed> {
        let target = match self.pointer(address)? {
            Pointer::Null => return Ok(None),
            Pointer::Local(target) => target,
            Pointer::External(_) => {
                let found = "a pointer to another object";
                return Err(Malformed::new(self.file_offset(address), Rule::KlpString, found));
            }
        };
        self.text(target).map(Some)
    }

    /// The zero-terminated text at `address`.
    pub(super) fn text(&self, address: Address) -> Result<&'data str, Malformed> {
        let section = self.section(address);
        let broken = |found: String| Malformed::new(self.file_offset(address), Rule::KlpString, found);
        let tail = usize::try_from(address.offset).ok().and_then(|start| section.data.get(start..));
        let tail = tail.unwrap_or_default();
        let window = &tail[..tail.len().min(LONGEST_NAME)];
        let length = memchr::memchr(0, window)
            .ok_or_else(|| broken(format!("no end within {} bytes in {}", window.len(), section.name)))?;
        match std::str::from_utf8(&window[..length]) {
            Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text),
            _ => Err(broken(format!("{:?}", String::from_utf8_lossy(&window[..length])))),
        }
    }

    /// The function symbol that starts exactly at `address`.
    pub(super) fn function(&self, address: Address) -> Option<&'elf Symbol<'data>> {
        self.functions.get(&address).map(|index| &self.elf.symbols()[*index])
    }

    /// Name of the function that the pointer at `address` leads to: its symbol, or section and offset.
    pub(super) fn callee(&self, address: Address) -> Result<Option<String>, Malformed> {
        Ok(match self.pointer(address)? {
            Pointer::Null => None,
            Pointer::External(symbol) => Some(self.elf.symbols()[symbol].name.to_owned()),
            Pointer::Local(target) => Some(match self.function(target) {
                Some(symbol) => symbol.name.to_owned(),
                None => format!("{}+{:#x}", self.section(target).name, target.offset),
            }),
        })
    }
}

impl Address {
    /// `distance` bytes further.
    pub(super) fn plus(self, distance: u64) -> Self {
        Self { section: self.section, offset: self.offset.saturating_add(distance) }
    }
}
