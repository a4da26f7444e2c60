//! `update repo`: make a repository, and keep it alive.

use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use manifests::{PublicKey, SecretKey};
use patch_tools::signing::{self, Passphrase};
use repository::authoring::draft::{Founders, Holders, Rotation};
use repository::authoring::status::{DraftStatus, RoleStatus, Standing, Status};
use repository::authoring::{AuthoringError, Repository};
use serde_json::json;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure, State};

use crate::cli::Global;
use crate::cli::output::{line, object};

/// Make and publish a repository of signed manifests
///
/// DIR/public is served by any web server. Whoever holds keys of root or of what is in the repository signs the
/// drafts in DIR/staged, on a machine of their own if they like; the key that signs daily lies where it is published.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(Init),
    Add(Add),
    Withdraw(Withdraw),
    Delegate(Delegate),
    Rotate(Rotate),
    Sign(Sign),
    Publish(Publish),
    Refresh(Refresh),
    Status(Look),
}

/// Begin a repository: who signs what; nothing is signed yet
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  update repo init /srv/repo --root a.pub --root b.pub --root c.pub --root-threshold 2 \\\n    --targets d.pub --targets e.pub --targets-threshold 2 --online online.pub"
)]
struct Init {
    /// The repository
    directory: PathBuf,
    /// A public key that signs who signs; kept offline
    #[arg(long, value_name = "PUB", required = true)]
    root: Vec<PathBuf>,
    /// How many of them it takes
    #[arg(long, value_name = "N")]
    root_threshold: u32,
    /// A public key that signs what is in the repository; kept offline
    #[arg(long, value_name = "PUB", required = true)]
    targets: Vec<PathBuf>,
    /// How many of them it takes
    #[arg(long, value_name = "N")]
    targets_threshold: u32,
    /// The public key that signs daily that the repository is up to date
    #[arg(long, value_name = "PUB", required = true)]
    online: Vec<PathBuf>,
}

/// Stage signed manifests with their payloads
#[derive(Debug, clap::Args)]
struct Add {
    /// The repository
    directory: PathBuf,
    /// The signed manifests
    #[arg(required = true)]
    manifests: Vec<PathBuf>,
    /// Take the payload files from this directory; the default is each manifest's own
    #[arg(long, value_name = "DIR")]
    payloads: Option<PathBuf>,
}

/// Stage that a manifest is not listed any more; hosts that have it keep it
#[derive(Debug, clap::Args)]
struct Withdraw {
    /// The repository
    directory: PathBuf,
    /// The manifest: NAME, all its versions, or NAME@VERSION
    manifest: String,
}

/// Stage that others sign for manifests whose names begin with a prefix
#[derive(Debug, clap::Args)]
struct Delegate {
    /// The repository
    directory: PathBuf,
    /// The prefix, such as kernel-
    #[arg(long)]
    prefix: String,
    /// A public key of theirs
    #[arg(long, value_name = "PUB", required = true)]
    key: Vec<PathBuf>,
    /// How many of them it takes
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: u32,
}

/// Stage a change of who signs for a role, or a later end of what ends soon
#[derive(Debug, clap::Args)]
struct Rotate {
    /// The repository
    directory: PathBuf,
    /// root, targets, snapshot, timestamp, or a role that status lists
    #[arg(long, required_unless_present = "renew")]
    role: Option<String>,
    /// A public key that comes
    #[arg(long, value_name = "PUB")]
    add: Vec<PathBuf>,
    /// The id of a key that goes
    #[arg(long, value_name = "ID")]
    remove: Vec<String>,
    /// Another threshold
    #[arg(long, value_name = "N")]
    threshold: Option<u32>,
    /// Stage again whatever of root and targets ends within so many days
    #[arg(long, value_name = "DAYS", conflicts_with_all = ["role", "add", "remove", "threshold"])]
    renew: Option<i64>,
}

/// Sign the drafts that a key signs for, and see what is in them; or collect signatures made elsewhere
#[derive(Debug, clap::Args)]
struct Sign {
    /// The repository, or a copy of it on another machine
    directory: PathBuf,
    /// The private key
    #[arg(long, value_name = "KEY", required_unless_present = "collect")]
    key: Option<PathBuf>,
    /// Take over the signatures in this copy of DIR/staged, or of a file of it
    #[arg(long, value_name = "PATH")]
    collect: Option<PathBuf>,
}

/// Publish everything that is staged, all of it or nothing
#[derive(Debug, clap::Args)]
struct Publish {
    /// The repository
    directory: PathBuf,
    /// The private key that signs daily
    #[arg(long, value_name = "KEY", required = true)]
    key: Vec<PathBuf>,
    /// The private key that signs DIR/public/log, where there is one: what is published is logged first
    #[arg(long, value_name = "KEY")]
    log_key: Option<PathBuf>,
}

/// Sign once more that the repository is up to date; for a timer
///
/// Exit code 6, after it has signed, when something else ends soon and people have to come together.
#[derive(Debug, clap::Args)]
struct Refresh {
    /// The repository
    directory: PathBuf,
    /// The private key that signs daily
    #[arg(long, value_name = "KEY", required = true)]
    key: Vec<PathBuf>,
}

/// Show what ends when, and whose signatures are missing
///
/// Exit code 6 when something ends soon.
#[derive(Debug, clap::Args)]
struct Look {
    /// The repository
    directory: PathBuf,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let now = SystemClock.now();
    let open = |directory: &Path| Repository::open(directory).map_err(failure);
    match &args.command {
        Command::Init(args) => {
            let founders = Founders {
                root: holders(&args.root, args.root_threshold)?,
                targets: holders(&args.targets, args.targets_threshold)?,
                online: holders(&args.online, 1)?,
            };
            Repository::init(&args.directory, &founders, now).map_err(failure)?;
            say(global, &json!({ "staged": ["root", "targets", "m1"] }), || {
                vec![format!(
                    "staged; now everybody signs: update repo sign {} --key KEY",
                    args.directory.display()
                )]
            });
        }
        Command::Add(args) => {
            let payloads = args.payloads.as_deref();
            let added = open(&args.directory)?.add(&args.manifests, payloads, now).map_err(failure)?;
            say(global, &json!({ "added": added }), || {
                added
                    .iter()
                    .map(|one| format!("{}@{} is staged in role {}", one.name, one.version, one.role))
                    .collect()
            });
        }
        Command::Withdraw(args) => {
            let usage =
                || Failure::new(Exit::Usage, format!("{:?} is no NAME or NAME@VERSION", args.manifest));
            let wanted: crate::operations::repository::Wanted =
                args.manifest.parse().map_err(|()| usage())?;
            let gone = open(&args.directory)?
                .withdraw(wanted.name.as_str(), wanted.version, now)
                .map_err(failure)?;
            say(global, &json!({ "withdrawn": gone }), || {
                gone.iter().map(|path| format!("drops {path}")).collect()
            });
        }
        Command::Delegate(args) => {
            let holders = holders(&args.key, args.threshold)?;
            let role = open(&args.directory)?.delegate(&args.prefix, &holders, now).map_err(failure)?;
            say(global, &json!({ "role": role }), || {
                vec![format!("{}* is left to role {role}", args.prefix)]
            });
        }
        Command::Rotate(args) => rotate(args, global)?,
        Command::Sign(args) => sign(args, global)?,
        Command::Publish(args) => {
            let log_key = args.log_key.as_deref().map(secret).transpose()?;
            let published = open(&args.directory)?
                .publish_logged(&secrets(&args.key)?, log_key.as_ref(), now)
                .map_err(failure)?;
            say(global, &json!(published), || {
                let roles = published
                    .roles
                    .iter()
                    .map(|(role, version)| format!("{role} version {version} is published"));
                let logged = published.logged.iter().map(|logged| {
                    format!("{} new entries in the log, which has {} now", logged.entries.len(), logged.size)
                });
                roles.chain([format!("timestamp version {}", published.timestamp)]).chain(logged).collect()
            });
        }
        Command::Refresh(args) => {
            let repository = open(&args.directory)?;
            let refreshed = repository.refresh(&secrets(&args.key)?, now).map_err(failure)?;
            say(global, &json!(refreshed), || {
                vec![format!("timestamp version {} is signed", refreshed.timestamp)]
            });
            expect_lasting(&repository.status(now).map_err(failure)?)?;
        }
        Command::Status(args) => {
            let status = open(&args.directory)?.status(now).map_err(failure)?;
            say(global, &json!(status), || lines(&status));
            expect_lasting(&status)?;
        }
    }
    Ok(())
}

fn rotate(args: &Rotate, global: &Global) -> Result<(), Failure> {
    let now = SystemClock.now();
    let repository = Repository::open(&args.directory).map_err(failure)?;
    let mut still = Vec::new();
    let roles = match (&args.role, args.renew) {
        (Some(role), _) => {
            let add = args.add.iter().map(|path| public(path)).collect::<Result<_, _>>()?;
            let rotation = Rotation { add, remove: args.remove.clone(), threshold: args.threshold };
            still = repository.rotate(role, &rotation, now).map_err(failure)?;
            vec![role.clone()]
        }
        (None, days) => {
            let within = SignedDuration::from_hours(24 * days.unwrap_or(0).clamp(0, 3650));
            repository.renew(within, now).map_err(failure)?
        }
    };
    say(global, &json!({ "staged": roles, "still_signed_by_removed": still }), || {
        let staged = roles.iter().map(|role| format!("{role} is staged"));
        let still = still
            .iter()
            .map(|role| format!("WARNING: a key that goes still signs for {role}: rotate that, too"));
        staged.chain(still).collect()
    });
    Ok(())
}

fn sign(args: &Sign, global: &Global) -> Result<(), Failure> {
    let repository = Repository::open(&args.directory).map_err(failure)?;
    if let Some(from) = &args.collect {
        let collected = repository.collect(from).map_err(failure)?;
        say(global, &json!({ "collected": collected }), || {
            collected.iter().map(|(role, count)| format!("{role}: {count} new signatures")).collect()
        });
    }
    if let Some(key) = &args.key {
        let signed = repository.sign(&secret(key)?).map_err(failure)?;
        say(global, &json!({ "signed": signed }), || {
            let mut lines = Vec::new();
            for draft in &signed {
                lines.push(format!("signed {} version {}, which", draft.role, draft.version));
                lines.extend(draft.changes.iter().map(|change| format!("  {change}")));
            }
            lines
        });
    }
    Ok(())
}

fn lines(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    for RoleStatus { role, version, expires, manifests, standing } in &status.roles {
        let standing = match standing {
            Standing::Valid => "",
            Standing::EndsSoon => "  ENDS SOON",
            Standing::Expired => "  EXPIRED",
        };
        lines.push(format!(
            "{role:<12} version {version:<6} until {expires}  {manifests} manifests{standing}"
        ));
    }
    for DraftStatus { role, version, lacks } in &status.drafts {
        let lacks =
            lacks.as_ref().map_or_else(|| "can be published".to_owned(), |lacks| format!("lacks {lacks}"));
        lines.push(format!("draft of {role} version {version}: {lacks}"));
    }
    lines
}

/// The alarm: well before hosts refuse what is served.
fn expect_lasting(status: &Status) -> Result<(), Failure> {
    let due: Vec<String> = status.due().map(|role| format!("{} until {}", role.role, role.expires)).collect();
    if due.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::NeedsOperator, "something of the repository ends soon")
        .because("everything valid for weeks", due.join(", "))
        .state(State::Named("hosts accept the repository until then".to_owned()))
        .next("update repo rotate --renew 60 stages it again, then all sign; snapshot and timestamp: update repo refresh"))
}

pub(super) fn say(global: &Global, report: &serde_json::Value, words: impl FnOnce() -> Vec<String>) {
    match global.json {
        true => object(report),
        false => words().iter().for_each(|text| line(text)),
    }
}

fn holders(files: &[PathBuf], threshold: u32) -> Result<Holders, Failure> {
    Ok(Holders { keys: files.iter().map(|path| public(path)).collect::<Result<_, _>>()?, threshold })
}

pub(super) fn public(path: &Path) -> Result<PublicKey, Failure> {
    let next = "give a .pub file that update key generate has made";
    signing::read_public_key(path).map_err(|error| Failure::new(Exit::Refused, error).next(next))
}

/// One under a passphrase is asked for it.
pub(super) fn secret(path: &Path) -> Result<SecretKey, Failure> {
    let next = "give a .key file that update key generate has made, and that you alone can read";
    signing::read_key(path, &Passphrase::Asked).map_err(|error| Failure::new(Exit::Refused, error).next(next))
}

fn secrets(paths: &[PathBuf]) -> Result<Vec<SecretKey>, Failure> {
    paths.iter().map(|path| secret(path)).collect()
}

fn failure(error: AuthoringError) -> Failure {
    let (exit, next) = match &error {
        AuthoringError::NotEmpty { .. } => (Exit::Refused, "choose a directory that is not there yet"),
        AuthoringError::NotARepository { .. } => (Exit::Usage, "update repo init makes one"),
        AuthoringError::Busy { .. } => (Exit::Busy, "wait for it to end"),
        AuthoringError::Unsigned { .. } => (Exit::Refused, "have them sign: update repo sign DIR --key KEY"),
        AuthoringError::NotOnline { .. } | AuthoringError::NothingToSign { .. } => {
            (Exit::Refused, "update repo status shows whose signatures are missing")
        }
        AuthoringError::VersionTaken { .. } => (Exit::Refused, "issue it with a version of its own"),
        AuthoringError::Payload { .. }
        | AuthoringError::Envelope { .. }
        | AuthoringError::Manifest { .. } => (Exit::NotAuthentic, "do not publish it; ask who signed it"),
        AuthoringError::NoLogKey { .. } => (Exit::Refused, "give it with --log-key; nothing was published"),
        AuthoringError::Log(_) => (Exit::Refused, "see the cause: update log verify; nothing was published"),
        AuthoringError::AnotherDraft { .. } => (Exit::Refused, "have the draft signed that is staged now"),
        AuthoringError::NotAccepted(_) => {
            (Exit::Refused, "see the cause; what was served before is served still")
        }
        AuthoringError::KeyTwice { .. }
        | AuthoringError::Threshold { .. }
        | AuthoringError::Unlisted { .. } => {
            (Exit::Refused, "update repo status lists roles; docs/repository.md says who should hold what")
        }
        _ => (Exit::Refused, "see the cause above, and try again"),
    };
    Failure::new(exit, error).next(next)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    fn update(words: &[&str]) -> Result<(), Failure> {
        Cli::try_parse_from(["update", "--json"].iter().chain(words))
            .unwrap_or_else(|error| panic!("{error}"))
            .run()
    }

    #[test]
    fn a_repository_is_founded_signed_published_and_kept_alive_by_commands_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        for name in ["root-a", "root-b", "targets-a", "online"] {
            update(&["key", "generate", "--out", &path(name)]).unwrap();
        }
        let repo = path("repo");
        update(&[
            "repo",
            "init",
            &repo,
            "--root",
            &path("root-a.pub"),
            "--root",
            &path("root-b.pub"),
            "--root-threshold",
            "2",
            "--targets",
            &path("targets-a.pub"),
            "--targets-threshold",
            "1",
            "--online",
            &path("online.pub"),
        ])
        .unwrap();
        let early = update(&["repo", "publish", &repo, "--key", &path("online.key")]).unwrap_err();
        assert_eq!(early.exit(), Exit::Refused);
        for name in ["root-a.key", "root-b.key", "targets-a.key"] {
            update(&["repo", "sign", &repo, "--key", &path(name)]).unwrap();
        }
        let stranger = update(&["repo", "sign", &repo, "--key", &path("online.key")]).unwrap_err();
        assert_eq!(stranger.exit(), Exit::Refused, "the online key signs no draft");
        update(&["repo", "publish", &repo, "--key", &path("online.key")]).unwrap();
        update(&["repo", "refresh", &repo, "--key", &path("online.key")]).unwrap();
        update(&["repo", "status", &repo]).unwrap();
        update(&["repo", "rotate", &repo, "--role", "targets"]).unwrap();
        let again = update(&[
            "repo",
            "init",
            &repo,
            "--root",
            &path("root-a.pub"),
            "--root-threshold",
            "1",
            "--targets",
            &path("targets-a.pub"),
            "--targets-threshold",
            "1",
            "--online",
            &path("online.pub"),
        ]);
        assert_eq!(again.unwrap_err().exit(), Exit::Refused);
        assert_eq!(update(&["repo", "status", &path("nowhere")]).unwrap_err().exit(), Exit::Usage);
    }
}
