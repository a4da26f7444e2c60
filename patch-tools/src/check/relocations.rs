//! What the livepatch core resolves: klp symbols, and the relocations that use them.

use std::collections::BTreeSet;

use object::elf::{
    R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_NONE, R_X86_64_PC32, R_X86_64_PC64, R_X86_64_PLT32,
};

use super::{Findings, Scene, in_object};
use crate::module::ObjectName;

/// What `apply_relocate_add()` of x86 accepts.
const APPLICABLE: [u32; 7] =
    [R_X86_64_NONE, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_32, R_X86_64_32S, R_X86_64_PC64];

pub(super) fn check(scene: &Scene<'_>, findings: &mut Findings) {
    let symbols: BTreeSet<_> = scene.module.klp_symbols.iter().collect();
    for symbol in symbols {
        let subject = in_object(&symbol.object, &symbol.name, symbol.sympos);
        let loaded = scene.symbols.in_object(&symbol.object, &symbol.name).count();
        let count = match &symbol.object {
            ObjectName::Module(name) if loaded == 0 => match scene.facts.objects.get(name) {
                Some(file) => file.symbols.iter().filter(|one| one.name == symbol.name).count(),
                None => {
                    let found = "the module is neither loaded nor given as a file";
                    findings.note("klp-symbol", subject, "a symbol of the object", found);
                    continue;
                }
            },
            _ => loaded,
        };
        match (symbol.sympos, count as u64) {
            (_, 0) => findings.refuse("klp-symbol", subject, "a symbol of the object", "no such symbol"),
            (0, 1) => {}
            (0, count) => {
                let found = format!("{count} symbols of that name");
                findings.refuse("klp-symbol", subject, format!("a position from 1 to {count}"), found);
            }
            (wanted, count) if wanted > count => {
                let found = format!("position {wanted}");
                findings.refuse("klp-symbol", subject, format!("a position from 1 to {count}"), found);
            }
            _ => {}
        }
    }
    relocations(scene, findings);
}

/// One finding for each kind of fault in a section, with the first place where it stands.
fn relocations(scene: &Scene<'_>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for relocation in &scene.module.klp_relocations {
        let subject = format!("{}+{:#x}", relocation.section, relocation.offset);
        let key = |fault: &'static str| (fault, relocation.object.clone(), relocation.section.clone());
        if !APPLICABLE.contains(&relocation.kind) && seen.insert(key("type")) {
            let found = format!("type {}", relocation.kind);
            findings.refuse("klp-relocation", &subject, "a type that the kernel's loader applies", found);
        }
        match &relocation.symbol {
            None if seen.insert(key("symbol")) => {
                let found = "another symbol: the kernel refuses the module";
                findings.refuse("klp-relocation", &subject, "a livepatch symbol", found);
            }
            // klp_resolve_symbols(): code of vmlinux cannot depend on a module.
            Some(symbol)
                if relocation.object == ObjectName::Vmlinux
                    && symbol.object != ObjectName::Vmlinux
                    && seen.insert(key("object")) =>
            {
                let found = in_object(&symbol.object, &symbol.name, symbol.sympos);
                findings.refuse("klp-relocation", &subject, "a symbol of vmlinux", found);
            }
            _ => {}
        }
    }
}
