//! Where a module is said to come from: provenance, and the word of somebody who built it again.
//!
//! Both are in-toto statements about the module's bytes: SLSA provenance (version 1), which `patch-tools build` writes, and
//! [`Rebuild`], which `patch-tools verify --statement` writes. Read here is what an auditor wants to know of them. Of
//! provenance other fields may be there, since builders add their own; what is shown is only what they say.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::names::KernelRelease;
use crate::statement::{self, Statement, StatementError, Subject};

/// The type of provenance (<https://slsa.dev/spec/v1.0/provenance>).
pub const SLSA: &str = "https://slsa.dev/provenance/v1";

/// The type of the word of somebody who built a module again.
pub const REBUILD: &str = "urn:update:rebuild:v1";

/// What provenance says, as far as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// What was built, and from what.
    pub build_definition: BuildDefinition,
    /// Who built it.
    pub run_details: RunDetails,
}

/// What was built, and from what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    /// The way of building.
    pub build_type: String,
    /// Everything that was read.
    #[serde(default)]
    pub resolved_dependencies: Vec<Material>,
}

/// Something that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    /// What it is.
    #[serde(default)]
    pub uri: String,
    /// Its digests.
    #[serde(default)]
    pub digest: statement::Digests,
}

/// Who built it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDetails {
    /// The builder.
    pub builder: Builder,
}

/// A builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builder {
    /// What it calls itself.
    pub id: String,
}

/// What came of building a module again from its patches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebuild {
    /// For which kernel.
    pub kernel: KernelRelease,
    /// Whether exactly these bytes came out, a signature at their end set aside.
    pub identical: bool,
    /// The digest of what came out.
    pub rebuilt: Sha256,
    /// The patches, in their order.
    pub patches: Vec<Patch>,
    /// By which program.
    pub by: String,
}

/// A patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Its file.
    pub file: String,
    /// The digest of its bytes.
    pub sha256: Sha256,
}

/// What somebody says of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "says", rename_all = "kebab-case")]
pub enum Origin {
    /// From what it was built.
    Provenance {
        /// Who built it.
        builder: String,
        /// How.
        build_type: String,
        /// What was read, with digests.
        materials: Vec<Material>,
    },
    /// That it was built again.
    Rebuild(Rebuild),
}

/// Why a record says nothing of a module.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// It is no such record.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It is of something else.
    #[error("it is of something else: expected a subject with SHA-256 {expected}, found {found}")]
    OtherSubject {
        /// The module's digest.
        expected: Sha256,
        /// What it speaks of.
        found: String,
    },
}

impl Origin {
    /// Reads what a statement says, and of what.
    ///
    /// # Errors
    /// [`StatementError`] if it says something else.
    pub fn read(bytes: &[u8]) -> Result<(Self, Vec<Subject>), StatementError> {
        if statement::predicate_type(bytes)? == REBUILD {
            let Statement { predicate, subject, .. } = Statement::<Rebuild>::parse(bytes, REBUILD)?;
            return Ok((Self::Rebuild(predicate), subject));
        }
        let Statement { predicate, subject, .. } = Statement::<Provenance>::parse(bytes, SLSA)?;
        let Provenance { build_definition, run_details } = predicate;
        let BuildDefinition { build_type, resolved_dependencies } = build_definition;
        let builder = run_details.builder.id;
        Ok((Self::Provenance { builder, build_type, materials: resolved_dependencies }, subject))
    }

    /// Reads what a statement says of the bytes with this digest.
    ///
    /// # Errors
    /// [`OriginError`].
    pub fn parse(bytes: &[u8], of: Sha256) -> Result<Self, OriginError> {
        let (origin, subject) = Self::read(bytes)?;
        if subject.iter().any(|subject| subject.sha256() == Some(of)) {
            return Ok(origin);
        }
        let found = subject.iter().map(described).collect::<Vec<_>>().join(", ");
        Err(OriginError::OtherSubject { expected: of, found })
    }
}

fn described(subject: &Subject) -> String {
    let digest = subject.sha256().map_or_else(|| "no SHA-256".to_owned(), |digest| digest.to_string());
    format!("{} ({digest})", subject.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rebuild() -> Vec<u8> {
        let predicate = Rebuild {
            kernel: "6.1.0-50-amd64".parse().unwrap(),
            identical: true,
            rebuilt: Sha256::of(b"module"),
            patches: vec![Patch { file: "fix.patch".to_owned(), sha256: Sha256::of(b"fix") }],
            by: "patch-tools 0.1.0".to_owned(),
        };
        Statement::new(vec![Subject::of("fix.ko", Sha256::of(b"module"))], REBUILD, predicate).to_json()
    }

    const PROVENANCE: &str = r#"{"_type":"https://in-toto.io/Statement/v1",
        "subject":[{"name":"fix.ko","digest":{"sha256":"SHA"}}],
        "predicateType":"https://slsa.dev/provenance/v1",
        "predicate":{"buildDefinition":{"buildType":"urn:x","externalParameters":{"kernel":"k"},
        "resolvedDependencies":[{"uri":"fix.patch","digest":{"sha256":"SHA"}}]},
        "runDetails":{"builder":{"id":"urn:update:patch-tools","version":{"patch-tools":"1"}}}}}"#;

    #[test]
    fn what_is_said_of_a_module_is_said_of_its_bytes() {
        let of = Sha256::of(b"module");
        assert!(matches!(Origin::parse(&rebuild(), of).unwrap(), Origin::Rebuild(said) if said.identical));
        let text = PROVENANCE.replace("SHA", &of.to_string());
        let Origin::Provenance { builder, materials, .. } = Origin::parse(text.as_bytes(), of).unwrap()
        else {
            panic!("not provenance")
        };
        assert_eq!((builder.as_str(), materials.len()), ("urn:update:patch-tools", 1));
        for bytes in [rebuild(), text.into_bytes()] {
            let other = Origin::parse(&bytes, Sha256::of(b"another module"));
            assert!(matches!(other, Err(OriginError::OtherSubject { .. })));
        }
        assert!(matches!(Origin::parse(b"{}", of), Err(OriginError::Statement(_))));
    }
}
