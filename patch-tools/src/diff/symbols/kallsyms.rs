//! `/proc/kallsyms` text: `ADDRESS TYPE NAME`, followed by a tab and `[MODULE]` for a module's symbol.
//!
//! Symbols of vmlinux come in address order, a module's in the order of its symbol table. Without the right
//! to see addresses they are all zero; the order then still tells the positions.

use std::collections::HashMap;

use super::{Binding, NewSymbol, SymbolKind, SymbolTable, SymbolsError};
use crate::module::ObjectName;

const EXPECTED: &str = "ADDRESS TYPE NAME [MODULE]";

/// Whether `line` has the form of this format.
pub(super) fn recognises(line: &str) -> bool {
    parse(line).is_some()
}

struct Line<'text> {
    address: u64,
    letter: u8,
    name: &'text str,
    module: Option<&'text str>,
}

fn parse(line: &str) -> Option<Line<'_>> {
    let (address, rest) = line.trim_end().split_once(' ')?;
    let (letter, rest) = rest.split_once(' ')?;
    let &[letter] = letter.as_bytes() else { return None };
    // The address has 8 or 16 digits; "(null)" is not among what current kernels print.
    if !letter.is_ascii_alphabetic() || address.len() < 8 {
        return None;
    }
    let (name, module) = match rest.split_once('\t') {
        None => (rest, None),
        Some((name, module)) => (name, Some(module.trim().strip_prefix('[')?.strip_suffix(']')?)),
    };
    if name.is_empty() || name.contains(' ') {
        return None;
    }
    Some(Line { address: u64::from_str_radix(address, 16).ok()?, letter, name, module })
}

/// What the letter of `nm` says about a symbol's scope.
pub(super) fn binding(letter: u8) -> Binding {
    match letter {
        // Per-CPU symbols count as absolute, whatever their scope.
        b'a' | b'A' => Binding::Unknown,
        b'w' | b'W' | b'v' | b'V' => Binding::Weak,
        letter if letter.is_ascii_uppercase() => Binding::Global,
        _ => Binding::Local,
    }
}

/// What the letter of `nm` says about a symbol's contents.
pub(super) fn kind(letter: u8) -> SymbolKind {
    match letter.to_ascii_lowercase() {
        b't' | b'w' => SymbolKind::Text,
        _ => SymbolKind::Data,
    }
}

impl SymbolTable {
    /// Reads `/proc/kallsyms` text.
    pub fn read_kallsyms(&mut self, text: &str) -> Result<(), SymbolsError> {
        // `None`: an earlier source knows the object.
        let mut objects: HashMap<&str, Option<u16>> = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let parsed = parse(line).ok_or_else(|| SymbolsError::Line {
                line: number + 1,
                expected: EXPECTED,
                found: line.to_owned(),
            })?;
            let module = parsed.module.unwrap_or("vmlinux");
            let index = match objects.get(module) {
                Some(&index) => index,
                None => {
                    let name = match parsed.module {
                        None => ObjectName::Vmlinux,
                        Some(module) => ObjectName::Module(module.to_owned()),
                    };
                    let index = self.new_object(&name);
                    objects.insert(module, index);
                    index
                }
            };
            let Some(index) = index else { continue };
            let symbol = NewSymbol {
                name: parsed.name,
                address: parsed.address,
                size: None,
                kind: kind(parsed.letter),
                binding: binding(parsed.letter),
                file: None,
            };
            self.push(index, &symbol)?;
        }
        self.finish_source();
        Ok(())
    }
}
