//! Finds a livepatch's tables in the module.
//!
//! Three forms exist, tried in this order:
//! 1. kpatch-build leaves a section `.kpatch.funcs`, klp-build leaves `__klp_objects`;
//! 2. everything else passes the address of a static `struct klp_patch` to `klp_enable_patch`. The call has a
//!    relocation to that symbol, and the instruction that loads the first argument (`%rdi`) has one to the
//!    structure;
//! 3. where the argument comes some other way (from a variable, say), the structure is recognised by its first
//!    field, a pointer to `__this_module`, in writable data.

use object::elf::{R_X86_64_32S, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32};

use super::generators;
use super::memory::{Address, Memory, Pointer};
use super::patch::Livepatch;
use super::tables::{self, Layout};
use crate::elf::{Elf, Malformed, Relocation, Rule, Section};

/// Between the load of the argument and the call there are at most a few instructions.
const ARGUMENT_DISTANCE: u64 = 128;

/// Decodes the livepatch of the module, or `None` when its tables cannot be found.
pub(super) fn livepatch(elf: &Elf<'_>, layout: &Layout) -> Result<Option<Livepatch>, Malformed> {
    let memory = Memory::new(elf)?;
    if let Some(livepatch) = generators::livepatch(&memory)? {
        return Ok(Some(livepatch));
    }
    let mut patches = Vec::new();
    for section in elf.sections().iter().filter(|section| section.is_executable()) {
        for call in calls(&memory, section) {
            patches.extend(argument(&memory, section, call)?);
        }
    }
    if patches.is_empty() {
        patches = by_owner(&memory)?;
    }
    patches.sort_by_key(|patch| (patch.section, patch.offset));
    patches.dedup();
    match patches.as_slice() {
        [] => Ok(None),
        [patch] => tables::klp_patch(&memory, layout, *patch).map(Some),
        [_, second, ..] => {
            let found = format!("{} of them", patches.len());
            Err(Malformed::new(memory.file_offset(*second), Rule::KlpSinglePatch, found))
        }
    }
}

/// Relocations of calls and jumps to `klp_enable_patch`.
fn calls<'memory>(
    memory: &'memory Memory<'_, '_>,
    section: &'memory Section<'_>,
) -> impl Iterator<Item = &'memory Relocation> {
    memory.relocations(section.index).iter().filter(move |relocation| {
        let opcode = before(section, relocation.offset, 1);
        matches!(relocation.kind, R_X86_64_PLT32 | R_X86_64_PC32)
            && matches!(opcode, Some([0xe8 | 0xe9]))
            && memory
                .elf()
                .symbols()
                .get(relocation.symbol)
                .is_some_and(|symbol| symbol.name == "klp_enable_patch")
    })
}

/// The `count` bytes before `offset`.
fn before<'data>(section: &Section<'data>, offset: u64, count: usize) -> Option<&'data [u8]> {
    let end = usize::try_from(offset).ok()?;
    section.data.get(end.checked_sub(count)?..end)
}

/// The address that the nearest instruction before the call loads into `%rdi`.
fn argument(
    memory: &Memory<'_, '_>,
    section: &Section<'_>,
    call: &Relocation,
) -> Result<Option<Address>, Malformed> {
    let near = call.offset.saturating_sub(ARGUMENT_DISTANCE);
    let earlier = memory.relocations(section.index).iter().rev();
    let earlier = earlier
        .skip_while(|relocation| relocation.offset >= call.offset)
        .take_while(|relocation| relocation.offset >= near);
    for load in earlier {
        let addend = match (load.kind, before(section, load.offset, 3)) {
            // mov $imm32,%rdi
            (R_X86_64_32S, Some([0x48, 0xc7, 0xc7])) => load.addend,
            // lea disp32(%rip),%rdi: relative to the end of the four bytes.
            (R_X86_64_PC32, Some([0x48, 0x8d, 0x3d])) => load.addend.saturating_add(4),
            // movabs $imm64,%rdi
            (R_X86_64_64, Some([_, 0x48, 0xbf])) => load.addend,
            _ => continue,
        };
        if let Pointer::Local(address) = memory.target(load, addend)? {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// Structures in writable data that start with a pointer to `__this_module` and go on with another pointer.
fn by_owner(memory: &Memory<'_, '_>) -> Result<Vec<Address>, Malformed> {
    let elf = memory.elf();
    let Some(owner) = elf.section(".gnu.linkonce.this_module") else { return Ok(Vec::new()) };
    let this_module = Pointer::Local(Address { section: owner.index, offset: 0 });
    let mut found = Vec::new();
    for section in elf.sections().iter().filter(|section| section.is_allocated() && section.is_writable()) {
        for relocation in memory.relocations(section.index).iter().filter(|one| one.kind == R_X86_64_64) {
            let address = Address { section: section.index, offset: relocation.offset };
            if memory.target(relocation, relocation.addend)? == this_module
                && matches!(memory.pointer(address.plus(8)), Ok(Pointer::Local(_)))
            {
                found.push(address);
            }
        }
    }
    Ok(found)
}
