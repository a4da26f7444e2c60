//! Exported symbols keep their types.
//!
//! Modules that are loaded, and those that will be, were compiled against the running kernel's types. The CRC of
//! an exported symbol covers everything its type leads to, so that two comparisons settle it: the
//! original's CRCs must be the shipped ones (else this is not the source of that kernel), and the patched
//! unit's must be the original's.

use std::collections::BTreeMap;

use super::patch::SourcePath;
use crate::image::Exports;

/// A unit whose exports do not keep their types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AbiError {
    /// The rebuilt original differs from the shipped kernel.
    #[error(
        "{unit}: the CRC of exported {symbol} is {rebuilt:#010x} when rebuilt, but {shipped:#010x} in the shipped kernel: this is not its source"
    )]
    NotShipped {
        /// The unit.
        unit: SourcePath,
        /// The symbol.
        symbol: String,
        /// The CRC of the rebuilt original.
        rebuilt: u32,
        /// The CRC that the kernel has.
        shipped: u32,
    },
    /// The patch changes the type.
    #[error(
        "{unit}: the patch changes the type of exported {symbol} (CRC {original:#010x} becomes {patched:#010x}); modules compiled against it would break"
    )]
    Changed {
        /// The unit.
        unit: SourcePath,
        /// The symbol.
        symbol: String,
        /// The CRC before.
        original: u32,
        /// The CRC with the patch.
        patched: u32,
    },
}

impl AbiError {
    /// The unit.
    pub fn unit(&self) -> &SourcePath {
        let (Self::NotShipped { unit, .. } | Self::Changed { unit, .. }) = self;
        unit
    }

    /// The exported symbol.
    pub fn symbol(&self) -> &str {
        let (Self::NotShipped { symbol, .. } | Self::Changed { symbol, .. }) = self;
        symbol
    }
}

/// Compares the CRCs of one unit.
pub(super) fn compare(
    unit: &SourcePath,
    original: &BTreeMap<String, u32>,
    patched: &BTreeMap<String, u32>,
    shipped: &Exports,
) -> Vec<AbiError> {
    let mut found = Vec::new();
    for (symbol, &original) in original {
        let (unit, name) = (unit.clone(), symbol.clone());
        match (shipped.get(symbol).and_then(|export| export.crc), patched.get(symbol)) {
            (Some(shipped), _) if shipped != original => {
                found.push(AbiError::NotShipped { unit, symbol: name, rebuilt: original, shipped });
            }
            // A symbol that is no longer exported is the differ's to refuse.
            (_, Some(&patched)) if patched != original => {
                found.push(AbiError::Changed { unit, symbol: name, original, patched });
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Export;

    #[test]
    fn a_changed_type_is_told_from_a_wrong_source() {
        let unit = SourcePath::new("fs/namei.c").unwrap();
        let crcs = |crc| BTreeMap::from([("path_get".to_owned(), crc)]);
        let shipped = Exports::from([("path_get".to_owned(), Export { crc: Some(1), namespace: None })]);
        assert_eq!(compare(&unit, &crcs(1), &crcs(1), &shipped), []);
        assert!(matches!(compare(&unit, &crcs(1), &crcs(2), &shipped)[..], [AbiError::Changed { .. }]));
        assert!(matches!(compare(&unit, &crcs(2), &crcs(2), &shipped)[..], [AbiError::NotShipped { .. }]));
        assert_eq!(compare(&unit, &crcs(2), &BTreeMap::new(), &Exports::new()), []);
    }
}
