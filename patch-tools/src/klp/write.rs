//! Writes a relocatable x86-64 ELF file.
//!
//! Output depends on the input alone: no times, no hashing order. Symbols keep the order in which they are
//! given, except that local ones come before global ones, as ELF requires. Relocation sections stand right
//! behind the section that they apply to.

use std::borrow::Cow;

use object::LittleEndian as LE;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, ELFOSABI_NONE, EM_X86_64, ET_REL, EV_CURRENT, FileHeader64, Ident,
    Rela64, SHF_INFO_LINK, SHN_ABS, SHN_LORESERVE, SHN_UNDEF, SHN_XINDEX, SHT_NOBITS, SHT_RELA, SHT_STRTAB,
    SHT_SYMTAB, SHT_SYMTAB_SHNDX, STB_LOCAL, STT_SECTION, SectionHeader64, Sym64,
};
use object::pod::bytes_of;
use object::{I64, U16, U32, U64};

/// A section to write.
#[derive(Debug, Clone)]
pub struct NewSection<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// `SHT_*`.
    pub kind: u32,
    /// `SHF_*`.
    pub flags: u64,
    /// A power of two, or 0.
    pub alignment: u64,
    /// Size of one entry, or 0.
    pub entry_size: u64,
    /// Another section that this one is ordered by, as an index into the list.
    pub link: Option<usize>,
    /// Its bytes.
    pub contents: Contents<'a>,
    /// Relocations that apply to it, by the table that they go to.
    pub tables: Vec<RelocationTable<'a>>,
}

/// A section's bytes.
#[derive(Debug, Clone)]
pub enum Contents<'a> {
    /// Stand in the file.
    Bytes(Cow<'a, [u8]>),
    /// This many zeros that do not.
    Zeros(u64),
}

/// A relocation section.
#[derive(Debug, Clone)]
pub struct RelocationTable<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Flags besides `SHF_INFO_LINK`.
    pub flags: u64,
    /// Its entries.
    pub entries: Vec<NewRelocation>,
}

/// A relocation to write.
#[derive(Debug, Clone, Copy)]
pub struct NewRelocation {
    /// Offset in the section.
    pub offset: u64,
    /// `R_X86_64_*`.
    pub kind: u32,
    /// Index into the list of symbols; `None` for none.
    pub symbol: Option<usize>,
    /// What is added.
    pub addend: i64,
}

/// A symbol to write.
#[derive(Debug, Clone)]
pub struct NewSymbol<'a> {
    /// Its name; empty for a section's.
    pub name: Cow<'a, str>,
    /// `STT_*`.
    pub kind: u8,
    /// `STB_*`.
    pub binding: u8,
    /// `st_other`: the visibility.
    pub other: u8,
    /// Where it is.
    pub place: NewPlace,
    /// Offset in its section, or its value.
    pub value: u64,
    /// Size in bytes.
    pub size: u64,
}

/// Where a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewPlace {
    /// In the section of this index in the list.
    Section(usize),
    /// Elsewhere.
    Undefined,
    /// Nowhere: a number or the name of the source file.
    Absolute,
    /// A reserved section index.
    Reserved(u16),
}

/// Bytes of strings, each stored once.
struct Strings {
    bytes: Vec<u8>,
    known: std::collections::HashMap<String, u32>,
}

impl Strings {
    fn new() -> Self {
        Self { bytes: vec![0], known: std::collections::HashMap::new() }
    }

    fn add(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&known) = self.known.get(text) {
            return known;
        }
        let position = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.known.insert(text.to_owned(), position);
        position
    }
}

/// Number of sections of the file that [`write`](fn@write) makes, those of the format itself included.
pub fn count(sections: &[NewSection<'_>]) -> usize {
    4 + sections.iter().map(|section| 1 + section.tables.len()).sum::<usize>()
}

/// Writes the file. Section numbers from 0xff00 on are written as extended ones.
pub fn write(sections: &[NewSection<'_>], symbols: &[NewSymbol<'_>]) -> Vec<u8> {
    // Index in the file of each section: relocation tables stand in between.
    let mut indexes = Vec::with_capacity(sections.len());
    let mut count = 1;
    for section in sections {
        indexes.push(count);
        count += 1 + section.tables.len();
    }
    let symtab = count;
    let (order, locals) = symbol_order(symbols);
    let mut headers = vec![SectionHeader64::<LE>::default_header()];
    let mut names = Strings::new();
    let mut out = vec![0; size_of::<FileHeader64<LE>>()];
    for (section, &index) in sections.iter().zip(&indexes) {
        let (offset, size) = match &section.contents {
            Contents::Bytes(bytes) => {
                pad(&mut out, section.alignment);
                let offset = out.len() as u64;
                out.extend_from_slice(bytes);
                (offset, bytes.len() as u64)
            }
            Contents::Zeros(size) => (out.len() as u64, *size),
        };
        debug_assert_eq!(section.kind == SHT_NOBITS, matches!(section.contents, Contents::Zeros(_)));
        headers.push(SectionHeader64 {
            sh_name: U32::new(LE, names.add(&section.name)),
            sh_type: U32::new(LE, section.kind),
            sh_flags: U64::new(LE, section.flags),
            sh_offset: U64::new(LE, offset),
            sh_size: U64::new(LE, size),
            sh_link: U32::new(LE, section.link.map_or(0, |link| indexes[link] as u32)),
            sh_addralign: U64::new(LE, section.alignment),
            sh_entsize: U64::new(LE, section.entry_size),
            ..SectionHeader64::default_header()
        });
        for table in &section.tables {
            pad(&mut out, 8);
            let offset = out.len() as u64;
            for entry in &table.entries {
                let symbol = entry.symbol.map_or(0, |symbol| order[symbol]);
                let info = u64::from(symbol) << 32 | u64::from(entry.kind);
                out.extend_from_slice(bytes_of(&Rela64::<LE> {
                    r_offset: U64::new(LE, entry.offset),
                    r_info: U64::new(LE, info),
                    r_addend: I64::new(LE, entry.addend),
                }));
            }
            headers.push(SectionHeader64 {
                sh_name: U32::new(LE, names.add(&table.name)),
                sh_type: U32::new(LE, SHT_RELA),
                sh_flags: U64::new(LE, table.flags | u64::from(SHF_INFO_LINK)),
                sh_offset: U64::new(LE, offset),
                sh_size: U64::new(LE, out.len() as u64 - offset),
                sh_link: U32::new(LE, symtab as u32),
                sh_info: U32::new(LE, index as u32),
                sh_addralign: U64::new(LE, 8),
                sh_entsize: U64::new(LE, size_of::<Rela64<LE>>() as u64),
                ..SectionHeader64::default_header()
            });
        }
    }
    write_symbols(&mut out, &mut headers, &mut names, symbols, &order, locals, &indexes);
    let position = names.add(".shstrtab");
    let offset = out.len() as u64;
    out.extend_from_slice(&names.bytes);
    headers.push(string_table(position, offset, names.bytes.len() as u64));
    pad(&mut out, 8);
    let table = out.len() as u64;
    let count = headers.len();
    if count >= usize::from(SHN_LORESERVE) {
        headers[0].sh_size = U64::new(LE, count as u64);
        headers[0].sh_link = U32::new(LE, count as u32 - 1);
    }
    for header in &headers {
        out.extend_from_slice(bytes_of(header));
    }
    let header = file_header(table, headers.len());
    out[..size_of::<FileHeader64<LE>>()].copy_from_slice(bytes_of(&header));
    out
}

/// For each symbol its index in the file, and the number of local ones with the null symbol.
fn symbol_order(symbols: &[NewSymbol<'_>]) -> (Vec<u32>, u32) {
    let mut order = vec![0; symbols.len()];
    let mut next = 1;
    for local in [true, false] {
        for (index, _) in symbols.iter().enumerate().filter(|(_, s)| (s.binding == STB_LOCAL) == local) {
            order[index] = next;
            next += 1;
        }
    }
    let locals = symbols.iter().filter(|symbol| symbol.binding == STB_LOCAL).count() as u32 + 1;
    (order, locals)
}

fn write_symbols(
    out: &mut Vec<u8>,
    headers: &mut Vec<SectionHeader64<LE>>,
    names: &mut Strings,
    symbols: &[NewSymbol<'_>],
    order: &[u32],
    locals: u32,
    indexes: &[usize],
) {
    let mut strings = Strings::new();
    let mut table = vec![null_symbol(); symbols.len() + 1];
    // Sections of symbols for which `st_shndx` has no room.
    let mut extended = vec![0_u32; symbols.len() + 1];
    for (symbol, &position) in symbols.iter().zip(order) {
        let section = match symbol.place {
            NewPlace::Section(section) if indexes[section] >= usize::from(SHN_LORESERVE) => {
                extended[position as usize] = indexes[section] as u32;
                SHN_XINDEX
            }
            NewPlace::Section(section) => indexes[section] as u16,
            NewPlace::Undefined => SHN_UNDEF,
            NewPlace::Absolute => SHN_ABS,
            NewPlace::Reserved(index) => index,
        };
        let name = if symbol.kind == STT_SECTION { 0 } else { strings.add(&symbol.name) };
        table[position as usize] = Sym64 {
            st_name: U32::new(LE, name),
            st_info: symbol.binding << 4 | symbol.kind & 0xf,
            st_other: symbol.other,
            st_shndx: U16::new(LE, section),
            st_value: U64::new(LE, symbol.value),
            st_size: U64::new(LE, symbol.size),
        };
    }
    pad(out, 8);
    let offset = out.len() as u64;
    for symbol in &table {
        out.extend_from_slice(bytes_of(symbol));
    }
    headers.push(SectionHeader64 {
        sh_name: U32::new(LE, names.add(".symtab")),
        sh_type: U32::new(LE, SHT_SYMTAB),
        sh_offset: U64::new(LE, offset),
        sh_size: U64::new(LE, out.len() as u64 - offset),
        sh_link: U32::new(LE, headers.len() as u32 + 1),
        sh_info: U32::new(LE, locals),
        sh_addralign: U64::new(LE, 8),
        sh_entsize: U64::new(LE, size_of::<Sym64<LE>>() as u64),
        ..SectionHeader64::default_header()
    });
    let symtab = headers.len() as u32 - 1;
    let offset = out.len() as u64;
    out.extend_from_slice(&strings.bytes);
    headers.push(string_table(names.add(".strtab"), offset, strings.bytes.len() as u64));
    if extended.iter().all(|&section| section == 0) {
        return;
    }
    pad(out, 4);
    let offset = out.len() as u64;
    out.extend(extended.iter().flat_map(|section| section.to_le_bytes()));
    headers.push(SectionHeader64 {
        sh_name: U32::new(LE, names.add(".symtab_shndx")),
        sh_type: U32::new(LE, SHT_SYMTAB_SHNDX),
        sh_offset: U64::new(LE, offset),
        sh_size: U64::new(LE, out.len() as u64 - offset),
        sh_link: U32::new(LE, symtab),
        sh_addralign: U64::new(LE, 4),
        sh_entsize: U64::new(LE, 4),
        ..SectionHeader64::default_header()
    });
}

fn pad(out: &mut Vec<u8>, alignment: u64) {
    let alignment = usize::try_from(alignment.clamp(1, 4096)).unwrap_or(1);
    out.resize(out.len().next_multiple_of(alignment), 0);
}

fn null_symbol() -> Sym64<LE> {
    Sym64 {
        st_name: U32::new(LE, 0),
        st_info: 0,
        st_other: 0,
        st_shndx: U16::new(LE, SHN_UNDEF),
        st_value: U64::new(LE, 0),
        st_size: U64::new(LE, 0),
    }
}

fn string_table(name: u32, offset: u64, size: u64) -> SectionHeader64<LE> {
    SectionHeader64 {
        sh_name: U32::new(LE, name),
        sh_type: U32::new(LE, SHT_STRTAB),
        sh_offset: U64::new(LE, offset),
        sh_size: U64::new(LE, size),
        sh_addralign: U64::new(LE, 1),
        ..SectionHeader64::default_header()
    }
}

fn file_header(table: u64, count: usize) -> FileHeader64<LE> {
    // Beyond the reserved numbers the null section holds both.
    let (count, names) = match u16::try_from(count) {
        Ok(count) if count < SHN_LORESERVE => (count, count - 1),
        _ => (0, SHN_XINDEX),
    };
    FileHeader64 {
        e_ident: Ident {
            magic: ELFMAG,
            class: ELFCLASS64,
            data: ELFDATA2LSB,
            version: EV_CURRENT,
            os_abi: ELFOSABI_NONE,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, ET_REL),
        e_machine: U16::new(LE, EM_X86_64),
        e_version: U32::new(LE, u32::from(EV_CURRENT)),
        e_entry: U64::new(LE, 0),
        e_phoff: U64::new(LE, 0),
        e_shoff: U64::new(LE, table),
        e_flags: U32::new(LE, 0),
        e_ehsize: U16::new(LE, size_of::<FileHeader64<LE>>() as u16),
        e_phentsize: U16::new(LE, 0),
        e_phnum: U16::new(LE, 0),
        e_shentsize: U16::new(LE, size_of::<SectionHeader64<LE>>() as u16),
        e_shnum: U16::new(LE, count),
        e_shstrndx: U16::new(LE, names),
    }
}

/// `SectionHeader64` with every field zero.
trait DefaultHeader {
    fn default_header() -> Self;
}

impl DefaultHeader for SectionHeader64<LE> {
    fn default_header() -> Self {
        Self {
            sh_name: U32::new(LE, 0),
            sh_type: U32::new(LE, 0),
            sh_flags: U64::new(LE, 0),
            sh_addr: U64::new(LE, 0),
            sh_offset: U64::new(LE, 0),
            sh_size: U64::new(LE, 0),
            sh_link: U32::new(LE, 0),
            sh_info: U32::new(LE, 0),
            sh_addralign: U64::new(LE, 0),
            sh_entsize: U64::new(LE, 0),
        }
    }
}
