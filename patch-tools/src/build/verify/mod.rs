//! Is this module what this patch gives for this kernel?
//!
//! The livepatch is built again, under the module's own name and with its own replace flag, and compared. Equal
//! bytes settle it; a signature that was appended afterwards is set aside. Where they differ, the
//! difference is told in functions, data and tables, so that a person can judge it. Nothing of the module is
//! run or trusted.

mod compare;

use serde::Serialize;

use manifests::{Replace, Sha256};

use super::cache::Cache;
use super::error::BuildError;
use super::pipeline::build;
use super::progress::Progress;
use super::report::BuildReport;
use super::request::Request;
use crate::elf::Malformed;
use crate::module;

pub use compare::{Difference, differences};

/// Why a module could not be compared with a patch.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The module cannot be read.
    #[error("the module cannot be read")]
    Module(#[source] Malformed),
    /// It is no livepatch, or one whose tables are not found.
    #[error("the module is not a livepatch whose tables can be read")]
    NoLivepatch,
    /// The livepatch could not be built again.
    #[error("the livepatch could not be built from the patch")]
    Build(#[source] Box<BuildError>),
    /// The module that was built cannot be read.
    #[error("the module that was built cannot be read back: a bug in patch-tools")]
    Rebuilt(#[source] Malformed),
}

/// The outcome of a comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// Whether the module is exactly what the patch gives.
    pub identical: bool,
    /// Whether a signature at the module's end was set aside.
    pub signature_set_aside: bool,
    /// Digest of the module, without the signature.
    pub given: Sha256,
    /// Digest of what was built.
    pub rebuilt: Sha256,
    /// What differs; empty if identical.
    pub differences: Vec<Difference>,
    /// What building did.
    pub build: BuildReport,
}

/// What `scripts/sign-file` puts at the very end.
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature` (`include/linux/module_signature.h`): 12 bytes, the last four the length of the
/// signature before it, big-endian.
const SIGNATURE_INFO: usize = 12;

/// Builds `request` again and compares the result with `module`.
///
/// Name and replace flag are taken from the module, whatever the request says.
pub fn verify(
    cache: &Cache,
    request: &Request,
    module: &[u8],
    progress: &dyn Progress,
) -> Result<Verification, VerifyError> {
    let given = unsigned(module);
    let read = module::Module::parse(given).map_err(VerifyError::Module)?;
    let livepatch = read.livepatch.as_ref().ok_or(VerifyError::NoLivepatch)?;
    let name = read.name.as_deref().unwrap_or_default();
    let request = Request {
        name: Some(name.strip_prefix("livepatch_").unwrap_or(name).to_owned()),
        replace: if livepatch.replace == module::Replace::All { Replace::All } else { Replace::None },
        ..request.clone()
    };
    let built = build(cache, &request, progress).map_err(|error| VerifyError::Build(Box::new(error)))?;
    let identical = built.module == given;
    let differences = match identical {
        true => Vec::new(),
        false => differences(given, &built.module)?,
    };
    Ok(Verification {
        identical,
        signature_set_aside: given.len() != module.len(),
        given: Sha256::of(given),
        rebuilt: Sha256::of(&built.module),
        differences,
        build: built.report,
    })
}

/// The module without an appended signature.
fn unsigned(module: &[u8]) -> &[u8] {
    let without = || {
        let rest = module.strip_suffix(SIGNATURE_MARK)?;
        let (rest, info) = rest.split_at_checked(rest.len().checked_sub(SIGNATURE_INFO)?)?;
        let length = u32::from_be_bytes(info.last_chunk::<4>().copied()?);
        rest.get(..rest.len().checked_sub(usize::try_from(length).ok()?)?)
    };
    without().unwrap_or(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appended_signature_is_set_aside() {
        let mut signed = b"module".to_vec();
        signed.extend(b"SIG");
        signed.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        signed.extend(SIGNATURE_MARK);
        assert_eq!(unsigned(&signed), b"module");
        assert_eq!(unsigned(b"module"), b"module");
        // A length that is not there is no signature.
        let lying = [b"x".as_slice(), &[0xff; SIGNATURE_INFO], SIGNATURE_MARK].concat();
        assert_eq!(unsigned(&lying), lying);
    }
}
