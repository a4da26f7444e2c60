//! Makes a module out of what the differ left of the patched units.
//!
//! Three kinds of objects go through `ld -r` with the kernel's own linker script for modules: the template (code
//! that is the same for every patch, compiled once per kernel), the tables of this patch (written here, as
//! data), and the differ's objects. Symbols that the livepatch core is to resolve are still undefined
//! then, under names that say what they are; [`crate::klp`] turns them and their relocations into what
//! `Documentation/livepatch/module-elf-format.rst` asks for.
//!
//! The result depends on nothing but its inputs: no paths, no times, no order of directories.

mod tables;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use manifests::{ModuleName, Replace};

pub(super) use template::{MAKEFILE as TEMPLATE_MAKEFILE, SOURCE as TEMPLATE_SOURCE};

use super::cache::CacheError;
use super::process::ProcessError;
use super::tree::{Tree, TreeError};
use crate::diff::Replacement;
use crate::elf::{Elf, Malformed, Place};
use crate::klp::names::KlpSymbol;
use crate::module::ObjectName;

use template::Template;

/// Why no module could be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// An object cannot be read.
    #[error("cannot read {what}")]
    Object {
        /// Which object.
        what: &'static str,
        /// Why.
        source: Malformed,
    },
    /// The template lacks what it is made to have.
    #[error("the compiled module template has not {0}")]
    Template(&'static str),
    /// The module's name does not fit.
    #[error("the module name {name} has more than {limit} bytes")]
    LongName {
        /// The name.
        name: ModuleName,
        /// The most that the kernel takes.
        limit: usize,
    },
    /// The template could not be compiled.
    #[error(transparent)]
    Tree(#[from] Box<TreeError>),
    /// The tables could not be written.
    #[error("cannot write the livepatch tables")]
    Tables(#[from] object::write::Error),
    /// The linker failed.
    #[error("cannot link the module")]
    Linker(#[source] ProcessError),
    /// The livepatch sections could not be written.
    #[error("cannot write the livepatch sections")]
    Finish(#[source] crate::klp::FinishError),
    /// A symbol that the module would import is not exported.
    #[error("{symbol} is needed by the patch, but the kernel does not export it")]
    NotExported {
        /// The symbol.
        symbol: String,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What the module is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The objects, in the order in which the kernel is to patch them.
    pub(super) objects: Vec<ObjectPlan>,
    /// Whether it replaces all others.
    pub(super) replace: Replace,
    /// One line for modinfo.
    pub(super) description: String,
}

/// What the module does to one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectPlan {
    /// The object.
    pub(super) name: ObjectName,
    /// The functions that it replaces.
    pub(super) functions: Vec<Replacement>,
    /// Symbols of its callbacks, in the order of `CallbackKind::ALL`.
    pub(super) callbacks: [Option<String>; 4],
}

/// What the module takes from the kernel's exports.
#[derive(Debug, Default)]
struct Imports {
    crcs: BTreeMap<String, u32>,
    namespaces: BTreeSet<String>,
}

/// What is linked.
pub(super) struct Link<'a> {
    pub(super) tree: &'a Tree,
    pub(super) name: &'a ModuleName,
    pub(super) plan: &'a Plan,
    /// The differ's objects.
    pub(super) objects: &'a [&'a [u8]],
    /// What the kernel exports.
    pub(super) exports: &'a crate::image::Exports,
}

impl Link<'_> {
    /// Links the module in `work`.
    pub(super) fn run(&self, work: &Path) -> Result<Vec<u8>, LinkError> {
        let template = Template::read(self.tree.template().map_err(Box::new)?)?;
        let template_object = template.named(self.name)?;
        let imports = self.imports(&template_object)?;
        let tables = tables::write(self.plan, self.name, &template.layout, &imports)?;
        let mut names = Vec::new();
        let mut add = |name: String, content: &[u8]| {
            let path = work.join(&name);
            fs::write(&path, content).map_err(CacheError::io("write", &path))?;
            names.push(name);
            Ok::<_, CacheError>(())
        };
        add("template.o".to_owned(), &template_object)?;
        add("tables.o".to_owned(), &tables)?;
        for (index, object) in self.objects.iter().enumerate() {
            add(format!("unit-{index}.o"), object)?;
        }
        self.tree
            .tools()
            .program("ld")
            .args(["-r", "-m", "elf_x86_64", "-z", "noexecstack", "--build-id=sha1", "-T"])
            .arg(self.tree.output().join("scripts/module.lds"))
            .args(["-o", "linked.o"])
            .args(&names)
            .directory(work)
            .run()
            .map_err(LinkError::Linker)?;
        let linked = work.join("linked.o");
        let linked = fs::read(&linked).map_err(CacheError::io("read", &linked))?;
        crate::klp::finish(&linked).map_err(LinkError::Finish)
    }

    /// The CRCs of what the module imports. The loader refuses a symbol without one.
    fn imports(&self, template: &[u8]) -> Result<Imports, LinkError> {
        let mut defined: BTreeSet<String> = ["livepatch_tables".to_owned()].into();
        let mut needed: BTreeSet<String> = BTreeSet::new();
        let objects = [template].into_iter().chain(self.objects.iter().copied());
        for object in objects {
            let elf = Elf::parse(object)
                .map_err(|source| LinkError::Object { what: "an object to link", source })?;
            for symbol in elf.symbols().iter().filter(|symbol| !symbol.name.is_empty()) {
                let into = if symbol.place == Place::Undefined { &mut needed } else { &mut defined };
                into.insert(symbol.name.to_owned());
            }
        }
        // What the livepatch core resolves is no import.
        let imported =
            needed.into_iter().filter(|name| !defined.contains(name) && KlpSymbol::parse(name).is_none());
        let mut imports = Imports::default();
        let versioned = self.tree.config.is_set("CONFIG_MODVERSIONS");
        // Stands for the layout of `struct module`; exported for that alone.
        let layout = versioned.then(|| "module_layout".to_owned());
        for symbol in imported.chain(layout) {
            let fits = !versioned || symbol.len() <= tables::LONGEST_VERSIONED;
            let Some(export) = self.exports.get(&symbol).filter(|_| fits) else {
                return Err(LinkError::NotExported { symbol });
            };
            imports.namespaces.extend(export.namespace.clone());
            // Without CONFIG_MODVERSIONS there are no CRCs.
            if let Some(crc) = export.crc {
                imports.crcs.insert(symbol, crc);
            }
        }
        Ok(imports)
    }
}
