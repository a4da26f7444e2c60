//! The compile commands alone, as a provenance record has them.

use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use patch_tools::build::tree::Tree;
use serde_json::Value;

/// The commands of one unit.
pub(crate) struct Commands {
    source: PathBuf,
    output: PathBuf,
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
        Ok(Self { source, output: tree.output().to_owned(), compile, objtool: words(&unit["objtool"])? })
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

    fn run(&self, object: &std::path::Path) -> Result<()> {
        let (compiler, flags) = self.compile.split_first().context("a compiler")?;
        let mut compile = Command::new(compiler);
        compile.args(flags).args(["-c", "-o"]).arg(object).arg(&self.source).current_dir(&self.output);
        ensure!(compile.status()?.success(), "{compiler} failed");
        if let Some((objtool, arguments)) = self.objtool.split_first() {
            let mut objtool = Command::new(self.output.join(objtool));
            objtool.args(arguments).arg(object).current_dir(&self.output);
            ensure!(objtool.status()?.success(), "objtool failed");
        }
        Ok(())
    }
}
