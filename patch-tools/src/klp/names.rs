//! Names of livepatch symbols and sections.
//!
//! The kernel reads an object and a position out of a symbol's name (`klp_resolve_symbols()`: object of at
//! most 55 characters without a dot, name up to the comma) and an object out of a relocation section's name.
//! Before linking a symbol also has to say which relocation section it will go to, since that is not always
//! its own object's: a module's function may use a symbol of another module.

use std::fmt;

use crate::module::ObjectName;

/// A symbol that the kernel's livepatch code resolves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KlpSymbol {
    /// The object whose presence the relocation waits for.
    pub section_object: ObjectName,
    /// The object that defines the symbol.
    pub object: ObjectName,
    /// Its name there.
    pub name: String,
    /// Its position among that object's symbols of that name, from 1; 0 when it is unique.
    pub sympos: u32,
}

const REFERENCE: &str = ".klp.ref.";
const SYMBOL: &str = ".klp.sym.";

/// Start of the global names that stand for replaced functions until the module is finished.
pub const NEW_FUNCTION: &str = "__klp_new.";

/// Start of the global names that stand for callbacks until the module is finished.
pub const CALLBACK: &str = "__klp_callback.";

impl KlpSymbol {
    /// The name that the symbol has until the module is finished.
    pub fn intermediate(&self) -> String {
        format!("{REFERENCE}{}{}", self.section_object, self.symbol_name())
    }

    /// The name that the kernel reads.
    pub fn symbol_name(&self) -> String {
        format!("{SYMBOL}{}.{},{}", self.object, self.name, self.sympos)
    }

    /// The section for relocations of `section` that refer to this symbol.
    pub fn section_name(&self, section: &str) -> String {
        format!(".klp.rela.{}.{}", self.section_object, section.strip_prefix('.').unwrap_or(section))
    }

    /// Reads an intermediate name; `None` if it is not one.
    pub fn parse(name: &str) -> Option<Self> {
        let (section_object, rest) = name.strip_prefix(REFERENCE)?.split_once(SYMBOL)?;
        let (object, rest) = rest.split_once('.')?;
        let (name, sympos) = rest.rsplit_once(',')?;
        if name.is_empty() || section_object.is_empty() || object.is_empty() {
            return None;
        }
        Some(Self {
            section_object: object_name(section_object),
            object: object_name(object),
            name: name.to_owned(),
            sympos: sympos.parse().ok()?,
        })
    }
}

impl fmt::Display for KlpSymbol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.symbol_name())
    }
}

/// The global name that stands for the new version of a function until the module is finished.
pub fn new_function(object: &ObjectName, name: &str, sympos: u32) -> String {
    format!("{NEW_FUNCTION}{object}.{sympos}.{name}")
}

/// The global name that stands for an object's callback until the module is finished.
pub fn callback(object: &ObjectName, slot: &str) -> String {
    format!("{CALLBACK}{object}.{slot}")
}

fn object_name(text: &str) -> ObjectName {
    match text {
        "vmlinux" => ObjectName::Vmlinux,
        module => ObjectName::Module(module.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intermediate_name_says_everything_and_reads_back() {
        let symbol = KlpSymbol {
            section_object: ObjectName::Module("ext4".to_owned()),
            object: ObjectName::Module("jbd2".to_owned()),
            name: "journal_end.isra.0".to_owned(),
            sympos: 2,
        };
        assert_eq!(symbol.symbol_name(), ".klp.sym.jbd2.journal_end.isra.0,2");
        assert_eq!(symbol.section_name(".text.ext4_sync"), ".klp.rela.ext4.text.ext4_sync");
        assert_eq!(symbol.section_name("__jump_table"), ".klp.rela.ext4.__jump_table");
        assert_eq!(KlpSymbol::parse(&symbol.intermediate()), Some(symbol));
        assert_eq!(KlpSymbol::parse(".klp.sym.vmlinux.foo,0"), None);
    }
}
