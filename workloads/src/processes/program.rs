//! What a process runs, and what of that cannot be told from its mappings.
//!
//! Mapped files are code that is known. Beside it a process may run code that no mapping shows: libraries that were linked
//! into it, scripts and class files that an interpreter has read, and what it made itself. Nothing of that is guessed
//! at: it is said that it is not proven, for people who know what the process runs.
//!
//! Interpreters are told by how they and their libraries are called. A name can lie, and decides nothing here: whoever
//! calls an interpreter something else is without a remark.

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::files::buildid::{Elf, Loader};
use crate::files::foreign::Handle;
use crate::model::{Build, SeenPath};

/// The file that a process was started with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Program {
    /// Where it is or was, as the process sees it.
    pub path: SeenPath,
    /// Which build it is, as far as it says so.
    pub build: Option<Build>,
    /// How its libraries come to it.
    pub linked: Linked,
}

/// How the libraries of a program come to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Linked {
    /// It maps them.
    Dynamically,
    /// They are part of it.
    Statically,
    /// Go's are part of it; it may map others.
    ByGo,
    /// It is no ELF file, or is damaged.
    Unknown,
}

impl Program {
    /// The program in a file that a process was started with.
    pub(crate) fn of(path: SeenPath, handle: &Handle) -> io::Result<Arc<Self>> {
        let elf = Elf::read(&handle.read()?)?;
        let linked = match &elf {
            None => Linked::Unknown,
            Some(Elf { go: Some(_), .. }) => Linked::ByGo,
            Some(Elf { loader: Loader::Asked, .. }) => Linked::Dynamically,
            Some(Elf { loader: Loader::None, .. }) => Linked::Statically,
        };
        Ok(Arc::new(Self { path, build: elf.and_then(|elf| elf.build()), linked }))
    }
}

/// What a process may run that its mappings do not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotProven {
    /// The libraries that were linked into its program: which they are, only its build tells.
    Linked,
    /// What an interpreter reads and does not map: scripts, modules, class files, archives.
    Read(Interpreter),
    /// Code in memory that no file stands behind: a just-in-time compiler's, or loaded by means of its own.
    Memory,
}

/// What reads the code that it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interpreter {
    /// Python.
    Python,
    /// Perl.
    Perl,
    /// Ruby.
    Ruby,
    /// Node.js.
    Node,
    /// A Java virtual machine.
    Java,
    /// PHP.
    Php,
    /// Lua.
    Lua,
    /// .NET, or Mono.
    Dotnet,
}

impl Interpreter {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Perl => "perl",
            Self::Ruby => "ruby",
            Self::Node => "node",
            Self::Java => "java",
            Self::Php => "php",
            Self::Lua => "lua",
            Self::Dotnet => "dotnet",
        }
    }

    /// By the path of a program or library that has it in it.
    pub(crate) fn of(path: &[u8]) -> Option<Self> {
        const PROGRAMS: [(&[u8], Interpreter); 12] = [
            (b"python", Interpreter::Python),
            (b"pypy", Interpreter::Python),
            (b"perl", Interpreter::Perl),
            (b"ruby", Interpreter::Ruby),
            (b"node", Interpreter::Node),
            (b"nodejs", Interpreter::Node),
            (b"java", Interpreter::Java),
            (b"php", Interpreter::Php),
            (b"php-fpm", Interpreter::Php),
            (b"lua", Interpreter::Lua),
            (b"luajit", Interpreter::Lua),
            (b"dotnet", Interpreter::Dotnet),
        ];
        const LIBRARIES: [(&[u8], Interpreter); 10] = [
            (b"libpython", Interpreter::Python),
            (b"libperl.so", Interpreter::Perl),
            (b"libruby", Interpreter::Ruby),
            (b"libnode.so", Interpreter::Node),
            (b"libjvm.so", Interpreter::Java),
            (b"libphp", Interpreter::Php),
            (b"liblua", Interpreter::Lua),
            (b"libcoreclr.so", Interpreter::Dotnet),
            (b"libmono-2", Interpreter::Dotnet),
            (b"libmonosgen", Interpreter::Dotnet),
        ];
        let name = path.rsplit(|byte| *byte == b'/').next()?;
        if name.starts_with(b"lib") {
            return LIBRARIES.iter().find(|(library, _)| name.starts_with(library)).map(|(_, which)| *which);
        }
        // With a version behind it, or without: python3.11, perl, php8.2.
        let is_version = |rest: &[u8]| rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
        let named = |(program, _): &&(&[u8], Self)| name.strip_prefix(*program).is_some_and(is_version);
        PROGRAMS.iter().find(named).map(|(_, which)| *which)
    }
}

impl fmt::Display for NotProven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linked => f.write_str("libraries that are part of the program"),
            Self::Read(interpreter) => {
                write!(f, "what {} reads and does not map", interpreter.name())
            }
            Self::Memory => f.write_str("code in memory without a file (a just-in-time compiler's?)"),
        }
    }
}

/// `linked`, `memory`, or the interpreter's name.
impl Serialize for NotProven {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Linked => "linked",
            Self::Memory => "memory",
            Self::Read(interpreter) => interpreter.name(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_called_by_their_name_and_version() {
        for (path, expected) in [
            ("/usr/bin/python3.11", Some(Interpreter::Python)),
            ("/usr/bin/perl", Some(Interpreter::Perl)),
            ("/usr/bin/perl5.36.0", Some(Interpreter::Perl)),
            ("/usr/lib/jvm/java-17/bin/java", Some(Interpreter::Java)),
            ("/usr/sbin/php-fpm8.2", Some(Interpreter::Php)),
            ("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", Some(Interpreter::Python)),
            ("/usr/lib/x86_64-linux-gnu/libperl.so.5.36.0", Some(Interpreter::Perl)),
            ("/usr/bin/node_exporter", None),
            ("/usr/bin/javac", None),
            ("/usr/bin/pythonic", None),
            ("/usr/lib/python3/dist-packages/x.so", None),
            ("/usr/lib/libperlish.so", None),
            ("", None),
        ] {
            assert_eq!(Interpreter::of(path.as_bytes()), expected, "{path}");
        }
    }
}
