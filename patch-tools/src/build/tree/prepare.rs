//! Makes a kernel tree ready for compiling single units.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Compiler, TreeError, TreeInputs, TreeRecord, config, standins};
use crate::build::cache::CacheError;
use crate::build::kbuild::{Kbuild, MAKEFILES};
use crate::build::process::Program;
use crate::build::progress::Progress;
use crate::build::root::Tools;
use crate::image::Config;

/// Generated headers that say what the compiler made of source and configuration: structure offsets, sizes of
/// enumerations, the configuration as macros. If these are the distribution's, so are the inputs.
const TELLING: [&str; 5] = [
    "include/generated/asm-offsets.h",
    "include/generated/bounds.h",
    "include/generated/autoconf.h",
    "include/generated/timeconst.h",
    "include/generated/utsrelease.h",
];

/// One preparation.
pub(super) struct Preparation<'a> {
    /// The tree's directory, empty.
    pub(super) root: &'a Path,
    /// The kernel's source.
    pub(super) source: &'a Path,
    /// What to make it from.
    pub(super) inputs: &'a TreeInputs,
    /// What to write down about it.
    pub(super) record: &'a TreeRecord,
    /// The configuration.
    pub(super) config: &'a Config,
    /// The compiler.
    pub(super) compiler: &'a Compiler,
    /// How many jobs to run at once.
    pub(super) jobs: usize,
}

impl Preparation<'_> {
    /// Prepares the tree.
    pub(super) fn run(self, progress: &dyn Progress) -> Result<(), TreeError> {
        let Self { root, source, inputs, config, compiler, jobs, .. } = self;
        // Better told now than in the middle of kbuild's output.
        for tool in ["make", "flex", "bison", "bc", "perl", "ld"] {
            inputs.tools.program(tool).arg("--version").run().map_err(|source| TreeError::Process {
                doing: "find the tools that preparing a kernel tree needs",
                source,
            })?;
        }
        let output = root.join("output");
        let makefiles = root.join("makefiles");
        for directory in [&output, &makefiles] {
            fs::create_dir_all(directory).map_err(CacheError::io("make", directory))?;
        }
        for (name, text) in MAKEFILES {
            write(makefiles.join(name), text.as_bytes())?;
        }
        let wanted = fs::read_to_string(&inputs.config).map_err(CacheError::io("read", &inputs.config))?;
        write(output.join(".config"), wanted.as_bytes())?;

        let settings = settings(&makefiles, config, compiler, self.record)?;
        let addition = makefiles.join("top.mk");
        let make =
            Make { source, output: &output, addition: &addition, settings, jobs, tools: &inputs.tools };
        progress.step("configuring the kernel tree");
        make.run("configure the kernel tree", &["olddefconfig"])?;
        let made = output.join(".config");
        let made = fs::read_to_string(&made).map_err(CacheError::io("read", &made))?;
        let differences = config::differences(&wanted, &made);
        if !differences.is_empty() {
            return Err(TreeError::OtherConfig { differences });
        }
        progress.step("preparing the kernel tree");
        make.run("prepare the kernel tree", &["prepare", "modules_prepare"])?;
        if let Some(reference) = &inputs.reference {
            compare(&output, reference)?;
        }
        let environment = root.join("environment");
        make.write_environment(&environment)?;
        progress.step("listing the units that the configuration builds");
        let dumped = fs::read(&environment).map_err(CacheError::io("read", &environment))?;
        let kbuild = Kbuild {
            source: source.to_owned(),
            output,
            makefiles,
            environment: Kbuild::read_environment(&dumped),
            tools: inputs.tools.clone(),
        };
        write(root.join("units"), kbuild.list_units(jobs)?.as_bytes())?;
        let record = serde_json::to_vec_pretty(self.record)
            .map_err(|source| TreeError::Record { place: root.to_owned(), source })?;
        write(root.join("tree.json"), &record)
    }
}

fn write(path: PathBuf, content: &[u8]) -> Result<(), TreeError> {
    Ok(fs::write(&path, content).map_err(CacheError::io("write", &path))?)
}

/// The variables that make the build the distribution's, whoever runs it and whenever.
fn settings(
    makefiles: &Path,
    config: &Config,
    compiler: &Compiler,
    record: &TreeRecord,
) -> Result<Vec<String>, TreeError> {
    let mut settings = vec![
        format!("CC={}", compiler.command),
        format!("HOSTCC={}", compiler.command),
        format!("KERNELRELEASE={}", record.release),
        "KBUILD_BUILD_TIMESTAMP=1970-01-01".to_owned(),
        "KBUILD_BUILD_USER=patch-tools".to_owned(),
        "KBUILD_BUILD_HOST=localhost".to_owned(),
    ];
    settings.extend(standins::make(makefiles, config)?);
    Ok(settings)
}

struct Make<'a> {
    source: &'a Path,
    output: &'a Path,
    /// A makefile that every make reads first.
    addition: &'a Path,
    settings: Vec<String>,
    jobs: usize,
    tools: &'a Tools,
}

impl Make<'_> {
    fn run(&self, doing: &'static str, targets: &[&str]) -> Result<(), TreeError> {
        self.program()
            .arg(format!("-j{}", self.jobs))
            .args(targets)
            .run()
            .map(drop)
            .map_err(|source| TreeError::Process { doing, source })
    }

    fn program(&self) -> Program {
        self.tools
            .program("make")
            .variable("MAKEFILES", self.addition)
            .arg("-s")
            .arg(format!("O={}", self.output.display()))
            .args(&self.settings)
            .directory(self.source)
    }

    fn write_environment(&self, to: &Path) -> Result<(), TreeError> {
        self.program()
            .arg(format!("ENVIRONMENT={}", to.display()))
            .arg("write-environment")
            .run()
            .map(drop)
            .map_err(|source| TreeError::Process {
                doing: "read the environment of the kernel's build",
                source,
            })
    }
}

fn compare(output: &Path, reference: &Path) -> Result<(), TreeError> {
    for header in TELLING {
        let read = |path: PathBuf| fs::read(&path).map_err(CacheError::io("read", &path));
        // A package may leave out a header that no module needs.
        if reference.join(header).is_file() && read(output.join(header))? != read(reference.join(header))? {
            return Err(TreeError::OtherHeader { header: header.to_owned() });
        }
    }
    Ok(())
}
