//! Decodes the tables of a livepatch.
//!
//! `struct klp_patch`, `klp_object` and `klp_func` are those of `include/linux/livepatch.h`. The first fields
//! (filled by the author) have stood in the same order since Linux 5.10; the distance from one entry to
//! the next depends on `struct kobject` and so on the configuration, which is why it is a [`Layout`].

use super::memory::{Address, Memory, Pointer};
use super::patch::{
    Callbacks, Livepatch, ObjectName, PatchedFunction, PatchedObject, Replace, State, TableForm,
};
use crate::elf::{Malformed, Rule};
use crate::versions::KLP_SIZES;

/// No livepatch comes near: the largest cumulative ones have some hundred functions.
pub(super) const MAX_OBJECTS: usize = 1024;
pub(super) const MAX_FUNCTIONS: usize = 65_536;

/// Sizes in bytes of the kernel's livepatch structures.
///
/// The default is that of usual x86-64 kernels from 5.10 on. The BTF of a kernel image gives the exact ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// `sizeof(struct klp_object)`.
    pub object: u64,
    /// `sizeof(struct klp_func)`.
    pub function: u64,
    /// `sizeof(struct klp_state)`.
    pub state: u64,
}

impl Default for Layout {
    fn default() -> Self {
        let [object, function, state] = KLP_SIZES;
        Self { object, function, state }
    }
}

/// Offsets of the fields that an author fills in, and where those end.
mod field {
    pub(super) const PATCH_OBJECTS: u64 = 8;
    pub(super) const PATCH_STATES: u64 = 16;
    pub(super) const PATCH_REPLACE: u64 = 24;
    pub(super) const OBJECT_NAME: u64 = 0;
    pub(super) const OBJECT_FUNCTIONS: u64 = 8;
    pub(super) const OBJECT_CALLBACKS: u64 = 16;
    pub(super) const OBJECT_CALLBACKS_ENABLED: u64 = 48;
    pub(super) const FUNCTION_NAME: u64 = 0;
    pub(super) const FUNCTION_NEW: u64 = 8;
    pub(super) const FUNCTION_SYMPOS: u64 = 16;
    pub(super) const FUNCTION_INTERNAL: u64 = 24;
    pub(super) const STATE_VERSION: u64 = 8;
}

/// Decodes the `struct klp_patch` at `patch`.
pub(super) fn klp_patch(
    memory: &Memory<'_, '_>,
    layout: &Layout,
    patch: Address,
) -> Result<Livepatch, Malformed> {
    let replace = match memory.bytes(patch.plus(field::PATCH_REPLACE), 1)? {
        [0] => Replace::None,
        [1] => Replace::All,
        other => {
            let offset = memory.file_offset(patch.plus(field::PATCH_REPLACE));
            return Err(Malformed::new(offset, Rule::KlpTable, format!("{other:?} as a bool")));
        }
    };
    let mut objects = Vec::new();
    let mut budget = MAX_FUNCTIONS;
    let mut entry = memory.local(patch.plus(field::PATCH_OBJECTS))?;
    // The table ends where both name and functions are null: klp_for_each_object_static().
    loop {
        let name = memory.string(entry.plus(field::OBJECT_NAME))?;
        if name.is_none() && memory.pointer(entry.plus(field::OBJECT_FUNCTIONS))? == Pointer::Null {
            break;
        }
        let functions = memory.local(entry.plus(field::OBJECT_FUNCTIONS))?;
        limit(memory, entry, objects.len(), MAX_OBJECTS, "objects")?;
        objects.push(PatchedObject {
            name: name.map_or(ObjectName::Vmlinux, |name| ObjectName::Module(name.to_owned())),
            functions: functions_at(memory, layout, functions, &mut budget)?,
            callbacks: callbacks(memory, entry.plus(field::OBJECT_CALLBACKS))?,
        });
        let internal = field::OBJECT_CALLBACKS_ENABLED;
        let size = layout.object.saturating_sub(internal);
        memory.expect_zero(entry.plus(internal), size, "the internal part of a klp_object")?;
        entry = entry.plus(layout.object);
    }
    Ok(Livepatch {
        form: TableForm::KlpPatch,
        replace,
        objects,
        states: states(memory, layout, patch.plus(field::PATCH_STATES))?,
        forced: Vec::new(),
    })
}

/// Fails if there are `count` entries already.
pub(super) fn limit(
    memory: &Memory<'_, '_>,
    entry: Address,
    count: usize,
    limit: usize,
    what: &str,
) -> Result<(), Malformed> {
    if count < limit {
        return Ok(());
    }
    Err(Malformed::new(memory.file_offset(entry), Rule::KlpLimit, format!("more than {limit} {what}")))
}

/// The four pointers of `struct klp_callbacks`.
pub(super) fn callbacks(memory: &Memory<'_, '_>, address: Address) -> Result<Callbacks, Malformed> {
    Ok(Callbacks {
        pre_patch: memory.callee(address)?,
        post_patch: memory.callee(address.plus(8))?,
        pre_unpatch: memory.callee(address.plus(16))?,
        post_unpatch: memory.callee(address.plus(24))?,
    })
}

fn functions_at(
    memory: &Memory<'_, '_>,
    layout: &Layout,
    first: Address,
    budget: &mut usize,
) -> Result<Vec<PatchedFunction>, Malformed> {
    let mut functions = Vec::new();
    let mut entry = first;
    loop {
        let name = memory.string(entry.plus(field::FUNCTION_NAME))?;
        let new = memory.pointer(entry.plus(field::FUNCTION_NEW))?;
        let sympos = memory.u64(entry.plus(field::FUNCTION_SYMPOS))?;
        // The table ends where all three are null: klp_for_each_func_static().
        if name.is_none() && new == Pointer::Null && sympos == 0 {
            return Ok(functions);
        }
        limit(memory, entry, MAX_FUNCTIONS - *budget, MAX_FUNCTIONS, "functions")?;
        *budget -= 1;
        functions.push(function(memory, entry, name, new, sympos)?);
        let internal = field::FUNCTION_INTERNAL;
        let size = layout.function.saturating_sub(internal);
        memory.expect_zero(entry.plus(internal), size, "the internal part of a klp_func")?;
        entry = entry.plus(layout.function);
    }
}

/// A function from the fields of its entry.
pub(super) fn function(
    memory: &Memory<'_, '_>,
    entry: Address,
    name: Option<&str>,
    new: Pointer,
    sympos: u64,
) -> Result<PatchedFunction, Malformed> {
    let broken = |found: &str| Malformed::new(memory.file_offset(entry), Rule::KlpTable, found);
    let old_name = name.filter(|name| !name.is_empty()).ok_or_else(|| broken("a function without a name"))?;
    let (new_symbol, new_size) = match new {
        Pointer::Null => return Err(broken("a function without a replacement")),
        Pointer::External(symbol) => (Some(memory.elf().symbols()[symbol].name), None),
        Pointer::Local(target) if !memory.section(target).is_executable() => {
            return Err(broken("a replacement outside of executable sections"));
        }
        Pointer::Local(target) => match memory.function(target) {
            Some(symbol) => (Some(symbol.name), Some(symbol.size)),
            None => (None, None),
        },
    };
    Ok(PatchedFunction {
        old_name: old_name.to_owned(),
        sympos,
        new_symbol: new_symbol.map(str::to_owned),
        new_size,
    })
}

fn states(memory: &Memory<'_, '_>, layout: &Layout, field: Address) -> Result<Vec<State>, Malformed> {
    let mut states = Vec::new();
    let Pointer::Local(mut entry) = memory.pointer(field)? else { return Ok(states) };
    // klp_for_each_state(): ends at the first identifier that is zero.
    loop {
        let id = memory.u64(entry)?;
        if id == 0 {
            return Ok(states);
        }
        limit(memory, entry, states.len(), MAX_OBJECTS, "states")?;
        states.push(State { id, version: memory.u32(entry.plus(field::STATE_VERSION))? });
        entry = entry.plus(layout.state);
    }
}
