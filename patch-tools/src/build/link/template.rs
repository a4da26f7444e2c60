//! The part of a module that every patch of a kernel shares, compiled once per kernel.

use manifests::ModuleName;

use super::LinkError;
use crate::build::padding;
use crate::elf::{Elf, Section};

/// The C file.
pub(crate) const SOURCE: &str = include_str!("template.c");
/// The makefile through which kbuild is asked for its flags.
pub(crate) const MAKEFILE: &str = include_str!("template.mk");

/// Sizes and offsets of the kernel's structures, as the compiler sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) patch: usize,
    pub(super) patch_mod: usize,
    pub(super) patch_objs: usize,
    pub(super) patch_replace: usize,
    pub(super) object: usize,
    pub(super) object_name: usize,
    pub(super) object_funcs: usize,
    /// In the order of `CallbackKind::ALL`.
    pub(super) object_callbacks: [usize; 4],
    pub(super) function: usize,
    pub(super) function_old_name: usize,
    pub(super) function_new_func: usize,
    pub(super) function_old_sympos: usize,
    pub(super) module_name: usize,
    pub(super) module_name_size: usize,
}

/// The compiled template.
#[derive(Debug, Clone)]
pub(super) struct Template {
    object: Vec<u8>,
    pub(super) layout: Layout,
}

impl Template {
    /// Reads the compiled object.
    pub(super) fn read(object: Vec<u8>) -> Result<Self, LinkError> {
        let elf = Elf::parse(&object)
            .map_err(|source| LinkError::Object { what: "the module template", source })?;
        let section = elf.section(".discard.livepatch_layout").ok_or(LinkError::Template("a layout"))?;
        let (words, rest) = section.data.as_chunks::<4>();
        let words: Vec<usize> = words.iter().map(|word| u32::from_le_bytes(*word) as usize).collect();
        let [
            patch,
            patch_mod,
            patch_objs,
            patch_replace,
            object_size,
            object_name,
            object_funcs,
            pre_patch,
            post_patch,
            pre_unpatch,
            post_unpatch,
            function,
            function_old_name,
            function_new_func,
            function_old_sympos,
            module_name,
            module_name_size,
        ] = words[..]
        else {
            return Err(LinkError::Template("a layout of 17 words"));
        };
        let layout = Layout {
            patch,
            patch_mod,
            patch_objs,
            patch_replace,
            object: object_size,
            object_name,
            object_funcs,
            object_callbacks: [pre_patch, post_patch, pre_unpatch, post_unpatch],
            function,
            function_old_name,
            function_new_func,
            function_old_sympos,
            module_name,
            module_name_size,
        };
        if !rest.is_empty() || !layout.is_sound() {
            return Err(LinkError::Template("a sound layout"));
        }
        Ok(Self { object, layout })
    }

    /// The object with the module's name in its `struct module`.
    pub(super) fn named(&self, name: &ModuleName) -> Result<Vec<u8>, LinkError> {
        let elf = Elf::parse(&self.object)
            .map_err(|source| LinkError::Object { what: "the module template", source })?;
        let place = elf
            .section(".gnu.linkonce.this_module")
            .and_then(|section: &Section<'_>| {
                let within = self.layout.module_name..self.layout.module_name + self.layout.module_name_size;
                section.data.get(within)?;
                Some(usize::try_from(section.offset).ok()? + self.layout.module_name)
            })
            .ok_or(LinkError::Template("a struct module"))?;
        if name.as_str().len() >= self.layout.module_name_size {
            return Err(LinkError::LongName { name: name.clone(), limit: self.layout.module_name_size - 1 });
        }
        let mut object = self.object.clone();
        padding::forget_order(&mut object);
        object[place..place + name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
        Ok(object)
    }
}

impl Layout {
    /// Every field lies within its structure.
    fn is_sound(&self) -> bool {
        let pointers =
            |size: usize, offsets: &[usize]| offsets.iter().all(|offset| offset + 8 <= size && size <= 4096);
        pointers(self.patch, &[self.patch_mod, self.patch_objs])
            && self.patch_replace < self.patch
            && pointers(self.object, &[self.object_name, self.object_funcs])
            && pointers(self.object, &self.object_callbacks)
            && pointers(
                self.function,
                &[self.function_old_name, self.function_new_func, self.function_old_sympos],
            )
            && (16..=256).contains(&self.module_name_size)
    }
}
