//! A manifest of a rollout: who signed it and for which role, what it says, and whether the files that hosts get are that.

use std::collections::BTreeSet;
use std::io::Read as _;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use manifests::schema::Component;
use manifests::schema::livepatch::LivepatchComponent;
use manifests::verify::{SignatureStanding, Standing};
use manifests::{Envelope, Manifest, Payload, Sha256, TrustFloor, VerifyAt};
use patch_tools::module::Module;

use super::session::Seen;
use super::{Failed, Frame, Html, When, made, short};
use crate::content::{Content, MAX_DOCUMENT};
use crate::server::Shared;
use crate::server::answer::Refusal;
use crate::server::asked::{At, Viewer};

/// The largest module that a manifest may name, in bytes.
const MAX_MODULE: u64 = 64 << 20;

/// One signature.
struct Signature {
    key: String,
    name: Option<String>,
    words: String,
    counts: bool,
}

/// One role, and what it still lacks.
struct Role {
    name: String,
    threshold: u32,
    signed: String,
    missing: u32,
}

/// One component.
struct Part {
    kind: &'static str,
    name: String,
    files: Vec<Payload>,
    /// What it says that it changes.
    claim: Vec<String>,
    /// Whether what hosts get is that.
    content: Vec<Judged>,
}

struct Judged {
    words: String,
    good: bool,
}

#[derive(Template)]
#[template(path = "manifest.html")]
struct Page {
    frame: Frame,
    digest: String,
    manifest: Manifest,
    issued: When,
    expires: When,
    /// Whether this controller has a policy to judge it by.
    known: bool,
    /// Why that policy refuses it now.
    refused: Option<String>,
    signatures: Vec<Signature>,
    roles: Vec<Role>,
    parts: Vec<Part>,
    logged: bool,
    rollouts: Vec<(String, String)>,
}

impl Page {
    fn fixes(&self) -> String {
        list(&self.manifest.fixes)
    }

    fn kernels(&self) -> String {
        list(&self.manifest.targets.kernels)
    }
}

fn list(all: &[impl ToString]) -> String {
    match all {
        [] => "none".to_owned(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

impl Signature {
    fn of(signature: &SignatureStanding) -> Self {
        let words = match &signature.standing {
            Standing::Counts { role } => format!("counts for {role}"),
            Standing::NotNeeded => "holds, and no role needs it".to_owned(),
            Standing::UnknownKey => "by a key that the policy does not have".to_owned(),
            Standing::DoesNotVerify => "is not that key's signature".to_owned(),
            Standing::Revoked { since } => format!("holds; its key was revoked at {since}"),
            Standing::KeyExpired { not_after } => format!("holds; its key counted until {not_after}"),
        };
        Self {
            key: signature.key.to_string(),
            name: signature.name.as_ref().map(ToString::to_string),
            counts: matches!(signature.standing, Standing::Counts { .. }),
            words,
        }
    }
}

/// A function at its place, as claims and modules have it.
type Place = (String, String, u64);

fn told((object, function, sympos): &Place) -> String {
    match sympos {
        0 => format!("{object}: {function}"),
        sympos => format!("{object}: {function} (number {sympos} of that name)"),
    }
}

fn claimed(component: &LivepatchComponent) -> BTreeSet<Place> {
    let of = |object: &manifests::PatchedObject| {
        let name = object.object.to_string();
        let function = |function: &manifests::schema::livepatch::PatchedFunction| {
            (name.clone(), function.name.to_string(), u64::from(function.sympos))
        };
        object.functions.iter().map(function).collect::<Vec<_>>()
    };
    component.patches.iter().flat_map(of).collect()
}

/// Whether a module patches what its component claims: what every host finds out by itself before it loads anything.
fn compare(component: &LivepatchComponent, module: &[u8]) -> Vec<Judged> {
    let bad = |words: String| Judged { words, good: false };
    let module = match Module::parse(module) {
        Ok(module) => module,
        Err(error) => return vec![bad(format!("the file is no module: {error}"))],
    };
    let claimed = claimed(component);
    let found = module.objects().iter().flat_map(|object| {
        let function = |function: &patch_tools::module::PatchedFunction| {
            (object.name.to_string(), function.old_name.clone(), function.sympos)
        };
        object.functions.iter().map(function).collect::<Vec<_>>()
    });
    let found: BTreeSet<Place> = found.collect();
    let hidden = found
        .difference(&claimed)
        .map(|place| bad(format!("it patches {}, which is not claimed", told(place))));
    let missing = claimed.difference(&found).map(|place| bad(format!("it does not patch {}", told(place))));
    let differences: Vec<Judged> = hidden.chain(missing).collect();
    match differences.is_empty() {
        true => {
            let words = format!("the module patches exactly what is claimed: {} function(s)", claimed.len());
            vec![Judged { words, good: true }]
        }
        false => differences,
    }
}

/// What is known of a component's files.
fn content(content: &Content, component: &Component) -> Result<Vec<Judged>, Refusal> {
    let mut all = Vec::new();
    for payload in component.payloads() {
        let Payload { file: name, sha256, size } = payload;
        let Some((file, found)) = content.get(*sha256)? else {
            all.push(Judged { words: format!("{name} is not here: hosts cannot fetch it"), good: false });
            continue;
        };
        // It was hashed when it came, and is named by its digest.
        let words = match found == *size {
            true => format!("{name} is here, under its digest"),
            false => format!("{name}: expected {size} bytes, found {found}"),
        };
        all.push(Judged { words, good: found == *size });
        if let Component::Livepatch(livepatch) = component {
            let mut module = Vec::new();
            let read = file.take(MAX_MODULE).read_to_end(&mut module);
            read.map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error))?;
            all.extend(compare(livepatch, &module));
        }
    }
    Ok(all)
}

/// What a component says that it changes.
fn claim(component: &Component) -> Vec<String> {
    let files = component.replaces().iter().map(|file| file.path.to_string());
    let own: Vec<String> = match component {
        Component::Livepatch(livepatch) => claimed(livepatch).iter().map(told).collect(),
        Component::Layer(_) => Vec::new(),
        Component::Image(image) => image.instead_of.iter().map(|image| format!("image {image}")).collect(),
        Component::Package(package) => {
            let change = |change: &manifests::schema::package::PackageChange| {
                format!("{}: {} to {}", change.name, change.old.version, change.new.version)
            };
            package.packages.iter().map(change).collect()
        }
    };
    own.into_iter().chain(files).collect()
}

fn part(kept: &Content, component: &Component) -> Result<Part, Refusal> {
    let name = match component {
        Component::Livepatch(livepatch) => format!("{} for kernel {}", livepatch.module, livepatch.kernel),
        Component::Layer(_) => "files of containers".to_owned(),
        Component::Image(image) => format!("another image for containers, {}", image.image),
        Component::Package(_) => "packages of the host".to_owned(),
    };
    Ok(Part {
        kind: component.kind(),
        name,
        files: component.payloads().into_iter().cloned().collect(),
        claim: claim(component),
        content: content(kept, component)?,
    })
}

pub(super) async fn show(
    State(controller): State<Shared>,
    seen: Seen<Viewer>,
    digest: Result<At<Sha256>, Refusal>,
) -> Result<Html, Failed> {
    let At(digest) = digest?;
    made(move || {
        controller.unedited()?;
        let standings = controller.authority.standings()?;
        let rollouts = standings.iter().filter(|standing| standing.manifest == digest);
        let rollouts: Vec<(String, String)> =
            rollouts.map(|standing| (standing.rollout.to_string(), short(&standing.rollout))).collect();
        let not_there =
            || Refusal::new(StatusCode::NOT_FOUND, format_args!("no rollout has a manifest {digest}"));
        let found = if rollouts.is_empty() { None } else { controller.content.get(digest)? };
        let (file, _) = found.ok_or_else(not_there)?;
        let broken = |error: &(dyn std::error::Error + 'static)| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, system::error::with_causes(error))
        };
        let bytes = manifests::bounded::read(file, MAX_DOCUMENT).map_err(|error| broken(&error))?;
        let envelope = Envelope::parse(&bytes).map_err(|error| broken(&error))?;
        let manifest = Manifest::parse(envelope.unverified_payload()).map_err(|error| broken(&error))?;
        let (now, floor) = (controller.now(), TrustFloor::default());
        let at = VerifyAt { now: controller.clock.now(), floor: &floor };
        let examined = controller.policy.as_ref().map(|policy| policy.examine::<Manifest>(&envelope, at));
        let signers = examined.as_ref().map(|examined| &examined.signers);
        let role = |role: &manifests::verify::RoleStanding| Role {
            name: role.role.to_string(),
            threshold: role.threshold,
            signed: list(&role.signed),
            missing: role.missing,
        };
        let refused = examined.as_ref().and_then(|examined| examined.outcome.as_ref().err());
        let refused = refused.map(|error| system::error::with_causes(error));
        let parts = manifest.components.iter().map(|component| part(&controller.content, component));
        Ok(Page {
            frame: Frame::new(format!("{} version {}", manifest.name, manifest.version), "", seen),
            digest: digest.to_string(),
            issued: When::new(manifest.issued, now),
            expires: When::new(manifest.expires, now),
            known: examined.is_some(),
            refused,
            signatures: signers.iter().flat_map(|signers| &signers.signatures).map(Signature::of).collect(),
            roles: signers.iter().flat_map(|signers| &signers.roles).map(role).collect(),
            parts: parts.collect::<Result<_, _>>()?,
            logged: controller.policy.as_ref().is_some_and(|policy| policy.transparency().is_some()),
            rollouts,
            manifest,
        })
    })
    .await
}
