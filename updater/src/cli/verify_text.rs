//! The report of `update verify` for a person.
//!
//! What is escaped in it is escaped by the page that it is written on.

use std::fmt;

use manifests::log::Logged;
use manifests::verify::{RoleStanding, SignatureStanding, Standing};
use manifests::{
    Component, ContainerSelector, FileIdentity, ImageComponent, LayerComponent, LivepatchComponent, Manifest,
    OnFailure, PackageChange, PackageComponent, Probe, Replace, ReplacedFile, WithoutCheckpoint,
};

use manifests::provenance::Origin;
use patch_tools::check::{Finding, Severity};

use crate::cli::output::Page;
use crate::cli::verify::{History, InBundle, PayloadReport, Report};
use crate::operations::inspection::{Content, ImageFound, Inspection, OriginFound};
use crate::operations::trust::PayloadState;

/// The refusal of signed bytes that are no manifest, by its [`manifests::VerifyError::kind`].
const MALFORMED: &str = "malformed-manifest";

/// The refusals of a module and of an image that is the signed one, and not what is said of it.
const DIFFERS: [&str; 2] = ["module-differs", "image-differs"];

/// How many functions of an object are named.
const NAMED_FUNCTIONS: usize = 8;

pub(super) fn render(report: &Report) -> Page {
    let mut text = Page::default();
    // Writing to a page cannot fail.
    let _ = write_report(&mut text, report);
    text
}

fn write_report(text: &mut Page, report: &Report) -> fmt::Result {
    match &report.contents {
        Some(manifest) => head(text, manifest)?,
        None => {
            let malformed = report.refusal.as_ref().is_some_and(|refusal| refusal.kind == MALFORMED);
            let why = if malformed { "it is no manifest" } else { "nobody vouches for it" };
            let path = report.manifest.display().to_string();
            writeln!(text, "{path}: its content is not shown, since {why}")?;
        }
    }
    writeln!(text, "  digest    sha256:{}", report.sha256)?;

    writeln!(text, "signed, by {}", report.policy.display())?;
    for role in &report.roles {
        self::role(text, role)?;
    }
    for signature in &report.signatures {
        self::signature(text, signature)?;
    }
    if let Some(Logged { origin, index, head, cosigners, .. }) = &report.logged {
        let by: Vec<&str> = cosigners.iter().map(|one| one.name.as_str()).collect();
        let by = if by.is_empty() { "no witness".to_owned() } else { by.join(", ") };
        writeln!(text, "  logged            entry {index} of {}, in {origin}, seen by {by}", head.size)?;
    }
    if report.history == History::NotReadable {
        writeln!(
            text,
            "  not compared with what this host accepted before: its store is not readable for you"
        )?;
    }

    if let Some(InBundle { of_pinned_repository, policy, revocations }) = &report.bundle {
        writeln!(text, "in a bundle")?;
        match of_pinned_repository {
            true => writeln!(text, "  its repository is the one whose root this host pins")?,
            false => writeln!(text, "  its repository was not asked about: this host pins no root")?,
        }
        if let Some(edition) = policy {
            writeln!(
                text,
                "  edition {edition} of the policy would be put in force with it, and judges it here"
            )?;
        }
        if *revocations > 0 {
            writeln!(text, "  {revocations} revocations would be taken up with it")?;
        }
    }
    if let Some(manifest) = &report.contents {
        writeln!(text, "changes")?;
        let mut payloads = report.payloads.iter();
        for (index, component) in (1..).zip(&manifest.components) {
            match component {
                Component::Livepatch(livepatch) => self::livepatch(text, index, livepatch)?,
                Component::Layer(layer) => self::layer(text, index, layer)?,
                Component::Image(image) => self::image(text, index, image)?,
                Component::Package(component) => self::package(text, index, component)?,
            }
            let own = payloads.by_ref().take(component.payloads().len());
            own.into_iter().try_for_each(|payload| self::payload(text, payload))?;
        }
        tail(text, manifest)?;
    }
    if !report.not_proven.is_empty() {
        writeln!(text, "not proven")?;
        report.not_proven.iter().try_for_each(|words| writeln!(text, "  - {words}"))?;
    }
    let differs = report.refusal.as_ref().is_some_and(|refusal| DIFFERS.contains(&refusal.kind));
    let verdict = match (report.authentic, report.complete) {
        (false, _) => "NOT authentic",
        (true, _) if differs => "authentic, and NOT what the manifest says",
        (true, true) => "authentic",
        (true, false) => "authentic; not all payloads are here",
    };
    writeln!(text, "{verdict}")
}

fn head(text: &mut Page, manifest: &Manifest) -> fmt::Result {
    let Manifest { name, version, severity, summary, issued, expires, targets, .. } = manifest;
    writeln!(text, "{name} version {version}, {severity}: {summary}")?;
    if !manifest.fixes.is_empty() {
        writeln!(text, "  fixes     {}", list(&manifest.fixes))?;
    }
    let kernels = if targets.kernels.is_empty() { "any kernel".to_owned() } else { list(&targets.kernels) };
    writeln!(text, "  for       {}, {kernels}", list(&targets.arch))?;
    writeln!(text, "  valid     from {issued} to {expires}")
}

fn role(text: &mut Page, role: &RoleStanding) -> fmt::Result {
    let RoleStanding { role, threshold, signed, missing, could_sign } = role;
    let by = if signed.is_empty() { "nobody".to_owned() } else { list(signed) };
    write!(text, "  {role:<16}  {} of {threshold}: {by}", signed.len())?;
    if *missing > 0 {
        let who = if could_sign.is_empty() { "no key left that could".to_owned() } else { list(could_sign) };
        write!(text, "; {missing} missing, from {who}")?;
    }
    writeln!(text)
}

/// Signatures that fill a role are told with the role.
fn signature(text: &mut Page, signature: &SignatureStanding) -> fmt::Result {
    let words = match &signature.standing {
        Standing::Counts { .. } => return Ok(()),
        Standing::NotNeeded => "holds, and no role needs it".to_owned(),
        Standing::UnknownKey => "not a key of this policy; ignored".to_owned(),
        Standing::DoesNotVerify => "DOES NOT HOLD".to_owned(),
        Standing::Revoked { since } => format!("holds, and the key is revoked since {since}"),
        Standing::KeyExpired { not_after } => format!("holds, and the key was to be used until {not_after}"),
    };
    let name = signature.name.as_ref().map_or("?", |name| name.as_str());
    writeln!(text, "  {:<16}  {:.16}…  {words}", name, signature.key)
}

fn livepatch(text: &mut Page, index: usize, livepatch: &LivepatchComponent) -> fmt::Result {
    let LivepatchComponent { module, kernel, .. } = livepatch;
    writeln!(text, "  {index}. livepatch {module} on {kernel}; containers feel nothing")?;
    for patch in &livepatch.patches {
        let mut functions: Vec<String> = patch
            .functions
            .iter()
            .take(NAMED_FUNCTIONS)
            .map(|function| match function.sympos {
                0 => function.name.to_string(),
                position => format!("{},{position}", function.name),
            })
            .collect();
        if patch.functions.len() > NAMED_FUNCTIONS {
            functions.push(format!("and {} more", patch.functions.len() - NAMED_FUNCTIONS));
        }
        writeln!(text, "     patches   {}: {}", patch.object, functions.join(", "))?;
    }
    if livepatch.replace == Replace::All {
        writeln!(text, "     replaces  every livepatch that is loaded before")?;
    }
    writeln!(text, "     deadline  {}, then reversed", livepatch.transition.deadline)
}

fn layer(text: &mut Page, index: usize, layer: &LayerComponent) -> fmt::Result {
    let which = selected(layer.containers.as_ref());
    writeln!(text, "  {index}. restart {which} that maps one of these files, on a fixed copy")?;
    replaced(text, &layer.replaces)?;
    let order = layer.order.as_ref().map_or_else(|| "id".to_owned(), |order| format!("label {}", order.name));
    writeln!(text, "     order     by {order}, {} at a time", layer.concurrency)?;
    without_checkpoint(text, layer.without_checkpoint)?;
    probes(text, "     ", &layer.probes)
}

fn package(text: &mut Page, index: usize, component: &PackageComponent) -> fmt::Result {
    writeln!(text, "  {index}. install packages on the host; their maintainer scripts run as root")?;
    for PackageChange { name, architecture, old, new } in &component.packages {
        writeln!(text, "     package   {name} {architecture}: {} in place of {}", new.version, old.version)?;
    }
    let which = selected(component.containers.as_ref());
    writeln!(text, "     restart   every service, and {which}, that maps one of these files")?;
    replaced(text, &component.replaces)?;
    for (what, services) in [("restart", &component.services.restart), ("leave", &component.services.leave)] {
        if !services.is_empty() {
            writeln!(text, "     {what:<8}  {} in any case", list(services))?;
        }
    }
    without_checkpoint(text, component.without_checkpoint)
}

fn selected(containers: Option<&ContainerSelector>) -> String {
    let Some(selector) = containers else { return "any container".to_owned() };
    let labels = selector.labels.iter().map(|label| format!("{}={}", label.name, label.value));
    let ids = (!selector.ids.is_empty()).then(|| list(&selector.ids));
    let parts: Vec<String> = ids.into_iter().chain(labels).collect();
    format!("containers {}", parts.join(", "))
}

fn replaced(text: &mut Page, files: &[ReplacedFile]) -> fmt::Result {
    for file in files {
        let identity = match &file.identity {
            FileIdentity::BuildId(id) => format!("build id {id}"),
            FileIdentity::Sha256(digest) => format!("sha256 {digest}"),
        };
        writeln!(text, "     file      {} ({identity})", file.path)?;
    }
    Ok(())
}

fn image(text: &mut Page, index: usize, image: &ImageComponent) -> fmt::Result {
    let which = selected(image.containers.as_ref());
    writeln!(text, "  {index}. make {which} anew that was made from one of these images")?;
    for digest in &image.instead_of {
        writeln!(text, "     image     {digest}")?;
    }
    writeln!(text, "     from      {}", image.image)?;
    let order = image.order.as_ref().map_or_else(|| "id".to_owned(), |order| format!("label {}", order.name));
    writeln!(text, "     order     by {order}, {} at a time", image.concurrency)?;
    without_checkpoint(text, image.without_checkpoint)?;
    probes(text, "     ", &image.probes)
}

fn without_checkpoint(text: &mut Page, without: WithoutCheckpoint) -> fmt::Result {
    let otherwise = match without {
        WithoutCheckpoint::Fail => "refuse the manifest",
        WithoutCheckpoint::Skip => "leave the container as it is",
        WithoutCheckpoint::Restart => "restart it, and lose its memory when going back",
    };
    writeln!(text, "     if a container cannot be checkpointed: {otherwise}")
}

fn payload(text: &mut Page, payload: &PayloadReport) -> fmt::Result {
    let state = match &payload.state {
        PayloadState::Matches => "is here and matches".to_owned(),
        PayloadState::Missing => "is not here, so not compared".to_owned(),
        PayloadState::Size { found } => format!("DIFFERS: it has {found} bytes"),
        PayloadState::Digest { .. } => "DIFFERS: it has other bytes".to_owned(),
        PayloadState::Unreadable { problem } => format!("cannot be read: {problem}"),
    };
    writeln!(text, "     payload   {} ({} bytes) {state}", payload.file, payload.size)?;
    writeln!(text, "     sha256    {}", payload.sha256)?;
    match &payload.inspected {
        Some(Inspection::Read(content)) => content_of_module(text, content)?,
        Some(Inspection::Unreadable { why }) => {
            writeln!(text, "     in it     NO MODULE that can be read: {why}")?
        }
        None => {}
    }
    match &payload.image {
        Some(ImageFound::Read { manifest, platform, layers, unpacked }) => writeln!(
            text,
            "     in it     that image, for {platform}, manifest {manifest}; {layers} layers of {unpacked} bytes"
        )?,
        Some(ImageFound::Unreadable { why }) => writeln!(text, "     in it     NOT that image: {why}")?,
        None => {}
    }
    payload.origins.iter().try_for_each(|found| origin(text, found))
}

/// What is really in a module.
fn content_of_module(text: &mut Page, content: &Content) -> fmt::Result {
    let word = if content.agrees() { "just that" } else { "NOT THAT" };
    let build = content.build_id.as_deref().unwrap_or("none");
    writeln!(text, "     in it     {word}, by the module's own tables; build id {build}")?;
    for object in &content.patches {
        let functions: Vec<String> = object
            .functions
            .iter()
            .map(|(name, sympos)| if *sympos == 0 { name.clone() } else { format!("{name},{sympos}") })
            .collect();
        let named = functions.iter().take(NAMED_FUNCTIONS).cloned().collect::<Vec<_>>().join(", ");
        let more = functions.len().saturating_sub(NAMED_FUNCTIONS);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        writeln!(text, "               {}: {named}{more}", object.object)?;
    }
    for (when, name) in &content.callbacks {
        writeln!(text, "               runs {name} as {when}")?;
    }
    for Finding { severity, subject, expected, found, .. } in &content.differences {
        let weight = match severity {
            Severity::Refuse => "DIFFERS",
            Severity::Warn => "warning",
            Severity::Note => "note",
        };
        writeln!(text, "     {weight:<8}  {subject}: expected {expected}, found {found}")?;
    }
    Ok(())
}

/// Where it is said to come from.
fn origin(text: &mut Page, found: &OriginFound) -> fmt::Result {
    let by = match &found.signed_by {
        None => "not signed".to_owned(),
        Some(by) if by.is_empty() => "signed by no key of this policy".to_owned(),
        Some(by) => format!("signed by {}", list(by)),
    };
    match (&found.says, &found.problem) {
        (Some(Origin::Provenance { builder, materials, .. }), _) => {
            writeln!(
                text,
                "     built     by {builder} from {} inputs ({}, {by})",
                materials.len(),
                found.file
            )
        }
        (Some(Origin::Rebuild(rebuild)), _) => {
            let word = if rebuild.identical { "gives the same bytes" } else { "gives OTHER BYTES" };
            let patches: Vec<&str> = rebuild.patches.iter().map(|patch| patch.file.as_str()).collect();
            writeln!(
                text,
                "     rebuilt   {word}, from {} for {} ({}, {by})",
                patches.join(", "),
                rebuild.kernel,
                found.file
            )
        }
        (None, problem) => {
            writeln!(
                text,
                "     {} says nothing of it: {}",
                found.file,
                problem.as_deref().unwrap_or("unknown")
            )
        }
    }
}

fn tail(text: &mut Page, manifest: &Manifest) -> fmt::Result {
    probes(text, "  then ", &manifest.probes)?;
    let failure = match manifest.rollback.on_failure {
        OnFailure::Automatic => "go back to the old state",
        OnFailure::Hold => "stop and ask the operator",
    };
    writeln!(text, "  then watch for {}; on any failure {failure}", manifest.settle)
}

fn probes(text: &mut Page, indent: &str, probes: &[Probe]) -> fmt::Result {
    for Probe { check, timeout, successes, .. } in probes {
        writeln!(text, "{indent}probe     {check}: {successes} in a row within {timeout}")?;
    }
    Ok(())
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
