//! Objects and functions to be patched: there, unambiguous, traceable, of plausible size.

use std::collections::HashSet;

use memchr::memchr_iter;

use super::facts::{Origin, Traceable};
use super::objects::ObjectFacts;
use super::symbols::FoundSymbol;
use super::{Findings, Scene, in_object};
use crate::module::{ObjectName, PatchedFunction, PatchedObject};

/// An ftrace location is at the entry, or behind an `endbr64`.
const ENTRY: u64 = 4;

pub(super) fn check(scene: &Scene<'_>, findings: &mut Findings) {
    let Some(livepatch) = &scene.module.livepatch else { return };
    if livepatch.objects.iter().all(|object| object.functions.is_empty()) {
        findings.refuse("functions", "module", "at least one function to patch", "none");
    }
    let mut seen = HashSet::new();
    for object in &livepatch.objects {
        for function in &object.functions {
            if !seen.insert((&object.name, &function.old_name, function.sympos)) {
                let subject = in_object(&object.name, &function.old_name, function.sympos);
                findings.refuse("functions", subject, "patched once", "listed twice");
            }
        }
    }
    let traceable = listed(scene);
    for object in &livepatch.objects {
        match &object.name {
            ObjectName::Vmlinux => vmlinux(scene, object, &traceable, findings),
            ObjectName::Module(name) => module(scene, object, name, &traceable, findings),
        }
    }
}

/// The functions to patch that `available_filter_functions` lists, as `(name, module)`.
fn listed<'a>(scene: &Scene<'a>) -> HashSet<(&'a str, &'a str)> {
    let Traceable::Listed(text) = &scene.facts.traceable else { return HashSet::new() };
    let wanted: HashSet<&str> = scene
        .module
        .objects()
        .iter()
        .flat_map(|object| &object.functions)
        .map(|function| function.old_name.as_str())
        .collect();
    let mut found = HashSet::new();
    let mut start = 0;
    for end in memchr_iter(b'\n', text) {
        let line = &text[start..end];
        start = end + 1;
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let (name, module) = line.split_once(' ').unwrap_or((line, ""));
        if wanted.contains(name) {
            found.insert((name, module.trim_matches(['[', ']'])));
        }
    }
    found
}

fn vmlinux(
    scene: &Scene<'_>,
    object: &PatchedObject,
    listed: &HashSet<(&str, &str)>,
    findings: &mut Findings,
) {
    for function in &object.functions {
        let subject = in_object(&object.name, &function.old_name, function.sympos);
        let candidates: Vec<_> = scene.symbols.in_object(&object.name, &function.old_name).collect();
        let Some(position) = position(&subject, function.sympos, candidates.len(), findings) else {
            continue;
        };
        let symbol = candidates[position];
        if !matches!(symbol.letter, b't' | b'T' | b'w' | b'W') {
            let found = format!("a symbol of kind {}", char::from(symbol.letter));
            findings.refuse("function-present", &subject, "a function", found);
            continue;
        }
        traceable(scene, function, "", symbol, listed, findings);
        if let Some(size) = symbol.size {
            plausible(&subject, function, size, findings);
        }
    }
}

/// The list shows one name of several that a function has: of the entry of a system call without
/// arguments it shows `__do_sys_fork`, where livepatches say `__x64_sys_fork`.
fn listed_by_another_name(scene: &Scene<'_>, text: &[u8], address: u64) -> bool {
    let names: HashSet<&[u8]> =
        scene.facts.symbols.names_at(address).into_iter().map(str::as_bytes).collect();
    !names.is_empty() && text.split(|byte| *byte == b'\n').any(|line| names.contains(line))
}

/// The index among `count` symbols of the name that `sympos` means, as `klp_find_object_symbol()` takes it.
fn position(subject: &str, sympos: u64, count: usize, findings: &mut Findings) -> Option<usize> {
    match (sympos, count) {
        (_, 0) => {
            findings.refuse("function-present", subject, "a function of the object", "no such symbol");
            None
        }
        (0, 1) => Some(0),
        (0, _) => {
            let found = format!("{count} symbols of that name");
            findings.refuse("sympos", subject, format!("a position from 1 to {count}"), found);
            None
        }
        (wanted, _) => {
            let index = usize::try_from(wanted - 1).ok().filter(|index| *index < count);
            if index.is_none() {
                let found = format!("position {wanted}");
                findings.refuse("sympos", subject, format!("a position from 1 to {count}"), found);
            }
            index
        }
    }
}

fn site_near(sites: &[u64], address: u64) -> bool {
    let next = sites.partition_point(|site| *site < address);
    sites.get(next).is_some_and(|site| *site <= address.saturating_add(ENTRY))
}

/// Judges a function of vmlinux (`module` is empty) or of a loaded module.
fn traceable(
    scene: &Scene<'_>,
    function: &PatchedFunction,
    module: &str,
    symbol: &FoundSymbol,
    listed: &HashSet<(&str, &str)>,
    findings: &mut Findings,
) {
    let subject = in_object(&symbol.object, &function.old_name, function.sympos);
    match &scene.facts.traceable {
        Traceable::Listed(_) if listed.contains(&(function.old_name.as_str(), module)) => {}
        Traceable::Listed(text) if listed_by_another_name(scene, text, symbol.address) => {}
        // An address of zero is one that is hidden from this process.
        Traceable::Sites(sites) if symbol.address != 0 && site_near(sites, symbol.address) => {}
        Traceable::Sites(_) if symbol.address != 0 => not_traceable(&subject, findings),
        Traceable::Listed(_) => not_traceable(&subject, findings),
        Traceable::Unknown | Traceable::Sites(_) => {
            let found = "not known: no list of ftrace locations";
            findings.note("function-traceable", subject, "an ftrace location at its entry", found);
        }
    }
}

fn not_traceable(subject: &str, findings: &mut Findings) {
    let found = "none: the kernel cannot redirect it";
    findings.refuse("function-traceable", subject, "an ftrace location at its entry", found);
}

/// A replacement many times larger or smaller is more often a mix-up than a fix.
fn plausible(subject: &str, function: &PatchedFunction, old: u64, findings: &mut Findings) {
    let Some(new) = function.new_size else { return };
    if new > old.saturating_mul(4).saturating_add(512) || old > new.saturating_mul(8).saturating_add(512) {
        let expected = format!("about as large as the original, {old} bytes");
        findings.warn("function-size", subject, expected, format!("{new} bytes"));
    }
}

fn module(
    scene: &Scene<'_>,
    object: &PatchedObject,
    name: &str,
    listed: &HashSet<(&str, &str)>,
    findings: &mut Findings,
) {
    let file = scene.facts.objects.get(name);
    let loaded = scene.facts.loaded.as_ref();
    if let Some(file) = file {
        vermagic(scene, name, file, findings);
    }
    if loaded.is_some_and(|modules| modules.loaded.contains(name)) {
        return loaded_module(scene, object, name, listed, findings);
    }
    if let Some(file) = file {
        if scene.facts.origin == Origin::Running {
            let found = "not loaded: its functions are patched when it is loaded";
            findings.note("object", name, "a loaded module", found);
        }
        return module_file(object, file, findings);
    }
    if name == "vmlinux" || loaded.is_some_and(|modules| modules.built_in.contains(name)) {
        let found = "part of the kernel image: as a module it would never be patched";
        return findings.refuse("object", name, "a null name for functions of vmlinux", found);
    }
    let found = "no such module found: its functions might never be patched";
    match scene.facts.origin {
        Origin::Running => findings.refuse("object", name, "a module of this kernel", found),
        Origin::Image => findings.warn("object", name, "a module file to compare with", found),
    }
}

fn vermagic(scene: &Scene<'_>, name: &str, file: &ObjectFacts, findings: &mut Findings) {
    let release = file.vermagic.as_deref().and_then(|vermagic| vermagic.split(' ').next());
    if release != Some(scene.facts.release.as_str()) {
        let found = release.unwrap_or("no vermagic");
        findings.refuse("object", name, format!("a module for {}", scene.facts.release), found);
    }
}

fn loaded_module(
    scene: &Scene<'_>,
    object: &PatchedObject,
    name: &str,
    listed: &HashSet<(&str, &str)>,
    findings: &mut Findings,
) {
    for function in &object.functions {
        let subject = in_object(&object.name, &function.old_name, function.sympos);
        let candidates: Vec<_> = scene.symbols.in_object(&object.name, &function.old_name).collect();
        let Some(position) = position(&subject, function.sympos, candidates.len(), findings) else {
            continue;
        };
        traceable(scene, function, name, candidates[position], listed, findings);
    }
}

fn module_file(object: &PatchedObject, file: &ObjectFacts, findings: &mut Findings) {
    for function in &object.functions {
        let subject = in_object(&object.name, &function.old_name, function.sympos);
        let candidates: Vec<_> = file.symbols.iter().filter(|one| one.name == function.old_name).collect();
        let Some(position) = position(&subject, function.sympos, candidates.len(), findings) else {
            continue;
        };
        if !candidates[position].traceable {
            not_traceable(&subject, findings);
        }
        plausible(&subject, function, candidates[position].size, findings);
    }
}
