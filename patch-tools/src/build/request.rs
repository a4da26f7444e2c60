//! What a caller asks for: kernel, patches, and how much effort to make.

use std::collections::BTreeSet;

use manifests::{CveId, FileName, FixedIn, ModuleName, Replace, Sha256};

use super::error::BuildError;
use super::kernel::{KernelChoice, Material};
use super::patch::Patch;

/// What to build.
#[derive(Debug, Clone)]
pub struct Request {
    /// The kernel.
    pub kernel: KernelChoice,
    /// The patches, applied one after the other; one livepatch carries them all.
    pub patches: Vec<PatchInput>,
    /// The name after `livepatch-`; the first patch's file name if not given.
    pub name: Option<String>,
    /// Whether the livepatch replaces all that are loaded.
    pub replace: Replace,
    /// What the files' names have beside that, for modules of one name that lie in one directory.
    pub label: Option<String>,
    /// CVE ids beside those that the patches name.
    pub fixes: Vec<CveId>,
    /// From which packages on the fix is built in.
    pub fixed_in: Vec<FixedIn>,
    /// How many compilers run at once.
    pub jobs: usize,
    /// The most units to look at because of a header.
    pub unit_limit: usize,
}

/// What a patch says it does, in one line.
pub fn subject_of(input: &PatchInput) -> Option<String> {
    Patch::parse(&input.content).ok()?.subject
}

/// One patch file.
#[derive(Debug, Clone)]
pub struct PatchInput {
    /// Its name, for messages and records.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// `livepatch-NAME.ko` and `livepatch_NAME`.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) module: ModuleName,
    pub(super) file: FileName,
}

impl Request {
    /// The names that the livepatch will have.
    pub(super) fn names(&self) -> Result<Names, BuildError> {
        let given = self.name.clone().or_else(|| {
            let file = &self.patches.first()?.name;
            Some(file.rsplit_once('.').map_or(file.as_str(), |(stem, _)| stem).to_owned())
        });
        let name: String = given
            .unwrap_or_default()
            .chars()
            .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' })
            .collect();
        // 55 characters are allowed, `livepatch_` has ten.
        let name = name.trim_matches('-').chars().take(45).collect::<String>().to_ascii_lowercase();
        let bad = |source| BuildError::Name { name: name.clone(), source };
        let label = self.label.as_ref().map(|label| format!("_{label}")).unwrap_or_default();
        Ok(Names {
            module: format!("livepatch_{}", name.replace('-', "_")).parse().map_err(bad)?,
            file: format!("livepatch-{name}{label}.ko").parse().map_err(bad)?,
        })
    }

    /// Reads the patches.
    pub(super) fn parse(&self) -> Result<Vec<Patch>, BuildError> {
        self.patches
            .iter()
            .map(|input| {
                Patch::parse(&input.content)
                    .map_err(|source| BuildError::Patch { name: input.name.clone(), source })
            })
            .collect()
    }

    /// CVE ids of the request and of its patches, each once.
    pub(super) fn all_fixes(&self, patches: &[Patch]) -> Vec<CveId> {
        let named = patches.iter().flat_map(|patch| &patch.cves).filter_map(|cve| cve.parse().ok());
        let all: BTreeSet<CveId> = self.fixes.iter().cloned().chain(named).collect();
        all.into_iter().collect()
    }
}

impl PatchInput {
    pub(super) fn material(&self) -> Material {
        Material { uri: format!("file:{}", self.name), sha256: Sha256::of(&self.content) }
    }
}
