//! `update bundle`: all of one manifest in one file, for hosts that reach no repository.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifests::bounded;
use manifests::log::LogProof;
use manifests::{DocumentKind, Envelope};
use repository::bundle::create::{Along, CreateError, create};
use repository::bundle::{Bundle, BundleError, Head};
use repository::transport::Patience;
use repository::transport::file::Files as LocalFiles;
use repository::transport::mirrors::{Mirror, Mirrors};
use serde_json::json;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure};

use crate::cli::repo::say;
use crate::cli::{Global, failures};
use crate::operations::repository::{self as by_name, Wanted};

/// Put all that a host needs of one manifest into one file, and look into such files
///
/// update verify, plan and apply take the file as they take a manifest.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(Create),
    Show(Show),
}

/// Make a bundle of a manifest in the repository, with its payloads, metadata and proofs
///
/// The repository is that of the settings, unless --repository names a directory of update repo. A host that pins the
/// repository's root takes the bundle for as long as the repository's timestamp is valid; update repo refresh first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update bundle create greet-2026-001 -o greet-2026-001.upd\n  update bundle create greet-2026-001@2 -o x.upd --repository /srv/repo --policy team-7.policy.json\n  update apply x.upd"
)]
struct Create {
    /// The manifest: NAME, its latest version, or NAME@VERSION
    manifest: String,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// Take it from this repository, which is on this machine
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,
    /// A signed policy that goes along, for hosts that have an earlier edition
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A signed revocation that goes along
    #[arg(long, value_name = "FILE")]
    revocation: Vec<PathBuf>,
}

/// Show what is in a bundle; nothing is verified
#[derive(Debug, clap::Args)]
struct Show {
    /// The bundle
    bundle: PathBuf,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    match &args.command {
        Command::Create(args) => make(args, global),
        Command::Show(args) => show(args, global),
    }
}

fn make(args: &Create, global: &Global) -> Result<(), Failure> {
    let usage = || {
        Failure::new(Exit::Usage, format!("{:?} is no manifest by name", args.manifest))
            .because("NAME or NAME@VERSION", &args.manifest)
    };
    let wanted: Wanted = args.manifest.parse().map_err(|()| usage())?;
    let (root, places) = match &args.repository {
        Some(directory) => local(directory)?,
        None => {
            let settings = global.settings()?.repository.ok_or_else(|| {
                Failure::new(Exit::Refused, "no repository is configured")
                    .because("repository in update.yaml, or --repository", "neither")
                    .next("give the repository with --repository DIR")
            })?;
            let root = by_name::pinned(&settings).map_err(failures::repository)?;
            (root, by_name::places(&settings).map_err(failures::repository)?)
        }
    };
    let along = Along {
        policy: args.policy.as_deref().map(|path| document(path, DocumentKind::Policy)).transpose()?,
        revocations: args
            .revocation
            .iter()
            .map(|path| document(path, DocumentKind::Revocation))
            .collect::<Result<_, _>>()?,
    };
    let now = SystemClock.now();
    let created =
        create(&args.out, &root, &places, (&wanted.name, wanted.version), &along, now).map_err(failure)?;
    say(global, &json!({ "bundle": args.out, "created": created }), || {
        let Head { name, version, .. } = &created.head;
        let logged = if created.logged { "with the proof that it is logged" } else { "which is in no log" };
        vec![format!("{}: {name}@{version} and {} payloads, {logged}", args.out.display(), created.payloads)]
    });
    Ok(())
}

/// A repository of this machine: its first root, and what it serves.
fn local(directory: &Path) -> Result<(Vec<u8>, Mirrors), Failure> {
    let public = directory.join("public");
    let path = public.join("metadata/1.root.json");
    let refuse = |error: String| {
        Failure::new(Exit::Refused, format!("{} is no repository: {error}", directory.display()))
            .because("a repository as update repo init makes it", path.display())
            .next("name its directory, and have it published: update repo publish")
    };
    let file = File::open(&path).map_err(|error| refuse(error.to_string()))?;
    let root = bounded::read(file, 512 << 10).map_err(|error| refuse(error.to_string()))?;
    let absolute = std::fs::canonicalize(&public).map_err(|error| refuse(error.to_string()))?;
    let mirror = Mirror::parse(&format!("file://{}", absolute.display()))
        .map_err(|error| refuse(error.to_string()))?;
    let places = Mirrors::new(vec![mirror], Arc::new(LocalFiles), Patience::default(), Arc::new(SystemClock));
    Ok((root, places))
}

/// The bytes of a signed document, which is one of this kind.
fn document(path: &Path, kind: DocumentKind) -> Result<Vec<u8>, Failure> {
    let refuse = |found: String| {
        Failure::new(Exit::Refused, format!("{} cannot go along", path.display()))
            .because(format!("a signed {kind}"), found)
            .next("give the file that patch-tools sign has written")
    };
    let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    let bytes = bounded::read(file, Envelope::MAX_BYTES).map_err(|error| refuse(error.to_string()))?;
    let envelope = Envelope::parse(&bytes).map_err(|error| refuse(error.to_string()))?;
    match envelope.kind() == Some(kind) {
        true => Ok(bytes),
        false => Err(refuse(format!("payload type {:.80?}", envelope.payload_type()))),
    }
}

fn show(args: &Show, global: &Global) -> Result<(), Failure> {
    let bundle = Bundle::open(&args.bundle).map_err(bundle_failure)?;
    let head = bundle.head().clone();
    let timestamp = bundle.read_member("metadata/timestamp.json").map_err(bundle_failure)?;
    let until = timestamp.and_then(|bytes| {
        let timestamp: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        timestamp.get("signed")?.get("expires")?.as_str().map(str::to_owned)
    });
    let proofs: Vec<&str> =
        bundle.members().map(|(name, _)| name).filter(|name| name.ends_with(LogProof::EXTENSION)).collect();
    let members: Vec<serde_json::Value> =
        bundle.members().map(|(name, size)| json!({ "name": name, "size": size })).collect();
    let report = json!({
        "head": head, "metadata_until": until, "logged": !proofs.is_empty(), "members": members, "verified": false,
    });
    say(global, &report, || {
        let mut lines = vec![format!("{}@{}, made {}", head.name, head.version, head.created)];
        lines
            .extend(until.map(|until| format!("hosts that pin the repository's root take it until {until}")));
        lines.push(match proofs.is_empty() {
            true => "without a proof that it is logged".to_owned(),
            false => "with a proof that it is logged".to_owned(),
        });
        lines.extend(bundle.members().map(|(name, size)| format!("{size:>12}  {name}")));
        lines.push("nothing of this was verified: update verify".to_owned());
        lines
    });
    Ok(())
}

/// A file that is no bundle, or not a whole one.
pub(super) fn bundle_failure(error: BundleError) -> Failure {
    match error {
        BundleError::Io { .. } => {
            Failure::new(Exit::Refused, error).next("give the path of a bundle that you can read")
        }
        _ => Failure::new(Exit::NotAuthentic, error).next(
            "do not use it; copy it again from where it was made, or have it made anew: update bundle create",
        ),
    }
}

fn failure(error: CreateError) -> Failure {
    match error {
        CreateError::Client(error) => failures::repository(error.into()),
        CreateError::NoSuchManifest { .. } => {
            Failure::new(Exit::Refused, error).next("update check lists what the repository has")
        }
        CreateError::Envelope { .. } | CreateError::Manifest { .. } | CreateError::Payload { .. } => {
            Failure::new(Exit::NotAuthentic, error).next("do not use it; tell who runs the repository")
        }
        CreateError::Log(error) => super::log::failure(error),
        CreateError::Fetch(_) | CreateError::Write { .. } => {
            Failure::new(Exit::Refused, error).next("see the cause above, and try again")
        }
    }
}
