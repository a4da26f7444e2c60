//! Header, sections, symbols and relocations, each checked before it is handed out.

use object::LittleEndian as LE;
use object::U32;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, EV_CURRENT, FileHeader64, Rela64, SHF_ALLOC, SHF_EXECINSTR,
    SHF_WRITE, SHN_ABS, SHN_LORESERVE, SHN_UNDEF, SHN_XINDEX, SHT_NOBITS, SHT_NULL, SHT_RELA, SHT_SYMTAB,
    SHT_SYMTAB_SHNDX, STT_FUNC, STT_SECTION, SectionHeader64, Sym64,
};
use object::pod;

use super::{Malformed, Rule};

/// A kernel linked from all its functions' own sections has about 200,000. From `SHN_LORESERVE` (0xff00) on the
/// numbers are extended ones: the count and the name table's index stand in the null section, and symbols' in
/// a table of their own (generic ABI, "ELF Header" and `SHT_SYMTAB_SHNDX`).
pub const MAX_SECTIONS: usize = 1 << 20;

/// A kernel with all its symbols has about 200,000; a file with more than this is not one of ours.
pub const MAX_SYMBOLS: usize = 1 << 22;

/// No name in a kernel or module comes near (the kernel's own limit for symbols is 512).
const MAX_NAME: usize = 1024;

/// A checked ELF file.
#[derive(Debug)]
pub struct Elf<'data> {
    data: &'data [u8],
    elf_type: u16,
    name_table: usize,
    sections: Vec<Section<'data>>,
    symbols: Vec<Symbol<'data>>,
}

/// A section; its data lies within the file.
#[derive(Debug, Clone, Copy)]
pub struct Section<'data> {
    /// Index in the section table.
    pub index: usize,
    /// The name.
    pub name: &'data str,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// `sh_addr`: zero in relocatable files.
    pub address: u64,
    /// Where its data starts in the file; within the file also for a section that has none.
    pub offset: u64,
    /// `sh_size`, also for sections without data in the file.
    pub size: u64,
    /// `sh_link`.
    pub link: u32,
    /// `sh_info`.
    pub info: u32,
    /// `sh_addralign`: 0 and 1 mean none.
    pub alignment: u64,
    /// `sh_entsize`: size of an entry where the section is a table of equal ones.
    pub entry_size: u64,
    /// The bytes; empty for `SHT_NOBITS`.
    pub data: &'data [u8],
}

/// A symbol; its section, where it names one, exists.
#[derive(Debug, Clone, Copy)]
pub struct Symbol<'data> {
    /// The name; a section symbol has none of its own.
    pub name: &'data str,
    /// `st_value`: in relocatable files the offset in its section.
    pub value: u64,
    /// `st_size` in bytes.
    pub size: u64,
    /// `STT_*`.
    pub kind: u8,
    /// `STB_*`.
    pub binding: u8,
    /// `st_other`: the visibility.
    pub other: u8,
    /// What it is defined in.
    pub place: Place,
    /// Where the entry itself stands in the file.
    pub entry_offset: u64,
}

/// Where a symbol is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Defined elsewhere.
    Undefined,
    /// A number, not an address.
    Absolute,
    /// In the section of this index.
    Section(usize),
    /// One of the other reserved indexes, such as 0xff20 (`SHN_LIVEPATCH`).
    Reserved(u16),
}

/// A relocation with addend; it lies within its section and its symbol exists.
#[derive(Debug, Clone, Copy)]
pub struct Relocation {
    /// Offset in the section that is relocated.
    pub offset: u64,
    /// `R_X86_64_*`.
    pub kind: u32,
    /// Index of the symbol.
    pub symbol: usize,
    /// What is added to the symbol's address.
    pub addend: i64,
    /// Where the entry itself stands in the file.
    pub entry_offset: u64,
}

impl<'data> Elf<'data> {
    /// Checks and reads header, sections and symbols.
    pub fn parse(data: &'data [u8]) -> Result<Self, Malformed> {
        let header = header(data)?;
        let raw = section_table(data, header)?;
        let name_table = name_table(header, raw)?;
        let names = section_bytes(data, header, name_table, &raw[name_table])?;
        let mut sections = Vec::with_capacity(raw.len());
        for (index, section) in raw.iter().enumerate() {
            sections.push(read_section(data, header, names, index, section)?);
        }
        let symbols = read_symbols(&sections)?;
        Ok(Self { data, elf_type: header.e_type.get(LE), name_table, sections, symbols })
    }

    /// `e_type`: `ET_REL`, `ET_EXEC` and so on.
    pub fn elf_type(&self) -> u16 {
        self.elf_type
    }

    /// Index of the section that holds the names of sections.
    pub fn name_table(&self) -> usize {
        self.name_table
    }

    /// The whole file.
    pub fn data(&self) -> &'data [u8] {
        self.data
    }

    /// All sections, the null section included, in the order of the table.
    pub fn sections(&self) -> &[Section<'data>] {
        &self.sections
    }

    /// The first section of that name.
    pub fn section(&self, name: &str) -> Option<&Section<'data>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// All symbols, the null symbol included; empty for a file without a symbol table.
    pub fn symbols(&self) -> &[Symbol<'data>] {
        &self.symbols
    }

    /// Reads the entries of a `SHT_RELA` section.
    ///
    /// Entries must lie within the section that `sh_info` names, unless `sh_info` is zero.
    pub fn relocations(&self, section: &Section<'data>) -> Result<Vec<Relocation>, Malformed> {
        if section.kind != SHT_RELA {
            let found = format!("type {} in section {}", section.kind, section.name);
            return Err(Malformed::new(section.offset, Rule::RelocationTable, found));
        }
        let target = self.sections.get(section.info as usize).ok_or_else(|| {
            let found = format!("sh_info {} in section {}", section.info, section.name);
            Malformed::new(section.offset, Rule::SectionLink, found)
        })?;
        let entries = pod::slice_from_all_bytes::<Rela64<LE>>(section.data).map_err(|()| {
            let found = format!("{} bytes in section {}", section.data.len(), section.name);
            Malformed::new(section.offset, Rule::RelocationTable, found)
        })?;
        let mut relocations = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let entry_offset = section.offset + (index * size_of::<Rela64<LE>>()) as u64;
            let relocation = Relocation {
                offset: entry.r_offset.get(LE),
                kind: entry.r_type(LE, false),
                symbol: entry.r_sym(LE, false) as usize,
                addend: entry.r_addend.get(LE),
                entry_offset,
            };
            if relocation.symbol != 0 && relocation.symbol >= self.symbols.len() {
                let found = format!("symbol {} of {}", relocation.symbol, self.symbols.len());
                return Err(Malformed::new(entry_offset, Rule::RelocationSymbol, found));
            }
            if section.info != 0 && relocation.offset >= target.size {
                let found =
                    format!("{:#x} in {} of {:#x} bytes", relocation.offset, target.name, target.size);
                return Err(Malformed::new(entry_offset, Rule::RelocationPlace, found));
            }
            relocations.push(relocation);
        }
        Ok(relocations)
    }
}

impl Section<'_> {
    /// Part of the program in memory.
    pub fn is_allocated(&self) -> bool {
        self.flags & u64::from(SHF_ALLOC) != 0
    }

    /// Holds instructions.
    pub fn is_executable(&self) -> bool {
        self.flags & u64::from(SHF_EXECINSTR) != 0
    }

    /// Can be written when loaded.
    pub fn is_writable(&self) -> bool {
        self.flags & u64::from(SHF_WRITE) != 0
    }
}

impl Symbol<'_> {
    /// A function.
    pub fn is_function(&self) -> bool {
        self.kind == STT_FUNC
    }

    /// Stands for a section's start.
    pub fn is_section(&self) -> bool {
        self.kind == STT_SECTION
    }
}

fn header(data: &[u8]) -> Result<&FileHeader64<LE>, Malformed> {
    let Ok((header, _)) = pod::from_bytes::<FileHeader64<LE>>(data) else {
        return Err(Malformed::new(0, Rule::FileSize, format!("{} bytes", data.len())));
    };
    let ident = &header.e_ident;
    if ident.magic != ELFMAG {
        return Err(Malformed::new(0, Rule::ElfMagic, format!("bytes {}", hex::encode(ident.magic))));
    }
    if ident.class != ELFCLASS64 || ident.data != ELFDATA2LSB || ident.version != EV_CURRENT {
        let found = format!("class {}, byte order {}, version {}", ident.class, ident.data, ident.version);
        return Err(Malformed::new(4, Rule::ElfClass, found));
    }
    let machine = header.e_machine.get(LE);
    if machine != EM_X86_64 {
        return Err(Malformed::new(18, Rule::ElfMachine, format!("machine {machine}")));
    }
    Ok(header)
}

fn section_table<'data>(
    data: &'data [u8],
    header: &FileHeader64<LE>,
) -> Result<&'data [SectionHeader64<LE>], Malformed> {
    let start = header.e_shoff.get(LE);
    let entry = header.e_shentsize.get(LE);
    let count = match header.e_shnum.get(LE) {
        0 => extended(data, header).map_or(0, |null| null.sh_size.get(LE)),
        count => u64::from(count),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count == 0 || count > MAX_SECTIONS {
        return Err(Malformed::new(60, Rule::SectionCount, format!("{count} sections")));
    }
    usize::try_from(start)
        .ok()
        .filter(|_| usize::from(entry) == size_of::<SectionHeader64<LE>>())
        .and_then(|start| data.get(start..))
        .and_then(|bytes| pod::slice_from_bytes(bytes, count).ok())
        .map(|(table, _)| table)
        .ok_or_else(|| {
            let found = format!(
                "{count} entries of {entry} bytes at {start:#x} in a file of {:#x} bytes",
                data.len()
            );
            Malformed::new(40, Rule::SectionTable, found)
        })
}

/// The null section, which has the numbers for which the header has no room.
fn extended<'data>(data: &'data [u8], header: &FileHeader64<LE>) -> Option<&'data SectionHeader64<LE>> {
    let start = usize::try_from(header.e_shoff.get(LE)).ok().filter(|&start| start > 0)?;
    pod::from_bytes(data.get(start..)?).ok().map(|(null, _)| null)
}

fn name_table(header: &FileHeader64<LE>, raw: &[SectionHeader64<LE>]) -> Result<usize, Malformed> {
    let index = match header.e_shstrndx.get(LE) {
        SHN_XINDEX => raw.first().map_or(0, |null| null.sh_link.get(LE)),
        index => u32::from(index),
    };
    (index != 0 && (index as usize) < raw.len()).then_some(index as usize).ok_or_else(|| {
        let found = format!("e_shstrndx {index} of {} sections", raw.len());
        Malformed::new(62, Rule::SectionLink, found)
    })
}

/// File offset of a section's entry in the table.
fn entry_offset(header: &FileHeader64<LE>, index: usize) -> u64 {
    header.e_shoff.get(LE) + (index * size_of::<SectionHeader64<LE>>()) as u64
}

fn section_bytes<'data>(
    data: &'data [u8],
    header: &FileHeader64<LE>,
    index: usize,
    section: &SectionHeader64<LE>,
) -> Result<&'data [u8], Malformed> {
    let kind = section.sh_type.get(LE);
    if kind == SHT_NOBITS || kind == SHT_NULL {
        return Ok(&[]);
    }
    let (start, size) = (section.sh_offset.get(LE), section.sh_size.get(LE));
    slice(data, start, size).ok_or_else(|| {
        let found = format!("section {index} at {start:#x} with {size:#x} bytes, file of {:#x}", data.len());
        Malformed::new(entry_offset(header, index), Rule::SectionData, found)
    })
}

fn slice(data: &[u8], start: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    data.get(start..end)
}

fn read_section<'data>(
    data: &'data [u8],
    header: &FileHeader64<LE>,
    names: &'data [u8],
    index: usize,
    section: &SectionHeader64<LE>,
) -> Result<Section<'data>, Malformed> {
    Ok(Section {
        index,
        name: string(names, section.sh_name.get(LE), entry_offset(header, index))?,
        kind: section.sh_type.get(LE),
        flags: section.sh_flags.get(LE),
        address: section.sh_addr.get(LE),
        offset: section.sh_offset.get(LE).min(data.len() as u64),
        size: section.sh_size.get(LE),
        link: section.sh_link.get(LE),
        info: section.sh_info.get(LE),
        alignment: section.sh_addralign.get(LE),
        entry_size: section.sh_entsize.get(LE),
        data: section_bytes(data, header, index, section)?,
    })
}

/// The string at `position` of a string table, for the entry at `entry_offset` of the file.
fn string(table: &[u8], position: u32, entry_offset: u64) -> Result<&str, Malformed> {
    let tail = table.get(position as usize..).unwrap_or_default();
    let Some(length) = memchr::memchr(0, tail) else {
        // An empty table is allowed as long as nothing is taken from it.
        if position == 0 && table.is_empty() {
            return Ok("");
        }
        let found = format!("position {position} of {} bytes, without an end", table.len());
        return Err(Malformed::new(entry_offset, Rule::StringTable, found));
    };
    if length > MAX_NAME {
        return Err(Malformed::new(entry_offset, Rule::NameText, format!("{length} bytes")));
    }
    std::str::from_utf8(&tail[..length])
        .map_err(|error| Malformed::new(entry_offset, Rule::NameText, format!("{error}")))
}

fn read_symbols<'data>(sections: &[Section<'data>]) -> Result<Vec<Symbol<'data>>, Malformed> {
    let mut tables = sections.iter().filter(|section| section.kind == SHT_SYMTAB);
    let Some(table) = tables.next() else { return Ok(Vec::new()) };
    if let Some(second) = tables.next() {
        let found = format!("a second symbol table {}", second.name);
        return Err(Malformed::new(second.offset, Rule::SectionUnique, found));
    }
    let entries = pod::slice_from_all_bytes::<Sym64<LE>>(table.data)
        .ok()
        .filter(|entries| entries.len() <= MAX_SYMBOLS)
        .ok_or_else(|| {
            Malformed::new(table.offset, Rule::SymbolTable, format!("{} bytes", table.data.len()))
        })?;
    let strings = sections.get(table.link as usize).ok_or_else(|| {
        Malformed::new(table.offset, Rule::SectionLink, format!("sh_link {} of the symbol table", table.link))
    })?;
    let extended = extended_places(sections, table, entries.len())?;
    let mut symbols = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let offset = table.offset + (index * size_of::<Sym64<LE>>()) as u64;
        symbols.push(Symbol {
            name: string(strings.data, entry.st_name.get(LE), offset)?,
            value: entry.st_value.get(LE),
            size: entry.st_size.get(LE),
            kind: entry.st_type(),
            binding: entry.st_bind(),
            other: entry.st_other,
            place: place(entry.st_shndx.get(LE), extended.get(index), sections.len(), offset)?,
            entry_offset: offset,
        });
    }
    Ok(symbols)
}

/// The section of each symbol for which the symbol table has no room; nothing if the file has no such table.
fn extended_places<'data>(
    sections: &[Section<'data>],
    symbols: &Section<'data>,
    count: usize,
) -> Result<&'data [U32<LE>], Malformed> {
    let of_symbols = |section: &&Section<'data>| {
        section.kind == SHT_SYMTAB_SHNDX && section.link as usize == symbols.index
    };
    let Some(table) = sections.iter().find(of_symbols) else { return Ok(&[]) };
    let entries = pod::slice_from_all_bytes::<U32<LE>>(table.data).ok();
    entries.filter(|entries| entries.len() == count).ok_or_else(|| {
        let found = format!("{} bytes of section numbers for {count} symbols", table.data.len());
        Malformed::new(table.offset, Rule::SymbolTable, found)
    })
}

fn place(index: u16, extended: Option<&U32<LE>>, sections: usize, offset: u64) -> Result<Place, Malformed> {
    let section = match index {
        SHN_UNDEF => return Ok(Place::Undefined),
        SHN_ABS => return Ok(Place::Absolute),
        SHN_XINDEX => extended.map(|index| index.get(LE) as usize).filter(|&index| index != 0),
        SHN_LORESERVE.. => return Ok(Place::Reserved(index)),
        _ => Some(usize::from(index)),
    };
    match section {
        Some(section) if section < sections => Ok(Place::Section(section)),
        Some(section) => {
            Err(Malformed::new(offset, Rule::SymbolSection, format!("section {section} of {sections}")))
        }
        None => Err(Malformed::new(offset, Rule::SymbolSection, "an extended number that no table holds")),
    }
}
