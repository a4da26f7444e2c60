//! A kernel tree, prepared so that any of its units can be compiled as the distribution compiled it.
//!
//! ```text
//! <cache>/sources/DIGEST/       the kernel's source, read only by agreement
//! <cache>/trees/KEY/output/     configuration, generated headers, objtool; nothing is compiled into it
//! <cache>/trees/KEY/makefiles/  our questions to kbuild
//! <cache>/trees/KEY/units       which units the configuration builds
//! <cache>/trees/KEY/tree.json   what the tree was made from
//! ```
//! KEY is a digest over the source, the configuration, the release, the compiler and this program's recipe, so
//! a tree is never used for anything but what it was made for. Invariant: once complete, a tree is not
//! changed by builds: patched sources are in `overlay`s, objects in a build's own directory. (kbuild may add
//! generated headers to `output/` when a unit first needs them; they depend on nothing else, and are made under
//! a lock of their directory in `asking/`.)
//!
//! What is prepared is compared with the distribution's own result: if the configuration or a generated
//! header came out differently, the tree is refused, for its code would differ too.

mod author;
mod compiler;
mod config;
mod prepare;
mod source;
mod standins;
mod template;

use std::fs;
use std::path::{Path, PathBuf};

use manifests::{KernelRelease, Sha256};
use serde::{Deserialize, Serialize};

pub use compiler::Compiler;
pub use source::SourceOrigin;

use super::cache::{Cache, CacheError};
use super::deb::UnpackError;
use super::digest::DigestError;
use super::kbuild::{Kbuild, KbuildError, UnitMap};
use super::process::ProcessError;
use super::progress::Progress;
use super::root::Tools;
use crate::image::Config;
use crate::versions::UNKNOWN;

/// Changes whenever preparing the same inputs would give another tree.
const RECIPE: u32 = 4;

/// Why a tree could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A package could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// An input could not be hashed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A program failed.
    #[error("cannot {doing}")]
    Process {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        source: ProcessError,
    },
    /// kbuild could not be asked.
    #[error(transparent)]
    Kbuild(#[from] KbuildError),
    /// The configuration lacks what every configuration has.
    #[error("the kernel configuration has no {setting}")]
    ConfigLacks {
        /// The setting.
        setting: &'static str,
    },
    /// A setting without which livepatches cannot work.
    #[error("the kernel configuration has no {setting}=y, without which livepatches cannot be loaded")]
    NoLivepatch {
        /// The setting.
        setting: &'static str,
    },
    /// A setting that is not known here.
    #[error("the kernel was built with {setting}, with which livepatches cannot be built here: {why}")]
    Unknown {
        /// The setting.
        setting: &'static str,
        /// What it does.
        why: &'static str,
    },
    /// The kernel was not built with GCC.
    #[error("kernel {release} was built with `{version}`; only kernels built with GCC are supported")]
    NotGcc {
        /// The kernel.
        release: KernelRelease,
        /// Its compiler.
        version: String,
    },
    /// The compiler is not installed.
    #[error("the kernel was built with `{wanted}`, and there is no `{command}` here")]
    NoCompiler {
        /// The compiler's command.
        command: String,
        /// The compiler that built the kernel.
        wanted: String,
    },
    /// The compiler is another version.
    #[error("the kernel was built with `{wanted}`, but `{command}` here is `{found}`: its code would differ")]
    OtherCompiler {
        /// The compiler's command.
        command: String,
        /// The compiler that built the kernel.
        wanted: String,
        /// The compiler here.
        found: String,
    },
    /// The configuration came out differently here.
    #[error("the kernel's configuration comes out differently here: {}", shortened(differences))]
    OtherConfig {
        /// The settings.
        differences: Vec<String>,
    },
    /// A generated header came out differently here.
    #[error(
        "{header} comes out differently from the distribution's: this is not the source, configuration or compiler of that kernel"
    )]
    OtherHeader {
        /// The header.
        header: String,
    },
    /// A file of the source or of a package is not there.
    #[error("{what} is not in {}", place.display())]
    Absent {
        /// The file.
        what: String,
        /// Where it should be.
        place: PathBuf,
    },
    /// The record of a cached tree is damaged.
    #[error("the record of the prepared tree in {} is damaged; remove that directory", place.display())]
    Record {
        /// The tree.
        place: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

fn shortened(items: &[String]) -> String {
    let shown = items.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    match items.len().checked_sub(8) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}

/// What a tree is made from.
#[derive(Debug, Clone)]
pub struct TreeInputs {
    /// The kernel's release, as `uname -r` prints it.
    pub release: KernelRelease,
    /// The source.
    pub source: SourceOrigin,
    /// The configuration that the kernel was built with.
    pub config: PathBuf,
    /// The distribution's headers (`/usr/src/linux-headers-RELEASE` of the package), to compare with.
    pub reference: Option<PathBuf>,
    /// The compiler's command, if it is not the one in the configuration.
    pub compiler: Option<String>,
    /// Where compiler, linker and all other programs are.
    pub(super) tools: Tools,
    /// The build root, if they are in one.
    pub(super) root: Option<PathBuf>,
}

/// What a tree was made from, for the provenance record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRecord {
    /// [`RECIPE`].
    pub recipe: u32,
    /// The kernel's release.
    pub release: KernelRelease,
    /// Digest of the source: of the package, or of all files of a directory.
    pub source: Sha256,
    /// Digest of the configuration.
    pub config: Sha256,
    /// The compiler's own description.
    pub compiler: String,
    /// The build root: programs of the kernel's build that were compiled in one run in no other.
    pub root: Option<PathBuf>,
}

/// A prepared tree.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
    /// What it was made from.
    pub record: TreeRecord,
    /// Its configuration.
    pub config: Config,
    /// Its compiler.
    pub compiler: Compiler,
    pub(super) kbuild: Kbuild,
}

impl Tree {
    /// Finds the tree of these inputs in the cache, or makes it.
    pub fn obtain(
        cache: &Cache,
        inputs: &TreeInputs,
        jobs: usize,
        progress: &dyn Progress,
    ) -> Result<Self, TreeError> {
        let text = fs::read_to_string(&inputs.config).map_err(CacheError::io("read", &inputs.config))?;
        let config = Config::parse(&text);
        for setting in ["CONFIG_LIVEPATCH", "CONFIG_KALLSYMS_ALL"] {
            if !config.is_set(setting) {
                return Err(TreeError::NoLivepatch { setting });
            }
        }
        if let Some((setting, why)) = UNKNOWN.into_iter().find(|(setting, _)| config.is_set(setting)) {
            return Err(TreeError::Unknown { setting, why });
        }
        let compiler = Compiler::of(&config, inputs)?;
        let (source, digest) = inputs.source.obtain(cache, progress)?;
        let record = TreeRecord {
            recipe: RECIPE,
            release: inputs.release.clone(),
            source: digest,
            config: Sha256::of(text.as_bytes()),
            compiler: compiler.version.clone(),
            root: inputs.root.clone(),
        };
        let key = Sha256::of(format!("{record:?}").as_bytes()).to_string();
        let root = cache.entry("trees", &key[..16], |root| {
            prepare::Preparation {
                root,
                source: &source,
                inputs,
                record: &record,
                config: &config,
                compiler: &compiler,
                jobs,
            }
            .run(progress)
        })?;
        Self::open(root, source, config, compiler, inputs.tools.clone())
    }

    fn open(
        root: PathBuf,
        source: PathBuf,
        config: Config,
        compiler: Compiler,
        tools: Tools,
    ) -> Result<Self, TreeError> {
        let read = |name: &str| {
            let path = root.join(name);
            fs::read(&path).map_err(CacheError::io("read", &path))
        };
        let record = serde_json::from_slice(&read("tree.json")?)
            .map_err(|source| TreeError::Record { place: root.clone(), source })?;
        let kbuild = Kbuild {
            source,
            output: root.join("output"),
            makefiles: root.join("makefiles"),
            environment: Kbuild::read_environment(&read("environment")?),
            tools,
        };
        Ok(Self { record, config, compiler, kbuild, root })
    }

    /// The kernel's source.
    pub fn source(&self) -> &Path {
        &self.kbuild.source
    }

    /// Where the programs are that this tree was made with.
    pub(super) fn tools(&self) -> &Tools {
        &self.kbuild.tools
    }

    /// Runs a program in the output directory, where the programs are that this tree was made with.
    pub fn run(&self, program: &Path, arguments: &[String]) -> Result<(), TreeError> {
        let program = self.tools().program(program).args(arguments).directory(self.output());
        let doing = "run a program of the tree";
        program.run().map(drop).map_err(|source| TreeError::Process { doing, source })
    }

    /// The prepared output directory, in which compile commands run.
    pub fn output(&self) -> &Path {
        &self.kbuild.output
    }

    /// A place in the tree's directory for what is derived from it.
    pub(super) fn derived(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A place beside the tree's source for what is derived from that.
    pub(super) fn overlays(&self) -> PathBuf {
        self.kbuild.source.with_extension("overlays")
    }

    /// The units that the configuration builds.
    pub(super) fn units(&self) -> Result<UnitMap, TreeError> {
        let path = self.root.join("units");
        let text = fs::read_to_string(&path).map_err(CacheError::io("read", &path))?;
        Ok(UnitMap::parse(&text))
    }
}
