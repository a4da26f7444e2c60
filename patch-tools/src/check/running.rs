//! Facts of a running host, from `/proc`, `/sys` and `/boot` below a root directory.
//!
//! Only the release and kallsyms must be readable. Everything else that is missing or hidden stays unknown,
//! and [`super::check`] says which rule that leaves open. Nothing is written, nothing mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facts::{
    KernelFacts, KernelKeys, LoadedLivepatch, LoadedModules, Lockdown, Origin, Probe, ProbeKind,
    SignaturePolicy, Traceable, Transition,
};
use super::objects::{ObjectFacts, ObjectsError};
use super::symbols::SymbolList;
use crate::image::Config;
use crate::module::{Module, ObjectName};

/// A fact that is needed and cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct FactsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// What [`KernelFacts::gather`] cannot do without.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The kernel's own facts.
    #[error("cannot learn what the running kernel is")]
    Kernel(#[from] FactsError),
    /// The files of its modules.
    #[error("cannot read the modules of the running kernel")]
    Modules(#[from] ObjectsError),
}

impl KernelFacts {
    /// Reads what [`super::check`] needs to know about the running kernel to judge `module`, below `root`, which
    /// is `/` except in tests.
    ///
    /// Where `/proc/kcore` can be read, the kernel's tables come from there, which also gives the CRCs of its
    /// exported symbols. The list of all symbols in `/proc/kallsyms` is read only for a module that patches
    /// loaded modules, or without kcore.
    ///
    /// # Errors
    /// Without release or symbols, or with a broken file among the modules that `module` names. Other facts that
    /// cannot be had stay unknown.
    pub fn gather(root: &Path, module: &Module) -> Result<Self, GatherError> {
        let host = Host { root };
        let memory = super::kcore::read(&root.join("proc/kcore"));
        let symbols = match &memory {
            Some(memory) if !concerns_modules(module) => SymbolList::Image(Arc::clone(&memory.kallsyms)),
            _ => SymbolList::Proc(host.required_bytes("proc/kallsyms")?),
        };
        let (exports, sites) = memory.map_or((None, None), |memory| (memory.exports, memory.ftrace_sites));
        let mut facts = Self::with_symbols(&host, symbols, sites)?;
        facts.exports = exports;
        let directory = root.join("lib/modules").join(&facts.release);
        if directory.is_dir() {
            facts.add_module_files(&directory, module)?;
        }
        Ok(facts)
    }

    /// Reads the running kernel's facts below `root` for any module: all symbols, as text.
    ///
    /// # Errors
    /// Without release or symbols.
    pub fn from_running(root: &Path) -> Result<Self, FactsError> {
        let host = Host { root };
        let symbols = SymbolList::Proc(host.required_bytes("proc/kallsyms")?);
        Self::with_symbols(&host, symbols, None)
    }

    fn with_symbols(
        host: &Host<'_>,
        symbols: SymbolList,
        sites: Option<Vec<u64>>,
    ) -> Result<Self, FactsError> {
        let release = host.required("proc/sys/kernel/osrelease")?.trim().to_owned();
        let config = host.config(&release);
        Ok(Self {
            origin: Origin::Running,
            vermagic: config.as_ref().map(|config| config.vermagic(&release)),
            config,
            symbols,
            traceable: match sites {
                Some(sites) => Traceable::Sites(sites),
                None => {
                    host.tracing("available_filter_functions").map_or(Traceable::Unknown, Traceable::Listed)
                }
            },
            exports: None,
            objects: BTreeMap::new(),
            loaded: host.modules(&release),
            livepatches: host.livepatches(),
            probes: host.probes(),
            lockdown: host.text("sys/kernel/security/lockdown").and_then(|text| lockdown(&text)),
            signatures: host.text("sys/module/module/parameters/sig_enforce").and_then(|text| {
                match text.trim() {
                    "Y" => Some(SignaturePolicy::Enforced),
                    "N" => Some(SignaturePolicy::Permissive),
                    _ => None,
                }
            }),
            keys: host.text("proc/keys").and_then(|text| KernelKeys::parse(&text)),
            taints: host.text("proc/sys/kernel/tainted").and_then(|text| text.trim().parse().ok()),
            release,
        })
    }

    /// Adds the files of the modules that `module` patches or imports from.
    ///
    /// `directory` is that of the kernel's modules, such as `/lib/modules/RELEASE`.
    ///
    /// # Errors
    /// When one of those files cannot be read or is malformed.
    pub fn add_module_files(&mut self, directory: &Path, module: &Module) -> Result<(), ObjectsError> {
        let depends = module.modinfo.get("depends").unwrap_or_default();
        let names: BTreeSet<&str> = objects(module)
            .filter(|name| **name != ObjectName::Vmlinux)
            .map(ObjectName::as_str)
            .chain(depends.split(',').filter(|name| !name.is_empty()))
            .collect();
        self.objects.extend(ObjectFacts::read(directory, &names)?);
        Ok(())
    }
}

/// The objects that a module patches or takes symbols from.
fn objects(module: &Module) -> impl Iterator<Item = &ObjectName> {
    let patched = module.objects().iter().map(|object| &object.name);
    patched.chain(module.klp_symbols.iter().map(|symbol| &symbol.object))
}

/// Whether symbols of modules matter, which are not among the kernel's own.
fn concerns_modules(module: &Module) -> bool {
    objects(module).any(|name| *name != ObjectName::Vmlinux)
}

/// Files below the root.
struct Host<'a> {
    root: &'a Path,
}

impl Host<'_> {
    fn required_bytes(&self, path: &str) -> Result<Vec<u8>, FactsError> {
        let path = self.root.join(path);
        std::fs::read(&path).map_err(|source| FactsError { path, source })
    }

    fn required(&self, path: &str) -> Result<String, FactsError> {
        Ok(String::from_utf8_lossy(&self.required_bytes(path)?).into_owned())
    }

    fn text(&self, path: &str) -> Option<String> {
        let bytes = std::fs::read(self.root.join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file of tracefs, at its own mount point or the old one below debugfs.
    fn tracing(&self, file: &str) -> Option<Vec<u8>> {
        ["sys/kernel/tracing", "sys/kernel/debug/tracing"]
            .iter()
            .find_map(|directory| std::fs::read(self.root.join(directory).join(file)).ok())
    }

    fn config(&self, release: &str) -> Option<Config> {
        let packed = std::fs::File::open(self.root.join("proc/config.gz")).ok().and_then(|file| {
            let mut text = String::new();
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).ok()?;
            Some(text)
        });
        let text = packed.or_else(|| self.text(&format!("boot/config-{release}")))?;
        Some(Config::parse(&text))
    }

    /// Names of the entries of a directory; empty if there is none.
    fn list(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn modules(&self, release: &str) -> Option<LoadedModules> {
        let names = self.text("proc/modules")?;
        let built_in = self.text(&format!("lib/modules/{release}/modules.builtin")).unwrap_or_default();
        let file_name = |line: &str| {
            let file = line.rsplit('/').next().unwrap_or(line);
            file.strip_suffix(".ko").map(|stem| stem.replace('-', "_"))
        };
        Some(LoadedModules {
            loaded: names.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect(),
            built_in: built_in.lines().filter_map(file_name).collect(),
        })
    }

    /// `/sys/kernel/livepatch/PATCH/OBJECT/FUNCTION,SYMPOS`.
    fn livepatches(&self) -> Vec<LoadedLivepatch> {
        let base = "sys/kernel/livepatch";
        let mut patches = Vec::new();
        for name in self.list(base) {
            let mut functions: BTreeMap<ObjectName, BTreeSet<(String, u64)>> = BTreeMap::new();
            for object in self.list(&format!("{base}/{name}")) {
                for function in self.list(&format!("{base}/{name}/{object}")) {
                    let Some((function, position)) = function.split_once(',') else { continue };
                    let Ok(position) = position.parse() else { continue };
                    let object = match object.as_str() {
                        "vmlinux" => ObjectName::Vmlinux,
                        module => ObjectName::Module(module.to_owned()),
                    };
                    functions.entry(object).or_default().insert((function.to_owned(), position));
                }
            }
            let transition = self.text(&format!("{base}/{name}/transition"));
            let transition = match transition.as_deref().map(str::trim) {
                Some("1") => Transition::InProgress,
                _ => Transition::Settled,
            };
            patches.push(LoadedLivepatch { name, functions, transition });
        }
        patches.sort_by(|one, other| one.name.cmp(&other.name));
        patches
    }

    /// Probes, or `None` if neither list can be read.
    fn probes(&self) -> Option<Vec<Probe>> {
        let kprobes = self.text("sys/kernel/debug/kprobes/list");
        let hooked = self.tracing("enabled_functions");
        if kprobes.is_none() && hooked.is_none() {
            return None;
        }
        let mut probes: Vec<Probe> = kprobes.unwrap_or_default().lines().filter_map(kprobe).collect();
        let hooked = hooked.unwrap_or_default();
        probes.extend(String::from_utf8_lossy(&hooked).lines().filter_map(ip_modify));
        Some(probes)
    }
}

/// The functions whose calls the kernel leads elsewhere, as ftrace lists them below `root` (`enabled_functions`, flag `I`):
/// those that a livepatch in force replaces are among them. `None` where tracefs is not mounted.
pub fn redirected(root: &Path) -> Option<Vec<Probe>> {
    let listed = Host { root }.tracing("enabled_functions")?;
    Some(String::from_utf8_lossy(&listed).lines().filter_map(ip_modify).collect())
}

/// `none [integrity] confidentiality`: the brackets mark the current one.
fn lockdown(text: &str) -> Option<Lockdown> {
    let current = text.split('[').nth(1)?.split(']').next()?;
    match current {
        "none" => Some(Lockdown::None),
        "integrity" => Some(Lockdown::Integrity),
        "confidentiality" => Some(Lockdown::Confidentiality),
        _ => None,
    }
}

fn object_name(module: Option<&str>) -> ObjectName {
    match module.map(|module| module.trim_matches(['[', ']'])) {
        None | Some("") => ObjectName::Vmlinux,
        Some(module) => ObjectName::Module(module.to_owned()),
    }
}

/// A line of `kprobes/list`: `ADDRESS  k  FUNCTION+0xOFFSET  [MODULE] [STATE]`.
fn kprobe(line: &str) -> Option<Probe> {
    let mut words = line.split_whitespace();
    let (_, _, place) = (words.next()?, words.next()?, words.next()?);
    let states = ["[GONE]", "[DISABLED]", "[OPTIMIZED]", "[FTRACE]"];
    let module = words.find(|word| !states.iter().any(|state| word.starts_with(state)));
    let (function, offset) = place.split_once('+').unwrap_or((place, "0"));
    let offset = u64::from_str_radix(offset.trim_start_matches("0x"), 16).ok()?;
    let kind = ProbeKind::Kprobe { offset };
    Some(Probe { kind, object: object_name(module), function: function.to_owned() })
}

/// A line of `enabled_functions`: `FUNCTION [MODULE] (USERS) FLAGS…`, with `I` for IPMODIFY.
fn ip_modify(line: &str) -> Option<Probe> {
    let (names, rest) = line.split_once('(')?;
    let (_, flags) = rest.split_once(')')?;
    let flags = flags.split("tramp:").next().unwrap_or(flags).split("->").next().unwrap_or(flags);
    flags.split_whitespace().find(|word| *word == "I")?;
    let mut names = names.split_whitespace();
    let function = names.next()?.to_owned();
    Some(Probe { kind: ProbeKind::IpModify, object: object_name(names.next()), function })
}
