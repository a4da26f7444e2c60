//! Run-pre matching: is the code that we rebuilt ("pre") the code that runs ("run")?
//!
//! A livepatch replaces functions of a binary that somebody else built. Before anything is replaced, every
//! function of the rebuilt original object is laid beside the shipped kernel image (or module) and compared
//! byte for byte; only the places that a linker fills in may differ, and what is in them is used: it tells at
//! which address the shipped code finds each symbol. That is the only sure way to tell one local symbol
//! from another of the same name, and so to write a right `sympos` (the idea is that of Ksplice, 2009).
//!
//! What may differ, and how it is checked instead:
//!
//! | place | rule |
//! |---|---|
//! | field of a relocation | the symbol address that follows from it must be the same at every place, and the one that kallsyms gives |
//! | string literal | the bytes it points to must be the same string |
//! | entry call of `__fentry__` | may be the five-byte no-op |
//! | jump to a function of the same file | may be the short form: our functions are in sections of their own |
//!
//! Alternatives, paravirt calls, static calls, jump labels and retpolines need no rule: the image and the module
//! files hold what the compiler and objtool wrote; the kernel changes such places only when it boots. For
//! the same reason this reads files, never the memory of a running kernel.
//!
//! | file | what |
//! |---|---|
//! | `shipped` | the shipped code as memory with symbols, for a kernel image |
//! | `module` | the same for a module file, by placing it at an address |
//! | `object` | the functions of a rebuilt object |
//! | `code` | one function against one address |
//! | `unit` | all functions of an object together |

mod code;
mod module;
mod object;
mod shipped;
mod unit;

use std::collections::BTreeMap;
use std::fmt;

pub use module::{PlaceError, ShippedModule};
pub use shipped::{Shipped, Vmlinux};
pub use unit::match_unit;

/// What matching one object gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitMatch {
    /// Every function of the object.
    pub functions: BTreeMap<String, FunctionMatch>,
    /// Addresses of the object's own symbols, and of those it refers to, in the shipped code.
    pub addresses: BTreeMap<String, u64>,
}

impl UnitMatch {
    /// How many functions are the shipped ones.
    pub fn matched(&self) -> usize {
        self.functions.values().filter(|found| matches!(found, FunctionMatch::Same { .. })).count()
    }
}

/// What matching one function gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FunctionMatch {
    /// The shipped function at this address is the same.
    Same {
        /// Where it is.
        address: u64,
    },
    /// The shipped object has no function of that name.
    Absent,
    /// There is one, but its code differs.
    Differs(Difference),
    /// Several are the same, and nothing tells which one belongs to this object.
    Ambiguous {
        /// Where they are.
        addresses: Vec<u64>,
    },
}

/// The first place at which a function differs from the shipped one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Offset in our function, in bytes.
    pub offset: u64,
    /// What we have there.
    pub rebuilt: String,
    /// What the shipped function has there.
    pub shipped: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "at +{:#x} `{}` where the shipped code has `{}`",
            self.offset, self.rebuilt, self.shipped
        )
    }
}

impl fmt::Display for FunctionMatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same { address } => write!(formatter, "is the shipped function at {address:#x}"),
            Self::Absent => write!(formatter, "is not in the shipped object"),
            Self::Differs(difference) => difference.fmt(formatter),
            Self::Ambiguous { addresses } => {
                let shown: Vec<String> = addresses.iter().map(|address| format!("{address:#x}")).collect();
                write!(formatter, "equals several shipped functions ({})", shown.join(", "))
            }
        }
    }
}
