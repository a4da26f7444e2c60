//! `update rollout …` and `update apply --fleet`: a manifest through a fleet, from the writing to the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::assurance::Assurance;
use manifests::{DocumentKind, Envelope, HostId, Manifest, Ordered, Payload, RolloutOrder, UtcTime};
use serde_json::Value;
use system::clock::{Clock as _, SystemClock};
use system::durable;
use system::exit::{Exit, Failure};
use system::output::{line, object};

use super::draft::{self, Source, sign};
use super::hosts::{after, find};
use super::{Global, asked, simulate};
use crate::client::{Client, ClientError};
use crate::server::people::{Submission, Word};

/// How often a rollout that is watched is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Take a manifest through the fleet in waves
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write the document of a rollout, for people to sign
    ///
    /// Signed by `patch-tools sign --type rollout`, perhaps by several people, it is handed in by `start --document`.
    Draft {
        #[command(flatten)]
        source: Source,
        /// Write it to this file
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Hand a rollout in; it goes on by itself
    Start(StartArgs),
    /// Show one rollout, or all of them
    Status {
        /// The rollout's digest, or how it begins; all without
        rollout: Option<String>,
    },
    /// Show a rollout live until it ends or waits for people
    Watch {
        /// The rollout's digest, or how it begins; the newest without
        rollout: Option<String>,
    },
    /// Nobody begins until told
    Pause(OrderArgs),
    /// It goes on; needs a signature unless a person's token paused it
    Resume(OrderArgs),
    /// It may begin, or go on after its first wave; needs signatures
    Approve(OrderArgs),
    /// It is given up; what is applied stays
    Abort(OrderArgs),
    /// Hosts go back
    Rollback(OrderArgs),
    /// Hosts that came back from its manifest may have that again; needs a signature
    ///
    /// A host that came back is not offered the same manifest again, in this rollout or another, until somebody has
    /// looked why.
    Retry(RetryArgs),
    /// Tell from the ledger why a host got something, did not, or waits
    Explain {
        /// The rollout's digest, or how it begins
        rollout: String,
        /// The host's id, how it begins, or its name
        host: String,
    },
    /// Play a policy against a fleet before there is a rollout
    Simulate(simulate::Args),
}

/// Hand a rollout in
#[derive(Debug, clap::Args)]
pub(super) struct StartArgs {
    #[command(flatten)]
    source: Source,
    /// The document, signed; without, it is written and signed by --key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keys", "emergency", "summary", "supersedes"])]
    document: Option<PathBuf>,
    /// Sign with this private key (may be repeated)
    #[arg(long = "key", value_name = "FILE", required_unless_present = "document")]
    keys: Vec<PathBuf>,
    /// The passphrase of the key is the first line of this file; by default it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Where the payloads are; by default beside the manifest
    #[arg(long, value_name = "DIRECTORY")]
    payloads: Option<PathBuf>,
}

/// Take a manifest through the fleet, and stay until it is through
///
/// Exit codes: 0 completed, 1 halted and rolled back, 3 refused at the start, 6 paused or stuck.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    start: StartArgs,
}

/// A word about a rollout
#[derive(Debug, clap::Args)]
pub(super) struct OrderArgs {
    /// The rollout's digest, or how it begins
    rollout: String,
    /// Sign with this private key (may be repeated)
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// The passphrase of the key is the first line of this file; by default it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// An order that was signed elsewhere
    #[arg(long, value_name = "FILE", conflicts_with = "keys")]
    document: Option<PathBuf>,
}

/// Hosts that may try again
#[derive(Debug, clap::Args)]
pub(super) struct RetryArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// The hosts' ids, how they begin, or their names
    #[arg(value_name = "HOST", required_unless_present_any = ["all", "document"], conflicts_with = "document")]
    hosts: Vec<String>,
    /// All that came back from it
    #[arg(long, conflicts_with_all = ["hosts", "document"])]
    all: bool,
}

pub(super) fn run(command: &Command, global: &Global) -> Result<Exit, Failure> {
    let done = |()| Exit::Done;
    match command {
        Command::Draft { source, out } => write_draft(source, out, global).map(done),
        Command::Start(args) => start(args, global).map(|_| Exit::Done),
        Command::Status { rollout } => status(rollout.as_deref(), global).map(done),
        Command::Watch { rollout } => {
            let client = global.client()?;
            let rollout = one(&client, rollout.as_deref())?;
            watch(&client, &rollout, global)
        }
        Command::Pause(args) => order(Ordered::Pause, args, global).map(done),
        Command::Resume(args) => order(Ordered::Resume, args, global).map(done),
        Command::Approve(args) => order(Ordered::Approve, args, global).map(done),
        Command::Abort(args) => order(Ordered::Abort, args, global).map(done),
        Command::Rollback(args) => order(Ordered::RollBack, args, global).map(done),
        Command::Retry(args) => retry(args, global).map(done),
        Command::Explain { rollout, host } => explain(rollout, host, global).map(done),
        Command::Simulate(args) => simulate::run(args, global).map(done),
    }
}

fn write_draft(source: &Source, out: &Path, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let draft = source.draft(&client)?;
    durable::replace(out, draft.text.as_bytes()).map_err(|error| Failure::new(Exit::Refused, error))?;
    if global.json {
        object(&serde_json::json!({ "document": out, "assurance": draft.assurance }));
        return Ok(());
    }
    promise(&draft.assurance);
    line(&format!("next: patch-tools sign {} --type rollout --key KEY", out.display()));
    Ok(())
}

/// What a rollout of this size can promise.
fn promise(assurance: &Assurance) {
    let waves: Vec<String> = assurance.waves.iter().map(ToString::to_string).collect();
    line(&format!("{} hosts in waves of {}", assurance.hosts, waves.join(", ")));
    line(&format!(
        "after a clean first wave at most {:.1} % of hosts would be hurt, after a clean rollout {:.2} % (at 95 %)",
        assurance.first_wave_bound * 100.0,
        assurance.bound * 100.0
    ));
    if assurance.rule == fleet::assurance::Rule::EveryHost {
        line(&format!("fewer than {} hosts: any that is hurt or silent halts it", assurance.least));
    }
    if !assurance.unproven.is_empty() {
        line(&format!("too few to prove anything by themselves: {}", assurance.unproven.join(", ")));
    }
    line(&format!("it ends at {} at the earliest", assurance.earliest_end));
}

/// Hands everything in; the rollout's digest.
fn start(args: &StartArgs, global: &Global) -> Result<String, Failure> {
    let client = global.client()?;
    let manifest_envelope = draft::envelope(&args.source.manifest)?;
    let manifest = draft::manifest(&manifest_envelope)?;
    let (document, text) = match &args.document {
        Some(path) => (draft::envelope(path)?, draft::text(&args.source.policy, 512 << 10)?),
        None => {
            let draft = args.source.draft(&client)?;
            if !global.json {
                promise(&draft.assurance);
            }
            let policy = draft::text(&args.source.policy, 512 << 10)?;
            let keys = (&args.keys, args.passphrase_file.as_deref());
            debug_assert_eq!(draft.document.manifest, manifest_envelope.payload_digest());
            (sign(DocumentKind::Rollout, &draft.text, keys.0, keys.1)?, policy)
        }
    };
    hand_in(&client, args, &manifest, global)?;
    let submission =
        Submission { rollout: document.to_json(), policy: text, manifest: manifest_envelope.to_json() };
    let answer: Value = client.post("/v1/rollouts", &submission).map_err(not_accepted)?;
    let rollout = answer["rollout"].as_str().unwrap_or_default().to_owned();
    if global.json {
        object(&answer);
    } else {
        line(&format!("accepted: rollout {}", short(&rollout)));
        for ended in answer["supersedes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            line(&format!("when it begins, rollout {} ends: hosts in flight finish", short(ended)));
        }
        line(&format!("next: update rollout watch {}", short(&rollout)));
    }
    Ok(rollout)
}

fn not_accepted(error: ClientError) -> Failure {
    let authentic = matches!(&error, ClientError::Refused { status, .. } if status.as_u16() == 403);
    let failure = asked(error);
    if authentic {
        failure.next("who must sign, the policy says: update verify --policy FILE MANIFEST")
    } else {
        failure
    }
}

/// Hands in the payloads that hosts will fetch.
fn hand_in(client: &Client, args: &StartArgs, manifest: &Manifest, global: &Global) -> Result<(), Failure> {
    let beside = args.source.manifest.parent().unwrap_or(Path::new("."));
    let directory = args.payloads.as_deref().unwrap_or(beside);
    let payloads: Vec<&Payload> = manifest.payloads().collect();
    for payload in payloads {
        let path = directory.join(payload.file.as_str());
        client.put(&format!("/v1/payloads/{}", payload.sha256), &path).map_err(asked)?;
        if !global.json {
            line(&format!("handed in: {} ({} bytes)", path.display(), payload.size));
        }
    }
    Ok(())
}

pub(super) fn apply(args: &ApplyArgs, global: &Global) -> Result<Exit, Failure> {
    let rollout = start(&args.start, global)?;
    watch(&global.client()?, &rollout, global)
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// The rollout that is meant; the newest that may go on, without a name.
fn one(client: &Client, wanted: Option<&str>) -> Result<String, Failure> {
    let all: Vec<Value> = client.get("/v1/rollouts").map_err(asked)?;
    let digests =
        all.iter().filter_map(|rollout| Some((rollout["rollout"].as_str()?, rollout["expires"].as_str()?)));
    let found: Vec<&str> = match wanted {
        Some(wanted) => {
            digests.filter(|(digest, _)| digest.starts_with(wanted)).map(|(digest, _)| digest).collect()
        }
        None => digests.max_by_key(|(_, expires)| *expires).map(|(digest, _)| digest).into_iter().collect(),
    };
    match found[..] {
        [digest] => Ok(digest.to_owned()),
        _ => Err(Failure::new(Exit::Refused, "that is not one rollout")
            .because("the digest of one rollout, or how it begins", format!("{} rollouts", found.len()))
            .next("update rollout status")),
    }
}

fn status(wanted: Option<&str>, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let all: Vec<Value> = match wanted {
        Some(wanted) => vec![look(&client, &one(&client, Some(wanted))?)?],
        None => client.get("/v1/rollouts").map_err(asked)?,
    };
    for rollout in &all {
        if global.json {
            object(rollout);
        } else {
            tell(rollout).iter().for_each(|one| line(one));
        }
    }
    if all.is_empty() && !global.json {
        line("no rollout was handed in");
    }
    Ok(())
}

fn look(client: &Client, rollout: &str) -> Result<Value, Failure> {
    client.get(&format!("/v1/rollouts/{rollout}")).map_err(asked)
}

/// A rollout in words.
fn tell(rollout: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![format!(
        "{} {}: {}",
        short(&text(&rollout["rollout"])),
        text(&rollout["name"]),
        text(&rollout["words"])
    )];
    for (number, wave) in (1..).zip(rollout["waves"].as_array().into_iter().flatten()) {
        let count = |key: &str| wave["count"][key].as_u64().unwrap_or(0);
        let stands = match (wave["passed"] == true, wave["opened"] == true) {
            (true, _) => "passed",
            (false, true) => "open",
            (false, false) => "not yet",
        };
        let mut words = format!("  wave {number}: {} hosts, {stands}", wave["hosts"]);
        if wave["opened"] == true {
            let test = text(&wave["verdict"]);
            words += &format!(
                "; {} to come, {} told to begin, {} watched, {} good, {} hurt; test: {test}",
                count("pending") + count("busy"),
                count("granted"),
                count("baking"),
                count("good"),
                count("hurt"),
            );
        }
        lines.push(words);
    }
    for health in rollout["health"].as_array().into_iter().flatten() {
        let query = text(&health["query"]);
        let now = &rollout["latest_health"][&query];
        // At this moment, if it is asked; else what it came to.
        let words = if now.is_object() { text(&now["words"]) } else { text(&health["words"]) };
        lines.push(format!("  health by {query}: {words}"));
    }
    for reason in rollout["waiting"].as_array().into_iter().flatten() {
        lines.push(format!("  waits: {}", text(&reason["words"])));
    }
    lines
}

/// How a rollout that has come to this ends for who watches it; nothing while it goes on.
fn end(rollout: &Value) -> Option<Exit> {
    match rollout["stage"].as_str().unwrap_or_default() {
        "completed" => Some(Exit::Done),
        "rolled-back" | "aborted" | "expired" | "superseded" => Some(Exit::FailedRestored),
        "paused" | "stuck" => Some(Exit::NeedsOperator),
        _ => None,
    }
}

fn watch(client: &Client, rollout: &str, global: &Global) -> Result<Exit, Failure> {
    let (mut before, mut unreachable, mut halted) = (Vec::<String>::new(), 0, 0);
    loop {
        match look(client, rollout) {
            Ok(standing) => {
                unreachable = 0;
                // What is nothing but a time that moves on is no news.
                let lines = tell(&standing);
                if lines != before {
                    if global.json {
                        object(&standing);
                    } else {
                        lines.iter().filter(|one| !before.contains(one)).for_each(|one| line(one));
                    }
                    before = lines;
                }
                if let Some(exit) = end(&standing) {
                    if !global.json {
                        next(exit, rollout, &standing);
                    }
                    return Ok(exit);
                }
                // A policy that leaves the way back to people makes it wait for them.
                halted = if standing["stage"] == "halted" { halted + 1 } else { 0 };
                if halted > 10 {
                    line(&format!("next: update rollout rollback {}", short(rollout)));
                    return Ok(Exit::NeedsOperator);
                }
            }
            // People have to look at the controller first; it says the same each time.
            Err(failure) if failure.exit() == Exit::NeedsOperator => return Err(failure),
            Err(failure) => {
                unreachable += 1;
                if unreachable > 60 {
                    return Err(failure.next(format!(
                        "update rollout watch {}; the rollout goes on without us",
                        short(rollout)
                    )));
                }
            }
        }
        SystemClock.sleep(LOOK);
    }
}

fn next(exit: Exit, rollout: &str, standing: &Value) {
    let words = match exit {
        Exit::Done => "done: the fleet has it; hosts that come later take it, too".to_owned(),
        Exit::NeedsOperator => format!(
            "next: update rollout explain {} HOST; then resume --key KEY, or rollback",
            short(rollout)
        ),
        _ => format!("ended: {}", standing["words"].as_str().unwrap_or_default()),
    };
    line(&words);
}

fn order(order: Ordered, args: &OrderArgs, global: &Global) -> Result<(), Failure> {
    say(&global.client()?, order, &[], args, global)
}

fn retry(args: &RetryArgs, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let hosts = args.hosts.iter().map(|host| find(&client, host)).collect::<Result<Vec<_>, _>>()?;
    say(&client, Ordered::Retry, &hosts, &args.order, global)
}

fn say(
    client: &Client,
    order: Ordered,
    hosts: &[HostId],
    args: &OrderArgs,
    global: &Global,
) -> Result<(), Failure> {
    let rollout = one(client, Some(&args.rollout))?;
    let word = match (&args.document, args.keys.is_empty()) {
        (Some(path), _) => Word::Signed(draft::envelope(path)?.to_json()),
        (None, true) => Word::Token(order),
        (None, false) => Word::Signed(signed_order(client, &rollout, order, hosts, args)?.to_json()),
    };
    let done: Value = client.post(&format!("/v1/rollouts/{rollout}/orders"), &word).map_err(not_ordered)?;
    if global.json {
        object(&done);
    } else {
        tell(&look(client, &rollout)?).iter().for_each(|one| line(one));
    }
    Ok(())
}

fn not_ordered(error: ClientError) -> Failure {
    asked(error).next("what makes a rollout begin or go on needs --key, a key whose role may sign orders")
}

fn signed_order(
    client: &Client,
    rollout: &str,
    order: Ordered,
    hosts: &[HostId],
    args: &OrderArgs,
) -> Result<Envelope, Failure> {
    let standing = look(client, rollout)?;
    let refuse = |error: &dyn std::error::Error| Failure::new(Exit::Refused, error.to_string());
    let document = RolloutOrder {
        schema: Default::default(),
        name: standing["name"].as_str().unwrap_or_default().parse().map_err(|error| refuse(&error))?,
        rollout: rollout.parse().map_err(|error| refuse(&error))?,
        order,
        hosts: hosts.to_vec(),
        issued: UtcTime::floor(SystemClock.now()),
        expires: after(Duration::from_secs(3600))?,
    };
    let text = serde_yaml::to_string(&document).map_err(|error| Failure::new(Exit::Bug, error))?;
    sign(DocumentKind::Order, &text, &args.keys, args.passphrase_file.as_deref())
}

fn explain(rollout: &str, host: &str, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let rollout = one(&client, Some(rollout))?;
    let host = find(&client, host)?;
    let told: Value = client.get(&format!("/v1/rollouts/{rollout}/hosts/{host}")).map_err(asked)?;
    if global.json {
        object(&told);
        return Ok(());
    }
    let explanation = &told["explanation"];
    match explanation["place"].as_array() {
        None => line("this rollout is not for that host: the policy's selector does not name it"),
        Some(place) => {
            let number = |at: usize| place.get(at).and_then(Value::as_u64).unwrap_or(0) + 1;
            line(&format!(
                "host {} is number {} in the order, in wave {}",
                short(&host.to_string()),
                number(0),
                number(1)
            ));
        }
    }
    for one in explanation["lines"].as_array().into_iter().flatten() {
        line(&format!(
            "{}  {}",
            one["at"].as_str().unwrap_or_default(),
            one["text"].as_str().unwrap_or_default()
        ));
    }
    if told["came_back"] == true {
        line("it came back from this manifest, and is not offered it again before somebody signs that");
        line(&format!(
            "next: update rollout retry {} {} --key KEY",
            short(&rollout),
            short(&host.to_string())
        ));
    }
    line(&format!(
        "heard of last: {}",
        told["last_seen"].as_str().unwrap_or("not since this controller listens")
    ));
    let standing = look(&client, &rollout)?;
    tell(&standing).iter().for_each(|one| line(one));
    Ok(())
}
