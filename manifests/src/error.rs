//! Why a document is not a manifest.

use crate::schema::validate::RuleError;
use crate::yaml::YamlError;

/// Bytes that are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The YAML is outside of the strict form, or does not follow the schema.
    #[error("the manifest cannot be read")]
    Yaml(#[from] YamlError),
    /// The fields are well formed each, and contradict one another or a limit.
    #[error("the manifest contradicts its rules")]
    Rule(#[from] RuleError),
}
