//! `Module.symvers`: `CRC NAME OBJECT TYPE [NAMESPACE]`, separated by tabs. It tells exports, not positions.

use super::{SymbolTable, SymbolsError};
use crate::module::ObjectName;

const EXPECTED: &str = "CRC, NAME, OBJECT and TYPE with tabs between them";

fn parse(line: &str) -> Option<(&str, &str, Option<&str>)> {
    let mut fields = line.split('\t');
    let crc = fields.next()?.strip_prefix("0x")?;
    let (name, object, kind) = (fields.next()?, fields.next()?, fields.next()?);
    if u32::from_str_radix(crc, 16).is_err() || name.is_empty() || !kind.starts_with("EXPORT_") {
        return None;
    }
    Some((name, object, fields.next()))
}

/// Whether `line` has the form of this format.
pub(super) fn recognises(line: &str) -> bool {
    parse(line).is_some()
}

impl SymbolTable {
    /// Reads the text of a `Module.symvers` file.
    pub fn read_symvers(&mut self, text: &str) -> Result<(), SymbolsError> {
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let (name, object, namespace) = parse(line).ok_or_else(|| SymbolsError::Line {
                line: number + 1,
                expected: EXPECTED,
                found: line.to_owned(),
            })?;
            // The third field is a path without suffix; the kernel shows its last part with underscores.
            let base = object.rsplit('/').next().unwrap_or(object).trim_end_matches(".ko");
            let owner = match base {
                "vmlinux" => ObjectName::Vmlinux,
                module => ObjectName::Module(module.replace('-', "_")),
            };
            self.add_exports(&owner, [(name, namespace)]);
        }
        Ok(())
    }
}
