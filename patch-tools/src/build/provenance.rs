//! The provenance record: from what, with what and how a module was built.
//!
//! An in-toto statement (<https://in-toto.io/Statement/v1>) with the SLSA provenance predicate, version 1
//! (<https://slsa.dev/spec/v1.0/provenance>). No times, host names or paths: the same inputs give the same
//! record, so that it can be compared like the module itself. It is not signed here.

use manifests::{Replace, Sha256};
use serde_json::{Value, json};

use super::compile::Detail;
use super::kbuild::UnitCommand;
use super::kernel::Material;
use super::tree::Tree;

/// Names the way of building; its parameters are described in `docs/building-livepatches.md`.
const BUILD_TYPE: &str = "urn:update:livepatch-build:v1";
const BUILDER: &str = "urn:update:patch-tools";

/// What the record is about.
pub(super) struct Recorded<'a> {
    pub(super) file: &'a str,
    pub(super) content: &'a [u8],
    pub(super) tree: &'a Tree,
    pub(super) replace: Replace,
    pub(super) module: &'a str,
    /// The patches, in their order.
    pub(super) patches: &'a [Material],
    /// Everything else that was read.
    pub(super) materials: &'a [Material],
    pub(super) units: &'a [UnitCommand],
    /// What the units were compiled with beside their own flags.
    pub(super) detail: Detail,
}

impl Recorded<'_> {
    /// The statement.
    pub(super) fn statement(&self) -> Value {
        let digest = |digest: Sha256| json!({ "sha256": digest });
        let described =
            |material: &Material| json!({ "uri": material.uri, "digest": digest(material.sha256) });
        let source = self.tree.source().to_string_lossy().into_owned();
        let words = |words: &[String]| -> Vec<String> {
            words.iter().map(|word| word.replace(&source, "<source>")).collect()
        };
        let units: Vec<Value> = self
            .units
            .iter()
            .map(|unit| {
                json!({
                    "source": unit.source.as_str(),
                    "object": unit.owner.object(),
                    "compile": words(&unit.compile),
                    "objtool": words(&unit.objtool),
                })
            })
            .collect();
        let dependencies: Vec<Value> = self.patches.iter().chain(self.materials).map(described).collect();
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": self.file, "digest": digest(Sha256::of(self.content)) }],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "kernel": self.tree.record.release,
                        "patches": self.patches.iter().map(|patch| &patch.uri).collect::<Vec<_>>(),
                        "module": self.module,
                        "replace": self.replace == Replace::All,
                    },
                    "internalParameters": {
                        "compiler": self.tree.compiler.version,
                        "configuration": digest(self.tree.record.config),
                        "addedFlags": self.detail.added_flags(),
                        "units": units,
                    },
                    "resolvedDependencies": dependencies,
                },
                "runDetails": {
                    "builder": { "id": BUILDER, "version": { "patch-tools": env!("CARGO_PKG_VERSION") } },
                },
            },
        })
    }
}
