//! What is known about a kernel; plain values with no way to look for more.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::objects::ObjectFacts;
use super::symbols::SymbolList;
use crate::image::{Config, Exports, KernelImage};
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
    /// What root sees of the keys in the kernel's keyrings.
    pub keys: Option<KernelKeys>,
    /// `/proc/sys/kernel/tainted`.
    pub taints: Option<u64>,
}

impl KernelFacts {
    /// What a kernel image tells. Its configuration is usually beside it, in `/boot/config-RELEASE`: add it
    /// as [`KernelFacts::config`].
    pub fn from_image(image: &KernelImage) -> Self {
        Self {
            origin: Origin::Image,
            release: image.release().to_owned(),
            vermagic: image.vermagic().map(str::to_owned),
            config: image.config().cloned(),
            symbols: SymbolList::Image(Arc::clone(image.kallsyms())),
            traceable: match image.ftrace_sites() {
                [] => Traceable::Unknown,
                sites => Traceable::Sites(sites.to_vec()),
            },
            exports: Some(image.exports().clone()),
            objects: BTreeMap::new(),
            loaded: None,
            livepatches: Vec::new(),
            probes: None,
            lockdown: None,
            signatures: None,
            keys: None,
            taints: None,
        }
    }
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

/// Which functions can be livepatched at all: those with an ftrace location at their entry.
#[derive(Debug, Clone)]
pub enum Traceable {
    /// Not known.
    Unknown,
    /// `available_filter_functions`: a name, for modules followed by ` [module]`, on each line.
    Listed(Vec<u8>),
    /// Addresses of the ftrace locations, sorted; on a running host also those of loaded modules.
    Sites(Vec<u64>),
}

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

/// The asymmetric keys that a kernel knows, those built into it and those that the firmware brought among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelKeys(Vec<String>);

impl KernelKeys {
    /// Reads `/proc/keys`; `None` without a single asymmetric key, as for whoever may not see them.
    ///
    /// A line is serial, flags, use, timeout, permissions, uid, gid, type (cut to nine letters) and description. That of a
    /// certificate is its subject, `: `, and its subject key identifier in hex (or its serial number, if it has none); then
    /// follows what the type says of it (`security/keys/proc.c`, `crypto/asymmetric_keys/x509_public_key.c`).
    pub fn parse(text: &str) -> Option<Self> {
        let described = |line: &str| {
            let mut rest = line.trim_start();
            for _ in 0..7 {
                rest = rest.split_once(char::is_whitespace)?.1.trim_start();
            }
            rest.strip_prefix("asymmetri").map(|rest| rest.trim_start().to_owned())
        };
        let keys: Vec<String> = text.lines().filter_map(described).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Whether one has this subject key identifier, in hex.
    pub fn have(&self, key_id: &str) -> bool {
        self.0.iter().any(|key| key.split(": ").any(|part| part.eq_ignore_ascii_case(key_id)))
    }

    /// Their subjects, for messages.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.split(": ").next().unwrap_or(key))
    }
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
