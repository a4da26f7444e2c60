//! What the vulnerabilities that manifests name are to the kernel that runs, and the same as OpenVEX.
//!
//! Said is only what can be shown:
//!
//! - *not affected*: a livepatch that was made for this very kernel and is said to fix it is in force, the kernel shows that
//!   it patches exactly what the manifest claims, nothing else patches the same functions, and nothing of it is revoked;
//! - *fixed*: the kernel's package is, by its own word, of a version from which on the manifest says it has the fix;
//! - *affected*: a livepatch for this very kernel is known and not in force, or its package is older than the fix;
//! - *under investigation*: everything else. A manifest that also fixes files of containers does not say which of its
//!   vulnerabilities is whose.
//!
//! Of several manifests about one vulnerability the best word counts: a later one takes an earlier one's place.

use std::collections::BTreeMap;

use manifests::evidence::{Evidence, Livepatch, Vulnerability};
use manifests::vex::{
    Bound, Document, Justification, OPENVEX, Product, Statement, Status, Vulnerability as Named,
    kernel_image_purl, kernel_purl,
};
use manifests::{
    Component, ComponentFit, CveId, Examination, LivepatchComponent, Manifest, ManifestName, VerifyAt,
    VerifyError,
};

use crate::operations::evidence::Question;
use crate::operations::evidence::look::Applied;
use crate::operations::trust::{TrustError, read_envelope};
use crate::operations::{Engine, EngineError};

impl Engine {
    pub(super) fn vulnerabilities(
        &self,
        question: &Question,
        applied: &[Applied],
        livepatches: &[Livepatch],
    ) -> Result<Vec<Vulnerability>, EngineError> {
        let mut latest: BTreeMap<ManifestName, Manifest> = BTreeMap::new();
        let given = self.given(question)?;
        for manifest in applied.iter().map(|applied| &applied.manifest).chain(&given) {
            let known = latest.get(&manifest.name);
            if known.is_none_or(|known| known.version < manifest.version) {
                latest.insert(manifest.name.clone(), manifest.clone());
            }
        }
        let revoked = self.revoked_payloads()?;
        let mut found: BTreeMap<CveId, Vulnerability> = BTreeMap::new();
        for manifest in latest.values() {
            let is_revoked = |component: &LivepatchComponent| revoked.contains_key(&component.payload.sha256);
            let Some((status, why)) = judge(manifest, &self.host.kernel, livepatches, &is_revoked) else {
                continue;
            };
            for cve in &manifest.fixes {
                let known = found.get(cve);
                if known.is_some_and(|known| rank(known.status) <= rank(status)) {
                    continue;
                }
                let (name, version) = (manifest.name.clone(), manifest.version);
                let one =
                    Vulnerability { cve: cve.clone(), status, manifest: name, version, why: why.clone() };
                found.insert(cve.clone(), one);
            }
        }
        Ok(found.into_values().collect())
    }

    /// Manifests that somebody names: believed as everywhere else, those that have expired too.
    fn given(&self, question: &Question) -> Result<Vec<Manifest>, EngineError> {
        if question.manifests.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.host.clock.now();
        let (policy, floor) = self.trusting(now)?;
        let mut given = Vec::new();
        for path in &question.manifests {
            let envelope = read_envelope(path)?;
            let examined: Examination<Manifest> = policy.examine(&envelope, VerifyAt { now, floor: &floor });
            match (examined.outcome, examined.signed) {
                (Ok(manifest), _) => given.push(manifest.into_inner()),
                (Err(VerifyError::Expired { .. }), Some(manifest)) => given.push(manifest),
                (Err(source), _) => {
                    return Err(TrustError::NotAuthentic { path: path.clone(), source }.into());
                }
            }
        }
        Ok(given)
    }
}

/// The better word first.
fn rank(status: Status) -> u8 {
    match status {
        Status::Fixed => 0,
        Status::NotAffected => 1,
        Status::UnderInvestigation => 2,
        Status::Affected => 3,
    }
}

/// What a manifest's vulnerabilities are to this kernel, and how that is known; nothing of a manifest without livepatches.
fn judge(
    manifest: &Manifest,
    kernel: &manifests::HostKernel,
    shown: &[Livepatch],
    is_revoked: &dyn Fn(&LivepatchComponent) -> bool,
) -> Option<(Status, String)> {
    let selection = manifest.for_kernel(kernel);
    if selection.livepatches.is_empty() {
        return None;
    }
    let (name, version) = (&manifest.name, manifest.version);
    let components =
        selection.livepatches.iter().filter_map(|(index, fit)| match &manifest.components[*index] {
            Component::Livepatch(livepatch) => Some((livepatch, fit)),
            _ => None,
        });
    let components: Vec<(&LivepatchComponent, &ComponentFit)> = components.collect();
    let fitting = components.iter().filter(|(_, fit)| **fit == ComponentFit::Fits);
    let mut judged: Vec<(Status, String)> =
        fitting.map(|(component, _)| of_livepatch(component, shown, is_revoked(component))).collect();
    if judged.is_empty() {
        judged.extend(components.iter().filter_map(|(_, fit)| of_package(fit, kernel)));
    }
    if judged.is_empty() {
        let why =
            "no livepatch of it was made for this build of this kernel, and no version is said to be fixed";
        judged.push((Status::UnderInvestigation, why.to_owned()));
    }
    // The worst of those that are for this kernel.
    let status = judged.iter().map(|(status, _)| *status).max_by_key(|status| rank(*status))?;
    let mut words: Vec<String> = judged.into_iter().map(|(_, why)| why).collect();
    words.sort();
    words.dedup();
    let has_files = manifest.components.iter().any(|component| !matches!(component, Component::Livepatch(_)));
    let said = format!("{name} version {version}: {}", words.join("; "));
    Some(match (has_files, status) {
        (true, Status::NotAffected | Status::Fixed) => {
            let open = "; it also fixes files, and does not say which vulnerability is whose";
            (Status::UnderInvestigation, said + open)
        }
        _ => (status, said),
    })
}

/// What a livepatch for another kernel says of this one's package.
fn of_package(fit: &ComponentFit, kernel: &manifests::HostKernel) -> Option<(Status, String)> {
    let own = &kernel.package.as_ref()?.version;
    match fit {
        ComponentFit::Fixed { since } => Some((
            Status::Fixed,
            format!("the kernel is of version {own}, and {} has the fix", since.version),
        )),
        ComponentFit::NotFixedYet { fixed_in } => {
            let first = &fixed_in.version;
            Some((Status::Affected, format!("the kernel is of version {own}, and {first} has the fix first")))
        }
        _ => None,
    }
}

/// What a livepatch that was made for this kernel comes to.
fn of_livepatch(component: &LivepatchComponent, shown: &[Livepatch], revoked: bool) -> (Status, String) {
    let payload = component.payload.sha256;
    let module = &component.module;
    let ours =
        shown.iter().find(|livepatch| livepatch.ours.as_ref().is_some_and(|ours| ours.payload == payload));
    let touches = |livepatch: &&Livepatch| {
        let is_other = ours.is_none_or(|ours| ours.module != livepatch.module);
        is_other && component.patches.iter().any(|claimed| patches_some_of(livepatch, claimed))
    };
    if let Some(other) = shown.iter().find(touches) {
        let why = format!(
            "livepatch {} patches the same functions, and what they do now is its affair",
            other.module
        );
        return (Status::UnderInvestigation, why);
    }
    let Some((livepatch, own)) = ours.and_then(|livepatch| Some((livepatch, livepatch.ours.as_ref()?)))
    else {
        return (Status::Affected, format!("its livepatch {module} for this kernel is not in force"));
    };
    if revoked {
        return (Status::UnderInvestigation, format!("its livepatch {module} is in force, and revoked"));
    }
    if !livepatch.in_force || !own.shows_claim {
        let why = own.why.as_deref().unwrap_or(&livepatch.state);
        return (Status::UnderInvestigation, format!("its livepatch {module}: {why}"));
    }
    let build = livepatch.build_id.as_ref().map(|id| format!(", build id {id}")).unwrap_or_default();
    let why = format!(
        "its livepatch {module} (SHA-256 {payload}{build}) is in force, and the kernel shows that it patches {}",
        functions(livepatch)
    );
    (Status::NotAffected, why)
}

fn patches_some_of(livepatch: &Livepatch, claimed: &manifests::PatchedObject) -> bool {
    let objects = livepatch.patches.iter().filter(|object| object.object == claimed.object.as_str());
    let mut functions = objects.flat_map(|object| &object.functions);
    functions.any(|own| {
        // 0 says that the name is unique, and the kernel shows that as 1.
        claimed
            .functions
            .iter()
            .any(|wanted| own.name == wanted.name.as_str() && own.sympos == u64::from(wanted.sympos.max(1)))
    })
}

/// At most a few: the evidence has all.
fn functions(livepatch: &Livepatch) -> String {
    const FEW: usize = 6;
    let all: Vec<String> = livepatch
        .patches
        .iter()
        .flat_map(|object| {
            object.functions.iter().map(|function| format!("{}:{}", object.object, function.name))
        })
        .collect();
    let more =
        all.len().checked_sub(FEW + 1).map(|more| format!(" and {} more", more + 1)).unwrap_or_default();
    format!("{}{more}", all.iter().take(FEW).cloned().collect::<Vec<_>>().join(", "))
}

/// What is known of vulnerabilities, as OpenVEX; nothing if nothing is.
pub(super) fn document(evidence: &Evidence) -> Option<Document> {
    if evidence.vulnerabilities.is_empty() {
        return None;
    }
    let Evidence { host, boot, at, nonce, kernel, .. } = evidence;
    let product = Product::of(match &kernel.package {
        Some(package) => kernel_image_purl(
            package.distribution.as_str(),
            kernel.release.as_str(),
            package.version.as_str(),
            debian_arch(&kernel.arch),
        ),
        None => {
            kernel_purl(kernel.release.as_str(), kernel.build_id.as_ref().map(ToString::to_string).as_deref())
        }
    });
    let build = kernel.build_id.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let holds_for = format!(
        "Holds for the running kernel {} (build id {build}) of host {} in boot {}, as seen at {at}, and for nothing else.",
        kernel.release, host.key, boot.id
    );
    let statements = evidence.vulnerabilities.iter().map(|one| Statement {
        vulnerability: Named { name: one.cve.clone() },
        products: vec![product.clone()],
        status: one.status,
        justification: (one.status == Status::NotAffected)
            .then_some(Justification::InlineMitigationsAlreadyExist),
        status_notes: format!("{}. {holds_for}", one.why),
        action_statement: (one.status == Status::Affected)
            .then(|| format!("apply {} version {} or a later one: update apply", one.manifest, one.version)),
    });
    let statements = statements.collect();
    let seconds = at.timestamp().as_second();
    let id = Bound { host: host.key, boot: boot.id.clone(), seconds, nonce: nonce.clone() };
    Some(Document {
        context: OPENVEX.to_owned(),
        id,
        author: format!("host {} ({})", host.key, host.name.as_deref().unwrap_or("without a name")),
        role: "the host that runs the kernel".to_owned(),
        timestamp: *at,
        version: 1,
        tooling: format!("update {}", env!("CARGO_PKG_VERSION")),
        statements,
    })
}

/// Debian's name of an architecture.
fn debian_arch(machine: &str) -> Option<&'static str> {
    match machine {
        "x86_64" => Some("amd64"),
        "aarch64" => Some("arm64"),
        _ => None,
    }
}
