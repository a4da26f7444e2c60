//! The kernel's own objects that a patch touches: as memory to match with, and as symbols to refer to.

use std::collections::BTreeMap;

use super::error::BuildError;
use super::kbuild::{Owner, UnitCommand};
use super::kernel::Kernel;
use super::runpre::{Shipped, ShippedModule, Vmlinux};
use crate::diff::symbols::SymbolTable;
use crate::image::KernelImage;

/// A module as it is shipped.
pub(super) struct ModuleFile {
    placed: ShippedModule,
    /// The file, decompressed.
    pub(super) content: Vec<u8>,
}

/// The shipped objects that a patch touches.
pub(super) struct ShippedObjects<'k> {
    pub(super) image: &'k KernelImage,
    /// By path below `lib/modules/RELEASE/kernel/`, without `.ko`.
    pub(super) modules: BTreeMap<String, ModuleFile>,
    pub(super) symbols: SymbolTable,
    vmlinux: Vmlinux<'k>,
}

impl<'k> ShippedObjects<'k> {
    /// Reads the objects that the units are part of.
    pub(super) fn read<'u>(
        kernel: &Kernel,
        image: &'k KernelImage,
        units: impl Iterator<Item = &'u UnitCommand>,
    ) -> Result<Self, BuildError> {
        let mut symbols = SymbolTable::new();
        symbols.read_image(image)?;
        let mut modules = BTreeMap::new();
        for unit in units {
            if let Owner::Module(path) = &unit.owner
                && !modules.contains_key(path)
            {
                let content = kernel.module(path)?;
                let placed = ShippedModule::place(&content)
                    .map_err(|source| BuildError::Module { module: path.clone(), source })?;
                symbols.read_elf_placed(&content, &unit.owner.object(), &|section| placed.start(section))?;
                modules.insert(path.clone(), ModuleFile { placed, content });
            }
        }
        if !modules.is_empty()
            && let Some(text) = kernel.symvers()?
        {
            symbols.read_symvers(&text)?;
        }
        Ok(Self { image, modules, symbols, vmlinux: Vmlinux::new(image) })
    }

    /// The object that a unit is part of.
    pub(super) fn of(&self, owner: &Owner) -> &(dyn Shipped + Sync) {
        match owner {
            Owner::Module(path) if self.modules.contains_key(path) => &self.modules[path].placed,
            _ => &self.vmlinux,
        }
    }
}
