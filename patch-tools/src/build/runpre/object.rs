//! The functions of a rebuilt object, with what the linker would fill in.

use std::collections::HashMap;

use object::elf::{SHF_MERGE, SHF_STRINGS, SHT_RELA};

use crate::elf::{Elf, Malformed, Place, Relocation, Section, Symbol};

/// A function of a rebuilt object.
#[derive(Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    /// Index of its section.
    pub(super) section: usize,
    pub(super) code: &'a [u8],
    /// Its relocations by rising offset, which counts from the function's start.
    pub(super) relocations: Vec<Relocation>,
}

/// What a relocation refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Target<'a> {
    /// A symbol of that name.
    Symbol(&'a str),
    /// The start of a section of this object: where several names are one.
    Section(usize),
    /// A string or constant, which the linker merges with equal ones of other objects.
    Literal {
        /// The section.
        section: usize,
        /// Where in it, addend included.
        offset: u64,
    },
}

/// A rebuilt object.
#[derive(Debug)]
pub(super) struct Rebuilt<'a> {
    pub(super) elf: &'a Elf<'a>,
    pub(super) functions: Vec<Function<'a>>,
}

impl<'a> Rebuilt<'a> {
    /// Collects the functions.
    pub(super) fn new(elf: &'a Elf<'a>) -> Result<Self, Malformed> {
        let mut relocations: HashMap<usize, Vec<Relocation>> = HashMap::new();
        for table in elf.sections().iter().filter(|section| section.kind == SHT_RELA) {
            let target = table.info as usize;
            if elf.sections().get(target).is_some_and(Section::is_executable) {
                let mut entries = elf.relocations(table)?;
                entries.sort_by_key(|entry| entry.offset);
                relocations.insert(target, entries);
            }
        }
        let mut functions = Vec::new();
        for symbol in elf.symbols().iter().filter(|symbol| symbol.is_function() && symbol.size > 0) {
            let Place::Section(index) = symbol.place else { continue };
            let Some(section) = elf.sections().get(index).filter(|section| section.is_executable()) else {
                continue;
            };
            let range = symbol.value..symbol.value.saturating_add(symbol.size);
            let Some(code) = section.data.get(range.start as usize..range.end as usize) else { continue };
            let within =
                relocations.get(&index).into_iter().flatten().filter(|one| range.contains(&one.offset));
            let relocations =
                within.map(|one| Relocation { offset: one.offset - range.start, ..*one }).collect();
            functions.push(Function { name: symbol.name, section: index, code, relocations });
        }
        Ok(Self { elf, functions })
    }

    /// What a relocation refers to, and the distance from there that it means (without the addend that makes
    /// up for the length of the instruction).
    pub(super) fn target(&self, relocation: &Relocation) -> Option<Target<'a>> {
        let symbol = self.elf.symbols().get(relocation.symbol)?;
        match symbol.place {
            Place::Section(section) if symbol.is_section() => {
                let flags = self.elf.sections().get(section)?.flags;
                match flags & u64::from(SHF_MERGE) != 0 {
                    true => Some(Target::Literal { section, offset: 0 }),
                    false => Some(Target::Section(section)),
                }
            }
            _ => Some(Target::Symbol(symbol.name)),
        }
    }

    /// The string, with its end, or the constant at an offset of a section whose contents are merged.
    pub(super) fn literal(&self, section: usize, offset: u64) -> Option<&'a [u8]> {
        let section = self.elf.sections().get(section)?;
        let tail = section.data.get(usize::try_from(offset).ok()?..)?;
        let width = usize::try_from(section.entry_size.max(1)).ok()?;
        if section.flags & u64::from(SHF_STRINGS) == 0 {
            return tail.get(..width);
        }
        // Wide strings end with a character of the entry size.
        let end = tail.chunks_exact(width).position(|character| character.iter().all(|byte| *byte == 0))?;
        tail.get(..(end + 1) * width)
    }

    /// The named symbols of a section, with their offsets in it.
    pub(super) fn symbols_of(&self, section: usize) -> impl Iterator<Item = &'a Symbol<'a>> {
        let elf: &'a Elf<'a> = self.elf;
        elf.symbols().iter().filter(move |symbol| {
            symbol.place == Place::Section(section) && !symbol.name.is_empty() && !symbol.is_section()
        })
    }
}
