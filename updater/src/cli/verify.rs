//! `update verify`: who signed, whether this host would believe it, and what it would change.
//!
//! [`examine`] looks at everything and returns a [`Report`] and what refuses the manifest; this file
//! and `verify_text` only show the two. Nothing of an envelope's content is shown before its
//! signatures satisfy the policy: until then nobody vouches for a word of it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use manifests::log::Logged;
use manifests::provenance::Origin;
use manifests::verify::{Examination, RoleStanding, SignatureStanding, Signers};
use manifests::{Component, FileName, Manifest, Payload, Policy, Sha256, TrustFloor, UtcTime, VerifyAt};
use patch_tools::check::{Finding, Severity};
use repository::bundle::Bundle;
use serde::Serialize;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure};

use crate::cli::output::{object, page};
use crate::cli::{Global, failures, verify_text};
use crate::operations::along::{self, Taken};
use crate::operations::carried::Carried;
use crate::operations::inspection::{ImageFound, Inspection, OriginFound, inspect, inspect_image, origins};
use crate::operations::publication::Beside;
use crate::operations::trust;
use crate::operations::trust::{PayloadState, TrustError};
use crate::state::floors::{FloorSeen, look_at_floor};

/// Show who signed a manifest, whether it is authentic, and what it would change
///
/// Needs no root and changes nothing. Checks the signatures and roles against the policy, the
/// times, what this host has accepted before (where the store can be read), and the payload files
/// that are there: their digests, what a livepatch module really patches against what the manifest
/// says, an image's archive blob by blob, and the records of where they come from that lie beside them. Says what is not proven.
/// Where the policy asks for it, the manifest also has to be in a log, by the proof that lies beside
/// it. Of a bundle all of it is checked, and its payloads have to be in it. Exit code 4 when the
/// manifest or a payload is not authentic, 3 when a module or an image is not what the manifest says.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update verify greet-2026-001.manifest.json\n  update verify greet-2026-001.manifest.json --policy team.yaml --payloads . --json\n  update verify greet-2026-001.upd"
)]
pub(super) struct Args {
    /// The signed manifest, or a bundle (update bundle)
    manifest: PathBuf,
    /// Judge by this trust policy
    ///
    /// The default is the one that the configuration names, /etc/update/policy.yaml.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Look for the payload files in this directory; all of them must be there
    ///
    /// The default is the manifest's directory, where missing ones are only mentioned.
    #[arg(long, value_name = "DIR")]
    payloads: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let settings = global.settings()?;
    let policy = args.policy.as_deref().unwrap_or(&settings.policy);
    let floor = look_at_floor(&settings.store).map_err(|error| failures::trust(error.into()))?;
    let now = SystemClock.now();
    let carried = match args.manifest.exists() && Bundle::is_meant(&args.manifest) {
        true => Some(
            Carried::open(&args.manifest, &settings, &std::env::temp_dir(), now)
                .map_err(failures::carried)?,
        ),
        false => None,
    };
    let subject = Subject { args, store: Some(&settings.store), carried: carried.as_ref() };
    let (report, outcome) = examine(&subject, policy, floor, now)?;
    if global.json {
        object(&report);
    } else {
        page(&verify_text::render(&report));
    }
    outcome
}

/// What is looked at.
pub(super) struct Subject<'a> {
    pub(super) args: &'a Args,
    /// Where this host keeps what it has of a repository.
    pub(super) store: Option<&'a Path>,
    /// The bundle that it is in.
    pub(super) carried: Option<&'a Carried>,
}

/// What a bundle brings beside the manifest.
#[derive(Debug, Serialize)]
pub(super) struct InBundle {
    /// Whether its metadata holds by the root that this host pins; not asked where it pins none.
    pub(super) of_pinned_repository: bool,
    /// The edition of the policy that would be put in force with it.
    pub(super) policy: Option<u64>,
    /// How many revocations would be taken up with it.
    pub(super) revocations: usize,
}

/// Everything that there is to say about a manifest.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The file.
    pub(super) manifest: PathBuf,
    /// The policy that it was judged by.
    pub(super) policy: PathBuf,
    /// Whether the manifest is authentic for the policy, and every payload that is there is its own.
    pub(super) authentic: bool,
    /// Whether all payloads are there, and are its own.
    pub(super) complete: bool,
    /// Digest of the signed bytes.
    pub(super) sha256: Sha256,
    /// Every signature, with what it is worth.
    pub(super) signatures: Vec<SignatureStanding>,
    /// Every role, with what it lacks.
    pub(super) roles: Vec<RoleStanding>,
    /// Whether the version and the clock were held against what this host has accepted before.
    pub(super) history: History,
    /// Why it is refused.
    pub(super) refusal: Option<Refusal>,
    /// What it says; absent until its signatures satisfy the policy.
    pub(super) contents: Option<Manifest>,
    /// The payloads of each component, in order.
    pub(super) payloads: Vec<PayloadReport>,
    /// Where it is published; absent unless the policy asks for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logged: Option<Logged>,
    /// What else is in the bundle; absent unless it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bundle: Option<InBundle>,
    /// What none of this proves, in words.
    pub(super) not_proven: Vec<String>,
}

/// Whether the host's memory was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum History {
    /// Version and clock were compared.
    Checked,
    /// The store is not for this user to read; `apply` will compare.
    NotReadable,
}

/// A refusal, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    /// The kind of it, one word.
    pub(super) kind: &'static str,
    /// What should have been.
    expected: String,
    /// What was.
    found: String,
}

/// A payload file, compared.
#[derive(Debug, Serialize)]
pub(super) struct PayloadReport {
    /// Its name.
    pub(super) file: FileName,
    /// Its size in bytes, as signed.
    pub(super) size: u64,
    /// Its digest, as signed.
    pub(super) sha256: Sha256,
    /// What was found.
    #[serde(flatten)]
    pub(super) state: PayloadState,
    /// What a livepatch's module really is; nothing unless its signed bytes are here.
    pub(super) inspected: Option<Inspection>,
    /// The same of an image's archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<ImageFound>,
    /// What is said of where it comes from.
    pub(super) origins: Vec<OriginFound>,
}

/// Looks at everything. The first error means that there is nothing to report.
pub(super) fn examine(
    subject: &Subject<'_>,
    policy_path: &Path,
    floor: FloorSeen,
    now: Timestamp,
) -> Result<(Report, Result<(), Failure>), Failure> {
    let Subject { args, store, carried } = *subject;
    let (history, floor) = match floor {
        FloorSeen::Floor(floor) => (History::Checked, floor),
        FloorSeen::Unreadable => (History::NotReadable, TrustFloor::default()),
    };
    let policy = match args.policy {
        // Somebody else's policy has nothing to do with this host's editions.
        Some(_) => trust::read_policy(policy_path),
        None => trust::policy_in_force(policy_path, &floor),
    }
    .map_err(failures::trust)?;
    let (policy, floor, taken) = match carried {
        Some(carried) => along::with(policy, floor, carried.along(), now).map_err(failures::trust)?,
        None => (policy, floor, Taken::default()),
    };
    let file = carried.map_or(args.manifest.as_path(), Carried::manifest);
    let envelope = trust::read_envelope(file).map_err(failures::trust)?;
    let beside = Beside::wanted_by(&policy, file, &envelope, store).map_err(failures::trust)?;
    let Examination { signers: Signers { signatures, roles }, signed, digest, outcome } =
        beside.with(&floor, |publication| {
            policy.examine_published::<Manifest>(&envelope, publication, VerifyAt { now, floor: &floor })
        });
    let logged = outcome.as_ref().ok().and_then(|verified| verified.logged().cloned());
    let bundle = carried.map(|carried| InBundle {
        of_pinned_repository: carried.is_of_repository(),
        policy: taken.policy.as_ref().map(|(policy, _)| policy.edition().version),
        revocations: taken.revocations.len(),
    });

    let judge = Judge { policy: &policy, floor: &floor, now: UtcTime::floor(now) };
    let payloads = match &signed {
        Some(manifest) => compare(args, carried, manifest, &judge)?,
        None => Vec::new(),
    };
    let (refusal, outcome) = match outcome {
        Err(source) => {
            let refusal = Refusal { kind: source.kind(), expected: source.expected(), found: source.found() };
            let path = args.manifest.clone();
            (Some(refusal), Err(failures::trust(TrustError::NotAuthentic { path, source })))
        }
        Ok(_) => match payloads
            .iter()
            .find_map(|payload| wrong(args.payloads.is_some() || carried.is_some(), payload))
        {
            Some((refusal, failure)) => (Some(refusal), Err(failure)),
            None => (None, Ok(())),
        },
    };
    let not_proven = not_proven(signed.as_ref(), &payloads, history);
    let report = Report {
        manifest: args.manifest.clone(),
        policy: policy_path.to_owned(),
        authentic: outcome.as_ref().err().is_none_or(|failure| failure.exit() != Exit::NotAuthentic),
        complete: signed.is_some() && payloads.iter().all(|payload| payload.state == PayloadState::Matches),
        sha256: digest,
        signatures,
        roles,
        history,
        refusal,
        contents: signed,
        payloads,
        logged,
        bundle,
        not_proven,
    };
    Ok((report, outcome))
}

/// By what records of an origin are judged.
struct Judge<'a> {
    policy: &'a Policy,
    floor: &'a TrustFloor,
    now: UtcTime,
}

fn compare(
    args: &Args,
    carried: Option<&Carried>,
    manifest: &Manifest,
    judge: &Judge<'_>,
) -> Result<Vec<PayloadReport>, Failure> {
    let beside = args.manifest.parent().unwrap_or(Path::new(""));
    let unpacked = match (&args.payloads, carried) {
        (None, Some(carried)) => {
            Some(carried.unpack_payloads(manifest.payloads()).map_err(failures::carried)?)
        }
        _ => None,
    };
    let directory = args.payloads.as_deref().or(unpacked.as_deref()).unwrap_or(beside);
    let compare = |(component, payload): (&Component, &Payload)| {
        let state = trust::compare_payload(payload, directory);
        let (inspected, image, origins) = match state {
            PayloadState::Matches => {
                let (inspected, image) = match component {
                    Component::Livepatch(livepatch) => (Some(inspect(livepatch, directory)), None),
                    Component::Image(image) => (None, Some(inspect_image(image, directory))),
                    Component::Layer(_) | Component::Package(_) => (None, None),
                };
                (inspected, image, origins(payload, directory, judge.policy, judge.floor, judge.now))
            }
            _ => (None, None, Vec::new()),
        };
        let (file, size, sha256) = (payload.file.clone(), payload.size, payload.sha256);
        PayloadReport { file, size, sha256, state, inspected, image, origins }
    };
    let payloads = manifest
        .components
        .iter()
        .flat_map(|component| component.payloads().into_iter().map(move |payload| (component, payload)));
    Ok(payloads.map(compare).collect())
}

/// A payload that is there must be the signed one; one that was asked for must be there.
fn wrong(wanted: bool, payload: &PayloadReport) -> Option<(Refusal, Failure)> {
    let (exit, kind, what, found) = match &payload.state {
        PayloadState::Matches => return differs(payload),
        PayloadState::Missing if !wanted => return None,
        PayloadState::Missing => (Exit::Refused, "payload-missing", "is missing", "no such file".to_owned()),
        PayloadState::Unreadable { problem } => {
            (Exit::Refused, "payload-unreadable", "cannot be read", problem.clone())
        }
        PayloadState::Size { found } => {
            (Exit::NotAuthentic, "payload-changed", NOT_SIGNED, format!("{found} bytes"))
        }
        PayloadState::Digest { found } => {
            (Exit::NotAuthentic, "payload-changed", NOT_SIGNED, format!("SHA-256 {found}"))
        }
    };
    let expected = format!("{} bytes, SHA-256 {}", payload.size, payload.sha256);
    let failure = Failure::new(exit, format!("payload {} {what}", payload.file))
        .because(&expected, &found)
        .next("fetch the payload again, or name its folder with --payloads");
    Some((Refusal { kind, expected, found }, failure))
}

/// A module that is the signed one has to be what the manifest says that it is: a host refuses it otherwise.
fn differs(payload: &PayloadReport) -> Option<(Refusal, Failure)> {
    if let Some(ImageFound::Unreadable { why }) = &payload.image {
        let expected = "the image that the manifest means, whole".to_owned();
        let failure = Failure::new(Exit::Refused, format!("payload {} is not that image", payload.file))
            .because(&expected, why)
            .next("tell who signed it: the bytes are the signed ones, and no host takes them");
        return Some((Refusal { kind: "image-differs", expected, found: why.clone() }, failure));
    }
    let (what, expected, found) = match payload.inspected.as_ref()? {
        Inspection::Unreadable { why } => {
            ("is no livepatch module that can be read", "a livepatch module".to_owned(), why.clone())
        }
        Inspection::Read(content) => {
            let first = content.differences.iter().find(|finding| finding.severity == Severity::Refuse)?;
            let Finding { subject, expected, found, .. } = first;
            ("does not do what the manifest says", format!("{subject}: {expected}"), found.clone())
        }
    };
    let failure = Failure::new(Exit::Refused, format!("payload {} {what}", payload.file))
        .because(&expected, &found)
        .next("tell who signed it: the bytes are the signed ones, and no host takes them");
    Some((Refusal { kind: "module-differs", expected, found }, failure))
}

/// What the report does not prove, so that nobody reads it into it.
fn not_proven(signed: Option<&Manifest>, payloads: &[PayloadReport], history: History) -> Vec<String> {
    let Some(manifest) = signed else { return Vec::new() };
    let mut words = vec![format!(
        "when each signature was made: signatures carry no time; the signers say that it was issued at {}",
        manifest.issued
    )];
    if history == History::NotReadable {
        words.push("that no later version was accepted here: the store is not readable for you".to_owned());
    }
    for payload in payloads {
        let file = &payload.file;
        if payload.state != PayloadState::Matches {
            words.push(format!("what {file} is: its signed bytes are not here"));
            continue;
        }
        let livepatch = payload.inspected.is_some();
        let said = |rebuild: bool| {
            payload.origins.iter().find(|origin| {
                matches!(
                    (&origin.says, rebuild),
                    (Some(Origin::Rebuild(_)), true) | (Some(Origin::Provenance { .. }), false)
                )
            })
        };
        let vouched = |origin: &OriginFound| origin.signed_by.as_ref().is_some_and(|by| !by.is_empty());
        match said(false) {
            None => words.push(format!("from what {file} was built: no provenance of it lies beside it")),
            Some(origin) if !vouched(origin) => {
                words.push(format!("that the provenance of {file} is true: no key of the policy signed it"));
            }
            Some(_) => {}
        }
        match said(true) {
            None if livepatch => {
                words.push(format!("that the source gives {file}: nobody's word of a rebuild lies beside it (patch-tools verify)"));
            }
            Some(origin) if !vouched(origin) => {
                words.push(format!("that {file} was built again: no key of the policy signed that"));
            }
            _ => {}
        }
        if livepatch {
            words.push(format!("what the new functions of {file} do: for that, those who signed vouch"));
        }
    }
    words.push("that it can be applied here: update plan looks at the host".to_owned());
    words
}

const NOT_SIGNED: &str = "is not the one that was signed";

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
