//! A kernel image: symbols from its kallsyms, exports from its export tables.

use super::kallsyms::{binding, kind};
use super::{NewSymbol, SymbolTable, SymbolsError};
use crate::image::KernelImage;
use crate::module::ObjectName;

impl SymbolTable {
    /// Takes over the symbols and exports of a kernel image.
    pub fn read_image(&mut self, image: &KernelImage) -> Result<(), SymbolsError> {
        let symbols = image.kallsyms().iter().map(|symbol| NewSymbol {
            name: symbol.name,
            address: symbol.address,
            size: None,
            kind: kind(symbol.letter),
            binding: binding(symbol.letter),
            file: None,
        });
        self.add(&ObjectName::Vmlinux, symbols)?;
        let exports = image.exports().iter();
        self.add_exports(
            &ObjectName::Vmlinux,
            exports.map(|(name, export)| (name.as_str(), export.namespace.as_deref())),
        );
        Ok(())
    }
}
