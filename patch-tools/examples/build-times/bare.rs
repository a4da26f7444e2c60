//! The compile commands alone, as a provenance record has them.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result};
use patch_tools::build::tree::Tree;
use serde_json::Value;

/// The commands of one unit, run where its tree's programs are.
pub(crate) struct Commands {
    tree: Tree,
    source: PathBuf,
    compile: Vec<String>,
    objtool: Vec<String>,
}

impl Commands {
    /// Reads them from the statement that a build returned.
    pub(crate) fn of(provenance: &Value, tree: &Tree) -> Result<Self> {
        let parameters = &provenance["predicate"]["buildDefinition"]["internalParameters"];
        let unit = &parameters["units"][0];
        let top = tree.source().to_string_lossy().into_owned();
        let words = |value: &Value| -> Result<Vec<String>> {
            let list = value.as_array().context("a list of words")?;
            Ok(list.iter().filter_map(Value::as_str).map(|word| word.replace("<source>", &top)).collect())
        };
        let mut compile = words(&unit["compile"])?;
        compile.extend(words(&parameters["addedFlags"])?);
        let source = tree.source().join(unit["source"].as_str().context("a source file")?);
        Ok(Self { tree: tree.clone(), source, compile, objtool: words(&unit["objtool"])? })
    }

    /// Compiles the file twice at once.
    pub(crate) fn run_twice(&self) -> Result<()> {
        let work = tempfile::tempdir()?;
        let once = |name: &str| self.run(&work.path().join(name));
        thread::scope(|scope| {
            let other = scope.spawn(|| once("a.o"));
            once("b.o")?;
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run(&self, object: &Path) -> Result<()> {
        let (compiler, flags) = self.compile.split_first().context("a compiler")?;
        let object = object.display().to_string();
        let files = ["-c".to_owned(), "-o".to_owned(), object.clone(), self.source.display().to_string()];
        self.tree.run(Path::new(compiler), &[flags, &files].concat())?;
        if let Some((objtool, arguments)) = self.objtool.split_first() {
            self.tree.run(&self.tree.output().join(objtool), &[arguments, &[object]].concat())?;
        }
        Ok(())
    }
}
