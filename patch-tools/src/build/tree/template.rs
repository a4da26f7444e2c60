//! Compiles the part of a module that all livepatches of a kernel share; see `link`.

use std::fs;

use manifests::Sha256;
use system::durable;

use super::{Tree, TreeError};
use crate::build::cache::CacheError;
use crate::build::link::{TEMPLATE_MAKEFILE, TEMPLATE_SOURCE};
use crate::build::patch::SourcePath;
use crate::build::process::Program;

const FILE: &str = "template.c";
/// Where it is in the output directory.
const DIRECTORY: &str = "livepatch";

impl Tree {
    /// The compiled template, made when it is needed the first time.
    pub(in crate::build) fn template(&self) -> Result<Vec<u8>, TreeError> {
        let digest = Sha256::of(TEMPLATE_SOURCE.as_bytes()).to_string();
        let kept = self.derived(&format!("template-{}.o", &digest[..12]));
        if let Ok(object) = fs::read(&kept) {
            return Ok(object);
        }
        let object = self.compile_template()?;
        durable::publish(&kept, &object).map_err(CacheError::io("write", &kept))?;
        Ok(object)
    }

    fn compile_template(&self) -> Result<Vec<u8>, TreeError> {
        let directory = self.output().join(DIRECTORY);
        fs::create_dir_all(&directory).map_err(CacheError::io("make", &directory))?;
        for (name, text) in [("Makefile", TEMPLATE_MAKEFILE), (FILE, TEMPLATE_SOURCE)] {
            let path = directory.join(name);
            durable::publish(&path, text.as_bytes()).map_err(CacheError::io("write", &path))?;
        }
        let Some(name) = SourcePath::new(FILE) else { unreachable!("a plain file name") };
        let command = self.kbuild.command_in_output(DIRECTORY, &name)?;
        let work =
            tempfile::tempdir_in(&self.root).map_err(CacheError::io("make a directory in", &self.root))?;
        let object = work.path().join("template.o");
        let run = |program: Program| {
            let doing = "compile the part that all livepatches of this kernel share";
            program
                .directory(self.output())
                .run()
                .map(drop)
                .map_err(|source| TreeError::Process { doing, source })
        };
        let mut words = command.compile.into_iter();
        run(self
            .tools()
            .program(words.next().unwrap_or_default())
            .args(words)
            .args(["-g0", "-c", "-o"])
            .arg(&object)
            .arg(directory.join(FILE)))?;
        if let Some((objtool, arguments)) = command.objtool.split_first() {
            run(self.tools().program(self.output().join(objtool)).args(arguments).arg(&object))?;
        }
        Ok(fs::read(&object).map_err(CacheError::io("read", &object))?)
    }
}
