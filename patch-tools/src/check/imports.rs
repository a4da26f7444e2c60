//! Symbols that the module loader resolves: exported, with the right CRC, by licence and namespace.

use super::{Findings, Scene};
use crate::image::Export;
use crate::module::{Import, Need};

pub(super) fn check(scene: &Scene<'_>, findings: &mut Findings) {
    let Some(exports) = &scene.facts.exports else { return unknown(scene, findings) };
    for import in &scene.module.imports {
        let in_module = || scene.facts.objects.values().find_map(|object| object.exports.get(&import.name));
        match exports.get(&import.name).or_else(in_module) {
            Some(export) => exported(scene, import, export, findings),
            None => missing(scene, import, findings),
        }
    }
}

/// Without the list of exports only presence can be judged.
fn unknown(scene: &Scene<'_>, findings: &mut Findings) {
    let required = scene.module.imports.iter().filter(|import| import.need == Need::Required);
    for import in required {
        let in_module = scene.facts.objects.values().any(|object| object.exports.contains_key(&import.name));
        if scene.symbols.named(&import.name).is_empty() && !in_module {
            findings.refuse("symbol-exported", &import.name, "a symbol of the kernel", "none in kallsyms");
        }
    }
    let expected = format!("CRCs of {} imported symbols", scene.module.imports.len());
    let found = "the kernel's are not known here: left to the module loader";
    findings.note("symbol-crc", "module", expected, found);
}

fn exported(scene: &Scene<'_>, import: &Import, export: &Export, findings: &mut Findings) {
    match (import.crc, export.crc) {
        (Some(built), Some(kernel)) if built != kernel => {
            findings.refuse("symbol-crc", &import.name, format!("{kernel:#010x}"), format!("{built:#010x}"));
        }
        (None, Some(kernel)) if import.need != Need::Layout => {
            let expected = format!("{kernel:#010x}");
            findings.warn("symbol-crc", &import.name, expected, "none: the loader lets it pass unchecked");
        }
        _ => {}
    }
    if let Some(namespace) = &export.namespace {
        let mut imported = scene.module.modinfo.iter().filter(|(key, _)| *key == "import_ns");
        if !imported.any(|(_, value)| value == namespace) {
            let expected = format!("modinfo import_ns={namespace}");
            findings.refuse("symbol-namespace", &import.name, expected, "not imported");
        }
    }
}

fn missing(scene: &Scene<'_>, import: &Import, findings: &mut Findings) {
    let depends = scene.module.modinfo.get("depends").unwrap_or_default();
    let unread: Vec<&str> = depends
        .split(',')
        .filter(|name| !name.is_empty() && !scene.facts.objects.contains_key(*name))
        .collect();
    match import.need {
        Need::Optional => {}
        // The kernel exports no module_layout without CONFIG_MODVERSIONS.
        Need::Layout => {}
        Need::Required if unread.is_empty() => {
            findings.refuse("symbol-exported", &import.name, "an exported symbol", "not exported");
        }
        Need::Required => {
            let expected = format!("exported by vmlinux or one of {}", unread.join(", "));
            findings.note(
                "symbol-exported",
                &import.name,
                expected,
                "not by vmlinux; the modules were not read",
            );
        }
    }
}
