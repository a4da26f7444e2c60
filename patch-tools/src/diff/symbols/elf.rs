//! The symbol table of an ELF file: a `vmlinux` or a module.

use object::elf::{ET_REL, STB_LOCAL, STB_WEAK, STT_FILE, STT_SECTION};

use super::{Binding, NewSymbol, SymbolKind, SymbolTable, SymbolsError};
use crate::elf::{Elf, Place};
use crate::module::ObjectName;

impl SymbolTable {
    /// Reads the symbol table of an ELF file: of a kernel, or of `object`, or the module that its modinfo names.
    ///
    /// What kallsyms leaves out does not count for positions and is left out here: undefined and absolute
    /// symbols, sections and files, and for a module the symbols of sections that are freed after loading.
    pub fn read_elf(&mut self, bytes: &[u8], object: &ObjectName) -> Result<(), SymbolsError> {
        self.read_elf_placed(bytes, object, &|_| Some(0))
    }

    /// The same of a module whose sections have been given addresses, so that those of its symbols can be
    /// compared with [`Options::addresses`](crate::diff::Options::addresses). `start` has the address of a
    /// section by its index; symbols of a section without one are left out.
    pub(crate) fn read_elf_placed(
        &mut self,
        bytes: &[u8],
        object: &ObjectName,
        start: &dyn Fn(usize) -> Option<u64>,
    ) -> Result<(), SymbolsError> {
        let elf = Elf::parse(bytes)?;
        // Modules are relocatable files; a linked one is the kernel.
        let object = match elf.elf_type() {
            ET_REL => module_name(&elf).unwrap_or_else(|| object.clone()),
            _ => ObjectName::Vmlinux,
        };
        let is_module = object != ObjectName::Vmlinux;
        let mut file = None;
        let mut symbols = Vec::new();
        for symbol in elf.symbols() {
            if symbol.kind == STT_FILE {
                file = Some(symbol.name);
                continue;
            }
            let Place::Section(index) = symbol.place else { continue };
            let (Some(section), Some(start)) = (elf.sections().get(index), start(index)) else { continue };
            let freed = is_module && section.name.starts_with(".init");
            if symbol.kind == STT_SECTION || symbol.name.is_empty() || !section.is_allocated() || freed {
                continue;
            }
            if symbol.name.starts_with(".L") || symbol.name.starts_with("__crc_") {
                continue;
            }
            let binding = match symbol.binding {
                STB_LOCAL => Binding::Local,
                STB_WEAK => Binding::Weak,
                _ => Binding::Global,
            };
            symbols.push(NewSymbol {
                name: symbol.name,
                address: start.wrapping_add(symbol.value),
                size: Some(symbol.size),
                kind: if section.is_executable() { SymbolKind::Text } else { SymbolKind::Data },
                binding,
                file: file.filter(|_| binding == Binding::Local),
            });
        }
        if symbols.is_empty() {
            return Err(SymbolsError::Empty(object));
        }
        if let Some(depends) = modinfo(&elf, "depends=").filter(|_| is_module) {
            let names = depends.split(',').filter(|name| !name.is_empty());
            let needs = names.map(|name| ObjectName::Module(name.replace('-', "_"))).collect();
            self.needs.entry(object.clone()).or_insert(needs);
        }
        self.add(&object, symbols)
    }
}

/// The `name=` of a module's modinfo.
fn module_name(elf: &Elf<'_>) -> Option<ObjectName> {
    Some(ObjectName::Module(modinfo(elf, "name=")?.to_owned()))
}

/// The value of a key, which is given with its `=`, in a module's modinfo.
fn modinfo<'d>(elf: &Elf<'d>, key: &str) -> Option<&'d str> {
    let modinfo = elf.section(".modinfo")?;
    let mut entries = modinfo.data.split(|&byte| byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(key.as_bytes()))?;
    std::str::from_utf8(value).ok()
}
