//! A small kernel image: an ELF file with the tables that the reader looks for, in a bzImage.
//!
//! The encoder follows `scripts/kallsyms.c` with tokens of one character, so that the reader meets every part
//! of the format without a kernel of 66 MB.

use std::io::Write as _;

use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind};

/// Addresses of the small kernel.
pub(crate) const TEXT: u64 = 0xffff_ffff_8100_0000;
pub(crate) const RELEASE: &str = "6.1.0-50-amd64";

/// Distances of tables from the start of the text.
const SITES: u64 = 0x30000;
const FTRACE: u64 = 0x38000;
const KSYMTAB: u64 = 0x40000;
const KCRCTAB: u64 = 0x48000;
const STRINGS: u64 = 0x50000;
const RODATA: u64 = 0x100_0000;

/// Order and rule of the kallsyms tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kallsyms {
    /// Up to 6.1.
    Classic,
    /// 6.2, and 6.1 as Debian ships it: sequence numbers before the tokens.
    WithSequences,
    /// From 6.4 on: offsets behind the token index.
    OffsetsLast,
    /// 7.3: offsets from their own places, and everything aligned to 4 bytes.
    FromPlaces,
}

/// Compressions of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    None,
    Gzip,
    Xz,
    Lzma,
    Zstd,
    Lz4,
}

/// Symbols as letter, name and distance from the start of the text.
pub(crate) fn symbols() -> Vec<(char, String, u64)> {
    let mut symbols = vec![
        ('T', "_stext".to_owned(), 0),
        ('t', "cmdline_proc_show".to_owned(), 0x100),
        ('t', "notrace_function".to_owned(), 0x140),
        ('T', "klp_enable_patch".to_owned(), 0x200),
        ('T', "helper".to_owned(), 0x240),
        ('t', "twin".to_owned(), 0x300),
        ('t', "twin".to_owned(), 0x400),
        ('T', "_etext".to_owned(), 0x7000),
        ('d', "some_data".to_owned(), 0x8000),
    ];
    // More than two groups of 256, and one name with a length of two bytes.
    for index in 0..600 {
        symbols.push(('t', format!("filler_{index}"), 0x10000 + index * 32));
    }
    symbols.push(('T', format!("long_{}", "x".repeat(300)), 0x20000));
    for (name, distance) in [
        ("__start_mcount_loc", SITES),
        ("__stop_mcount_loc", SITES + 8 * TRACEABLE.len() as u64),
        ("ftrace_pages_start", FTRACE),
        ("__start___ksymtab", KSYMTAB),
        ("__stop___ksymtab", KSYMTAB + 24),
        ("__start___ksymtab_gpl", KSYMTAB + 24),
        ("__stop___ksymtab_gpl", KSYMTAB + 24),
        ("__start___kcrctab", KCRCTAB),
        ("__stop___kcrctab", KCRCTAB + 8),
        ("__start___kcrctab_gpl", KCRCTAB + 8),
        ("__stop___kcrctab_gpl", KCRCTAB + 8),
    ] {
        symbols.push(('D', name.to_owned(), distance));
    }
    symbols
}

/// Distances of functions with an ftrace location.
pub(crate) const TRACEABLE: [u64; 5] = [0x100, 0x200, 0x240, 0x304, 0x400];

fn align(data: &mut Vec<u8>, to: usize) {
    data.resize(data.len().next_multiple_of(to), 0);
}

/// The tables at an address, and where each starts in them by the name that vmcoreinfo gives it.
fn kallsyms(order: Kallsyms, address: u64) -> (Vec<u8>, Vec<(&'static str, usize)>) {
    let alignment = if order == Kallsyms::FromPlaces { 4 } else { 8 };
    let mut places = Vec::new();
    let symbols = symbols();
    let mut names = Vec::new();
    let mut markers = Vec::new();
    for (index, (letter, name, _)) in symbols.iter().enumerate() {
        if index % 256 == 0 {
            markers.push(names.len() as u32);
        }
        let text = format!("{letter}{name}");
        match text.len() {
            length @ 0..=0x7f => names.push(length as u8),
            length => names.extend([length as u8 & 0x7f | 0x80, (length >> 7) as u8]),
        }
        names.extend(text.bytes());
    }
    // With the per-CPU rule, the first value is an absolute one.
    let mut offsets: Vec<u8> = Vec::new();
    for (_, _, distance) in &symbols {
        offsets.extend((-1 - *distance as i32).to_le_bytes());
    }
    let base = |data: &mut Vec<u8>, places: &mut Vec<_>| {
        align(data, 8);
        places.push(("kallsyms_offsets", data.len()));
        data.extend(offsets.iter());
        align(data, 8);
        places.push(("kallsyms_relative_base", data.len()));
        data.extend(TEXT.to_le_bytes());
    };
    let mut data = b"something before".to_vec();
    if matches!(order, Kallsyms::Classic | Kallsyms::WithSequences) {
        base(&mut data, &mut places);
    }
    align(&mut data, alignment);
    places.push(("kallsyms_num_syms", data.len()));
    data.extend((symbols.len() as u32).to_le_bytes());
    align(&mut data, alignment);
    places.push(("kallsyms_names", data.len()));
    data.extend(&names);
    align(&mut data, alignment);
    for marker in markers {
        data.extend(marker.to_le_bytes());
    }
    align(&mut data, alignment);
    if order == Kallsyms::WithSequences {
        for index in 0..symbols.len() as u32 {
            data.extend(&index.to_be_bytes()[1..]);
        }
        align(&mut data, 8);
    }
    let mut index = Vec::new();
    let start = data.len();
    places.push(("kallsyms_token_table", start));
    for token in 0..=255_u8 {
        index.extend(((data.len() - start) as u16).to_le_bytes());
        if token.is_ascii_graphic() {
            data.push(token);
        }
        data.push(0);
    }
    align(&mut data, alignment);
    places.push(("kallsyms_token_index", data.len()));
    data.extend(index);
    if order == Kallsyms::OffsetsLast {
        base(&mut data, &mut places);
    }
    if order == Kallsyms::FromPlaces {
        places.push(("kallsyms_offsets", data.len()));
        for (_, _, distance) in &symbols {
            let place = address + data.len() as u64;
            data.extend(((TEXT + distance).wrapping_sub(place) as i32).to_le_bytes());
        }
    }
    (data, places)
}

/// A BTF section with one structure of each kind that the livepatch layout needs.
fn btf() -> Vec<u8> {
    let mut strings = vec![0];
    let mut types: Vec<u8> = Vec::new();
    let mut string = |text: &str| {
        let at = strings.len() as u32;
        strings.extend(text.bytes());
        strings.push(0);
        at
    };
    let mut words = |list: &[u32]| list.iter().for_each(|word| types.extend(word.to_le_bytes()));
    // 1: unsigned long; 2: void *; 3..5: the structures.
    words(&[string("long unsigned int"), 1 << 24, 8, 64]);
    words(&[0, 2 << 24, 0]);
    for (name, size) in [("klp_object", 176), ("klp_func", 160), ("klp_state", 24)] {
        words(&[string(name), 4 << 24 | 2, size, string("first"), 2, 0, string("second"), 1, 64]);
    }
    let mut data = Vec::new();
    data.extend(0xeb9f_u16.to_le_bytes());
    data.extend([1, 0]);
    for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
        data.extend(word.to_le_bytes());
    }
    data.extend(types);
    data.extend(strings);
    data
}

/// `ftrace_pages_start` and the one group of records that it leads to.
fn ftrace_pages() -> Vec<u8> {
    let group = TEXT + FTRACE + 16;
    let records = TEXT + FTRACE + 64;
    let mut words = vec![group, 0, 0, records, TRACEABLE.len() as u64, 0, 0, 0];
    words.extend(TRACEABLE.iter().flat_map(|distance| [TEXT + distance, 0]));
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `__ksymtab`, `__kcrctab` and `__ksymtab_strings` for two symbols, with the addresses given.
fn exports(table: u64, strings_at: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut strings = vec![0];
    let (mut entries, mut crcs) = (Vec::new(), Vec::new());
    for (name, namespace, crc) in
        [("helper", "", 0x1111_2222_u32), ("klp_enable_patch", "SPACE", 0xb27d_e5fe)]
    {
        for text in ["", name, namespace] {
            let distance = match text {
                "" if entries.len() % 12 == 0 => 0,
                text => {
                    let target = strings_at + strings.len() as u64;
                    strings.extend(text.bytes());
                    strings.push(0);
                    target.wrapping_sub(table + entries.len() as u64) as u32
                }
            };
            entries.extend(distance.to_le_bytes());
        }
        crcs.extend(crc.to_le_bytes());
    }
    (entries, crcs, strings)
}

/// The ELF file of a small kernel.
pub(crate) fn vmlinux(order: Kallsyms) -> Vec<u8> {
    let mut text = vec![0xcc; 0x500];
    for distance in TRACEABLE {
        let at = distance as usize;
        text[at..at + 5].copy_from_slice(&[0xe8, 0, 0, 0, 0]);
    }
    let sites: Vec<u8> = TRACEABLE.iter().flat_map(|distance| (TEXT + distance).to_le_bytes()).collect();
    let mut rodata = format!(
        "Linux version %s\0Linux version {RELEASE} (builder@example) #1 SMP\n\0\
         {RELEASE} SMP preempt mod_unload modversions \0"
    )
    .into_bytes();
    align(&mut rodata, 64);
    rodata.extend(kallsyms(order, TEXT + RODATA + rodata.len() as u64).0);
    let mut note = Vec::new();
    for word in [4_u32, 20, 3] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"GNU\0");
    note.extend([0xab; 20]);
    let (entries, crcs, names) = exports(TEXT + KSYMTAB, TEXT + STRINGS);
    let parts: [(&str, SectionKind, u64, Vec<u8>); 10] = [
        (".text", SectionKind::Text, TEXT, text),
        (".rodata", SectionKind::ReadOnlyData, TEXT + RODATA, rodata),
        (".notes", SectionKind::Note, TEXT + 0x60000, note),
        ("__ksymtab", SectionKind::ReadOnlyData, TEXT + KSYMTAB, entries),
        ("__kcrctab", SectionKind::ReadOnlyData, TEXT + KCRCTAB, crcs),
        ("__ksymtab_strings", SectionKind::ReadOnlyData, TEXT + STRINGS, names),
        (".BTF", SectionKind::ReadOnlyData, TEXT + 0x70000, btf()),
        (".init.data", SectionKind::Data, TEXT + SITES, sites),
        (".data", SectionKind::Data, TEXT + FTRACE, ftrace_pages()),
        (".bss", SectionKind::UninitializedData, TEXT + 0x80000, Vec::new()),
    ];
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    for (name, kind, _, data) in &parts {
        let segment = object.segment_name(StandardSegment::Data).to_vec();
        let section = object.add_section(segment, name.as_bytes().to_vec(), *kind);
        match kind {
            SectionKind::UninitializedData => object.append_section_bss(section, 0x100, 8),
            _ => object.append_section_data(section, data, 64),
        };
    }
    let mut file = object.write().unwrap();
    set_addresses(&mut file, &parts.map(|(name, _, address, _)| (name, address)));
    file
}

/// Sets what the writer of relocatable files leaves zero.
fn set_addresses(file: &mut [u8], addresses: &[(&str, u64)]) {
    use object::LittleEndian as LE;
    use object::elf::{ET_EXEC, FileHeader64, SectionHeader64};
    use object::pod;
    let (header, _) = pod::from_bytes_mut::<FileHeader64<LE>>(file).unwrap();
    header.e_type.set(LE, ET_EXEC);
    let (table, count) = (header.e_shoff.get(LE) as usize, usize::from(header.e_shnum.get(LE)));
    let names = usize::from(header.e_shstrndx.get(LE));
    let at = |index: usize| table + index * size_of::<SectionHeader64<LE>>();
    let read = |file: &[u8], index| *pod::from_bytes::<SectionHeader64<LE>>(&file[at(index)..]).unwrap().0;
    let names = read(file, names).sh_offset.get(LE) as usize;
    for index in 0..count {
        let section = read(file, index);
        let name = &file[names + section.sh_name.get(LE) as usize..];
        let name = &name[..name.iter().position(|byte| *byte == 0).unwrap()];
        let address = addresses.iter().find(|(wanted, _)| wanted.as_bytes() == name);
        if let Some((_, address)) = address {
            let (section, _) = pod::from_bytes_mut::<SectionHeader64<LE>>(&mut file[at(index)..]).unwrap();
            section.sh_addr.set(LE, *address);
        }
    }
}

/// The payload of a bzImage: compressed, with the size appended where the build appends it.
fn pack(kernel: &[u8], packing: Packing) -> Vec<u8> {
    use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
    let lzma = |stream: Stream| {
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(kernel).unwrap();
        encoder.finish().unwrap()
    };
    let options = LzmaOptions::new_preset(1).unwrap();
    let mut payload = match packing {
        Packing::None => kernel.to_vec(),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(kernel).unwrap();
            return encoder.finish().unwrap();
        }
        Packing::Xz => {
            let mut filters = Filters::new();
            filters.x86().lzma2(&options);
            lzma(Stream::new_stream_encoder(&filters, Check::Crc32).unwrap())
        }
        Packing::Lzma => lzma(Stream::new_lzma_encoder(&options).unwrap()),
        Packing::Zstd => zstd::encode_all(kernel, 1).unwrap(),
        Packing::Lz4 => {
            let mut payload = vec![0x02, 0x21, 0x4c, 0x18];
            for chunk in kernel.chunks(8 << 20) {
                let block = lz4_flex::block::compress(chunk);
                payload.extend((block.len() as u32).to_le_bytes());
                payload.extend(block);
            }
            payload
        }
    };
    payload.extend((kernel.len() as u32).to_le_bytes());
    payload
}

/// A bzImage around a kernel.
pub(crate) fn bzimage(kernel: &[u8], packing: Packing) -> Vec<u8> {
    let payload = pack(kernel, packing);
    // One setup sector behind the boot sector, then 32 bytes of code before the payload.
    let mut image = vec![0; 1024 + 32];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&32_u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    image.extend([0; 64]);
    image
}

/// The memory of that kernel, running, as `/proc/kcore` shows it: a note with vmcoreinfo, and what is loaded.
pub(crate) fn kcore(order: Kallsyms) -> Vec<u8> {
    use object::{Object as _, ObjectSection as _};
    let kernel = vmlinux(order);
    let kernel = object::File::parse(&kernel[..]).unwrap();
    // The tables stand behind the texts at the start of the section, aligned.
    let rodata = kernel.section_by_name(".rodata").unwrap();
    let (tables, places) = kallsyms(order, 0);
    let start = rodata.address() + rodata.size() - tables.len() as u64;
    let mut info = format!("OSRELEASE={RELEASE}\nSYMBOL(_stext)={TEXT:x}\n");
    for (name, place) in places {
        info.push_str(&format!("SYMBOL({name})={:x}\n", start + place as u64));
    }
    let mut note = Vec::new();
    for word in [11, info.len() as u32, 0] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"VMCOREINFO\0\0");
    note.extend(info.bytes());
    let loaded: Vec<_> =
        kernel.sections().filter(|section| section.address() != 0 && section.size() > 0).collect();
    let count = loaded.len() + 1;
    let mut file = vec![0; 64 + 56 * count];
    let mut header = |index: usize, kind: u32, address: u64, data: &[u8]| {
        let at = 64 + 56 * index;
        let offset = file.len() as u64;
        file[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        file[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        file[at + 16..at + 24].copy_from_slice(&address.to_le_bytes());
        for field in [32, 40] {
            file[at + field..at + field + 8].copy_from_slice(&(data.len() as u64).to_le_bytes());
        }
        file.extend(data);
    };
    header(0, object::elf::PT_NOTE, 0, &note);
    for (index, section) in loaded.iter().enumerate() {
        let mut data = section.data().unwrap().to_vec();
        // Names of exports are read with what stands around them, as there is in a real kernel.
        data.resize(data.len().max(0x2000), 0);
        header(index + 1, object::elf::PT_LOAD, section.address(), &data);
    }
    file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[54..56].copy_from_slice(&56_u16.to_le_bytes());
    file[56..58].copy_from_slice(&(count as u16).to_le_bytes());
    file
}
