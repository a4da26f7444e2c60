//! A shipped module file as memory with symbols.
//!
//! A module is relocatable: its code has no addresses yet. It is placed here as the kernel's loader would, at
//! an address of our choosing; symbols that it imports get addresses of their own in a region where
//! nothing else is, so that a reference to the wrong one is seen. Nothing is executed.

use std::collections::HashMap;

use object::elf::{
    R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_NONE, R_X86_64_PC32, R_X86_64_PC64, R_X86_64_PLT32,
    SHT_NOBITS, SHT_RELA,
};

use super::shipped::Shipped;
use crate::elf::{Elf, Malformed, Place};

/// Where the module's sections go: the start of the kernel's module area on x86-64.
const BASE: u64 = 0xffff_ffff_c000_0000;
/// Where imported symbols go: within reach of 32-bit distances, and far from any module.
const IMPORTS: u64 = 0xffff_ffff_9000_0000;
/// The largest shipped modules have 10 MiB.
const MAX_PLACED: u64 = 256 << 20;

/// A module that cannot be placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The file is malformed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is larger than any module.
    #[error("the module's sections take more than {MAX_PLACED} bytes")]
    TooLarge,
    /// It has a relocation that the kernel's loader does not know.
    #[error("relocation of type {kind} at {offset:#x} in section {section}")]
    Relocation {
        /// The type.
        kind: u32,
        /// Where.
        offset: u64,
        /// The section.
        section: String,
    },
}

/// A module, placed.
#[derive(Debug)]
pub struct ShippedModule {
    memory: Vec<u8>,
    starts: Vec<Option<u64>>,
    names: HashMap<String, Vec<u64>>,
}

impl ShippedModule {
    /// Places the module and applies its relocations.
    pub fn place(file: &[u8]) -> Result<Self, PlaceError> {
        let elf = Elf::parse(file)?;
        let mut memory: Vec<u8> = Vec::new();
        let mut starts: Vec<Option<u64>> = vec![None; elf.sections().len()];
        for section in elf.sections().iter().filter(|section| section.is_allocated()) {
            let alignment = section.alignment.clamp(1, 4096).next_power_of_two();
            let start = (memory.len() as u64).next_multiple_of(alignment);
            let end = start.checked_add(section.size).filter(|end| *end <= MAX_PLACED);
            memory.resize(end.ok_or(PlaceError::TooLarge)? as usize, 0);
            if section.kind != SHT_NOBITS {
                memory[start as usize..start as usize + section.data.len()].copy_from_slice(section.data);
            }
            starts[section.index] = Some(BASE + start);
        }
        let (addresses, names) = symbols(&elf, &starts);
        let mut placed = Self { memory, starts, names };
        for table in elf.sections().iter().filter(|section| section.kind == SHT_RELA) {
            let Some(start) = placed.start(table.info as usize) else { continue };
            for relocation in elf.relocations(table)? {
                let symbol = addresses.get(relocation.symbol).copied().unwrap_or_default();
                let at = start + relocation.offset;
                let value = symbol.wrapping_add_signed(relocation.addend);
                let (value, size) = match relocation.kind {
                    R_X86_64_NONE => continue,
                    R_X86_64_64 => (value, 8),
                    R_X86_64_PC64 => (value.wrapping_sub(at), 8),
                    R_X86_64_32 | R_X86_64_32S => (value, 4),
                    R_X86_64_PC32 | R_X86_64_PLT32 => (value.wrapping_sub(at), 4),
                    kind => {
                        let section = elf.sections()[table.info as usize].name.to_owned();
                        return Err(PlaceError::Relocation { kind, offset: relocation.offset, section });
                    }
                };
                let at = (at - BASE) as usize;
                if let Some(field) = placed.memory.get_mut(at..at + size) {
                    field.copy_from_slice(&value.to_le_bytes()[..size]);
                }
            }
        }
        Ok(placed)
    }

    /// The address of a section by its index, if it is in memory.
    pub fn start(&self, section: usize) -> Option<u64> {
        self.starts.get(section).copied().flatten()
    }
}

/// The address of every symbol by its index, and by name those that a livepatch could count.
fn symbols(elf: &Elf<'_>, starts: &[Option<u64>]) -> (Vec<u64>, HashMap<String, Vec<u64>>) {
    let mut addresses = Vec::with_capacity(elf.symbols().len());
    let mut names: HashMap<String, Vec<u64>> = HashMap::new();
    let mut next_import = IMPORTS;
    for symbol in elf.symbols() {
        let address = match symbol.place {
            Place::Section(section) => match starts.get(section) {
                Some(Some(start)) => start.wrapping_add(symbol.value),
                _ => {
                    addresses.push(0);
                    continue;
                }
            },
            Place::Undefined => {
                // Apart by more than any addend that is used with an imported symbol.
                next_import += 0x1000;
                next_import
            }
            Place::Absolute => symbol.value,
            Place::Reserved(_) => 0,
        };
        addresses.push(address);
        if !symbol.name.is_empty() && !symbol.is_section() {
            names.entry(symbol.name.to_owned()).or_default().push(address);
        }
    }
    (addresses, names)
}

impl Shipped for ShippedModule {
    fn bytes(&self, address: u64, size: usize) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        self.memory.get(start..start.checked_add(size)?)
    }

    fn named(&self, name: &str) -> &[u64] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }
}
