//! Who resolves a symbol that the patch does not carry: the module loader, or the livepatch code.
//!
//! The module loader resolves what vmlinux exports. Everything else is named by object and position:
//! unexported globals, local symbols of the compared file, and what another module exports (its address is
//! known only once that module is there).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use object::elf::{STB_LOCAL, STB_WEAK};

use super::refusal::Refusal;
use super::sections::{Class, base};
use super::symbols::{Binding, Located, Origin, Scope, SymbolKind, SymbolTable, Wanted};
use super::unit::{AtomId, Unit};
use crate::elf::Place;
use crate::klp::names::KlpSymbol;
use crate::module::ObjectName;

/// How a reference to something outside of the patch is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outside {
    /// An undefined symbol of this name: the module loader or the linker resolves it.
    Plain(String),
    /// The livepatch code resolves it.
    Klp(KlpSymbol),
}

/// Resolves names for one comparison.
pub(crate) struct Resolver<'r, 'd> {
    object: &'r ObjectName,
    table: Option<&'r SymbolTable>,
    provided: &'r BTreeSet<String>,
    addresses: &'r BTreeMap<String, u64>,
    orig: &'r Unit<'d>,
    origin: Origin<'d>,
    known: HashMap<(String, Use), Result<Outside, Refusal>>,
}

/// How an undefined symbol is used, which tells what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    /// Called, or jumped to: it is code.
    Branch,
    /// Its address is taken.
    Address,
}

impl<'r, 'd> Resolver<'r, 'd> {
    pub(crate) fn new(
        object: &'r ObjectName,
        table: Option<&'r SymbolTable>,
        provided: &'r BTreeSet<String>,
        addresses: &'r BTreeMap<String, u64>,
        orig: &'r Unit<'d>,
    ) -> Self {
        let mut names = HashMap::new();
        if table.is_some() {
            for symbol in orig.elf().symbols() {
                if let Place::Section(section) = symbol.place
                    && !symbol.name.is_empty()
                {
                    names.insert(symbol.name, base(orig.section(section).name));
                }
            }
        }
        let origin = Origin::new(names);
        Self { object, table, provided, addresses, orig, origin, known: HashMap::new() }
    }

    /// A symbol that the compared file leaves undefined.
    pub(crate) fn undefined(&mut self, name: &str, used: Use) -> Result<Outside, Refusal> {
        let key = (name.to_owned(), used);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let found = self.find_undefined(name, used).map_err(|refusal| match refusal {
            Refusal::SymbolNotFound { .. } | Refusal::NotExported if self.is_missing(name) => {
                Refusal::Undefined
            }
            other => other,
        });
        self.known.insert(key, found.clone());
        found
    }

    fn find_undefined(&self, name: &str, used: Use) -> Result<Outside, Refusal> {
        if self.provided.contains(name) {
            return Ok(Outside::Plain(name.to_owned()));
        }
        let Some(table) = self.table else {
            // Entry and return thunks are exported by every kernel that uses them, and patched early.
            let always = name == "__fentry__" || name.starts_with("__x86_");
            return Ok(if always { Outside::Plain(name.to_owned()) } else { self.klp(self.object, name, 0) });
        };
        let export = table.export(name);
        if let Some(export) = export
            && export.owner == ObjectName::Vmlinux
        {
            // An export in a namespace is open only to modules that name it; kallsyms is open to all.
            return match export.namespace {
                None => Ok(Outside::Plain(name.to_owned())),
                Some(_) => self.locate_global(&ObjectName::Vmlinux, name, used),
            };
        }
        if let Ok(found) = self.locate_global(self.object, name, used) {
            return Ok(found);
        }
        match export {
            Some(export) if export.owner == *self.object => Ok(self.klp(self.object, name, 0)),
            Some(export) if *self.object != ObjectName::Vmlinux && !self.is_needed(table, &export.owner) => {
                Err(Refusal::NewDependency { owner: export.owner.to_string() })
            }
            Some(export) if *self.object != ObjectName::Vmlinux => {
                if table.knows(&export.owner) {
                    self.locate_global(&export.owner, name, used)
                } else {
                    Ok(self.klp(&export.owner, name, 0))
                }
            }
            _ if *self.object != ObjectName::Vmlinux => Err(Refusal::NotExported),
            _ => self.locate_global(self.object, name, used),
        }
    }

    /// Whether the patched module is never there without `owner`: it says so, or uses an export of it.
    fn is_needed(&self, table: &SymbolTable, owner: &ObjectName) -> bool {
        let uses = |name: &str| table.export(name).is_some_and(|export| export.owner == *owner);
        table.needs(self.object, owner)
            || self
                .orig
                .elf()
                .symbols()
                .iter()
                .any(|symbol| symbol.place == Place::Undefined && uses(symbol.name))
    }

    /// Whether the patch brought this name in, and nothing that it can reach has it.
    fn is_missing(&self, name: &str) -> bool {
        let reachable = [&ObjectName::Vmlinux, self.object];
        let known = self.table.is_some_and(|table| reachable.iter().any(|object| table.has(object, name)));
        !known && self.orig.elf().symbols().iter().all(|symbol| symbol.name != name)
    }

    fn locate_global(&self, object: &ObjectName, name: &str, used: Use) -> Result<Outside, Refusal> {
        let Some(table) = self.table else { return Ok(self.klp(object, name, 0)) };
        let kind = (used == Use::Branch).then_some(SymbolKind::Text);
        let wanted = Wanted { name, kind, size: None, scope: Scope::Elsewhere, address: None };
        let located = table.locate(object, &wanted)?;
        Ok(self.klp(object, name, located.sympos))
    }

    /// Something that the original file defines and the running object has.
    pub(crate) fn original(&mut self, atom: AtomId) -> Result<Outside, Refusal> {
        let name = self.orig.name(atom);
        let symbol = self.orig.atom(atom).symbol().map(|symbol| self.orig.symbol(symbol));
        let exported = self
            .table
            .and_then(|table| table.export(name))
            .is_some_and(|export| export.owner == ObjectName::Vmlinux && export.namespace.is_none());
        let local = symbol.is_some_and(|symbol| symbol.binding == STB_LOCAL);
        if exported && !local && *self.object == ObjectName::Vmlinux {
            return Ok(Outside::Plain(name.to_owned()));
        }
        self.original_by_position(atom)
    }

    /// The same, never by export: for pointers to functions whose name the patch itself defines.
    pub(crate) fn original_by_position(&mut self, atom: AtomId) -> Result<Outside, Refusal> {
        let located = self.locate(atom)?;
        Ok(self.klp(self.object, self.orig.name(atom), located.sympos))
    }

    /// Position of a function of the original file that is to be replaced: it has to be the one that runs.
    pub(crate) fn replaceable(&self, atom: AtomId) -> Result<Located, Refusal> {
        let located = self.locate(atom)?;
        if self.is_weak(atom) && located.binding == Binding::Global {
            return Err(Refusal::WeakOverridden);
        }
        Ok(located)
    }

    /// Position of a symbol that the original file defines. For a weak one it is that of the strong one which
    /// took its place, if any did: that is the one that callers reach.
    fn locate(&self, atom: AtomId) -> Result<Located, Refusal> {
        let Some(table) = self.table else {
            return Ok(Located { sympos: 0, binding: Binding::Unknown });
        };
        let name = self.orig.name(atom);
        let is_text = self.orig.class(self.orig.atom(atom).section()) == Class::Text;
        let symbol = self.orig.atom(atom).symbol().map(|symbol| self.orig.symbol(symbol));
        let local = symbol.is_some_and(|symbol| symbol.binding == STB_LOCAL);
        let file = Some(self.orig.scope(atom)).filter(|scope| !scope.is_empty()).or(self.orig.file());
        let wanted = Wanted {
            name,
            kind: Some(if is_text { SymbolKind::Text } else { SymbolKind::Data }),
            size: symbol.map(|symbol| symbol.size).filter(|&size| size > 0),
            scope: if local { Scope::Local(&self.origin, file) } else { Scope::Global },
            address: self.addresses.get(name).copied(),
        };
        match table.locate(self.object, &wanted) {
            Err(Refusal::SymbolDiffers { .. }) if self.is_weak(atom) => {
                // The one that took its place has a size of its own, and may be an alias.
                table.locate(self.object, &Wanted { size: None, scope: Scope::Elsewhere, ..wanted })
            }
            found => found,
        }
    }

    fn is_weak(&self, atom: AtomId) -> bool {
        let symbol = self.orig.atom(atom).symbol();
        symbol.is_some_and(|symbol| self.orig.symbol(symbol).binding == STB_WEAK)
    }

    fn klp(&self, object: &ObjectName, name: &str, sympos: u32) -> Outside {
        // vmlinux is always there: its symbols are resolved when the livepatch module loads.
        let section_object = match object {
            ObjectName::Vmlinux => ObjectName::Vmlinux,
            ObjectName::Module(_) => self.object.clone(),
        };
        Outside::Klp(KlpSymbol { section_object, object: object.clone(), name: name.to_owned(), sympos })
    }
}
