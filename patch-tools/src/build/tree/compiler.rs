//! The compiler that a kernel was built with, and whether it is the one here.

use manifests::KernelRelease;

use super::{TreeError, TreeInputs};
use crate::build::process::ProcessError;
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
    /// The command that `config` says built the kernel.
    pub(crate) fn command(config: &Config, release: &KernelRelease) -> Result<String, TreeError> {
        let version = Self::wanted(config)?;
        let command = version.split(' ').next().unwrap_or_default().to_owned();
        // The command comes from a file that anyone may have written.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
        if !command.contains("gcc") || !command.bytes().all(plain) {
            return Err(TreeError::NotGcc { release: release.clone(), version: version.to_owned() });
        }
        Ok(command)
    }

    fn wanted(config: &Config) -> Result<&str, TreeError> {
        config
            .get("CONFIG_CC_VERSION_TEXT")
            .ok_or(TreeError::ConfigLacks { setting: "CONFIG_CC_VERSION_TEXT" })
    }

    /// Finds the compiler that built the kernel; any other is refused, since its code would not be the code that
    /// runs.
    pub(crate) fn of(config: &Config, inputs: &TreeInputs) -> Result<Self, TreeError> {
        let version = Self::wanted(config)?;
        let command = match &inputs.compiler {
            Some(command) => command.clone(),
            None => Self::command(config, &inputs.release)?,
        };
        let found = inputs.tools.program(&command).arg("--version").run().map_err(|source| match source {
            ProcessError::Missing { .. } => {
                TreeError::NoCompiler { command: command.clone(), wanted: version.to_owned() }
            }
            source => TreeError::Process { doing: "ask the compiler for its version", source },
        })?;
        let found = String::from_utf8_lossy(&found).lines().next().unwrap_or_default().to_owned();
        // The first word is only what it was called by.
        if identity(&found) != identity(version) {
            return Err(TreeError::OtherCompiler { command, wanted: version.to_owned(), found });
        }
        Ok(Self { command, version: found })
    }

    /// Whether a kernel's banner says that this compiler made it.
    pub(crate) fn made(&self, banner: &str) -> bool {
        banner.contains(identity(&self.version))
    }
}

/// What a compiler says of itself, without the name that it was called by: `(Debian 14.2.0-19) 14.2.0`.
fn identity(version: &str) -> &str {
    version.split_once(' ').map_or(version, |(_, identity)| identity).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_is_the_same_by_whatever_name_it_is_called() {
        let compiler =
            Compiler { command: "gcc-14".into(), version: "gcc-14 (Debian 14.2.0-19) 14.2.0".into() };
        let banner =
            |gcc: &str| format!("Linux version 6.12.1 (a@b) ({gcc}, GNU ld (GNU Binutils) 2.44) #1 SMP");
        assert!(compiler.made(&banner("x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0")));
        assert!(!compiler.made(&banner("gcc-14 (Debian 14.2.0-12) 14.2.0")));
    }
}
