//! The compiler that a kernel was built with, and whether it is the one here.

use manifests::KernelRelease;

use super::TreeError;
use crate::build::process::{ProcessError, Program};
use crate::image::Config;

/// A C compiler, known by what it says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The command.
    pub command: String,
    /// The first line of `--version`, as `CONFIG_CC_VERSION_TEXT` has it.
    pub version: String,
}

impl Compiler {
    /// Finds the compiler that `config` says built the kernel; any other is refused, since its code would
    /// not be the code that runs.
    pub(crate) fn of(config: &Config, release: &KernelRelease) -> Result<Self, TreeError> {
        let version = config
            .get("CONFIG_CC_VERSION_TEXT")
            .ok_or(TreeError::ConfigLacks { setting: "CONFIG_CC_VERSION_TEXT" })?;
        let command = version.split(' ').next().unwrap_or_default().to_owned();
        // The command comes from a file that anyone may have written.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
        if !command.contains("gcc") || !command.bytes().all(plain) {
            return Err(TreeError::NotGcc { release: release.clone(), version: version.to_owned() });
        }
        let found = Program::new(&command).arg("--version").run().map_err(|source| match source {
            ProcessError::Missing { .. } => {
                TreeError::NoCompiler { command: command.clone(), wanted: version.to_owned() }
            }
            source => TreeError::Process { doing: "ask the compiler for its version", source },
        })?;
        let found = String::from_utf8_lossy(&found).lines().next().unwrap_or_default().to_owned();
        if found != version {
            return Err(TreeError::OtherCompiler { command, wanted: version.to_owned(), found });
        }
        Ok(Self { command, version: found })
    }
}
