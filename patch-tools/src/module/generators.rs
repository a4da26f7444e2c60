//! The tables that other generators leave in a module, from which its init code builds `struct klp_patch`.
//!
//! kpatch-build (`kmod/patch/kpatch-patch.h`): `.kpatch.funcs` holds entries of seven words, the four
//! `.kpatch.callbacks.*` sections pairs of function and object name, `.kpatch.force` functions. klp-build
//! (`include/linux/livepatch_external.h`, Linux 6.19): `__klp_objects` holds name, functions, callbacks and
//! number of functions. Both write `vmlinux` where `struct klp_object` has a null name.

use super::memory::{Address, Memory};
use super::patch::{Callbacks, Livepatch, ObjectName, PatchedFunction, PatchedObject, Replace, TableForm};
use super::tables::{self, MAX_FUNCTIONS, MAX_OBJECTS};
use crate::elf::{Malformed, Rule, Section};

/// kpatch-build: new address, new size, old address, old size, position, name, object.
mod kpatch {
    pub(super) const ENTRY: u64 = 56;
    pub(super) const NEW: u64 = 0;
    pub(super) const SYMPOS: u64 = 32;
    pub(super) const NAME: u64 = 40;
    pub(super) const OBJECT: u64 = 48;
    pub(super) const CALLBACK: u64 = 16;
    pub(super) const CALLBACK_OBJECT: u64 = 8;
}

/// klp-build: name, functions, four callbacks, a flag and the number of functions.
mod klp_build {
    pub(super) const OBJECT: u64 = 64;
    pub(super) const FUNCTIONS: u64 = 8;
    pub(super) const CALLBACKS: u64 = 16;
    pub(super) const COUNT: u64 = 56;
    pub(super) const FUNCTION: u64 = 24;
    pub(super) const NEW: u64 = 8;
    pub(super) const SYMPOS: u64 = 16;
}

/// The livepatch of a module with another generator's tables, or `None` if it has neither.
pub(super) fn livepatch(memory: &Memory<'_, '_>) -> Result<Option<Livepatch>, Malformed> {
    if let Some(section) = memory.elf().section(".kpatch.funcs") {
        return from_kpatch(memory, section).map(Some);
    }
    if let Some(section) = memory.elf().section("__klp_objects") {
        return from_klp_build(memory, section).map(Some);
    }
    Ok(None)
}

/// The addresses of the entries of a table that fills its section.
fn entries(section: &Section<'_>, size: u64, limit: usize) -> Result<Vec<Address>, Malformed> {
    let count = section.size / size;
    if !section.size.is_multiple_of(size) {
        let found = format!("{} bytes in {}, entries of {size}", section.size, section.name);
        return Err(Malformed::new(section.offset, Rule::EntrySize, found));
    }
    if count > limit as u64 {
        return Err(Malformed::new(section.offset, Rule::KlpLimit, format!("{count} entries")));
    }
    Ok((0..count).map(|index| Address { section: section.index, offset: index * size }).collect())
}

fn object_name(name: Option<&str>) -> ObjectName {
    match name {
        None | Some("vmlinux") => ObjectName::Vmlinux,
        Some(module) => ObjectName::Module(module.to_owned()),
    }
}

fn from_kpatch(memory: &Memory<'_, '_>, section: &Section<'_>) -> Result<Livepatch, Malformed> {
    let mut objects: Vec<PatchedObject> = Vec::new();
    for entry in entries(section, kpatch::ENTRY, MAX_FUNCTIONS)? {
        let name = memory.string(entry.plus(kpatch::NAME))?;
        let new = memory.pointer(entry.plus(kpatch::NEW))?;
        let sympos = memory.u64(entry.plus(kpatch::SYMPOS))?;
        let function = tables::function(memory, entry, name, new, sympos)?;
        let object = memory.string(entry.plus(kpatch::OBJECT))?;
        object_of(memory, &mut objects, entry, object)?.functions.push(function);
    }
    for (slot, name) in [
        ".kpatch.callbacks.pre_patch",
        ".kpatch.callbacks.post_patch",
        ".kpatch.callbacks.pre_unpatch",
        ".kpatch.callbacks.post_unpatch",
    ]
    .iter()
    .enumerate()
    {
        let Some(section) = memory.elf().section(name) else { continue };
        for entry in entries(section, kpatch::CALLBACK, MAX_OBJECTS)? {
            let callee = memory.callee(entry)?;
            let object = memory.string(entry.plus(kpatch::CALLBACK_OBJECT))?;
            let callbacks = &mut object_of(memory, &mut objects, entry, object)?.callbacks;
            let target = match slot {
                0 => &mut callbacks.pre_patch,
                1 => &mut callbacks.post_patch,
                2 => &mut callbacks.pre_unpatch,
                _ => &mut callbacks.post_unpatch,
            };
            *target = callee;
        }
    }
    let mut forced = Vec::new();
    if let Some(section) = memory.elf().section(".kpatch.force") {
        for entry in entries(section, 8, MAX_FUNCTIONS)? {
            forced.extend(memory.callee(entry)?);
        }
    }
    let (form, replace) = (TableForm::Kpatch, Replace::DecidedAtLoad);
    Ok(Livepatch { form, replace, objects, states: Vec::new(), forced })
}

/// The object of that name in the list, added at the end if it is new.
fn object_of<'list>(
    memory: &Memory<'_, '_>,
    objects: &'list mut Vec<PatchedObject>,
    entry: Address,
    name: Option<&str>,
) -> Result<&'list mut PatchedObject, Malformed> {
    let name = object_name(name);
    let index = match objects.iter().position(|object| object.name == name) {
        Some(index) => index,
        None => {
            tables::limit(memory, entry, objects.len(), MAX_OBJECTS, "objects")?;
            objects.push(PatchedObject { name, functions: Vec::new(), callbacks: Callbacks::default() });
            objects.len() - 1
        }
    };
    Ok(&mut objects[index])
}

fn from_klp_build(memory: &Memory<'_, '_>, section: &Section<'_>) -> Result<Livepatch, Malformed> {
    let mut objects = Vec::new();
    let mut total = 0;
    for entry in entries(section, klp_build::OBJECT, MAX_OBJECTS)? {
        let count = memory.u32(entry.plus(klp_build::COUNT))? as usize;
        total += count;
        if total > MAX_FUNCTIONS {
            let offset = memory.file_offset(entry.plus(klp_build::COUNT));
            return Err(Malformed::new(offset, Rule::KlpLimit, format!("{total} functions")));
        }
        let name = object_name(memory.string(entry)?);
        let mut functions: Vec<PatchedFunction> = Vec::new();
        if count > 0 {
            let mut next = memory.local(entry.plus(klp_build::FUNCTIONS))?;
            for _ in 0..count {
                let name = memory.string(next)?;
                let new = memory.pointer(next.plus(klp_build::NEW))?;
                let sympos = memory.u64(next.plus(klp_build::SYMPOS))?;
                functions.push(tables::function(memory, next, name, new, sympos)?);
                next = next.plus(klp_build::FUNCTION);
            }
        }
        let callbacks = tables::callbacks(memory, entry.plus(klp_build::CALLBACKS))?;
        objects.push(PatchedObject { name, functions, callbacks });
    }
    let (form, replace) = (TableForm::KlpBuild, Replace::DecidedAtLoad);
    Ok(Livepatch { form, replace, objects, states: Vec::new(), forced: Vec::new() })
}
