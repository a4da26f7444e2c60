//! Fixtures: modules compiled from `tests/modules/*/module.c` when a test runs.
//!
//! Kernel headers are not needed: `livepatch.h` declares the few structures. A first line `/* flags: … */` adds
//! flags for the compiler.

#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod fix;
pub(crate) mod kernel;
pub(crate) mod mutant;

use std::path::{Path, PathBuf};
use std::process::Command;

use patch_tools::module::Module;

/// The directory with the sources.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/modules")
}

/// Names of all fixtures.
pub(crate) fn fixtures() -> Vec<String> {
    let entries = std::fs::read_dir(sources()).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The bytes of a fixture, compiled the way kernel code is.
pub(crate) fn compile(name: &str) -> Vec<u8> {
    let source = sources().join(name).join("module.c");
    let text = std::fs::read_to_string(&source).unwrap();
    let own = text.lines().next().and_then(|line| line.strip_prefix("/* flags: ")).unwrap_or_default();
    let directory = tempfile::tempdir().unwrap();
    let object = directory.path().join("module.o");
    let output = Command::new("gcc")
        .args(["-c", "-O2", "-g0", "-ffreestanding", "-fno-pic", "-fno-pie", "-mcmodel=kernel"])
        .args(["-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables"])
        .args(own.trim_end_matches(" */").split_whitespace())
        .arg("-I")
        .arg(sources())
        .arg("-o")
        .arg(&object)
        .arg(&source)
        .output()
        .expect("gcc is needed to compile the fixtures");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(object).unwrap()
}

/// A fixture, read.
pub(crate) fn module(name: &str) -> Module {
    Module::parse(&compile(name)).unwrap()
}

/// Turns `.rela.text.replacement` into a livepatch relocation section and its symbol into a livepatch symbol.
pub(crate) fn with_klp_relocations() -> Vec<u8> {
    use object::LittleEndian as LE;
    use object::elf::{FileHeader64, SHT_RELA, SHT_SYMTAB, SectionHeader64, Sym64};
    use object::pod;

    let mut data = compile("klp-relocations");
    let (old, new) = (b".rela.text.replacement", b".klp.rela.vmlinux.text");
    let name = data.windows(old.len()).position(|window| window == old).unwrap();
    data[name..name + old.len()].copy_from_slice(new);
    let helper = b"proc_cmdline_helper_2";
    let name = data.windows(helper.len()).position(|window| window == helper).unwrap();
    data[name + helper.len() - 2] = b',';
    let (header, _) = pod::from_bytes::<FileHeader64<LE>>(&data).unwrap();
    let (table, count) = (header.e_shoff.get(LE) as usize, usize::from(header.e_shnum.get(LE)));
    let (sections, _) = pod::slice_from_bytes::<SectionHeader64<LE>>(&data[table..], count).unwrap();
    let sections = sections.to_vec();
    let symbols = sections.iter().find(|section| section.sh_type.get(LE) == SHT_SYMTAB).unwrap();
    let strings = sections[symbols.sh_link.get(LE) as usize].sh_offset.get(LE) as usize;
    let (symbols, size) = (symbols.sh_offset.get(LE) as usize, symbols.sh_size.get(LE) as usize);
    for index in 0..size / size_of::<Sym64<LE>>() {
        let at = symbols + index * size_of::<Sym64<LE>>();
        let (symbol, _) = pod::from_bytes_mut::<Sym64<LE>>(&mut data[at..]).unwrap();
        let name = strings + symbol.st_name.get(LE) as usize;
        if data[name..].starts_with(b".klp.sym.") {
            let (symbol, _) = pod::from_bytes_mut::<Sym64<LE>>(&mut data[at..]).unwrap();
            symbol.st_shndx.set(LE, 0xff20);
        }
    }
    let names =
        sections[usize::from(pod::from_bytes::<FileHeader64<LE>>(&data).unwrap().0.e_shstrndx.get(LE))];
    let names = names.sh_offset.get(LE) as usize;
    for index in 0..count {
        let at = table + index * size_of::<SectionHeader64<LE>>();
        let (section, _) = pod::from_bytes::<SectionHeader64<LE>>(&data[at..]).unwrap();
        let name = names + section.sh_name.get(LE) as usize;
        if section.sh_type.get(LE) == SHT_RELA && data[name..].starts_with(b".klp.rela.") {
            let (section, _) = pod::from_bytes_mut::<SectionHeader64<LE>>(&mut data[at..]).unwrap();
            let flags = section.sh_flags.get(LE);
            section.sh_flags.set(LE, flags | 0x0010_0002);
        }
    }
    data
}
