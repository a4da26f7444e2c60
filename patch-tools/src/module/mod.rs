//! What a kernel module says about itself, above all which functions a livepatch module replaces.
//!
//! [`Module::parse`] takes the bytes of a `.ko` and returns a value; it opens no files and needs no kernel.
//! Whatever is malformed is an error that names offset and rule; whatever is well-formed but would not load
//! is for [`crate::check`]. A module that is not a livepatch parses with `is_livepatch() == false`.
//!
//! | file | what it reads |
//! |---|---|
//! | `modinfo` | the `.modinfo` strings |
//! | `symbols` | imported symbols and their CRCs |
//! | `entries` | where the kernel enters the module |
//! | `patch` | the decoded livepatch: objects, functions, callbacks, states |
//! | `locate` | where in the module those tables are |
//! | `tables` | `struct klp_patch` |
//! | `generators` | the tables of kpatch-build and klp-build |
//! | `memory` | data as it is after relocation: pointers and strings |
//! | `klp` | livepatch relocations and symbols |
//! | `signature` | the appended signature: signer and algorithms |
//! | `sections` | build id, sizes, special sections |
//!
//! A livepatch's tables are data in the module, filled by relocations. They are found through the argument
//! of the `klp_enable_patch` call, not by the names of variables. What a module does in code before that call
//! (filling tables at run time) cannot be seen here.

mod entries;
mod generators;
mod klp;
mod locate;
mod memory;
mod modinfo;
mod patch;
mod sections;
pub(crate) mod signature;
mod symbols;
mod tables;

use serde::Serialize;

pub use crate::elf::Malformed;
pub use entries::{EntryPoint, EntryTarget};
pub use klp::{KlpRelocation, KlpSymbol, SHF_RELA_LIVEPATCH, SHN_LIVEPATCH};
pub use modinfo::Modinfo;
pub use patch::{
    Callbacks, Livepatch, ObjectName, PatchedFunction, PatchedObject, Replace, State, TableForm,
};
pub(crate) use sections::build_id;
pub use sections::build_id_of_notes;
pub use sections::{Sizes, SpecialSection};
pub use signature::{Signature, Signer, SignerIdentity};
pub use symbols::{Import, Need};
pub use tables::Layout;

use crate::elf::{Elf, Rule};

/// Larger than any module: the largest of a distribution's modules has 10 MiB without debug data.
pub const MAX_MODULE: usize = 512 << 20;

/// Why a module cannot be read.
pub type ParseError = Malformed;

/// A kernel module.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Module {
    /// The name the kernel shows, from `struct module` in `.gnu.linkonce.this_module`; modinfo's `name` where
    /// there is no such section.
    pub name: Option<String>,
    /// All modinfo entries in their order.
    pub modinfo: Modinfo,
    /// The decoded tables, if this is a livepatch whose tables were found.
    pub livepatch: Option<Livepatch>,
    /// Relocations that the livepatch core applies when their object is there.
    pub klp_relocations: Vec<KlpRelocation>,
    /// Symbols that the livepatch core resolves through kallsyms.
    pub klp_symbols: Vec<KlpSymbol>,
    /// Symbols that the module loader resolves, with the CRC the module was built against.
    pub imports: Vec<Import>,
    /// Pointers of the module's own `struct module`: `init` and `exit`, by rising offset.
    pub entries: Vec<EntryPoint>,
    /// The signature appended to the file; not verified.
    pub signature: Option<Signature>,
    /// The GNU build id in hex.
    pub build_id: Option<String>,
    /// Tables that the kernel applies when it loads the module.
    pub special_sections: Vec<SpecialSection>,
    /// Bytes by what they are.
    pub sizes: Sizes,
}

impl Module {
    /// Reads a module with the structure layout of the kernels that [`Layout::default`] names.
    pub fn parse(data: &[u8]) -> Result<Self, ParseError> {
        Self::parse_with(data, &Layout::default())
    }

    /// Reads a module built for a kernel whose livepatch structures are laid out like `layout`.
    pub fn parse_with(data: &[u8], layout: &Layout) -> Result<Self, ParseError> {
        if data.len() > MAX_MODULE {
            return Err(Malformed::new(0, Rule::FileSize, format!("{} bytes", data.len())));
        }
        let (contents, signature) = signature::split(data)?;
        let elf = Elf::parse(contents)?;
        if elf.elf_type() != object::elf::ET_REL {
            return Err(Malformed::new(
                16,
                Rule::ElfType,
                format!("type {}, not relocatable", elf.elf_type()),
            ));
        }
        let modinfo = Modinfo::read(&elf)?;
        let livepatch = match modinfo.get("livepatch") {
            Some(_) => locate::livepatch(&elf, layout)?,
            None => None,
        };
        let klp_symbols = klp::symbols(&elf)?;
        Ok(Self {
            name: symbols::module_name(&elf)?.or_else(|| modinfo.get("name").map(str::to_owned)),
            klp_relocations: klp::relocations(&elf, &klp_symbols)?,
            klp_symbols: klp_symbols.into_iter().map(|(_, symbol)| symbol).collect(),
            imports: symbols::imports(&elf)?,
            entries: entries::read(&elf)?,
            signature,
            build_id: sections::build_id(&elf)?,
            special_sections: sections::special(&elf)?,
            sizes: sections::sizes(&elf, data.len()),
            modinfo,
            livepatch,
        })
    }

    /// The kernel's own rule: a module is a livepatch when its modinfo has the key `livepatch`.
    pub fn is_livepatch(&self) -> bool {
        self.modinfo.get("livepatch").is_some()
    }

    /// The string that the loader compares with the running kernel's.
    pub fn vermagic(&self) -> Option<&str> {
        self.modinfo.get("vermagic")
    }

    /// The release the module was built for: the first word of the vermagic.
    pub fn release(&self) -> Option<&str> {
        self.vermagic().and_then(|vermagic| vermagic.split(' ').next())
    }

    /// The objects patched; empty when this is no livepatch or its tables were not found.
    pub fn objects(&self) -> &[PatchedObject] {
        self.livepatch.as_ref().map_or(&[], |livepatch| &livepatch.objects)
    }
}
