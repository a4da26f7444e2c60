//! Would this livepatch load here, and does it do what its manifest says, no more and no less?
//!
//! Four questions, each answered with findings that say what was expected and what was found:
//!
//! - [`claims`]: manifest against module, before anything else is asked. Pure.
//! - [`judge`]: the module against the running kernel, by the rules of [`patch_tools::check`], which
//!   are written there once. Pure, over the [`KernelFacts`] that [`KernelFacts::gather`] reads.
//! - [`left_behind`]: what callbacks, states and shadow variables of it or of those it replaces would leave. Pure.
//! - [`confirm`]: manifest against what the kernel reports after the transition. Pure.
//!
//! Nothing here changes the host. Facts that cannot be had become notes, never silence.

use std::collections::{BTreeMap, BTreeSet};

use manifests::{LivepatchComponent, ModuleName, PatchedObject, Replace};
use patch_tools::check::{Finding, KernelFacts, Severity, check};
use patch_tools::module::{self, Module};
use thiserror::Error;

use crate::kernel::livepatch::{Enabled, LoadedPatch, PatchState};

/// Everything that speaks for or against loading, the worst first.
#[must_use]
pub fn judge(component: &LivepatchComponent, module: &Module, facts: &KernelFacts) -> Vec<Finding> {
    let mut findings = claims(component, module);
    if facts.release != component.kernel.as_str() {
        findings.push(refusal("claim-kernel", "running kernel", component.kernel.as_str(), &facts.release));
    }
    findings.extend(check(module, facts));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// What a livepatch keeps in the kernel beside its functions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keeps {
    /// `klp_state` entries: id and version.
    states: BTreeMap<u64, u32>,
    /// Functions that run when it is taken off by itself. Where another livepatch replaces it they do not run.
    unpatch: Vec<String>,
    /// Functions of the kernel by which it attaches shadow variables to objects.
    shadow: Vec<String>,
}

impl Keeps {
    /// What the module keeps, as far as its tables and imports say.
    #[must_use]
    pub fn of(module: &Module) -> Self {
        let livepatch = module.livepatch.as_ref();
        let states = livepatch.iter().flat_map(|livepatch| &livepatch.states);
        let callbacks = livepatch.iter().flat_map(|livepatch| &livepatch.objects);
        let callbacks = callbacks.flat_map(|object| object.callbacks.iter());
        let imports = module.imports.iter().map(|import| import.name.as_str());
        Self {
            states: states.map(|state| (state.id, state.version)).collect(),
            unpatch: callbacks
                .filter(|(slot, _)| slot.ends_with("_unpatch"))
                .map(|(_, name)| name.to_owned())
                .collect(),
            shadow: imports.filter(|name| SHADOW_MAKERS.contains(name)).map(str::to_owned).collect(),
        }
    }

    /// What there is to leave behind, for people; `None` if there is nothing.
    fn told(&self) -> Option<String> {
        let callbacks = self.unpatch.iter().map(|name| format!("what its callback {name} would take back"));
        let shadow = self.shadow.iter().map(|name| format!("shadow variables ({name})"));
        let states = self.states.iter().map(|(id, version)| format!("state {id} of version {version}"));
        let all: Vec<String> = states.chain(shadow).chain(callbacks).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// What makes shadow variables (`Documentation/livepatch/shadow-vars.rst`).
const SHADOW_MAKERS: [&str; 2] = ["klp_shadow_alloc", "klp_shadow_get_or_alloc"];

/// Where a livepatch would leave data behind: when it is taken off again, and of those that it replaces. Pure.
///
/// The kernel runs the callbacks of the newest livepatch only: what is replaced atomically gets no chance to clean up,
/// and hands its data over by `klp_state` or not at all (`Documentation/livepatch/cumulative-patches.rst`,
/// `system-state.rst`). Of states the kernel refuses, while the replaced one is enabled, a replacement that lacks one
/// or has it in a lower version; found out here before anything is touched.
#[must_use]
pub fn left_behind(own: &Keeps, replaced: &[(ModuleName, Keeps)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !own.shadow.is_empty() && own.unpatch.is_empty() {
        findings.push(refusal(
            "left-behind",
            "taking it off again",
            "a callback (pre_unpatch, post_unpatch) that frees its shadow variables",
            &format!("none, and shadow variables by {}", own.shadow.join(", ")),
        ));
    }
    for (name, old) in replaced {
        for (id, version) in &old.states {
            let found = match own.states.get(id) {
                Some(has) if has >= version => continue,
                Some(has) => format!("version {has}"),
                None => "no such state".to_owned(),
            };
            let expected = format!("state {id} in version {version} or later, to take over what it holds");
            findings.push(refusal("klp-state", format!("replacing {name}"), &expected, &found));
        }
        if let (true, Some(kept)) = (old.states.is_empty(), old.told()) {
            let expected = "a livepatch that says by klp_state what is to be taken over from it";
            findings.push(refusal(
                "left-behind",
                format!("replacing {name}"),
                expected,
                &format!("{kept}, and no state"),
            ));
        }
        // Going back takes this one off by itself and loads the old one, which knows nothing of newer data.
        let raised =
            own.states.iter().find(|(id, version)| old.states.get(id).is_some_and(|had| had < *version));
        if let (Some((id, version)), true) = (raised, own.unpatch.is_empty()) {
            findings.push(refusal(
                "left-behind",
                format!("going back to {name}"),
                &format!(
                    "a callback (pre_unpatch, post_unpatch) that takes state {id} back from version {version}"
                ),
                "none",
            ));
        }
    }
    findings
}

/// Where the manifest and the module disagree. The functions are compared both ways: one that the
/// manifest does not name is as bad as one that the module lacks.
#[must_use]
pub fn claims(component: &LivepatchComponent, module: &Module) -> Vec<Finding> {
    compare_claims(component, &Content::of(module))
}

/// What a module holds, of what a manifest says about it.
struct Content {
    name: Option<String>,
    build_id: Option<String>,
    release: Option<String>,
    patch: Option<Patch>,
}

struct Patch {
    functions: BTreeSet<Place>,
    replace: module::Replace,
    /// Functions that run when the livepatch is enabled or disabled, by kind and name.
    callbacks: Vec<(&'static str, String)>,
    /// Functions that the author exempted from the check that no task is inside.
    forced: Vec<String>,
}

impl Content {
    fn of(module: &Module) -> Self {
        let patch = module.livepatch.as_ref().map(|livepatch| Patch {
            functions: places(livepatch.objects.iter().flat_map(|object| {
                let functions = object.functions.iter();
                functions.map(|function| (object.name.as_str(), function.old_name.as_str(), function.sympos))
            })),
            replace: livepatch.replace,
            callbacks: livepatch
                .objects
                .iter()
                .flat_map(|object| object.callbacks.iter().map(|(kind, name)| (kind, name.to_owned())))
                .collect(),
            forced: livepatch.forced.clone(),
        });
        let build_id = module.build_id.clone();
        Self { name: module.name.clone(), build_id, release: module.release().map(str::to_owned), patch }
    }
}

fn compare_claims(component: &LivepatchComponent, content: &Content) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = content.name.as_deref().unwrap_or("none");
    if name != component.module.as_str() {
        findings.push(refusal("claim-name", "module", component.module.as_str(), name));
    }
    let release = content.release.as_deref().unwrap_or("none");
    if release != component.kernel.as_str() {
        findings.push(refusal("claim-kernel", "module", component.kernel.as_str(), release));
    }
    if content.build_id.is_none() {
        let expected = "a build id, which tells it from any other module of its name";
        findings.push(refusal("claim-identity", "module", expected, "none"));
    }
    let Some(patch) = &content.patch else {
        findings.push(refusal("claim-function", "module", "a livepatch", "a module without patch tables"));
        return findings;
    };
    findings.extend(compare(&claimed(&component.patches), &patch.functions, "the module"));
    findings.extend(compare_replace(component.replace, patch.replace));
    findings.extend(patch.callbacks.iter().map(|(kind, function)| Finding {
        rule: "callback",
        severity: Severity::Note,
        subject: function.clone(),
        expected: "functions replaced, nothing run".to_owned(),
        found: format!("code that runs as {kind}"),
    }));
    findings.extend(patch.forced.iter().map(|function| Finding {
        rule: "forced",
        severity: Severity::Warn,
        subject: function.clone(),
        expected: "no task inside when it is replaced".to_owned(),
        found: "its author exempted it from that check".to_owned(),
    }));
    findings
}

fn compare_replace(claimed: Replace, found: module::Replace) -> Option<Finding> {
    let word = |replace| match replace {
        Replace::None => "adds to other livepatches (replace: none)",
        Replace::All => "replaces all other livepatches (replace: all)",
    };
    let found = match found {
        module::Replace::None => Replace::None,
        module::Replace::All => Replace::All,
        module::Replace::DecidedAtLoad => {
            return Some(Finding {
                rule: "claim-replace",
                severity: Severity::Warn,
                subject: "module".to_owned(),
                expected: word(claimed).to_owned(),
                found: "its code decides that when it loads: the module cannot tell".to_owned(),
            });
        }
    };
    (claimed != found).then(|| refusal("claim-replace", "module", word(claimed), word(found)))
}

/// The kernel, asked after the transition, does not show what the manifest claims.
#[derive(Debug, Error)]
pub enum NotConfirmed {
    /// The kernel has no such livepatch any more.
    #[error("expected the kernel to show livepatch {module}, found none of that name")]
    Gone {
        /// The livepatch.
        module: ModuleName,
    },
    /// It is not enabled, or tasks are still moving.
    #[error("expected livepatch {module} enabled and out of transition, found {found:?}")]
    NotLive {
        /// The livepatch.
        module: ModuleName,
        /// What the kernel shows.
        found: PatchState,
    },
    /// It patches something else.
    #[error("livepatch {module} does not patch what the manifest says: {}", list(findings))]
    OtherFunctions {
        /// The livepatch.
        module: ModuleName,
        /// Each difference.
        findings: Vec<Finding>,
    },
}

fn list(findings: &[Finding]) -> String {
    let one = |finding: &Finding| {
        format!("{}: expected {}, found {}", finding.subject, finding.expected, finding.found)
    };
    findings.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Holds what the kernel shows after the transition against the manifest's claim, both ways.
///
/// # Errors
/// [`NotConfirmed`] unless the kernel has the livepatch enabled, out of transition, and patching
/// exactly these functions.
pub fn confirm(
    module: &ModuleName,
    claim: &[PatchedObject],
    loaded: &[LoadedPatch],
) -> Result<(), NotConfirmed> {
    confirm_places(module, claimed(claim), loaded)
}

/// As [`confirm`], for bytes that were held against a manifest when they were first loaded.
///
/// # Errors
/// [`NotConfirmed`].
pub fn confirm_bytes(name: &ModuleName, module: &Module, loaded: &[LoadedPatch]) -> Result<(), NotConfirmed> {
    let functions = Content::of(module).patch.map(|patch| patch.functions);
    confirm_places(name, functions.unwrap_or_default(), loaded)
}

fn confirm_places(
    module: &ModuleName,
    expected: BTreeSet<Place>,
    loaded: &[LoadedPatch],
) -> Result<(), NotConfirmed> {
    let Some(patch) = loaded.iter().find(|patch| patch.module == *module) else {
        return Err(NotConfirmed::Gone { module: module.clone() });
    };
    if patch.state != PatchState::Settled(Enabled::Enabled) {
        return Err(NotConfirmed::NotLive { module: module.clone(), found: patch.state });
    }
    // The kernel shows position 0, "the only one", as 1 (`klp_init_func`).
    let shown = |mut place: Place| {
        place.sympos = place.sympos.max(1);
        place
    };
    let found = places(patch.objects.iter().flat_map(|object| {
        let functions = object.functions.iter();
        functions.map(|function| (object.name.as_str(), function.name.as_str(), function.sympos))
    }));
    let findings = compare(&expected.into_iter().map(shown).collect(), &found, "the kernel");
    if findings.is_empty() {
        return Ok(());
    }
    Err(NotConfirmed::OtherFunctions { module: module.clone(), findings })
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    object: String,
    function: String,
    sympos: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{},{}", self.object, self.function, self.sympos)
    }
}

fn places<'a>(found: impl Iterator<Item = (&'a str, &'a str, u64)>) -> BTreeSet<Place> {
    found
        .map(|(object, function, sympos)| Place {
            object: object.to_owned(),
            function: function.to_owned(),
            sympos,
        })
        .collect()
}

fn claimed(claim: &[PatchedObject]) -> BTreeSet<Place> {
    places(claim.iter().flat_map(|object| {
        let functions = object.functions.iter();
        functions.map(|function| (object.object.as_str(), function.name.as_str(), function.sympos.into()))
    }))
}

fn compare(claimed: &BTreeSet<Place>, found: &BTreeSet<Place>, by: &str) -> Vec<Finding> {
    let hidden = found.difference(claimed).map(|place| {
        refusal(
            "claim-function",
            place,
            "not patched, since the manifest does not list it",
            &format!("patched by {by}"),
        )
    });
    let missing = claimed.difference(found).map(|place| {
        refusal("claim-function", place, "patched, as the manifest says", &format!("not patched by {by}"))
    });
    hidden.chain(missing).collect()
}

fn refusal(rule: &'static str, subject: impl ToString, expected: &str, found: &str) -> Finding {
    Finding {
        rule,
        severity: Severity::Refuse,
        subject: subject.to_string(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
