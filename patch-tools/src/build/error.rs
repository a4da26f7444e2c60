//! Why a livepatch was not built.

use std::fmt;

use manifests::NameError;

use super::abi::AbiError;
use super::cache::CacheError;
use super::compile::CompileError;
use super::component::FragmentError;
use super::kernel::KernelError;
use super::layout::TypesError;
use super::link::LinkError;
use super::patch::{ParseError, SourcePath};
use super::report::UnitReport;
use super::runpre::{FunctionMatch, PlaceError};
use super::tree::TreeError;
use super::units::UnitsError;
use crate::check::{Finding, Severity};
use crate::diff::symbols::SymbolsError;
use crate::diff::{DiffError, Refused};
use crate::elf::Malformed;
use crate::module::ObjectName;

/// Why a livepatch was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A patch cannot be read.
    #[error("{name} is not a patch that can be used")]
    Patch {
        /// The patch.
        name: String,
        /// Why.
        source: ParseError,
    },
    /// The name gives no module name.
    #[error("no module can be called `{name}`; give a name of letters, digits and dashes with --name")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: NameError,
    },
    /// The kernel's parts are not to be had.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The tree could not be prepared.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The patch does not fit the kernel.
    #[error(transparent)]
    Units(#[from] UnitsError),
    /// A unit does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A compiled object cannot be read.
    #[error("the object of {unit} cannot be read")]
    Object {
        /// The unit.
        unit: SourcePath,
        /// Why.
        source: Malformed,
    },
    /// The layout of a unit's types cannot be told.
    #[error("cannot tell the data layout of {unit}")]
    Types {
        /// The unit.
        unit: SourcePath,
        /// Why.
        source: TypesError,
    },
    /// A shipped module cannot be read.
    #[error("the shipped module {module} cannot be read")]
    Module {
        /// The module.
        module: String,
        /// Why.
        source: PlaceError,
    },
    /// The kernel's symbols cannot be used.
    #[error("the kernel's symbols cannot be used")]
    Symbols(#[from] SymbolsError),
    /// Two objects could not be compared.
    #[error("the two objects of {unit} cannot be compared")]
    Diff {
        /// The unit.
        unit: SourcePath,
        /// Why.
        source: DiffError,
    },
    /// The change cannot be livepatched.
    #[error("the change cannot be livepatched:{}", lines(refusals))]
    Refused {
        /// Every reason.
        refusals: Vec<Refusal>,
        /// What was found in each unit.
        units: Vec<UnitReport>,
    },
    /// No function is left to replace: the compiler made the same of both, or what differs does not matter.
    #[error("the patch leaves no function to replace:{}", without_effect(units))]
    Unchanged {
        /// The units, each with what became of its changes.
        units: Vec<(SourcePath, Vec<String>)>,
    },
    /// An object can have one callback of each kind.
    #[error("two functions are marked as {kind} callback of {object}; there can be one")]
    TwoCallbacks {
        /// The object.
        object: ObjectName,
        /// The kind.
        kind: &'static str,
    },
    /// The module could not be linked.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The module that was just written cannot be read.
    #[error("the module that was built cannot be read back: a bug in patch-tools")]
    Unreadable(#[source] Malformed),
    /// The module patches something else than planned.
    #[error(
        "the module that was built patches {found} functions, not the {planned} that were planned: a bug in patch-tools"
    )]
    OtherFunctions {
        /// How many were planned.
        planned: usize,
        /// How many there are.
        found: usize,
    },
    /// The module would not load.
    #[error("the module that was built would not load into this kernel:{}", lines(&refusing(findings)))]
    WouldNotLoad {
        /// What was found.
        findings: Vec<Finding>,
    },
    /// The manifest fragment could not be written.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// One reason why a change cannot be livepatched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A rule of the comparison.
    Diff {
        /// The unit.
        unit: SourcePath,
        /// The rule and what broke it.
        refused: Refused,
    },
    /// The CRC of an exported symbol.
    Abi(AbiError),
    /// A type that objects of the running kernel have in another shape, or with other meanings.
    Layout {
        /// The unit.
        unit: SourcePath,
        /// The type, as `struct file`.
        type_name: String,
        /// What changes.
        how: String,
    },
    /// The rebuilt original is not the shipped function.
    NotShipped {
        /// The unit.
        unit: SourcePath,
        /// The object.
        object: ObjectName,
        /// The function.
        function: String,
        /// What matching gave.
        found: FunctionMatch,
    },
    /// The position by which the kernel would find the function leads elsewhere.
    WrongPosition {
        /// The unit.
        unit: SourcePath,
        /// The function.
        function: String,
        /// The position.
        sympos: u32,
        /// Where the function is.
        address: u64,
    },
}

impl Refusal {
    /// A stable identifier of the rule.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Diff { refused, .. } => refused.reason.id(),
            Self::Abi(AbiError::Changed { .. }) => "crc-changed",
            Self::Abi(AbiError::NotShipped { .. }) => "not-the-source",
            Self::Layout { .. } => "layout-changed",
            Self::NotShipped { .. } => "not-the-shipped-code",
            Self::WrongPosition { .. } => "wrong-position",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Diff { unit, refused } => write!(formatter, "{unit}: {refused}"),
            Self::Abi(error) => error.fmt(formatter),
            Self::Layout { unit, type_name, how } => write!(
                formatter,
                "{unit}: the layout of {type_name} changes ({how}); objects that live in the running kernel keep the \
                 old one (use a shadow variable, or LIVEPATCH_LAYOUT if no such object is left)"
            ),
            Self::NotShipped { unit, object, function, found } => {
                write!(formatter, "{unit}: {function} of {object} was not proven to be what runs: ")?;
                match found {
                    FunctionMatch::Differs(difference) => {
                        write!(formatter, "the rebuilt function has {difference}")
                    }
                    other => write!(formatter, "it {other}"),
                }
            }
            Self::WrongPosition { unit, function, sympos, address } => write!(
                formatter,
                "{unit}: {function} is at {address:#x}, which is not symbol {sympos} of that name"
            ),
        }
    }
}

fn without_effect(units: &[(SourcePath, Vec<String>)]) -> String {
    let told = units.iter().flat_map(|(unit, told)| told.iter().map(move |one| format!("{unit}: {one}")));
    lines(&told.collect::<Vec<_>>())
}

fn lines(items: &[impl fmt::Display]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}

fn refusing(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .filter(|finding| finding.severity == Severity::Refuse)
        .map(|finding| format!("{}: {} expected, {} found", finding.subject, finding.expected, finding.found))
        .collect()
}
