//! The running kernel's memory through `/proc/kcore`: symbols, exports and ftrace locations without making the
//! kernel print them.
//!
//! `/proc/kallsyms` and `available_filter_functions` are 10 MB of text that the kernel formats anew for each
//! reader; the tables behind them are 3 MB. Where they are is in the vmcoreinfo note of kcore itself. What is
//! read is verified (tokens against index, names in full, addresses in order, `_stext` where vmcoreinfo says);
//! anything unexpected gives `None`, and the caller takes the text. Reading needs root and a kernel that is
//! not locked down for confidentiality.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use object::LittleEndian as LE;
use object::elf::{ELFMAG, FileHeader64, PT_LOAD, PT_NOTE, ProgramHeader64};
use object::pod;

use crate::image::{ExportStrings, ExportTable, Exports, Kallsyms, Origin, Tables, exports};
use crate::versions::{FTRACE_PAGE, FTRACE_RECORD, LONGEST_NAME};

/// A machine with many memory ranges has some hundred.
const MAX_SEGMENTS: usize = 4096;
/// vmcoreinfo has at most a page; the notes before it are register sets.
const MAX_NOTES: u64 = 1 << 20;
/// The largest table read has 3 MB.
const MAX_READ: usize = 64 << 20;
/// Groups of records: a kernel has about ten, and two for each module.
const MAX_FTRACE_PAGES: usize = 16_384;

/// What the kernel's memory tells.
pub(super) struct Memory {
    pub(super) kallsyms: Arc<Kallsyms>,
    pub(super) exports: Option<Exports>,
    /// Addresses that ftrace can hook, those of loaded modules included, sorted.
    pub(super) ftrace_sites: Option<Vec<u64>>,
}

/// Reads the tables, or `None` where kcore cannot be read or does not look as expected.
pub(super) fn read(path: &Path) -> Option<Memory> {
    let core = Kcore::open(path)?;
    let kallsyms = core.kallsyms()?;
    let marks = Marks::find(&kallsyms);
    Some(Memory {
        exports: core.exports(&marks),
        ftrace_sites: core.ftrace_sites(&marks),
        kallsyms: Arc::new(kallsyms),
    })
}

/// An open kcore with its memory map.
struct Kcore {
    file: File,
    segments: Vec<Segment>,
    vmcoreinfo: String,
}

struct Segment {
    address: u64,
    size: u64,
    offset: u64,
}

impl Kcore {
    fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let header = read_at(&file, 0, size_of::<FileHeader64<LE>>())?;
        let (header, _) = pod::from_bytes::<FileHeader64<LE>>(&header).ok()?;
        let count = usize::from(header.e_phnum.get(LE));
        if header.e_ident.magic != ELFMAG || count > MAX_SEGMENTS {
            return None;
        }
        let table = read_at(&file, header.e_phoff.get(LE), count * size_of::<ProgramHeader64<LE>>())?;
        let (headers, _) = pod::slice_from_bytes::<ProgramHeader64<LE>>(&table, count).ok()?;
        let mut segments = Vec::new();
        let mut vmcoreinfo = None;
        for header in headers {
            let (offset, size) = (header.p_offset.get(LE), header.p_filesz.get(LE));
            match header.p_type.get(LE) {
                PT_LOAD => segments.push(Segment { address: header.p_vaddr.get(LE), size, offset }),
                PT_NOTE if size <= MAX_NOTES => {
                    vmcoreinfo = vmcoreinfo_in(&read_at(&file, offset, size as usize)?);
                }
                _ => {}
            }
        }
        Some(Self { file, segments, vmcoreinfo: vmcoreinfo? })
    }

    /// The address of a symbol that vmcoreinfo names.
    fn symbol(&self, name: &str) -> Option<u64> {
        let prefix = format!("SYMBOL({name})=");
        let value = self.vmcoreinfo.lines().find_map(|line| line.strip_prefix(&prefix))?;
        u64::from_str_radix(value, 16).ok()
    }

    /// The segment that holds `address`.
    fn segment(&self, address: u64) -> Option<&Segment> {
        let holds = |segment: &&Segment| {
            address.checked_sub(segment.address).is_some_and(|distance| distance < segment.size)
        };
        self.segments.iter().find(holds)
    }

    fn bytes(&self, address: u64, size: usize) -> Option<Vec<u8>> {
        let segment = self.segment(address).filter(|_| size <= MAX_READ)?;
        if (address - segment.address).checked_add(size as u64)? > segment.size {
            return None;
        }
        read_at(&self.file, segment.offset.checked_add(address - segment.address)?, size)
    }

    /// The bytes from `start` to `stop`.
    fn between(&self, start: u64, stop: u64) -> Option<Vec<u8>> {
        if start == stop {
            return Some(Vec::new());
        }
        self.bytes(start, usize::try_from(stop.checked_sub(start)?).ok()?)
    }

    fn u64(&self, address: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(address, 8)?.try_into().ok()?))
    }

    fn kallsyms(&self) -> Option<Kallsyms> {
        let count = u32::from_le_bytes(self.bytes(self.symbol("kallsyms_num_syms")?, 4)?.try_into().ok()?);
        let names = self.symbol("kallsyms_names")?;
        let (tokens, index) = (self.symbol("kallsyms_token_table")?, self.symbol("kallsyms_token_index")?);
        // In every version the names come before the tokens, with smaller tables between.
        let kallsyms = Kallsyms::decode(&Tables {
            count: count as usize,
            names: &self.between(names, tokens)?,
            tokens: &self.between(tokens, index)?,
            index: &self.bytes(index, 512)?,
            offsets: &self.bytes(self.symbol("kallsyms_offsets")?, (count as usize).checked_mul(4)?)?,
            origin: match self.symbol("kallsyms_relative_base") {
                Some(base) => Origin::Base(self.u64(base)?),
                None => Origin::Place(self.symbol("kallsyms_offsets")?),
            },
            file_offset: 0,
        });
        let kallsyms = kallsyms.ok()?;
        let stext = self.symbol("_stext")?;
        let agrees = kallsyms.named("_stext").any(|symbol| symbol.address == stext);
        agrees.then_some(kallsyms)
    }

    fn exports(&self, marks: &Marks) -> Option<Exports> {
        let mut read = Vec::new();
        for [start, stop, crcs, crcs_stop] in marks.exports {
            read.push((start?, self.between(start?, stop?)?, self.between(crcs?, crcs_stop?)?));
        }
        let tables: Vec<ExportTable<'_>> = read
            .iter()
            .map(|(address, entries, crcs)| ExportTable {
                position: *address,
                address: *address,
                entries,
                crcs,
            })
            .collect();
        let names = || tables.iter().flat_map(ExportTable::names);
        let (first, last) = (names().min()?, names().max()?);
        let segment = self.segment(first)?;
        let stop = last.saturating_add(LONGEST_NAME as u64).min(segment.address.saturating_add(segment.size));
        exports(&tables, ExportStrings { address: first, data: &self.between(first, stop)? }).ok()
    }

    /// Walks `ftrace_pages_start`. The layout is not announced anywhere, so that every group must look right:
    /// addresses in rising order, and those of the first group in the kernel's text.
    fn ftrace_sites(&self, marks: &Marks) -> Option<Vec<u64>> {
        let (text, text_end) = (marks.text?, marks.text_end?);
        let mut page = self.u64(marks.ftrace_pages?)?;
        let mut sites = Vec::new();
        let mut seen = HashSet::new();
        while page != 0 {
            if !seen.insert(page) || seen.len() > MAX_FTRACE_PAGES {
                return None;
            }
            let fields = self.bytes(page, FTRACE_PAGE)?;
            let word = |at: usize| Some(u64::from_le_bytes(fields.get(at..at + 8)?.try_into().ok()?));
            let (next, records, numbers) = (word(0)?, word(8)?, word(16)?);
            let (used, order) = (numbers as u32 as usize, numbers >> 32);
            // A group fills at most the pages that its order says.
            if order > 10 || used * FTRACE_RECORD > 4096 << order {
                return None;
            }
            let records = self.bytes(records, used * FTRACE_RECORD)?;
            let start = sites.len();
            let addresses = records.as_chunks::<FTRACE_RECORD>().0.iter();
            sites
                .extend(addresses.map(|[a, b, c, d, e, f, g, h, ..]| {
                    u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h])
                }));
            let group = &sites[start..];
            let kernel = group.iter().all(|site| (text..text_end).contains(site));
            if !group.is_sorted() || start == 0 && !kernel {
                return None;
            }
            page = next;
        }
        sites.sort_unstable();
        (!sites.is_empty()).then_some(sites)
    }
}

/// Addresses of the tables, from kallsyms.
struct Marks {
    /// Start and end of `__ksymtab`, and of `__kcrctab`; then those of the GPL-only ones.
    exports: [[Option<u64>; 4]; 2],
    ftrace_pages: Option<u64>,
    text: Option<u64>,
    text_end: Option<u64>,
}

impl Marks {
    fn find(kallsyms: &Kallsyms) -> Self {
        const NAMES: [&str; 11] = [
            "__start___ksymtab",
            "__stop___ksymtab",
            "__start___kcrctab",
            "__stop___kcrctab",
            "__start___ksymtab_gpl",
            "__stop___ksymtab_gpl",
            "__start___kcrctab_gpl",
            "__stop___kcrctab_gpl",
            "ftrace_pages_start",
            "_stext",
            "_etext",
        ];
        let found = kallsyms.select(&NAMES.into_iter().collect());
        let address = |index: usize| {
            let mut symbols = found.iter().filter(|symbol| symbol.name == NAMES[index]);
            // A name that stands twice marks nothing.
            symbols.next().filter(|_| symbols.next().is_none()).map(|symbol| symbol.address)
        };
        Self {
            exports: [[0, 1, 2, 3].map(address), [4, 5, 6, 7].map(address)],
            ftrace_pages: address(8),
            text: address(9),
            text_end: address(10),
        }
    }
}

fn read_at(file: &File, offset: u64, size: usize) -> Option<Vec<u8>> {
    let mut data = vec![0; size];
    file.read_exact_at(&mut data, offset).ok()?;
    Some(data)
}

/// The text of the note `VMCOREINFO`.
fn vmcoreinfo_in(notes: &[u8]) -> Option<String> {
    let mut rest = notes;
    loop {
        let (words, _) = rest.split_first_chunk::<12>()?;
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| words[at + byte])) as usize;
        let (name_size, size) = (word(0), word(4));
        let start = 12 + name_size.next_multiple_of(4);
        let description = rest.get(start..start.checked_add(size)?)?;
        if rest.get(12..12 + name_size)? == b"VMCOREINFO\0" {
            return Some(String::from_utf8_lossy(description).into_owned());
        }
        rest = rest.get(start + size.next_multiple_of(4)..)?;
    }
}
