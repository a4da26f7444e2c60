//! Compiles units as the distribution did, but with every function and data object in its own section.
//!
//! The command is kbuild's (see `kbuild`), run in the prepared output directory, with
//! `-ffunction-sections -fdata-sections`, and followed by the same objtool call. Debug data is left out unless types
//! have to be compared; it does not change the code. For the patched unit all paths into the source lead into an overlay; `-fmacro-prefix-map`, which kbuild gives, keeps
//! both paths out of the object, so that it does not depend on where the cache is.
//!
//! Originals are kept in the tree: they depend on nothing but the tree and the command.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use manifests::Sha256;
use system::durable;

use super::cache::CacheError;
use super::kbuild::UnitCommand;
use super::overlay::Overlay;
use super::padding;
use super::patch::SourcePath;
use super::process::{ProcessError, Program};
use super::tree::Tree;

/// What an object tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Code and data.
    Code,
    /// The types that it uses as well, as debug data, which costs a third of the time and does not change the code.
    Types,
}

impl Detail {
    /// What is added to the distribution's flags.
    pub(super) fn added_flags(self) -> &'static [&'static str] {
        match self {
            Self::Code => &["-ffunction-sections", "-fdata-sections", "-g0"],
            // Where variables are is of no interest and costs most of the time.
            Self::Types => &[
                "-ffunction-sections",
                "-fdata-sections",
                "-g",
                "-gz=none",
                "-gno-variable-location-views",
                "-fno-var-tracking",
            ],
        }
    }
}

/// A unit that does not compile.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler or objtool failed.
    #[error("the {version} {unit} does not compile")]
    Failed {
        /// Original or patched.
        version: Version,
        /// The unit.
        unit: SourcePath,
        /// What the compiler said.
        source: ProcessError,
    },
    /// An object could not be kept.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Which of the two compilations of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// As the distribution has it.
    Original,
    /// With the patch.
    Patched,
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::Original => "original",
            Self::Patched => "patched",
        })
    }
}

/// The source that a compilation reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    tree: &'a Tree,
    overlay: Option<&'a Overlay>,
}

impl<'a> Source<'a> {
    /// The tree as it is.
    pub(super) fn original(tree: &'a Tree) -> Self {
        Self { tree, overlay: None }
    }

    /// The tree with a patch.
    pub(super) fn patched(tree: &'a Tree, overlay: &'a Overlay) -> Self {
        Self { tree, overlay: Some(overlay) }
    }

    fn version(self) -> Version {
        if self.overlay.is_some() { Version::Patched } else { Version::Original }
    }

    fn root(self) -> &'a Path {
        self.overlay.map_or(self.tree.source(), Overlay::root)
    }

    /// The compiler with the unit's flags, ready for `-c` or `-E`.
    fn compiler(self, unit: &UnitCommand, detail: Detail) -> Result<Program, CacheError> {
        let pristine = self.tree.source().to_string_lossy().into_owned();
        let root = self.root().to_string_lossy().into_owned();
        let mut words = unit.compile.iter().map(|word| match self.overlay {
            Some(_) => word.replace(&pristine, &root),
            None => word.clone(),
        });
        let compiler = self.tree.tools().program(words.next().unwrap_or_default());
        let compiler = compiler.args(words).args(detail.added_flags());
        let compiler = compiler.directory(self.tree.output());
        // Last, so that no header of the kernel is found here first.
        Ok(match self.overlay {
            Some(_) => compiler.arg("-I").arg(self.tree.author_include()?),
            None => compiler,
        })
    }

    fn compile_to(self, unit: &UnitCommand, detail: Detail, object: &Path) -> Result<(), CompileError> {
        let failed = |source| self.failed(unit, source);
        let compiler = self.compiler(unit, detail)?.args(["-c", "-o"]).arg(object);
        compiler.arg(self.root().join(&unit.source)).run().map_err(failed)?;
        if let Some((objtool, arguments)) = unit.objtool.split_first() {
            // Named relative to the output directory, which only the shell's lookup would know.
            let objtool = self.tree.output().join(objtool);
            let objtool = self.tree.tools().program(objtool).args(arguments).arg(object);
            objtool.directory(self.tree.output()).run().map_err(failed)?;
        }
        Ok(())
    }

    fn failed(self, unit: &UnitCommand, source: ProcessError) -> CompileError {
        CompileError::Failed { version: self.version(), unit: unit.source.clone(), source }
    }

    /// Compiles a unit in `work` and returns the object.
    pub(super) fn compile(
        self,
        unit: &UnitCommand,
        detail: Detail,
        work: &Path,
    ) -> Result<Vec<u8>, CompileError> {
        let kept = match self.version() {
            Version::Original => Some(self.kept_object(unit, detail)),
            Version::Patched => None,
        };
        if let Some(kept) = &kept
            && let Ok(object) = fs::read(kept)
        {
            return Ok(object);
        }
        let directory = tempfile::tempdir_in(work).map_err(CacheError::io("make a directory in", work))?;
        // The file's name becomes a symbol of the object.
        let object = directory.path().join("unit.o");
        self.compile_to(unit, detail, &object)?;
        let mut content = fs::read(&object).map_err(CacheError::io("read", &object))?;
        padding::leave_out_list(&mut content);
        if let Some(kept) = kept {
            if let Some(parent) = kept.parent() {
                fs::create_dir_all(parent).map_err(CacheError::io("make", parent))?;
            }
            durable::publish(&kept, &content).map_err(CacheError::io("write", &kept))?;
        }
        Ok(content)
    }

    /// Compiles a unit to assembler text.
    pub(super) fn assembly(self, unit: &UnitCommand) -> Result<Vec<u8>, CompileError> {
        let compiler =
            self.compiler(unit, Detail::Code)?.args(["-S", "-o", "-"]).arg(self.root().join(&unit.source));
        compiler.run().map_err(|source| self.failed(unit, source))
    }

    /// Runs the preprocessor alone and returns its output.
    pub(super) fn preprocess(self, unit: &UnitCommand, flags: &[&str]) -> Result<Vec<u8>, CompileError> {
        let compiler =
            self.compiler(unit, Detail::Code)?.args(flags).arg("-E").arg(self.root().join(&unit.source));
        compiler.run().map_err(|source| self.failed(unit, source))
    }

    /// The CRCs of the unit's exported symbols, as kbuild makes them (`CONFIG_MODVERSIONS`).
    pub(super) fn crcs(self, unit: &UnitCommand, work: &Path) -> Result<BTreeMap<String, u32>, CompileError> {
        let kept = self.kept_object(unit, Detail::Code).with_extension("crcs");
        if self.version() == Version::Original
            && let Ok(text) = fs::read_to_string(&kept)
        {
            return Ok(parse_crcs(&text));
        }
        let text = self.preprocess(unit, &["-D__GENKSYMS__"])?;
        let crcs = self
            .tree
            .tools()
            .program(self.tree.output().join("scripts/genksyms/genksyms"))
            .args(["-r", "/dev/null"])
            .directory(work)
            .input(text)
            .run()
            .map_err(|source| self.failed(unit, source))?;
        if self.version() == Version::Original {
            durable::publish(&kept, &crcs).map_err(CacheError::io("write", &kept))?;
        }
        Ok(parse_crcs(&String::from_utf8_lossy(&crcs)))
    }

    fn kept_object(self, unit: &UnitCommand, detail: Detail) -> PathBuf {
        let command = format!("{:?} {:?} {:?}", unit.compile, detail.added_flags(), unit.objtool);
        let digest = Sha256::of(command.as_bytes()).to_string();
        self.tree.derived("objects").join(format!("{}.{}.o", unit.source, &digest[..12]))
    }
}

/// `#SYMVER path_get 0xb0cc2787`
fn parse_crcs(text: &str) -> BTreeMap<String, u32> {
    text.lines()
        .filter_map(|line| {
            let (name, crc) = line.strip_prefix("#SYMVER ")?.split_once(" 0x")?;
            Some((name.to_owned(), u32::from_str_radix(crc.trim(), 16).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crcs_are_read_as_genksyms_prints_them() {
        let crcs = parse_crcs("#SYMVER path_get 0xb0cc2787\nnoise\n#SYMVER x 0x\n");
        assert_eq!(crcs, BTreeMap::from([("path_get".to_owned(), 0xb0cc_2787)]));
    }
}
