//! The one error of the readers: where, and which rule.

use serde::Serialize;

/// Input that breaks a rule of its format.
///
/// `offset` counts bytes from the start of the file (for a compressed kernel image: of the decompressed
/// kernel where the rule speaks of its contents).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("at offset {offset:#x}: {}, but found {found} (rule {})", rule.sentence(), rule.id())]
pub struct Malformed {
    /// Where the offending bytes are.
    pub offset: u64,
    /// What they break.
    pub rule: Rule,
    /// What stands there instead.
    pub found: String,
}

impl Malformed {
    /// A violation of `rule` at `offset`.
    pub fn new(offset: u64, rule: Rule, found: impl Into<String>) -> Self {
        Self { offset, rule, found: found.into() }
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $id:literal: $sentence:literal,)*) => {
        /// What the readers insist on. The identifier is stable: tests and scripts may rely on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $sentence] $(#[$doc])* $name,)*
        }

        impl Rule {
            /// The stable identifier, in kebab case.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// The rule as a statement about correct input.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

rules! {
    FileSize = "file-size": "a file is larger than its header and within the size limit",
    ElfMagic = "elf-magic": "the file starts with the ELF magic",
    ElfClass = "elf-class": "the file is 64-bit little-endian ELF, version 1",
    ElfMachine = "elf-machine": "the machine is x86-64",
    ElfType = "elf-type": "the file's ELF type is the one expected here",
    SectionTable = "section-table": "the section table lies within the file and has 64-byte entries",
    SectionCount = "section-count": "there are at least one and at most 1048576 sections",
    SectionData = "section-data": "a section's data lies within the file",
    SectionLink = "section-link": "a section refers to an existing section of the right type",
    SectionUnique = "section-unique": "a section that can stand only once does",
    StringTable = "string-table": "a string table ends with a zero byte and names lie within it",
    NameText = "name-text": "a name is UTF-8 of at most 1024 bytes",
    SymbolTable = "symbol-table": "the symbol table has 24-byte entries and stays within its limits",
    SymbolSection = "symbol-section": "a symbol's section exists",
    RelocationTable = "relocation-table": "a relocation section has 24-byte entries",
    RelocationSymbol = "relocation-symbol": "a relocation refers to an existing symbol",
    RelocationPlace = "relocation-place": "a relocation lies within the section it applies to",
    EntrySize = "entry-size": "a table's size is a multiple of its entry size",
    Modinfo = "modinfo": "modinfo is a sequence of key=value strings, each ending in a zero byte",
    Note = "note": "a note's header, name and description lie within its section",
    Signature = "signature": "an appended signature is a complete module_signature with PKCS#7 data",
    Der = "der": "a signature is DER: definite, minimal lengths, nested as PKCS#7 prescribes",
    KlpSymbol = "klp-symbol": "a livepatch symbol is named .klp.sym.OBJECT.NAME,POSITION",
    KlpSection = "klp-section": "a livepatch relocation section is named .klp.rela.OBJECT.SECTION",
    KlpPointer = "klp-pointer": "a pointer in a livepatch table is null or has exactly one R_X86_64_64 relocation",
    KlpString = "klp-string": "a name in a livepatch table is printable text ending within its section",
    KlpLayout = "klp-layout": "fields that the kernel fills in are zero in the file",
    KlpTable = "klp-table": "a livepatch table lies within its section and ends with an empty entry",
    KlpLimit = "klp-limit": "a livepatch has at most 1024 objects, 65536 functions and 131072 relocations",
    ImageSetup = "image-setup": "a kernel image has a setup header of protocol 2.08 or later, with its payload in the file",
    ImageIdentity = "image-identity": "a kernel has a banner \"Linux version RELEASE\" in its read-only data",
    ImageTable = "image-table": "a table of the kernel lies within a section of its image",
    ExportName = "export-name": "the name of an exported symbol lies within __ksymtab_strings",
    KallsymsTokens = "kallsyms-tokens": "a kernel has a kallsyms token table with its index",
    KallsymsNames = "kallsyms-names": "kallsyms names lie where count and markers say",
    KallsymsOffsets = "kallsyms-offsets": "kallsyms has as many addresses as names, in rising order",
    Btf = "btf": "BTF has a header of version 1, and its types and strings lie within it",
    KlpSinglePatch = "klp-single-patch": "the module enables one struct klp_patch",
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}
