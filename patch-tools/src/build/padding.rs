//! The compiler's list of the padding before functions, which this kernel does not read.
//!
//! Where calls are counted (`CONFIG_CALL_PADDING`, from 6.2 on) `-fpatchable-function-entry` asks for room before
//! every function. The compiler lists it in `__patchable_function_entries`, newer ones in a section for each
//! function, to be linked in the functions' order. On x86-64 ftrace takes its places from `__mcount_loc`, and nothing
//! reads that list (`FTRACE_CALLSITE_SECTION` in `include/linux/ftrace.h`).
//!
//! Only section headers are changed, in place.

use object::LittleEndian as LE;
use object::elf::{FileHeader64, SHF_ALLOC, SHF_LINK_ORDER, SectionHeader64};
use object::pod;

use crate::elf::Elf;

const LIST: &str = "__patchable_function_entries";

/// Makes the lists something that is not loaded.
pub(super) fn leave_out_list(object: &mut [u8]) {
    let Ok(elf) = Elf::parse(object) else { return };
    let lists: Vec<bool> = elf.sections().iter().map(|section| section.name == LIST).collect();
    if !lists.contains(&true) {
        return;
    }
    drop(elf);
    for (section, is_list) in headers(object).into_iter().flatten().zip(lists) {
        if is_list {
            section.sh_flags.set(LE, section.sh_flags.get(LE) & !u64::from(SHF_ALLOC | SHF_LINK_ORDER));
        }
    }
}

/// Takes away the wish of sections to be linked in the order of others. The differ's objects have none, and the linker
/// takes all sections of a name with it or none.
pub(super) fn forget_order(object: &mut [u8]) {
    for section in headers(object).into_iter().flatten() {
        section.sh_flags.set(LE, section.sh_flags.get(LE) & !u64::from(SHF_LINK_ORDER));
    }
}

fn headers(object: &mut [u8]) -> Option<&mut [SectionHeader64<LE>]> {
    let (header, _) = pod::from_bytes::<FileHeader64<LE>>(object).ok()?;
    let (start, count) = (header.e_shoff.get(LE), usize::from(header.e_shnum.get(LE)));
    let table = object.get_mut(usize::try_from(start).ok()?..)?;
    pod::slice_from_bytes_mut(table, count).ok().map(|(sections, _)| sections)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn lists_of_padding_are_not_loaded_and_the_rest_is_as_before() {
        let work = tempfile::tempdir().unwrap();
        let source = work.path().join("a.c");
        std::fs::write(&source, "int f(int x) { return x; } int g(int x) { return f(x) + 1; }").unwrap();
        let compiled = Command::new("gcc")
            .args([
                "-O2",
                "-ffunction-sections",
                "-fpatchable-function-entry=16,16",
                "-c",
                "-o",
                "a.o",
                "a.c",
            ])
            .current_dir(work.path())
            .status()
            .unwrap();
        assert!(compiled.success());
        let mut object = std::fs::read(work.path().join("a.o")).unwrap();
        let loaded = |object: &[u8]| -> Vec<String> {
            let elf = Elf::parse(object).unwrap();
            elf.sections()
                .iter()
                .filter(|section| section.is_allocated())
                .map(|s| s.name.to_owned())
                .collect()
        };
        let before = loaded(&object);
        assert!(before.iter().any(|name| name == LIST));
        leave_out_list(&mut object);
        let expected: Vec<String> = before.into_iter().filter(|name| name != LIST).collect();
        assert_eq!(loaded(&object), expected);
    }
}
