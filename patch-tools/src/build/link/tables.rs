//! Writes the object that makes a module this livepatch: `struct klp_patch` with its objects and functions, the
//! CRCs of imported symbols, and modinfo.
//!
//! Data only; the code beside it is the template's. Layouts: `include/linux/livepatch.h` by the template's
//! own measure, `struct modversion_info` of `include/linux/module.h`.

use std::collections::BTreeMap;

use manifests::{ModuleName, Replace};
use object::elf::{R_X86_64_64, SHF_ALLOC, SHF_WRITE};
use object::write::{Object, Relocation, SectionId, StandardSegment, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags,
    SymbolKind, SymbolScope,
};

use super::template::Layout;
use super::{Imports, ObjectPlan, Plan};
use crate::module::ObjectName;

/// `MODULE_NAME_LEN`: what remains for the symbol's name in an entry of 64 bytes.
const VERSION_ENTRY: usize = 64;

/// Writes the object for a plan.
pub(super) fn write(
    plan: &Plan,
    name: &ModuleName,
    layout: &Layout,
    imports: &Imports,
) -> Result<Vec<u8>, object::write::Error> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let mut tables = Tables {
        names: section(&mut object, ".rodata.livepatch_names", SectionKind::ReadOnlyData, 0),
        data: section(&mut object, ".data.livepatch_tables", SectionKind::Data, SHF_WRITE),
        symbols: BTreeMap::new(),
        object: &mut object,
    };
    tables.patch(plan, layout)?;
    let infos = section(&mut object, ".modinfo", SectionKind::ReadOnlyData, 0);
    let mut text = Vec::new();
    let fixed = [("depends", ""), ("name", name.as_str()), ("description", plan.description.as_str())];
    let namespaces = imports.namespaces.iter().map(|namespace| ("import_ns", namespace.as_str()));
    for (key, value) in fixed.into_iter().chain(namespaces) {
        text.extend(format!("{key}={value}\0").bytes());
    }
    object.append_section_data(infos, &text, 1);
    if !imports.crcs.is_empty() {
        let section = section(&mut object, "__versions", SectionKind::ReadOnlyData, 0);
        for (name, crc) in &imports.crcs {
            let mut entry = [0; VERSION_ENTRY];
            entry[..4].copy_from_slice(&crc.to_le_bytes());
            // Longer names cannot be versioned; the plan has refused them.
            let length = name.len().min(VERSION_ENTRY - 9);
            entry[8..8 + length].copy_from_slice(&name.as_bytes()[..length]);
            object.append_section_data(section, &entry, 32);
        }
    }
    object.write()
}

/// The longest symbol name that fits into an entry with its end.
pub(super) const LONGEST_VERSIONED: usize = VERSION_ENTRY - 8 - 1;

fn section(object: &mut Object<'_>, name: &str, kind: SectionKind, flags: u32) -> SectionId {
    let segment = object.segment_name(StandardSegment::Data).to_vec();
    let id = object.add_section(segment, name.as_bytes().to_vec(), kind);
    object.section_mut(id).flags = SectionFlags::Elf { sh_flags: u64::from(SHF_ALLOC | flags) };
    id
}

struct Tables<'o, 'd> {
    object: &'o mut Object<'d>,
    names: SectionId,
    data: SectionId,
    symbols: BTreeMap<String, SymbolId>,
}

impl Tables<'_, '_> {
    fn patch(&mut self, plan: &Plan, layout: &Layout) -> Result<(), object::write::Error> {
        let count = plan.objects.len();
        // One entry more, all zero, ends each table.
        let patch = self.zeroed(layout.patch);
        let objects = self.zeroed(layout.object * (count + 1));
        let this_module = self.undefined("__this_module");
        self.pointer(patch + layout.patch_mod, this_module, 0)?;
        let data = self.object.section_symbol(self.data);
        self.pointer(patch + layout.patch_objs, data, objects)?;
        if plan.replace == Replace::All {
            self.bytes(patch + layout.patch_replace, &[1]);
        }
        for (index, object) in plan.objects.iter().enumerate() {
            self.object(object, objects + layout.object * index, layout)?;
        }
        self.object.add_symbol(Symbol {
            name: b"livepatch_tables".to_vec(),
            value: patch as u64,
            size: layout.patch as u64,
            kind: SymbolKind::Data,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(self.data),
            flags: SymbolFlags::None,
        });
        Ok(())
    }

    fn object(
        &mut self,
        object: &ObjectPlan,
        at: usize,
        layout: &Layout,
    ) -> Result<(), object::write::Error> {
        let data = self.object.section_symbol(self.data);
        if let ObjectName::Module(name) = &object.name {
            self.string(at + layout.object_name, name)?;
        }
        let functions = self.zeroed(layout.function * (object.functions.len() + 1));
        self.pointer(at + layout.object_funcs, data, functions)?;
        for (index, function) in object.functions.iter().enumerate() {
            let at = functions + layout.function * index;
            self.string(at + layout.function_old_name, &function.name)?;
            let new = self.undefined(&function.new_symbol);
            self.pointer(at + layout.function_new_func, new, 0)?;
            self.bytes(at + layout.function_old_sympos, &u64::from(function.sympos).to_le_bytes());
        }
        for (offset, callback) in layout.object_callbacks.iter().zip(&object.callbacks) {
            if let Some(symbol) = callback {
                let symbol = self.undefined(symbol);
                self.pointer(at + offset, symbol, 0)?;
            }
        }
        Ok(())
    }

    /// Space in the data section; returns its offset.
    fn zeroed(&mut self, size: usize) -> usize {
        self.object.append_section_data(self.data, &vec![0; size], 8) as usize
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.object.section_mut(self.data).data_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn string(&mut self, at: usize, text: &str) -> Result<(), object::write::Error> {
        let offset = self.object.append_section_data(self.names, format!("{text}\0").as_bytes(), 1);
        let names = self.object.section_symbol(self.names);
        self.pointer(at, names, offset as usize)
    }

    fn undefined(&mut self, name: &str) -> SymbolId {
        let object = &mut *self.object;
        *self.symbols.entry(name.to_owned()).or_insert_with(|| {
            object.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value: 0,
                size: 0,
                kind: SymbolKind::Unknown,
                scope: SymbolScope::Unknown,
                weak: false,
                section: SymbolSection::Undefined,
                flags: SymbolFlags::None,
            })
        })
    }

    fn pointer(&mut self, at: usize, symbol: SymbolId, addend: usize) -> Result<(), object::write::Error> {
        let flags = RelocationFlags::Elf { r_type: R_X86_64_64 };
        let relocation = Relocation { offset: at as u64, symbol, addend: addend as i64, flags };
        self.object.add_relocation(self.data, relocation)
    }
}
