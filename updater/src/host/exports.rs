//! The symbols that the running kernel exports, with their CRCs, read from its own memory.
//!
//! The image in `/boot` would tell the same, after seconds of decompression, if it is still there and
//! still the one that was booted. `/proc/kcore` shows the tables of the kernel that runs; they take
//! some tens of kilobytes. It needs `CAP_SYS_RAWIO` and no lockdown of confidentiality; where it
//! cannot be had, the reason is returned and the CRCs are left to the module loader.
//!
//! Tables: `struct kernel_symbol` and `__kcrctab*` of `include/linux/export.h`, between the symbols of
//! `include/asm-generic/vmlinux.lds.h`. Only the form with 32-bit distances is read
//! (`CONFIG_HAVE_ARCH_PREL32_RELOCATIONS`), with CRCs as plain numbers, as since Linux 5.19.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;
use patch_tools::check::KernelFacts;
use patch_tools::image::{ExportStrings, ExportTable, Exports, exports};
use patch_tools::module::Malformed;
use thiserror::Error;

/// More than the header and program headers of any `kcore`: one header for each range of memory.
const HEADERS: usize = 64 << 10;
/// More than all tables or all names of a kernel with everything built in.
const LARGEST: u64 = 16 << 20;
/// Longer than any name (`KSYM_NAME_LEN`): added behind the last one.
const LONGEST_NAME: u64 = 512;

/// Why the exported symbols are not known.
#[derive(Debug, Error)]
pub enum ExportsUnknown {
    /// The kernel lays its tables out in another way.
    #[error("the kernel is built without {0}")]
    Layout(&'static str),
    /// A symbol that bounds a table is missing, or its address is hidden.
    #[error("kallsyms shows no address for {0}")]
    Bound(&'static str),
    /// Bounds that cannot be those of a table.
    #[error("a table from {:#x} to {:#x} is not plausible", .0.start, .0.end)]
    Implausible(Range<u64>),
    /// The kernel's memory cannot be read.
    #[error("cannot read the memory of the kernel")]
    Memory(#[from] io::Error),
    /// `kcore` is not the core file it should be.
    #[error("kcore cannot be understood")]
    Core(#[from] goblin::error::Error),
    /// No segment of `kcore` holds the address.
    #[error("kcore does not hold address {0:#x}")]
    Address(u64),
    /// The tables do not follow their format.
    #[error("the tables of exported symbols are malformed")]
    Malformed(#[from] Malformed),
}

/// Reads the tables of the running kernel, below `root`.
///
/// # Errors
/// [`ExportsUnknown`].
pub(super) fn running(root: &Path, facts: &KernelFacts) -> Result<Exports, ExportsUnknown> {
    let is_set = |option| facts.config.as_ref().is_some_and(|config| config.is_set(option));
    for option in ["CONFIG_HAVE_ARCH_PREL32_RELOCATIONS", "CONFIG_MODVERSIONS"] {
        if !is_set(option) {
            return Err(ExportsUnknown::Layout(option));
        }
    }
    if is_set("CONFIG_MODULE_REL_CRCS") {
        return Err(ExportsUnknown::Layout("CRCs as plain numbers"));
    }
    let core = Core::open(&root.join("proc/kcore"))?;
    let bounds = Bounds::find(facts);
    let mut read = Vec::new();
    for [entries_from, entries_to, crcs_from, crcs_to] in TABLES {
        let entries = bounds.between(entries_from, entries_to)?;
        let crcs = bounds.between(crcs_from, crcs_to)?;
        read.push((entries.start, core.read(entries)?, core.read(crcs)?));
    }
    let tables: Vec<ExportTable<'_>> = read
        .iter()
        .map(|(address, entries, crcs)| ExportTable { position: *address, address: *address, entries, crcs })
        .collect();
    let (first, last) = tables
        .iter()
        .flat_map(ExportTable::names)
        .fold((u64::MAX, 0), |(first, last): (u64, u64), name| (first.min(name), last.max(name)));
    let names = plausible(first..last.saturating_add(LONGEST_NAME))?;
    let strings = core.read(names.clone())?;
    Ok(exports(&tables, ExportStrings { address: names.start, data: &strings })?)
}

/// First and last bound of the entries and of the CRCs.
const TABLES: [[&str; 4]; 2] = [
    ["__start___ksymtab", "__stop___ksymtab", "__start___kcrctab", "__stop___kcrctab"],
    ["__start___ksymtab_gpl", "__stop___ksymtab_gpl", "__start___kcrctab_gpl", "__stop___kcrctab_gpl"],
];

/// Where the tables begin and end.
struct Bounds(patch_tools::check::FoundSymbols);

impl Bounds {
    fn find(facts: &KernelFacts) -> Self {
        Self(facts.symbols.find(&TABLES.iter().flatten().copied().collect()))
    }

    fn between(&self, from: &'static str, to: &'static str) -> Result<Range<u64>, ExportsUnknown> {
        plausible(self.address(from)?..self.address(to)?)
    }

    fn address(&self, name: &'static str) -> Result<u64, ExportsUnknown> {
        let symbol = self.0.named(name).first().filter(|symbol| symbol.address != 0);
        symbol.map(|symbol| symbol.address).ok_or(ExportsUnknown::Bound(name))
    }
}

fn plausible(range: Range<u64>) -> Result<Range<u64>, ExportsUnknown> {
    let length = range.end.checked_sub(range.start);
    length.filter(|length| *length <= LARGEST).ok_or(ExportsUnknown::Implausible(range.clone()))?;
    Ok(range)
}

/// The kernel's memory as an ELF core file (`Documentation/filesystems/proc.rst`).
struct Core {
    file: File,
    /// Addresses and where they are in the file.
    segments: Vec<(Range<u64>, u64)>,
}

impl Core {
    fn open(path: &Path) -> Result<Self, ExportsUnknown> {
        let file = File::open(path)?;
        let mut headers = vec![0; HEADERS];
        let length = read_up_to(&file, &mut headers)?;
        headers.truncate(length);
        let header = Elf::parse_header(&headers)?;
        let context = goblin::container::Ctx::new(header.container()?, header.endianness()?);
        let offset = usize::try_from(header.e_phoff).unwrap_or(usize::MAX);
        let count = usize::from(header.e_phnum);
        let headers = goblin::elf::ProgramHeader::parse(&headers, offset, count, context)?;
        let segments = headers
            .iter()
            .filter(|segment| segment.p_type == PT_LOAD)
            .map(|segment| {
                (segment.p_vaddr..segment.p_vaddr.saturating_add(segment.p_filesz), segment.p_offset)
            })
            .collect();
        Ok(Self { file, segments })
    }

    fn read(&self, addresses: Range<u64>) -> Result<Vec<u8>, ExportsUnknown> {
        let held = |range: &Range<u64>| range.start <= addresses.start && addresses.end <= range.end;
        let (segment, offset) = self
            .segments
            .iter()
            .find(|(range, _)| held(range))
            .ok_or(ExportsUnknown::Address(addresses.start))?;
        let length = usize::try_from(addresses.end - addresses.start).unwrap_or_default();
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset + (addresses.start - segment.start))?;
        Ok(bytes)
    }
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match file.read_at(&mut buffer[length..], length as u64)? {
            0 => return Ok(length),
            more => length += more,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address of the first byte of the pretended kernel's memory.
    const BASE: u64 = 0xffff_ffff_8100_0000;

    /// A kernel with `one` (CRC 1) and `two` (CRC 2, namespace `NS`), in two tables.
    struct Kernel {
        directory: tempfile::TempDir,
    }

    impl Kernel {
        fn new(config: &str) -> Self {
            let kernel = Self { directory: tempfile::tempdir().unwrap() };
            // 0: __ksymtab, 12: __ksymtab_gpl, 24: __kcrctab, 28: __kcrctab_gpl, 32: strings.
            let mut memory = Vec::new();
            for word in [100, 32 - 4, 0, 100, 36 - 16, 40 - 20, 1, 2] {
                memory.extend(i32::to_le_bytes(word));
            }
            memory.extend(b"one\0two\0NS\0");
            memory.resize(4096, 0);
            kernel.file("proc/kcore", &core(&memory));
            kernel.file("proc/sys/kernel/osrelease", b"6.1.0-50-amd64\n");
            kernel.file("boot/config-6.1.0-50-amd64", config.as_bytes());
            kernel.symbols(BASE);
            kernel
        }

        fn file(&self, path: &str, content: &[u8]) {
            let path = self.directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }

        fn symbols(&self, base: u64) {
            let places = [0, 12, 24, 28, 12, 24, 28, 32];
            let names = TABLES.iter().flatten().zip(places);
            let text: String =
                names.map(|(name, place)| format!("{:016x} R {name}\n", base + place)).collect();
            self.file("proc/kallsyms", text.as_bytes());
        }

        fn exports(&self) -> Result<Exports, ExportsUnknown> {
            let root = self.directory.path();
            running(root, &KernelFacts::from_running(root).unwrap())
        }
    }

    /// An ELF core file with one segment at [`BASE`].
    fn core(memory: &[u8]) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend([4u16, 62].iter().flat_map(|half| half.to_le_bytes()));
        file.extend(1u32.to_le_bytes());
        file.extend([0u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        file.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
        file.extend([PT_LOAD, 7].iter().flat_map(|half| half.to_le_bytes()));
        let size = memory.len() as u64;
        file.extend([120u64, BASE, 0, size, size, 4096].iter().flat_map(|word| word.to_le_bytes()));
        file.extend(memory);
        file
    }

    const MODVERSIONS: &str = "CONFIG_HAVE_ARCH_PREL32_RELOCATIONS=y\nCONFIG_MODVERSIONS=y\n";

    #[test]
    fn names_crcs_and_namespaces_come_from_the_kernels_memory() {
        let exports = Kernel::new(MODVERSIONS).exports().unwrap();
        assert_eq!(exports.len(), 2);
        assert_eq!(exports["one"].crc, Some(1));
        assert_eq!(exports["two"].crc, Some(2));
        assert_eq!(exports["two"].namespace.as_deref(), Some("NS"));
    }

    #[test]
    fn a_kernel_with_other_tables_is_not_read() {
        for config in ["", "CONFIG_MODVERSIONS=y\n", &format!("{MODVERSIONS}CONFIG_MODULE_REL_CRCS=y\n")] {
            assert!(matches!(Kernel::new(config).exports(), Err(ExportsUnknown::Layout(_))), "{config:?}");
        }
    }

    #[test]
    fn hidden_addresses_are_not_taken_for_a_place() {
        let kernel = Kernel::new(MODVERSIONS);
        let hidden: String = TABLES.iter().flatten().map(|name| format!("{:016x} R {name}\n", 0)).collect();
        kernel.file("proc/kallsyms", hidden.as_bytes());
        assert!(matches!(kernel.exports(), Err(ExportsUnknown::Bound(_))));
    }

    #[test]
    fn memory_that_kcore_does_not_hold_or_cut_short_is_an_answer_not_a_panic() {
        let kernel = Kernel::new(MODVERSIONS);
        kernel.symbols(BASE + 4096);
        assert!(matches!(kernel.exports(), Err(ExportsUnknown::Address(_))));
        let kernel = Kernel::new(MODVERSIONS);
        let whole = std::fs::read(kernel.directory.path().join("proc/kcore")).unwrap();
        for length in 0..300 {
            kernel.file("proc/kcore", &whole[..length]);
            assert!(kernel.exports().is_err(), "{length} bytes");
        }
    }
}
