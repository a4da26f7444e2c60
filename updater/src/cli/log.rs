//! `update log`: the log of what was published. Make it, prove by it, watch it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifests::bounded;
use manifests::log::{
    Accepted, Checkpoint, Cosigner, LogEntry, LogPolicy, LogProof, Note, NoteKey, NoteKeyKind, NoteName,
    NoteSigner, Relation,
};
use manifests::{KeyId, Sha256};
use patch_tools::signing::{self, Passphrase};
use repository::log::audit::{Audited, audit};
use repository::log::memory::{accept, compare, keep_evidence};
use repository::log::store::{entry_of, in_words, newest, prove};
use repository::log::{Directory, Files, Log, LogError, Memory, Met, Remote, Tiles};
use repository::transport::file::Files as LocalFiles;
use repository::transport::helper::{Helper, Network};
use repository::transport::mirrors::{Mirror, Mirrors};
use repository::transport::{Patience, Transport};
use serde::Serialize;
use serde_json::json;
use system::clock::{Clock as _, SystemClock};
use system::durable;
use system::exit::{Exit, Failure, State};

use crate::cli::Global;
use crate::cli::output::{line, object};
use crate::cli::repo::{public, say, secret};
use crate::operations::repository as by_name;

/// Keep and watch a log of what was published: what a signature was for stands there, for everybody
///
/// A log is a directory of plain files in C2SP's formats, which any web server serves; that of a repository is
/// DIR/public/log, and update repo publish continues it. LOG is such a directory, or its address.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "docs/transparency.md has the whole of it, and how to verify a log without this program."
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(Init),
    Add(Add),
    Proof(Proof),
    Verify(Verify),
    Monitor(Monitor),
    Witness(Witness),
    Show(Show),
}

/// Begin an empty log, and print the key by which others know it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  update log init /srv/repo/public/log --origin updates.example.org/log --key log.key"
)]
struct Init {
    /// The directory; there is none yet
    log: PathBuf,
    /// What the log is called: the address that it is served at, without https://
    #[arg(long, value_name = "NAME")]
    origin: NoteName,
    /// The private key that signs it
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
}

/// Append signed manifests that update repo publish did not, or take in what witnesses have signed
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update log add /srv/repo/public/log --key log.key greet-2026-001.manifest.json\n  update log add /srv/repo/public/log --cosigned w1.checkpoint --cosigned w2.checkpoint"
)]
struct Add {
    /// The directory
    log: PathBuf,
    /// Signed manifests
    #[arg(required_unless_present = "cosigned", requires = "key")]
    manifests: Vec<PathBuf>,
    /// The private key that signs the log
    #[arg(long, value_name = "KEY")]
    key: Option<PathBuf>,
    /// A copy of the newest checkpoint that a witness has signed
    #[arg(long, value_name = "FILE")]
    cosigned: Vec<PathBuf>,
}

/// Write the proof that a manifest is in a log, to lie beside it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  update log proof /srv/repo/public/log greet-2026-001.manifest.json\n\nThe proof is MANIFEST.tlog-proof unless --out says otherwise; hosts whose policy asks for one look there."
)]
struct Proof {
    /// The log
    log: String,
    /// The signed manifest
    manifest: PathBuf,
    /// Where the proof goes
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Whom to believe about a log.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Trust {
    /// The key that signs the log, as update log init has printed it
    #[arg(long, value_name = "VKEY")]
    log_key: Option<NoteKey>,
    /// The logs and witnesses to believe: a C2SP tlog-policy
    #[arg(long, value_name = "FILE")]
    log_policy: Option<PathBuf>,
}

/// Check a log from the first entry to the root, and that it continues an earlier checkpoint
///
/// Exit code 4 when it does not. Of a log that has forked both checkpoints are shown, and kept where --since is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update log verify /srv/repo/public/log --log-key updates.example.org/log+…\n  update log verify https://updates.example.org/log --log-policy company.policy --since kept.checkpoint"
)]
struct Verify {
    /// The log
    log: String,
    #[command(flatten)]
    trust: Trust,
    /// A checkpoint that somebody has kept: the log has to continue it
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Write the newest checkpoint to this file, for the next time
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
}

/// List what is logged under names or keys, and fail upon what nobody expects
///
/// Reads the whole log. With --expect, every listed entry has to be one of these signed manifests; with --state, only
/// what came since the last time is looked at, and the log has to continue it. Exit code 6 when something is not
/// expected, or an entry cannot be read, or one name and version stand there with two contents; 4 when the log is not
/// what it says.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  update log monitor https://updates.example.org/log --log-key updates.example.org/log+… \\\n    --signer build.pub --expect releases/ --state /var/lib/log-monitor"
)]
struct Monitor {
    /// The log
    log: String,
    #[command(flatten)]
    trust: Trust,
    /// Only manifests whose names begin like this
    #[arg(long, value_name = "PREFIX")]
    name: Vec<String>,
    /// Only what this key has signed: a public key file, or its id
    #[arg(long, value_name = "PUB|ID")]
    signer: Vec<String>,
    /// A signed manifest that may be there, or a directory of them
    #[arg(long, value_name = "PATH")]
    expect: Vec<PathBuf>,
    /// Remember here what was seen
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Sign that a log continues what this witness has seen of it
///
/// What was seen is kept in DIR, durably, before anything is signed. A log that shows another history, or an earlier
/// one, is not signed: exit code 4, and both checkpoints are kept in DIR/forks.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  update log witness https://updates.example.org/log --log-key updates.example.org/log+… \\\n    --name w1.example.org --key w1.key --state /var/lib/witness --out w1.checkpoint\n\nThe publisher takes it in: update log add LOG --cosigned w1.checkpoint"
)]
struct Witness {
    /// The log
    log: String,
    #[command(flatten)]
    trust: Trust,
    /// What this witness is called
    #[arg(long, value_name = "NAME")]
    name: NoteName,
    /// Its private key; no other witness or log has it
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
    /// Where it keeps what it has seen
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where the signed checkpoint goes; without it, it is printed
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Show a log, a checkpoint or a proof, or under which keys a log or a witness is known; nothing is verified
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update log show /srv/repo/public/log\n  update log show greet-2026-001.manifest.json.tlog-proof\n  update log show w1.pub --name w1.example.org"
)]
struct Show {
    /// A log, or a file with a checkpoint, a proof or a public key
    what: String,
    /// What the log or the witness with this public key is called
    #[arg(long, value_name = "NAME")]
    name: Option<NoteName>,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    match &args.command {
        Command::Init(args) => init(args, global),
        Command::Add(args) => add(args, global),
        Command::Proof(args) => proof(args, global),
        Command::Verify(args) => verify(args, global),
        Command::Monitor(args) => monitor(args, global),
        Command::Witness(args) => witness(args, global),
        Command::Show(args) => show(args, global),
    }
}

fn init(args: &Init, global: &Global) -> Result<(), Failure> {
    let (_, key) = Log::init(&args.log, args.origin.clone(), &secret(&args.key)?).map_err(failure)?;
    say(global, &json!({ "origin": args.origin, "log_key": key }), || {
        vec![format!("the log {} is empty, and is known by", args.origin), format!("  {key}")]
    });
    Ok(())
}

fn add(args: &Add, global: &Global) -> Result<(), Failure> {
    let log = Log::open(&args.log).map_err(failure)?;
    let mut appended = None;
    if let (Some(key), false) = (&args.key, args.manifests.is_empty()) {
        let entries: Vec<LogEntry> =
            args.manifests.iter().map(|path| entry_of(path)).collect::<Result<_, _>>().map_err(failure)?;
        appended = Some(log.append(&entries, &secret(key)?).map_err(failure)?);
    }
    let mut came = 0;
    if !args.cosigned.is_empty() {
        let notes: Vec<(PathBuf, Note)> = args
            .cosigned
            .iter()
            .map(|path| read_checkpoint(path).map(|(_, note)| (path.clone(), note)))
            .collect::<Result<_, _>>()?;
        came = log.collect(&notes).map_err(failure)?;
    }
    let (checkpoint, _) = log.checkpoint().map_err(failure)?;
    say(global, &json!({ "appended": appended, "cosignatures": came, "head": checkpoint.head }), || {
        let new = appended.iter().flat_map(|appended| &appended.entries);
        let mut lines: Vec<String> = new.map(|(number, entry)| entry_words(*number, entry)).collect();
        if let Some(known) = appended.as_ref().map(|appended| appended.known).filter(|known| *known > 0) {
            lines.push(format!("{known} were there already"));
        }
        if !args.cosigned.is_empty() {
            lines.push(format!(
                "{came} new signatures under the checkpoint, and so in the proof of every entry"
            ));
        }
        lines.push(format!("{}: {}", checkpoint.origin, in_words(&checkpoint.head)));
        lines
    });
    Ok(())
}

fn proof(args: &Proof, global: &Global) -> Result<(), Failure> {
    let files = source(&args.log, global)?;
    let entry = entry_of(&args.manifest).map_err(failure)?;
    let (checkpoint, note) = newest(&*files).map_err(failure)?;
    let tiles = Tiles::new(&*files, checkpoint.head.size);
    let leaf = entry.leaf();
    let index = find(&tiles, checkpoint.head.size, &leaf).map_err(failure)?.ok_or_else(|| {
        failure(LogError::Unlogged {
            what: format!("{}@{} with these signatures", entry.name, entry.version),
        })
    })?;
    let proof = prove(&tiles, index, &checkpoint.head, &note).map_err(failure)?;
    let out = args.out.clone().unwrap_or_else(|| crate::operations::publication::proof_of(&args.manifest));
    write(&out, proof.to_string().as_bytes())?;
    say(global, &json!({ "proof": out, "index": index, "head": checkpoint.head }), || {
        vec![format!("{}: entry {index} of {}", out.display(), in_words(&checkpoint.head))]
    });
    Ok(())
}

/// The number of a leaf.
fn find(tiles: &Tiles<'_>, size: u64, leaf: &Sha256) -> Result<Option<u64>, LogError> {
    for tile in 0..size.div_ceil(repository::log::tiles::WIDTH) {
        if let Some(at) = tiles.tile(0, tile)?.iter().position(|hash| hash == leaf) {
            return Ok(Some(tile * repository::log::tiles::WIDTH + at as u64));
        }
    }
    Ok(None)
}

fn verify(args: &Verify, global: &Global) -> Result<(), Failure> {
    let policy = args.trust.policy()?;
    let files = source(&args.log, global)?;
    let (checkpoint, note) = newest(&*files).map_err(failure)?;
    let Accepted { cosigners, .. } = accept(&*files, &policy, &note).map_err(failure)?;
    let since = args.since.as_ref().map(|path| read_checkpoint(path).map(|read| (path, read))).transpose()?;
    if let Some((path, (before, before_note))) = &since {
        accept(&Directory((*path).clone()), &policy_without_witnesses(&policy), before_note)
            .map_err(failure)?;
        continues(&*files, path, (before, before_note), (&checkpoint, &note)).map_err(failure)?;
    }
    let audited = audit(&*files, &checkpoint).map_err(failure)?;
    let odd: Vec<&Audited> = audited.iter().filter(|one| one.oddity.is_some()).collect();
    if let Some(path) = &args.keep {
        write(path, note.to_string().as_bytes())?;
    }
    let since = since.map(|(_, (before, _))| before.head);
    let report = json!({
        "origin": checkpoint.origin, "head": checkpoint.head, "cosigners": cosigners, "continues": since,
        "oddities": odd.iter().map(|one| Listed::new(one, true)).collect::<Vec<_>>(),
    });
    say(global, &report, || {
        let mut lines = vec![format!("{}: {}", checkpoint.origin, in_words(&checkpoint.head))];
        lines.extend(cosigners.iter().map(cosigner_words));
        if let Some(since) = since {
            lines.push(format!("continues {}", in_words(&since)));
        }
        lines.push(format!(
            "every entry and every hash leads to the root of {} entries",
            checkpoint.head.size
        ));
        lines.extend(odd.iter().map(|one| listed_words(one)));
        lines
    });
    Ok(())
}

/// A kept checkpoint is believed by the log's signature alone: which witnesses had seen it is of no interest any more.
fn policy_without_witnesses(policy: &LogPolicy) -> LogPolicy {
    let text: String = policy.logs().iter().map(|log| format!("log {log}\n")).collect();
    format!("{text}quorum none\n").parse().unwrap_or_else(|_| policy.clone())
}

fn continues(
    files: &dyn Files,
    kept: &Path,
    (before, before_note): (&Checkpoint, &Note),
    (now, note): (&Checkpoint, &Note),
) -> Result<(), LogError> {
    let origin = now.origin.clone();
    let (seen, found) = (before.head.size, now.head.size);
    if before.origin != now.origin {
        let path = kept.to_owned();
        let words =
            |checkpoint: &Checkpoint| format!("{}, {}", checkpoint.origin, in_words(&checkpoint.head));
        return Err(LogError::AnotherCheckpoint { path, expected: words(now), found: words(before) });
    }
    match compare(files, before, now) {
        Relation::Consistent if found >= seen => Ok(()),
        Relation::Forked => {
            let mut directory = kept.as_os_str().to_owned();
            directory.push(".forks");
            let evidence = keep_evidence(Path::new(&directory), &[before_note, note])?;
            let (seen, shown) = (in_words(&before.head), in_words(&now.head));
            Err(LogError::Forked { origin, seen, shown, evidence })
        }
        _ if found < seen => Err(LogError::RolledBack { origin, seen, found }),
        _ => Err(LogError::Unproven { origin, seen, found }),
    }
}

/// An entry, as it is shown.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<&'a LogEntry>,
    leaf: Sha256,
    expected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    oddity: Option<String>,
}

impl<'a> Listed<'a> {
    fn new(one: &'a Audited, expected: bool) -> Self {
        let oddity = one.oddity.as_ref().map(ToString::to_string);
        Self { index: one.index, entry: one.entry.as_ref(), leaf: one.leaf, expected, oddity }
    }
}

fn monitor(args: &Monitor, global: &Global) -> Result<(), Failure> {
    let policy = args.trust.policy()?;
    let files = source(&args.log, global)?;
    let signers: Vec<KeyId> = args.signer.iter().map(|text| key_id(text)).collect::<Result<_, _>>()?;
    let expected = expected(&args.expect)?;
    let (checkpoint, before) = match &args.state {
        Some(state) => {
            let Met { checkpoint, before, .. } =
                Memory::open(state).and_then(|memory| memory.meet(&*files, &policy)).map_err(failure)?;
            (checkpoint, before)
        }
        None => {
            let (checkpoint, note) = newest(&*files).map_err(failure)?;
            accept(&*files, &policy, &note).map_err(failure)?;
            (checkpoint, None)
        }
    };
    let audited = audit(&*files, &checkpoint).map_err(failure)?;
    let from = before.map_or(0, |before| before.head.size);
    let wanted = |one: &&Audited| match &one.entry {
        // What cannot be read may be anybody's.
        None => true,
        Some(entry) => {
            let named =
                args.name.is_empty() || args.name.iter().any(|name| entry.name.as_str().starts_with(name));
            let signed = signers.is_empty() || signers.iter().any(|signer| entry.signers.contains(signer));
            named && signed
        }
    };
    let listed: Vec<Listed<'_>> = audited
        .iter()
        .filter(|one| one.index >= from)
        .filter(wanted)
        .map(|one| {
            let is_expected = args.expect.is_empty() || expected.contains(&one.leaf);
            Listed::new(one, is_expected && one.oddity.is_none())
        })
        .collect();
    let report =
        json!({ "origin": checkpoint.origin, "head": checkpoint.head, "since": from, "entries": listed });
    say(global, &report, || {
        let mut lines: Vec<String> = audited
            .iter()
            .filter(|one| listed.iter().any(|listed| listed.index == one.index))
            .map(|one| {
                let is_expected = listed.iter().any(|listed| listed.index == one.index && listed.expected);
                format!("{}{}", listed_words(one), if is_expected { "" } else { "  NOT EXPECTED" })
            })
            .collect();
        lines.push(format!("{}: {}", checkpoint.origin, in_words(&checkpoint.head)));
        lines
    });
    let unexpected: Vec<String> =
        listed.iter().filter(|one| !one.expected).map(|one| format!("entry {}", one.index)).collect();
    if unexpected.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::NeedsOperator, format!("{} has entries that nobody expects", checkpoint.origin))
        .because("entries of the manifests that were given", unexpected.join(", "))
        .state(State::Named("the log is what its checkpoint says; nothing was changed".to_owned()))
        .next(
            "ask who holds the keys that signed them; docs/incidents.md says what to do about a stolen key",
        ))
}

/// The leaves of the signed manifests in files and directories.
fn expected(paths: &[PathBuf]) -> Result<Vec<Sha256>, Failure> {
    let mut leaves = Vec::new();
    for path in paths {
        if !path.is_dir() {
            leaves.push(entry_of(path).map_err(failure)?.leaf());
            continue;
        }
        let failed = |source| failure(LogError::Io { doing: "list", path: path.clone(), source });
        for entry in fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            // Other things may lie there, too: payloads, proofs.
            if file.extension().is_some_and(|extension| extension == "json")
                && let Ok(entry) = entry_of(&file)
            {
                leaves.push(entry.leaf());
            }
        }
    }
    Ok(leaves)
}

fn key_id(text: &str) -> Result<KeyId, Failure> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => public(Path::new(text)).map(|key| key.id()),
    }
}

fn witness(args: &Witness, global: &Global) -> Result<(), Failure> {
    let policy = policy_without_witnesses(&args.trust.policy()?);
    let key = signing::read_key(&args.key, &Passphrase::Asked)
        .map_err(|error| Failure::new(Exit::Refused, error).next("give the private key of this witness"))?;
    let files = source(&args.log, global)?;
    let signer = NoteSigner::new(args.name.clone(), &key);
    if policy.logs().iter().any(|log| log.public() == signer.verifier(NoteKeyKind::Log).public()) {
        return Err(Failure::new(Exit::Refused, "this key signs the log itself")
            .because("a key of the witness's own", "the log's")
            .next("update key generate makes one"));
    }
    let memory = Memory::open(&args.state).map_err(failure)?;
    let Met { checkpoint, mut note, before } = memory.meet(&*files, &policy).map_err(failure)?;
    let time = u64::try_from(SystemClock.now().as_second()).unwrap_or_default();
    note.add(signer.cosign(note.text(), time));
    if let Some(out) = &args.out {
        write(out, note.to_string().as_bytes())?;
    }
    let before = before.map(|before| before.head);
    let report = json!({
        "origin": checkpoint.origin, "head": checkpoint.head, "before": before, "time": time,
        "witness": signer.verifier(NoteKeyKind::Witness), "checkpoint": note.to_string(),
    });
    match (global.json, &args.out) {
        (true, _) => object(&report),
        // What is printed is the checkpoint, byte for byte.
        (false, None) => note.to_string().lines().for_each(line),
        (false, Some(out)) => {
            let after = before.map_or_else(
                || "the first that it sees".to_owned(),
                |head| format!("after {}", in_words(&head)),
            );
            line(&format!("{}: signed {}, {after}", out.display(), in_words(&checkpoint.head)));
            line(&format!("  {}", signer.verifier(NoteKeyKind::Witness)));
        }
    }
    Ok(())
}

fn show(args: &Show, global: &Global) -> Result<(), Failure> {
    let path = Path::new(&args.what);
    if let Some(name) = &args.name {
        let key = public(path)?;
        let [log, witness] = [NoteKeyKind::Log, NoteKeyKind::Witness]
            .map(|kind| NoteKey::new(name.clone(), kind, key.clone()));
        say(global, &json!({ "log_key": log, "witness_key": witness }), || {
            vec![format!("as a log:     {log}"), format!("as a witness: {witness}")]
        });
        return Ok(());
    }
    let (note, index) = if path.is_file() {
        let bytes = read(path, LogProof::MAX_BYTES)?;
        match LogProof::parse(&bytes) {
            Ok(proof) => (proof.note, Some(proof.index)),
            Err(_) => (read_checkpoint(path)?.1, None),
        }
    } else {
        (newest(&*source(&args.what, global)?).map_err(failure)?.1, None)
    };
    let checkpoint = Checkpoint::parse(note.text())
        .map_err(|source| failure(LogError::Checkpoint { place: args.what.clone(), source }))?;
    let signatures: Vec<serde_json::Value> = note
        .signatures()
        .iter()
        .map(|one| json!({ "name": one.name, "id": hex(&one.id), "time": one.claimed_time() }))
        .collect();
    let report = json!({
        "origin": checkpoint.origin, "head": checkpoint.head, "index": index, "signatures": signatures, "verified": false,
    });
    say(global, &report, || {
        let mut lines = vec![format!("{}: {}", checkpoint.origin, in_words(&checkpoint.head))];
        lines.extend(index.map(|index| format!("a proof of entry {index}")));
        for one in note.signatures() {
            let time = one
                .claimed_time()
                .map(|time| format!(", cosigned at {}", time_words(time)))
                .unwrap_or_default();
            lines.push(format!("signed in the name of {}+{}{time}", one.name, hex(&one.id)));
        }
        lines.push("nothing of this was verified: update log verify".to_owned());
        lines
    });
    Ok(())
}

fn hex(id: &[u8; 4]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn time_words(time: u64) -> String {
    let second = i64::try_from(time).ok().and_then(|time| jiff::Timestamp::from_second(time).ok());
    second.map_or_else(|| format!("second {time}"), |time| time.to_string())
}

fn cosigner_words(Cosigner { name, time }: &Cosigner) -> String {
    format!("cosigned by {name} at {}", time_words(*time))
}

fn entry_words(number: u64, entry: &LogEntry) -> String {
    let LogEntry { document, name, version, sha256, signers } = entry;
    let signers: Vec<String> = signers.iter().map(|signer| format!("{signer:.16}…")).collect();
    format!("{number:>6}  {document} {name}@{version} sha256:{sha256} by {}", signers.join(", "))
}

fn listed_words(one: &Audited) -> String {
    let words = one.entry.as_ref().map_or_else(
        || format!("{:>6}  leaf {}", one.index, one.leaf),
        |entry| entry_words(one.index, entry),
    );
    one.oddity.as_ref().map_or_else(|| words.clone(), |oddity| format!("{words}; {oddity}"))
}

impl Trust {
    fn policy(&self) -> Result<LogPolicy, Failure> {
        match (&self.log_key, &self.log_policy) {
            (Some(key), _) if key.kind() == NoteKeyKind::Log => Ok(LogPolicy::of_log(key)),
            (Some(_), _) => Err(Failure::new(Exit::Usage, "--log-key is the key of a witness")
                .because("the key of a log, as update log init has printed it", "another kind")
                .next("update log show KEY.pub --name NAME prints both")),
            (None, Some(path)) => {
                let bytes = read(path, LogPolicy::MAX_BYTES)?;
                let text = String::from_utf8_lossy(&bytes);
                text.parse().map_err(|error: manifests::log::LogPolicyError| {
                    Failure::new(Exit::Refused, format!("{}: {error}", path.display()))
                        .next("docs/transparency.md has an example")
                })
            }
            // clap asks for one of the two.
            (None, None) => Err(Failure::new(Exit::Usage, "whom to believe was not said")),
        }
    }
}

/// A log in a directory or at an address. Addresses are spoken with as the repository of the settings is.
fn source(place: &str, global: &Global) -> Result<Box<dyn Files>, Failure> {
    if !place.contains("://") {
        return Ok(Box::new(Directory(PathBuf::from(place))));
    }
    let base = place.trim_end_matches('/').strip_suffix("/log").ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{place} is not the address of a log"))
            .because("an address that ends in /log", place)
            .next("give it as https://updates.example.org/log")
    })?;
    let usage = |error: repository::transport::mirrors::NotAPlace| Failure::new(Exit::Usage, error);
    let mirror = Mirror::parse(base).map_err(usage)?;
    let patience = Patience::default();
    let settings = global.settings()?.repository;
    let transport: Arc<dyn Transport> = if place.starts_with("file:") {
        Arc::new(LocalFiles)
    } else {
        let network = match &settings {
            Some(settings) => by_name::network(settings),
            None => by_name::network(&by_name::no_settings()),
        };
        let network: Network = network.map_err(crate::cli::failures::repository)?;
        Arc::new(Helper(network))
    };
    Ok(Box::new(Remote::new(Mirrors::new(vec![mirror], transport, patience, Arc::new(SystemClock)))))
}

fn read(path: &Path, most: usize) -> Result<Vec<u8>, Failure> {
    let refuse = |error: bounded::BoundedError| {
        Failure::new(Exit::Refused, format!("cannot read {}: {error}", path.display()))
            .next("give a file that you can read")
    };
    let file = File::open(path).map_err(|error| refuse(error.into()))?;
    bounded::read(file, most).map_err(refuse)
}

fn read_checkpoint(path: &Path) -> Result<(Checkpoint, Note), Failure> {
    let bytes = read(path, Note::MAX_BYTES)?;
    let place = path.display().to_string();
    Checkpoint::of(&bytes).map_err(|source| failure(LogError::Checkpoint { place, source }))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    durable::publish(path, bytes)
        .map_err(|source| failure(LogError::Io { doing: "write", path: path.to_owned(), source }))
}

pub(super) fn failure(error: LogError) -> Failure {
    match &error {
        LogError::Forked { seen, shown, evidence, .. } => {
            let kept: Vec<String> = evidence.iter().map(|path| path.display().to_string()).collect();
            let next = format!(
                "believe nothing of it; show both checkpoints to its publisher and to the other witnesses: {}",
                kept.join(", ")
            );
            let (expected, found) = (seen.clone(), shown.clone());
            Failure::new(Exit::NotAuthentic, error).because(expected, found).next(next)
        }
        LogError::RolledBack { seen, found, .. } => {
            let (expected, found) = (format!("{seen} entries or more"), format!("{found}"));
            Failure::new(Exit::NotAuthentic, error)
                .because(expected, found)
                .next("ask its publisher; a mirror may be old, and what was seen stays what it was")
        }
        LogError::Unproven { .. }
        | LogError::Changed { .. }
        | LogError::Malformed { .. }
        | LogError::Missing { .. } => Failure::new(Exit::NotAuthentic, error)
            .next("ask its publisher, or another mirror: what is there is not what the log has signed"),
        LogError::NotAccepted { .. } | LogError::Checkpoint { .. } => Failure::new(Exit::NotAuthentic, error)
            .next("see that the key or the policy is this log's; update log show tells who signed"),
        LogError::Envelope { .. } | LogError::Entry { .. } => {
            Failure::new(Exit::NotAuthentic, error).next("give a signed manifest")
        }
        LogError::Busy { .. } => Failure::new(Exit::Busy, error).next("wait for it to end"),
        LogError::NotALog { .. } => Failure::new(Exit::Refused, error).next("update log init makes one"),
        LogError::NotEmpty { .. } => {
            Failure::new(Exit::Refused, error).next("choose a directory that is not there yet")
        }
        LogError::Unlogged { .. } => Failure::new(Exit::Refused, error)
            .next("update repo publish appends what it publishes; update log add whatever else is given"),
        LogError::AnotherCheckpoint { .. } => {
            Failure::new(Exit::Refused, error).next("have the newest checkpoint signed: update log witness")
        }
        LogError::AnotherKey { .. } => {
            Failure::new(Exit::Refused, error).next("give the key that update log init was given")
        }
        LogError::Io { .. } | LogError::TooLarge { .. } | LogError::Fetch(_) => {
            Failure::new(Exit::Refused, error).next("see the cause above, and try again")
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
