//! What is known about a kernel; plain values with no way to look for more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use super::objects::ObjectFacts;
use super::symbols::SymbolList;
use crate::module::ObjectName;

/// A kernel, as far as it matters to a livepatch. `None` means not known, never "no".
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KernelFacts {
    /// Where the facts come from, for messages.
    pub origin: Origin,
    /// `uname -r`.
    pub release: String,
    /// The kernel's own vermagic.
    pub vermagic: Option<String>,
    /// The configuration it was built with.
    pub config: Option<Config>,
    /// kallsyms: the kernel's symbols and, on a running host, those of loaded modules.
    pub symbols: SymbolList,
    /// Which functions ftrace can hook.
    pub traceable: Traceable,
    /// Exported symbols.
    pub exports: Option<Exports>,
    /// Modules looked at as files, by name.
    pub objects: BTreeMap<String, ObjectFacts>,
    /// Modules loaded now; `None` for an image.
    pub loaded: Option<LoadedModules>,
    /// Livepatches loaded now.
    pub livepatches: Vec<LoadedLivepatch>,
    /// Probes on functions.
    pub probes: Option<Vec<Probe>>,
    /// Kernel lockdown.
    pub lockdown: Option<Lockdown>,
    /// Whether unsigned modules are accepted.
    pub signatures: Option<SignaturePolicy>,
    /// `/proc/sys/kernel/tainted`.
    pub taints: Option<u64>,
}

/// Where facts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A kernel image; nothing is known about a host.
    Image,
    /// A running host.
    Running,
}

/// Text in the format of `/boot/config-*`.
#[derive(Debug, Clone, Default)]
pub struct Config {
    values: HashMap<String, String>,
}

impl Config {
    /// Reads the text; lines that set nothing are left out.
    pub fn parse(text: &str) -> Self {
        let settings =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        let values =
            settings.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect();
        Self { values }
    }

    /// The value of an option, given with its `CONFIG_` prefix; `None` when it is not set.
    pub fn get(&self, option: &str) -> Option<&str> {
        self.values.get(option).map(String::as_str)
    }

    /// Whether an option is `y`.
    pub fn is_set(&self, option: &str) -> bool {
        self.get(option) == Some("y")
    }

    /// The vermagic of a kernel with this configuration (`include/linux/vermagic.h`).
    pub fn vermagic(&self, release: &str) -> String {
        let mut vermagic = format!("{release} ");
        let words = [
            ("CONFIG_SMP", "SMP "),
            ("CONFIG_PREEMPT_BUILD", "preempt "),
            ("CONFIG_PREEMPT_RT", "preempt_rt "),
            ("CONFIG_MODULE_UNLOAD", "mod_unload "),
            ("CONFIG_MODVERSIONS", "modversions "),
        ];
        for (_, word) in words.iter().filter(|(option, _)| self.is_set(option)) {
            vermagic.push_str(word);
        }
        vermagic
    }
}

/// Which functions can be livepatched at all: those with an ftrace location at their entry.
#[derive(Debug, Clone)]
pub enum Traceable {
    /// Not known.
    Unknown,
    /// `available_filter_functions`: a name, for modules followed by ` [module]`, on each line.
    Listed(Vec<u8>),
    /// Addresses of the ftrace locations of vmlinux, sorted.
    Sites(Vec<u64>),
}

/// An exported symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The CRC of its prototype, where the kernel has `CONFIG_MODVERSIONS`.
    pub crc: Option<u32>,
    /// The namespace that a user has to import.
    pub namespace: Option<String>,
}

/// Exported symbols by name.
pub type Exports = HashMap<String, Export>;

/// Names in `/sys/module` that are loaded modules, not built-in ones.
#[derive(Debug, Clone, Default)]
pub struct LoadedModules {
    /// Loaded modules.
    pub loaded: HashSet<String>,
    /// Modules that are part of the kernel image.
    pub built_in: HashSet<String>,
}

/// A livepatch that is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadedLivepatch {
    /// The module's name.
    pub name: String,
    /// Functions by object, as `(name, sympos)`.
    pub functions: BTreeMap<ObjectName, BTreeSet<(String, u64)>>,
    /// Whether tasks are still switching.
    pub transition: Transition,
}

/// Whether a livepatch is still switching tasks over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transition {
    /// Every task is on one side.
    Settled,
    /// Some tasks still have to switch.
    InProgress,
}

/// Something that hooks a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// What it is.
    pub kind: ProbeKind,
    /// The object that the function is in.
    pub object: ObjectName,
    /// The function.
    pub function: String,
}

/// Kinds of hook that matter to a livepatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// A kprobe or kretprobe, at this offset.
    Kprobe {
        /// Bytes from the function's start.
        offset: u64,
    },
    /// An ftrace user that redirects execution (`FTRACE_OPS_FL_IPMODIFY`): one per function.
    IpModify,
}

/// `/sys/kernel/security/lockdown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lockdown {
    /// Off.
    None,
    /// Unsigned modules are refused.
    Integrity,
    /// The same, and kernel memory cannot be read.
    Confidentiality,
}

/// What the loader does with an unsigned module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SignaturePolicy {
    /// Loads it and taints the kernel.
    Permissive,
    /// Refuses it.
    Enforced,
}
