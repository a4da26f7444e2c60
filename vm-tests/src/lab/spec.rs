//! What kind of machine is wanted.

use serde::{Deserialize, Serialize};

use super::distribution::Distribution;
use super::firmware::Firmware;

/// System, kernel and size of a machine. Start from [`MachineSpec::default`] and change what matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// What is on its disk. The default goes unsaid, as it did when there was no other.
    #[serde(default, skip_serializing_if = "Distribution::is_default")]
    pub distribution: Distribution,
    /// Kernel release, like `6.1.0-50-amd64`.
    pub kernel: String,
    /// What starts the kernel. The default goes unsaid, as it did when there was no other.
    #[serde(default, skip_serializing_if = "Firmware::is_default")]
    pub firmware: Firmware,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Words added to the kernel's command line.
    pub kernel_arguments: Vec<String>,
}

impl Default for MachineSpec {
    fn default() -> Self {
        Self::of(Distribution::default())
    }
}

impl MachineSpec {
    /// The usual machine of a distribution, with its own kernel.
    pub fn of(distribution: Distribution) -> Self {
        Self {
            distribution,
            kernel: distribution.kernel().to_owned(),
            firmware: Firmware::default(),
            memory_mib: 1024,
            cpus: distribution.cpus(),
            kernel_arguments: Vec::new(),
        }
    }

    /// The default machine with another kernel.
    pub fn with_kernel(release: &str) -> Self {
        Self { kernel: release.to_owned(), ..Self::default() }
    }

    /// Sets the memory, in MiB.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Sets the number of virtual processors.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Has UEFI start the packaged kernel under Secure Boot.
    pub fn secure_boot(mut self) -> Self {
        self.firmware = Firmware::SecureBoot;
        self
    }

    /// Adds a word to the kernel's command line.
    pub fn kernel_argument(mut self, word: &str) -> Self {
        self.kernel_arguments.push(word.to_owned());
        self
    }

    /// What is there for speed under emulation: `loglevel=6` shows notices and worse only, since the
    /// console is slow; `cryptomgr.notests` spares seconds of self-tests; without `tsc=reliable` the
    /// kernel reads the time from an emulated HPET.
    pub(crate) fn kernel_command_line(&self) -> String {
        let mut line =
            "console=ttyS0 loglevel=6 net.ifnames=0 audit=0 cryptomgr.notests tsc=reliable".to_owned();
        for word in &self.kernel_arguments {
            line.push(' ');
            line.push_str(word);
        }
        line
    }
}
