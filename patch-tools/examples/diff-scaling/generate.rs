//! A generator of objects that look like compiled kernel code.
//!
//! Each function has its own section with an fentry call, a few calls, a reference to a variable and to a
//! string, a warning with its entry in `__bug_table`, and a return through the thunk with its entry in
//! `.return_sites`; one function in eight has a cold part; each has ORC entries. That is about what a function
//! of `fs/` weighs.

use std::borrow::Cow;

use object::elf::{
    R_X86_64_32S, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE,
    SHF_STRINGS, SHF_WRITE, SHT_NOBITS, SHT_PROGBITS, STB_GLOBAL, STB_LOCAL, STT_FILE, STT_FUNC, STT_NOTYPE,
    STT_OBJECT, STT_SECTION,
};
use patch_tools::klp::write::{
    Contents, NewPlace, NewRelocation, NewSection, NewSymbol, RelocationTable, write,
};

/// Which of the two objects of a pair.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Original,
    /// One function in a hundred changed, one is new.
    Patched,
    /// Every function changed, one is new.
    Rewritten,
}

/// The symbols that stand first in every object.
const FENTRY: usize = 0;
const THUNK: usize = 1;
const PRINTK: usize = 2;
const WARN: usize = 3;

#[derive(Default)]
struct Object {
    sections: Vec<NewSection<'static>>,
    symbols: Vec<NewSymbol<'static>>,
    bugs: Table,
    returns: Table,
    mcount: Table,
    orc_places: Table,
    orc: Vec<u8>,
    first_string: i64,
}

#[derive(Default)]
struct Table {
    bytes: Vec<u8>,
    relocations: Vec<NewRelocation>,
}

impl Table {
    fn entry(&mut self, bytes: &[u8], relocations: &[(u64, u32, usize, i64)]) {
        let base = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        for &(offset, kind, symbol, addend) in relocations {
            self.relocations.push(NewRelocation {
                offset: base + offset,
                kind,
                symbol: Some(symbol),
                addend,
            });
        }
    }
}

/// Makes an object of `size` functions.
pub(crate) fn object(size: usize, version: Version) -> Vec<u8> {
    let mut object = Object::default();
    for name in ["__fentry__", "__x86_return_thunk", "_printk", "report_it"] {
        object.symbol(name, STT_NOTYPE, STB_GLOBAL, NewPlace::Undefined, 0);
    }
    object.symbol("synthetic.c", STT_FILE, STB_LOCAL, NewPlace::Absolute, 0);
    let strings = object.strings(size, version);
    let inserted = size / 2;
    for index in 0..size {
        if version != Version::Original && index == inserted {
            object.function("inserted", usize::MAX, strings, false);
        }
        let changed = match version {
            Version::Original => false,
            Version::Patched => index % 100 == 50,
            Version::Rewritten => true,
        };
        object.function(&format!("synthetic_function_{index}"), index, strings, changed);
    }
    object.finish()
}

impl Object {
    fn symbol(&mut self, name: &str, kind: u8, binding: u8, place: NewPlace, size: u64) -> usize {
        let name = Cow::Owned(name.to_owned());
        self.symbols.push(NewSymbol { name, kind, binding, other: 0, place, value: 0, size });
        self.symbols.len() - 1
    }

    /// Adds a section and its symbol; returns the symbol.
    fn section(
        &mut self,
        name: &str,
        kind: u32,
        flags: u32,
        bytes: Vec<u8>,
        zeros: u64,
        alignment: u64,
    ) -> usize {
        let contents =
            if kind == SHT_NOBITS { Contents::Zeros(zeros) } else { Contents::Bytes(Cow::Owned(bytes)) };
        self.sections.push(NewSection {
            name: Cow::Owned(name.to_owned()),
            kind,
            flags: u64::from(flags),
            alignment,
            entry_size: u64::from(flags & SHF_STRINGS != 0),
            link: None,
            contents,
            tables: Vec::new(),
        });
        let place = NewPlace::Section(self.sections.len() - 1);
        self.symbol("", STT_SECTION, STB_LOCAL, place, 0)
    }

    fn relocations(&mut self, entries: Vec<NewRelocation>) {
        if let Some(section) = self.sections.last_mut() {
            let name = Cow::Owned(format!(".rela{}", section.name));
            section.tables.push(RelocationTable { name, flags: 0, entries });
        }
    }

    /// One string for every four functions; the patched object has one more in front.
    fn strings(&mut self, size: usize, version: Version) -> usize {
        let mut bytes = Vec::new();
        if version != Version::Original {
            bytes.extend_from_slice(&[b'x'; STRING - 1]);
            bytes.push(0);
        }
        for index in 0..size / 4 + 1 {
            bytes.extend_from_slice(format!("number {index:<16}\n\0").as_bytes());
        }
        self.first_string = i64::from(version != Version::Original) * STRING as i64;
        self.section(".rodata.str1.1", SHT_PROGBITS, SHF_ALLOC | SHF_MERGE | SHF_STRINGS, bytes, 0, 1)
    }

    fn function(&mut self, name: &str, index: usize, strings: usize, changed: bool) {
        let is_new = index == usize::MAX;
        let number = if is_new { 0 } else { index };
        let data = (number % 4 == 0 && !is_new).then(|| {
            let variable = format!("variable_of_{index}");
            let symbol = self.section(
                &format!(".bss.{variable}"),
                SHT_NOBITS,
                SHF_ALLOC | SHF_WRITE,
                Vec::new(),
                8,
                8,
            );
            let place = NewPlace::Section(self.sections.len() - 1);
            self.symbol(&variable, STT_OBJECT, STB_LOCAL, place, 8);
            symbol
        });
        let mut code = Code::default();
        code.call(FENTRY);
        code.bytes(&[0x53, 0x48, 0x89, 0xfb]); // push %rbx; mov %rdi,%rbx
        if let Some(data) = data {
            code.bytes(&[0x8b, 0x05]); // mov variable(%rip),%eax
            code.reference(R_X86_64_PC32, data, -4);
        }
        code.bytes(&[0x48, 0xc7, 0xc7]); // mov $string,%rdi
        code.reference(R_X86_64_32S, strings, self.first_string + (number / 4 * STRING) as i64);
        code.bytes(&[0xbe, if changed { 2 } else { 1 }, 0, 0, 0]); // mov $1,%esi
        code.call(PRINTK);
        for step in 0..8_u8 {
            code.bytes(&[0x8b, 0x43, step * 4, 0x83, 0xc0, step, 0x89, 0x43, step * 4]); // load, add, store
        }
        code.call(WARN);
        let warning = code.bytes.len() as i64;
        code.bytes(&[0x0f, 0x0b, 0x5b]); // ud2; pop %rbx
        let exit = code.bytes.len() as i64;
        code.bytes(&[0xe9]); // jmp __x86_return_thunk
        code.reference(R_X86_64_PLT32, THUNK, -4);
        let size = code.bytes.len() as u64;
        let text = self.section(
            &format!(".text.{name}"),
            SHT_PROGBITS,
            SHF_ALLOC | SHF_EXECINSTR,
            code.bytes,
            0,
            16,
        );
        self.relocations(code.relocations);
        let place = NewPlace::Section(self.sections.len() - 1);
        self.symbol(name, STT_FUNC, if number % 3 == 0 { STB_GLOBAL } else { STB_LOCAL }, place, size);
        let file = (R_X86_64_PC32, strings, self.first_string);
        let line = (number as u16 % 4000).to_le_bytes();
        self.bugs.entry(
            &[0, 0, 0, 0, 0, 0, 0, 0, line[0], line[1], 1, 9],
            &[(0, R_X86_64_PC32, text, warning), (4, file.0, file.1, file.2)],
        );
        self.returns.entry(&[0; 4], &[(0, R_X86_64_PC32, text, exit)]);
        self.mcount.entry(&[0; 8], &[(0, R_X86_64_64, text, 0)]);
        for (place, state) in [(0, 8_u8), (6, 16), (exit, 8)] {
            self.orc_places.entry(&[0; 4], &[(0, R_X86_64_PC32, text, place)]);
            self.orc.extend_from_slice(&[state, 0, 0, 0, 5, 0]);
        }
        if number % 8 == 3 && !is_new {
            self.cold_part(name, text);
        }
    }

    fn cold_part(&mut self, name: &str, text: usize) {
        let mut code = Code::default();
        code.call(WARN);
        code.bytes(&[0xe9]); // jmp back
        code.reference(R_X86_64_PC32, text, 5);
        let size = code.bytes.len() as u64;
        let section = format!(".text.unlikely.{name}");
        self.section(&section, SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, code.bytes, 0, 1);
        self.relocations(code.relocations);
        let place = NewPlace::Section(self.sections.len() - 1);
        self.symbol(&format!("{name}.cold"), STT_FUNC, STB_LOCAL, place, size);
    }

    fn finish(mut self) -> Vec<u8> {
        let tables = [
            ("__bug_table", SHF_ALLOC | SHF_WRITE, std::mem::take(&mut self.bugs), 1),
            (".return_sites", SHF_ALLOC, std::mem::take(&mut self.returns), 1),
            ("__mcount_loc", SHF_ALLOC, std::mem::take(&mut self.mcount), 1),
            (".orc_unwind_ip", SHF_ALLOC, std::mem::take(&mut self.orc_places), 1),
        ];
        for (name, flags, table, alignment) in tables {
            self.section(name, SHT_PROGBITS, flags, table.bytes, 0, alignment);
            self.relocations(table.relocations);
        }
        let orc = std::mem::take(&mut self.orc);
        self.section(".orc_unwind", SHT_PROGBITS, SHF_ALLOC, orc, 0, 1);
        self.section(".comment", SHT_PROGBITS, SHF_MERGE | SHF_STRINGS, b"\0synthetic\0".to_vec(), 0, 1);
        write(&self.sections, &self.symbols)
    }
}

/// Length of each string with its end.
const STRING: usize = 25;

#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
    relocations: Vec<NewRelocation>,
}

impl Code {
    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn call(&mut self, symbol: usize) {
        self.bytes(&[0xe8]);
        self.reference(R_X86_64_PLT32, symbol, -4);
    }

    fn reference(&mut self, kind: u32, symbol: usize, addend: i64) {
        let offset = self.bytes.len() as u64;
        self.relocations.push(NewRelocation { offset, kind, symbol: Some(symbol), addend });
        self.bytes(&[0; 4]);
    }
}
