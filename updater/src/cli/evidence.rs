//! `update evidence`: what runs on this host now, signed; and what another host's statement proves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::local::Membership;
use jiff::SignedDuration;
use manifests::bounded::{self, BoundedError};
use manifests::evidence::{BootUuid, Challenge, Checked, Evidence, EvidenceError, Expected, Livepatch, Said};
use manifests::vex::Status;
use manifests::{Envelope, PublicKeyFile};
use serde::Serialize;
use serde_json::Value;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure};

use crate::cli::output::{Page, line, object, page};
use crate::cli::{Global, failures};
use crate::config;
use crate::operations::evidence::{Question, What, not_proven, vex_of};

/// Say what runs on this host now, signed by its own key; or check what another host said
///
/// Prints an in-toto statement in an envelope: the kernel's build, livepatches and what the kernel shows that they
/// patch, containers, transactions, the policy, the head of the journal, and what is known of vulnerabilities. The key
/// is made when it is first needed, and root alone has it.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  update evidence --nonce audit-2026-11 >web-1.evidence.json\n  update evidence --vex >web-1.vex.json\n  update evidence key >web-1.pub\n  update evidence verify web-1.evidence.json --key web-1.pub --nonce audit-2026-11 --max-age 10m"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    make: Make,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Key(Key),
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Make {
    /// What whoever asks has made up: the answer carries it, so that it cannot be an older one
    #[arg(long)]
    nonce: Option<Challenge>,
    /// Say what vulnerabilities are to the running kernel, as OpenVEX
    #[arg(long)]
    vex: bool,
    /// Know of this signed manifest, too, beside those that were applied here
    #[arg(long = "manifest", value_name = "FILE")]
    manifests: Vec<PathBuf>,
}

/// Print the public half of the key that signs this host's evidence
///
/// In the form of a public key file. Keep it where evidence is checked, under the host's name.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  update evidence key >web-1.pub")]
struct Key {}

/// Check what a host said: signature, host, boot, question and age
///
/// Needs no root. Exit code 4 when it is another host's, another boot's, too old, or the answer to another question:
/// then it proves nothing of what was asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update evidence verify web-1.evidence.json --key web-1.pub --nonce audit-2026-11\n  update evidence verify web-1.vex.json --key web-1.pub --print >web-1.openvex.json"
)]
struct Verify {
    /// The statement, as `update evidence` printed it
    statement: PathBuf,
    /// The public key file of a host that is known; several for several hosts
    #[arg(long = "key", required = true, value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// It has to be of this host: the name in its key file, or the key's id
    #[arg(long)]
    host: Option<String>,
    /// It has to be of this boot
    #[arg(long, value_name = "ID")]
    boot: Option<BootUuid>,
    /// It has to answer this question
    #[arg(long)]
    nonce: Option<Challenge>,
    /// How old it may be
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    max_age: Duration,
    /// Print what was signed and nothing else: of a VEX statement the OpenVEX document, for scanners
    #[arg(long)]
    print: bool,
}

/// The longest age that can be asked for: a century.
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 366 * 100);

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    match &args.command {
        None => make(&args.make, global),
        Some(Command::Key(_)) => key(global),
        Some(Command::Verify(args)) => verify(args, global),
    }
}

fn make(args: &Make, global: &Global) -> Result<(), Failure> {
    let membership = config::membership(Path::new(Membership::PATH)).map_err(failures::config)?;
    let question = Question {
        what: if args.vex { What::Vex } else { What::Everything },
        nonce: args.nonce.clone(),
        fleet: membership.map(|membership| membership.host),
        manifests: args.manifests.clone(),
    };
    let envelope = global.engine()?.evidence(&question).map_err(failures::engine)?;
    // One line, as all that programs read.
    let envelope: Value =
        serde_json::from_str(&envelope.to_json()).map_err(|error| Failure::new(Exit::Bug, error))?;
    object(&envelope);
    Ok(())
}

fn key(global: &Global) -> Result<(), Failure> {
    let public = global.engine()?.evidence_key().map_err(failures::engine)?;
    match global.json {
        true => object(&public),
        false => public.to_text().lines().for_each(line),
    }
    Ok(())
}

/// What a statement proves.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// What its signer is called.
    signer: &'a str,
    /// The signer's key.
    key: String,
    /// How old it is, in seconds.
    age_s: i64,
    /// What was signed.
    statement: Value,
    /// What it does not prove.
    not_proven: Vec<String>,
}

fn verify(args: &Verify, global: &Global) -> Result<(), Failure> {
    let keys = args.keys.iter().map(|path| public_key(path)).collect::<Result<Vec<_>, _>>()?;
    let envelope = statement(&args.statement)?;
    let expected = Expected {
        keys: &keys,
        host: args.host.as_deref(),
        boot: args.boot.as_ref(),
        nonce: args.nonce.as_ref(),
        max_age: SignedDuration::try_from(args.max_age).unwrap_or(LONGEST).min(LONGEST),
        now: SystemClock.now(),
    };
    let checked = manifests::evidence::check(&envelope, &expected)
        .map_err(|error| failures::evidence(&args.statement, error))?;
    if args.print {
        match vex_of(&checked.said) {
            Some(document) => object(document),
            None => object(&payload(&envelope)?),
        }
        return Ok(());
    }
    let not_proven = not_proven(&checked.said, &expected);
    if global.json {
        let (signer, key) = (checked.signer.as_str(), checked.key.to_string());
        let age_s = checked.age.as_secs();
        object(&Report { signer, key, age_s, statement: payload(&envelope)?, not_proven });
    } else {
        page(&render(&checked, &not_proven));
    }
    Ok(())
}

fn payload(envelope: &Envelope) -> Result<Value, Failure> {
    serde_json::from_slice(envelope.unverified_payload()).map_err(|error| Failure::new(Exit::Bug, error))
}

fn public_key(path: &Path) -> Result<PublicKeyFile, Failure> {
    let refused = |error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Exit::Refused, error)
            .because("the public key file of a host", path.display())
            .next("on that host: update evidence key")
    };
    let file = std::fs::File::open(path).map_err(|error| refused(error.into()))?;
    let bytes =
        bounded::read(file, PublicKeyFile::MAX_BYTES).map_err(|error: BoundedError| refused(error.into()))?;
    PublicKeyFile::parse(&bytes).map_err(|error| refused(error.into()))
}

/// Reads an envelope; checks no signature.
fn statement(path: &Path) -> Result<Envelope, Failure> {
    let next = "give the file that update evidence printed on that host";
    let refused = |exit: Exit, error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(exit, error).because("the statement of a host", path.display()).next(next)
    };
    let file = std::fs::File::open(path).map_err(|error| refused(Exit::Refused, error.into()))?;
    let bytes = bounded::read(file, Envelope::MAX_BYTES)
        .map_err(|error| refused(Exit::NotAuthentic, error.into()))?;
    Envelope::parse(&bytes).map_err(|error| refused(Exit::NotAuthentic, error.into()))
}

/// For a person.
fn render(checked: &Checked, not_proven: &[String]) -> Page {
    let mut text = Page::default();
    // Writing to a page cannot fail.
    let _ = write(&mut text, checked, not_proven);
    text
}

fn write(text: &mut Page, checked: &Checked, not_proven: &[String]) -> std::fmt::Result {
    let Checked { signer, key, said, age } = checked;
    let binding = said.binding();
    writeln!(text, "{signer} says, by its key {key:.16}…")?;
    let age = humantime::format_duration(Duration::from_secs(age.as_secs().max(0).unsigned_abs()));
    writeln!(text, "  at        {}, {age} ago", binding.at)?;
    writeln!(text, "  boot      {}", binding.boot)?;
    match &binding.nonce {
        Some(nonce) => writeln!(text, "  answers   {nonce}")?,
        None => writeln!(text, "  answers   nobody's question")?,
    }
    match said {
        Said::Evidence(statement) => evidence(text, &statement.predicate)?,
        Said::Vex(statement) => {
            for one in &statement.predicate.statements {
                let products: Vec<&str> = one.products.iter().map(|product| product.id.as_str()).collect();
                writeln!(
                    text,
                    "  {}  {} of {}",
                    one.vulnerability.name,
                    words(one.status),
                    products.join(", ")
                )?;
                writeln!(text, "            {}", one.status_notes)?;
            }
        }
    }
    writeln!(text, "not proven")?;
    for words in not_proven {
        writeln!(text, "  - {words}")?;
    }
    Ok(())
}

fn evidence(text: &mut Page, said: &Evidence) -> std::fmt::Result {
    let kernel = &said.kernel;
    let build = kernel.build_id.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let package = kernel
        .package
        .as_ref()
        .map(|package| format!(", {} {}", package.distribution, package.version))
        .unwrap_or_default();
    writeln!(text, "  kernel    {} {}{package}, build id {build}", kernel.release, kernel.arch)?;
    match (&said.no_livepatch, said.livepatches.is_empty()) {
        (Some(why), _) => writeln!(text, "  no livepatches: {why}")?,
        (None, true) => writeln!(text, "  no livepatches")?,
        (None, false) => {}
    }
    for livepatch in &said.livepatches {
        self::livepatch(text, livepatch)?;
    }
    for missing in &said.missing {
        writeln!(text, "  MISSING   livepatch {}: {}", missing.module, missing.why)?;
    }
    for one in &said.vulnerabilities {
        writeln!(text, "  {}  {}: {}", one.cve, words(one.status), one.why)?;
    }
    for workload in &said.workloads {
        let image = workload.image.as_ref().and_then(|image| image.name.as_deref().or(image.id.as_deref()));
        let image = image.map(|image| format!(", image {image}")).unwrap_or_default();
        let files = workload.files.as_ref().map(|files| format!(", files {files}")).unwrap_or_default();
        writeln!(text, "  workload  {} {}{image}{files}", workload.id, workload.status)?;
        for fix in &workload.fixes {
            writeln!(text, "            fix sha256:{fix}")?;
        }
    }
    for transaction in &said.transactions {
        let outcome = transaction.outcome.as_deref().unwrap_or("UNFINISHED");
        writeln!(text, "  in force  {} {} ({outcome})", transaction.id, transaction.origin)?;
    }
    match &said.policy {
        Some(policy) => {
            let edition = policy.version.map(|version| format!("edition {version}, ")).unwrap_or_default();
            writeln!(text, "  policy    {edition}sha256:{}", policy.sha256)?;
        }
        None => writeln!(text, "  policy    none that can be read")?,
    }
    writeln!(text, "  journal   {}", said.journal.head)?;
    if let Some(broken) = &said.journal.broken {
        writeln!(text, "  JOURNAL DOES NOT HOLD: {broken}")?;
    }
    said.unreadable.iter().try_for_each(|why| writeln!(text, "  unread    {why}"))
}

fn livepatch(text: &mut Page, livepatch: &Livepatch) -> std::fmt::Result {
    let Livepatch { module, build_id, state, patches, ours, .. } = livepatch;
    let build = build_id.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    writeln!(text, "  livepatch {module} {state}, build id {build}")?;
    for object in patches {
        for function in &object.functions {
            let redirected = match function.redirected {
                Some(true) => "calls are led to the new one",
                Some(false) => "NOT among the functions whose calls ftrace leads elsewhere",
                None => "shown by sysfs alone",
            };
            writeln!(
                text,
                "            {}:{},{}  {redirected}",
                object.object, function.name, function.sympos
            )?;
        }
    }
    let Some(ours) = ours else { return writeln!(text, "            loaded by somebody else") };
    writeln!(text, "            sha256:{} by transaction {}", ours.payload, ours.transaction)?;
    if let Some(manifest) = &ours.manifest {
        let fixes: Vec<&str> = manifest.fixes.iter().map(manifests::CveId::as_str).collect();
        let fixes = if fixes.is_empty() { "no vulnerability by name".to_owned() } else { fixes.join(", ") };
        let (name, version, sha256) = (&manifest.name, manifest.version, &manifest.sha256);
        writeln!(text, "            of {name} version {version}, sha256:{sha256}; fixes {fixes}")?;
        manifest.signed_by.iter().try_for_each(|who| writeln!(text, "            signed by {who}"))?;
    }
    match &ours.why {
        None => writeln!(text, "            the kernel shows exactly what was claimed"),
        Some(why) => writeln!(text, "            NOT as claimed: {why}"),
    }
}

fn words(status: Status) -> &'static str {
    match status {
        Status::NotAffected => "not affected",
        Status::Affected => "AFFECTED",
        Status::Fixed => "fixed",
        Status::UnderInvestigation => "not known",
    }
}

/// What a statement that proves nothing is told by, for [`failures::evidence`]: expected and found.
pub(super) fn compared(error: &EvidenceError) -> Option<(String, String)> {
    Some(match error {
        EvidenceError::UnknownSigner { expected, found } => {
            let expected: Vec<&str> = expected.iter().map(|name| name.as_str()).collect();
            let found: Vec<String> = found.iter().map(|key| format!("key {key:.16}…")).collect();
            let found = if found.is_empty() { "no signature".to_owned() } else { found.join(", ") };
            (format!("a signature of {}", expected.join(" or ")), found)
        }
        EvidenceError::OtherHost { expected, found } => {
            (format!("key {expected:.16}…"), format!("key {found:.16}…"))
        }
        EvidenceError::WrongHost { expected, found } => (expected.clone(), found.to_string()),
        EvidenceError::WrongBoot { expected, found } => (expected.to_string(), found.to_string()),
        EvidenceError::WrongNonce { expected, found } => {
            (expected.to_string(), found.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string))
        }
        EvidenceError::TooOld { limit, at, now } => {
            let limit = humantime::format_duration(limit.unsigned_abs());
            (format!("at most {limit} before {now}"), at.to_string())
        }
        EvidenceError::FromTheFuture { at, now } => {
            (format!("at most five minutes after {now}"), at.to_string())
        }
        _ => return None,
    })
}
