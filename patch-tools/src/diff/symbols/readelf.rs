//! The text of `readelf -s --wide`: `NUM: VALUE SIZE TYPE BIND VIS NDX NAME`.

use super::{Binding, NewSymbol, SymbolKind, SymbolTable, SymbolsError};
use crate::module::ObjectName;

const EXPECTED: &str = "NUM: VALUE SIZE TYPE BIND VIS NDX NAME";

/// `__START_KERNEL_map` of x86-64.
const KERNEL_TEXT: u64 = 0xffff_ffff_8000_0000;

/// Whether `line` has the form of this format.
pub(super) fn recognises(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("Symbol table '")
        || line.starts_with("File: ")
        || line.starts_with("Num:")
        || line.split_once(':').is_some_and(|(number, _)| number.parse::<u32>().is_ok())
}

impl SymbolTable {
    /// Reads the text of `readelf -s --wide`, which describes the kernel or `object`.
    pub fn read_readelf(&mut self, text: &str, object: &ObjectName) -> Result<(), SymbolsError> {
        let mut file = None;
        let mut symbols = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let bad = || SymbolsError::Line { line: number + 1, expected: EXPECTED, found: line.to_owned() };
            let mut words = line.split_ascii_whitespace();
            let Some(first) = words.next() else { continue };
            let Some(count) = first.strip_suffix(':') else { continue };
            if count.parse::<u32>().is_err() {
                continue;
            }
            let mut word = || words.next().ok_or_else(bad);
            let address = u64::from_str_radix(word()?, 16).map_err(|_| bad())?;
            let size = word()?;
            let size = match size.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => size.parse(),
            }
            .map_err(|_| bad())?;
            let (kind, binding, _visibility, place) = (word()?, word()?, word()?, word()?);
            let name = words.next();
            if kind == "FILE" {
                file = name;
                continue;
            }
            let Some(name) = name.filter(|_| kind != "SECTION" && place != "UND" && place != "ABS") else {
                continue;
            };
            let binding = match binding {
                "LOCAL" => Binding::Local,
                "WEAK" => Binding::Weak,
                _ => Binding::Global,
            };
            let file = file.filter(|_| binding == Binding::Local);
            let kind = match kind {
                "FUNC" => SymbolKind::Text,
                "NOTYPE" => SymbolKind::Unknown,
                _ => SymbolKind::Data,
            };
            symbols.push(NewSymbol { name, address, size: Some(size), kind, binding, file });
        }
        // A module's values are offsets in its sections; the kernel is linked for the top of memory.
        let is_kernel = symbols.iter().any(|symbol| symbol.address >= KERNEL_TEXT);
        let object = if is_kernel { &ObjectName::Vmlinux } else { object };
        if symbols.is_empty() { Err(SymbolsError::Empty(object.clone())) } else { self.add(object, symbols) }
    }
}
