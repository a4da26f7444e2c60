//! How errors of this host's operations become exit codes and hints: the one mapping.

use std::path::{Path, PathBuf};

use manifests::chain::Broken;
use manifests::evidence::EvidenceError;
use manifests::log::CheckpointRefusal;
use manifests::{GrantRefusal, LogRefusal, SuccessionError, VerifyError};
use repository::client::{ClientError, Refusal};
use system::command::CommandError;
use system::exit::{Exit, Failure, State};
use system::lock::LockError;
use workloads::lifecycle::error::RuntimeError;
use workloads::packages::PackageError;
use workloads::processes::LookError;

use crate::config::ConfigError;
use crate::kernel::error::KernelError;
use crate::operations::carried::CarriedError;
use crate::operations::errand::ErrandError;
use crate::operations::export::ExportError;
use crate::operations::hold::{HoldError, HoldInForce, LONGEST};
use crate::operations::repository::RepositoryError;
use crate::operations::trust::TrustError;
use crate::operations::{Driven, EngineError, StillOpen};
use crate::state::journal::{JournalError, Stored};
use crate::state::payloads::StoreError;
use crate::transaction::driver::Reached;
use crate::transaction::state::{Outcome, Phase};

/// The configuration cannot be used.
pub(crate) fn config(error: ConfigError) -> Failure {
    if let ConfigError::Unsafe { path, owner, mode } = &error {
        let found = format!("owner {owner}, mode {mode:04o}");
        let next =
            format!("see that nobody changed it, then: chown root {0}; chmod go-w {0}", path.display());
        return Failure::new(Exit::Refused, error)
            .because("a file of root or yours that nobody else can write", found)
            .next(next);
    }
    Failure::new(Exit::Usage, error).next("mend the file, or remove it to use the defaults")
}

/// A manifest that is not acted upon, or a policy that cannot be used.
pub(crate) fn trust(error: TrustError) -> Failure {
    match &error {
        TrustError::Read { what, .. } => {
            let next = format!("give the path of a {what} that you can read");
            Failure::new(Exit::Refused, error).next(next)
        }
        TrustError::TooLarge { what, limit, found, .. } => {
            let exit = if *what == "manifest" { Exit::NotAuthentic } else { Exit::Refused };
            let (expected, next) =
                (format!("at most {limit} bytes"), format!("see that the path is that of the {what}"));
            let found = found.map_or_else(|| "more".to_owned(), |found| format!("{found} bytes"));
            Failure::new(exit, error).because(expected, found).next(next)
        }
        TrustError::NotAnEnvelope { path } => {
            let next = format!("patch-tools sign {} --key KEY, or ask for the signed file", path.display());
            Failure::new(Exit::NotAuthentic, error)
                .because("a DSSE envelope (JSON)", "something else")
                .next(next)
        }
        TrustError::Envelope { .. } => {
            Failure::new(Exit::NotAuthentic, error).next("fetch the manifest again from whoever signed it")
        }
        TrustError::PolicyUnsafe { path, owner, mode } => {
            let found = format!("owner {owner}, mode {mode:04o}");
            let next =
                format!("see that nobody changed it, then: chown root {0}; chmod go-w {0}", path.display());
            Failure::new(Exit::Refused, error)
                .because("a file of root or yours that nobody else can write", found)
                .next(next)
        }
        TrustError::Policy { path, .. } => {
            let next = format!("mend it; update policy check {} tells when it is right", path.display());
            Failure::new(Exit::Refused, error).next(next)
        }
        TrustError::PolicyReplaced { path, accepted, found, version } => {
            let edition =
                version.map_or_else(|| "no edition".to_owned(), |version| format!("edition {version}"));
            let expected = format!("edition {}, fingerprint {}", accepted.version, accepted.manifest);
            let found = format!("{edition}, fingerprint {found}");
            let next = format!(
                "find out who wrote {}; update policy install puts the accepted edition, or a later one, in its place",
                path.display()
            );
            Failure::new(Exit::NotAuthentic, error).because(expected, found).next(next)
        }
        TrustError::Fingerprint { path, fingerprint } => {
            let next = format!(
                "compare the fingerprint with the one that its authors tell, and then: update policy install {} \
                 --expect {fingerprint}",
                path.display()
            );
            let found = format!("{fingerprint} in the file");
            Failure::new(Exit::Refused, error)
                .because("the fingerprint that its authors tell, with --expect", found)
                .next(next)
        }
        TrustError::Succession { source, .. } => {
            let next = match source {
                SuccessionError::Fingerprint { .. } => "do not use it; ask its authors which one they mean",
                SuccessionError::Unreadable(_) => {
                    "ask for a policy of schema 2 with version and issued; docs/manifest.md describes it"
                }
                SuccessionError::RulesBefore(refusal) | SuccessionError::OwnRules(refusal) => {
                    next_for(refusal)
                }
            };
            Failure::new(Exit::NotAuthentic, error).next(next)
        }
        TrustError::Floor(_) => Failure::new(Exit::Refused, error)
            .next("update status; without its memory this host cannot tell old manifests from new"),
        TrustError::NotAuthentic { source, .. } => {
            let (expected, found, next) = (source.expected(), source.found(), next_for(source));
            Failure::new(Exit::NotAuthentic, error).because(expected, found).next(next)
        }
    }
}

/// A statement of a host that proves nothing of what was asked.
pub(crate) fn evidence(path: &Path, error: EvidenceError) -> Failure {
    let next = match &error {
        EvidenceError::UnknownSigner { .. } => {
            "give the host's key with --key: on that host, update evidence key"
        }
        EvidenceError::TooOld { .. } => {
            "ask the host anew: update evidence; or give a longer --max-age for one of the past"
        }
        EvidenceError::FromTheFuture { .. } => "compare the clocks of both hosts",
        EvidenceError::WrongBoot { .. } | EvidenceError::WrongNonce { .. } => {
            "ask the host anew: update evidence --nonce"
        }
        _ => "do not use it; ask the host anew: update evidence",
    };
    let compared = crate::cli::evidence::compared(&error);
    let failure =
        Failure::new(Exit::NotAuthentic, NotEvidence { path: path.to_owned(), source: error }).next(next);
    match compared {
        Some((expected, found)) => failure.because(expected, found),
        None => failure,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{path} proves nothing of what was asked")]
struct NotEvidence {
    path: PathBuf,
    source: EvidenceError,
}

/// A journal that does not hold.
pub(crate) fn broken(broken: Broken) -> Failure {
    let failure = Failure::new(Exit::NotAuthentic, JournalError::from(broken));
    failure.next(
        "treat the host as changed by somebody else: keep a copy of its store, and compare with the records in your logs",
    )
}

/// A repository that tells nothing, or does not have what was asked for.
pub(crate) fn repository(error: RepositoryError) -> Failure {
    let expired = |places: &[(String, Refusal)]| places.iter().all(|(_, why)| why.is_expiry());
    let unreachable = |places: &[(String, Refusal)]| places.iter().all(|(_, why)| why.is_transport());
    match &error {
        RepositoryError::Client(ClientError::Refresh { places }) if unreachable(places) => {
            Failure::new(Exit::Refused, error).next("see that this host reaches a place of repository.places")
        }
        RepositoryError::Client(ClientError::Refresh { places }) if expired(places) => Failure::new(
            Exit::NotAuthentic,
            error,
        )
        .because("metadata within its time", "metadata past it, or a clock ahead of it")
        .next(
            "tell who runs the repository (update repo refresh); resume, rollback and status do not need it",
        ),
        RepositoryError::Client(ClientError::Refresh { .. } | ClientError::Changed { .. }) => {
            Failure::new(Exit::NotAuthentic, error).next("do not use it; tell who runs the repository")
        }
        RepositoryError::Client(ClientError::NoSuchTarget { .. })
        | RepositoryError::NoSuchManifest { .. } => Failure::new(Exit::Refused, error)
            .next("update check lists what the repository has for this host"),
        RepositoryError::Log(_) => match error {
            RepositoryError::Log(source) => super::log::failure(source),
            other => Failure::new(Exit::Bug, other),
        },
        RepositoryError::Trust(_) => match error {
            RepositoryError::Trust(source) => trust(source),
            other => Failure::new(Exit::Bug, other),
        },
        _ => Failure::new(Exit::Refused, error)
            .next("see the cause above, and the repository section of update.yaml"),
    }
}

/// A bundle that is of no use here.
pub(crate) fn carried(error: CarriedError) -> Failure {
    match error {
        CarriedError::Bundle(error) => super::bundle::bundle_failure(error),
        CarriedError::Repository(ref source) => {
            let refused = |error: &RepositoryError| {
                matches!(error, RepositoryError::Root { .. } | RepositoryError::Keep { .. })
            };
            let expired = matches!(
                &**source,
                RepositoryError::Client(ClientError::Refresh { places })
                    if places.iter().all(|(_, why)| why.is_expiry())
            );
            let exit = if refused(source) { Exit::Refused } else { Exit::NotAuthentic };
            let next = match expired {
                true => "have it made anew: update repo refresh, then update bundle create",
                false => {
                    "do not use it; have it made from the repository whose root this host pins: update bundle create"
                }
            };
            Failure::new(exit, error).next(next)
        }
        CarriedError::Copy { .. } => Failure::new(Exit::Refused, error).next("make room, and try again"),
        CarriedError::Envelope { .. } | CarriedError::Another { .. } => {
            Failure::new(Exit::NotAuthentic, error)
                .next("do not use it; have it made anew: update bundle create")
        }
    }
}

fn next_for(refusal: &VerifyError) -> &'static str {
    match refusal {
        VerifyError::NotLogged(refusal) => match refusal {
            LogRefusal::NoProof { .. } => {
                "lay the proof beside the manifest (update log proof), or take it from the repository or in a bundle"
            }
            LogRefusal::Checkpoint(CheckpointRefusal::Quorum { .. }) => {
                "have the missing witnesses sign (update log witness), and take the proof again"
            }
            LogRefusal::Forked { .. } => {
                "believe nothing of this log; the two checkpoints are evidence, kept in forks/ of the store: show them to its publisher and witnesses"
            }
            LogRefusal::Older { .. } => {
                "take the proof again from the newest log, or have the bundle made anew"
            }
            LogRefusal::Unproven { .. } => {
                "take the log along: apply by name from the repository, or a bundle"
            }
            _ => "do not use it; take manifest and proof again from whoever published them",
        },
        VerifyError::Unsigned { .. }
        | VerifyError::Threshold { .. }
        | VerifyError::OneKeyForTwoRoles { .. } => {
            "have the missing roles add their signatures: patch-tools sign MANIFEST --key KEY"
        }
        VerifyError::UnknownSigners { .. } | VerifyError::NoRule { .. } => {
            "see with update policy check that this is the right policy"
        }
        VerifyError::KeyRevoked { .. } | VerifyError::KeyExpired { .. } => {
            "have it signed with a key that the policy still accepts"
        }
        VerifyError::ClockBehind { .. } | VerifyError::FromTheFuture { .. } => {
            "set the clock of this host: timedatectl"
        }
        VerifyError::Expired { .. } => "ask for a manifest that was issued anew",
        VerifyError::VersionBelowFloor { .. } => {
            "ask for the latest version; update history shows what was applied"
        }
        VerifyError::VersionReused { .. } => "ask who issued it for one with a version of its own",
        VerifyError::ScopeExceeded { .. } => "have it signed by roles that may vouch for all that is in it",
        VerifyError::ManifestRevoked { .. } | VerifyError::PayloadRevoked { .. } => {
            "ask for a later version without what was revoked"
        }
        VerifyError::PayloadType { .. }
        | VerifyError::BadSignature { .. }
        | VerifyError::Malformed { .. } => "do not use it; fetch it again from whoever signed it",
    }
}

/// An operation that did not come to a result.
pub(crate) fn engine(error: EngineError) -> Failure {
    let error = match error {
        // Nothing is open and nothing was done: it is as if the resume had not been asked for.
        EngineError::ResumeStopped { done, open: StillOpen::These(open), source }
            if done.is_empty() && open.is_empty() =>
        {
            *source
        }
        EngineError::Trust(error) => return trust(error),
        error => error,
    };
    match &error {
        EngineError::ResumeStopped { done, open, .. } => {
            let state = half_way(done, open);
            Failure::new(Exit::NeedsOperator, error)
                .state(State::Named(state))
                .next("mend the cause above, then update resume")
        }
        EngineError::Errand(errand) => {
            let exit = match errand {
                ErrandError::NotAllowed(_) => Exit::Refused,
                // Slow is not forged: whoever asks again gets another one.
                ErrandError::Grant(GrantRefusal::Late { .. }) => Exit::Busy,
                _ => Exit::NotAuthentic,
            };
            Failure::new(exit, error)
                .next("the controller's ledger tells what was asked: update rollout explain")
        }
        EngineError::Hold(HoldError::Over { until, .. }) => {
            let found = until.to_string();
            Failure::new(Exit::Usage, error)
                .because("a time to come", found)
                .next("give a later time, or how long: update hold --until 4h")
        }
        EngineError::Hold(HoldError::TooLong { until }) => {
            let found =
                until.map_or_else(|| "longer than there are dates".to_owned(), |until| until.to_string());
            let expected = format!("an end at most {} days from now", LONGEST.as_secs() / 86_400);
            Failure::new(Exit::Usage, error)
                .because(expected, found)
                .next("give an earlier end; a hold can be put on again")
        }
        EngineError::Hold(HoldError::Held(held)) => {
            let (found, next) = match (&held.hold, &held.file) {
                (None, Some(file)) => {
                    let file = file.display();
                    (format!("the file {file}"), format!("wait until whoever put {file} there removes it"))
                }
                (hold, _) => {
                    let left = hold.as_ref().map(HoldInForce::left).unwrap_or_default();
                    (format!("a hold with {left} left"), "wait until it ends, or ask its author".to_owned())
                }
            };
            let next =
                format!("{next}; or give the command with --despite-hold, which is kept in the journal");
            Failure::new(Exit::Refused, error).because("a host that is not held", found).next(next)
        }
        EngineError::NotRoot => {
            let found = format!("effective user {}", nix::unistd::geteuid());
            Failure::new(Exit::Refused, error).because("effective user 0", found).next("run it as root")
        }
        EngineError::Lock(LockError::Busy { holder }) => {
            let holder = holder.clone();
            Failure::new(Exit::Busy, error)
                .because("nobody holding this host", holder)
                .next("wait for it to end; `update history` shows it")
        }
        EngineError::Unfinished { id } => {
            let next = format!("update resume, or first update show {id}");
            let state = State::Named(format!("transaction {id} is half-way; this command changed nothing"));
            Failure::new(Exit::NeedsOperator, error).state(state).next(next)
        }
        EngineError::Refused(_) => {
            Failure::new(Exit::Refused, error).next("meet the preconditions and try again")
        }
        EngineError::Payload(StoreError::Size { .. } | StoreError::Changed { .. }) => {
            Failure::new(Exit::NotAuthentic, error).next(PAYLOADS)
        }
        EngineError::Payload(_) => Failure::new(Exit::Refused, error).next(PAYLOADS),
        EngineError::Stopped { id, .. } => {
            let next = format!("update resume; update show {id} tells how far it came");
            let state = State::Named(format!("transaction {id} is half-way and is in the journal"));
            Failure::new(Exit::NeedsOperator, error).state(state).next(next)
        }
        EngineError::StoreUnsafe { path, owner, mode } => {
            let found = format!("owner {owner}, mode {mode:06o}");
            let next = format!(
                "see what is in {0} and who put it there; then chown root {0}; chmod go-w {0}",
                path.display()
            );
            Failure::new(Exit::Refused, error)
                .because("a directory of root that nobody else can write", found)
                .next(next)
        }
        EngineError::OverQuota { limit, taken, to_come } => {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            let expected = format!("at most {} MiB for payloads and layers", mib(*limit));
            let found = format!("{} MiB there and {} MiB to come", mib(*taken), mib(*to_come));
            Failure::new(Exit::Refused, error)
                .because(expected, found)
                .next("update resume --collect removes what nothing needs any more; else raise fix_quota_mib in update.yaml")
        }
        EngineError::PolicyFile { .. } => Failure::new(Exit::NeedsOperator, error)
            .state(State::Named(
                "the policy was accepted, and no manifest is until its file is there".to_owned(),
            ))
            .next("make room, or the directory writable, and give the same command again"),
        EngineError::Store { .. } | EngineError::Lock(_) => Failure::new(Exit::Refused, error)
            .next("make the store writable, or set another `store` in update.yaml"),
        EngineError::Journal(JournalError::Unknown { .. }) => {
            Failure::new(Exit::Usage, error).next("update history lists the transactions")
        }
        EngineError::Journal(JournalError::Newer { found }) => {
            let found = format!("layout {found}");
            Failure::new(Exit::Refused, error)
                .because("a journal of this program or an older one", found)
                .next("install the newer update again, which wrote it")
        }
        EngineError::Journal(JournalError::Broken(found)) => broken(found.clone()),
        EngineError::NothingToState => Failure::new(Exit::Refused, error)
            .next("name a signed manifest: update evidence --vex --manifest FILE"),
        EngineError::EvidenceKey(_) => Failure::new(Exit::Refused, error)
            .next("see who changed it; without the file, a new key is made, which whoever checks has to get"),
        EngineError::Export(ExportError::Unreadable { .. }) => Failure::new(Exit::Refused, error)
            .next("remove the file to begin anew: all records are handed on again"),
        EngineError::Export(_) => Failure::new(Exit::Refused, error)
            .next("see that the log listens; what was handed on is not repeated with --cursor"),
        EngineError::Journal(_) => {
            Failure::new(Exit::Refused, error).next("see that the store is writable and its disk is not full")
        }
        EngineError::Packages(PackageError::Busy { holder }) => {
            let holder = holder.clone();
            Failure::new(Exit::Busy, error)
                .because("nobody holding the package manager", holder)
                .next("wait until dpkg or apt has ended, and try again")
        }
        EngineError::Runtime(RuntimeError::List { source: CommandError::Missing { .. } }) => {
            Failure::new(Exit::Refused, error)
                .because("runc, whose containers the manifest may concern", "none")
                .next("install runc and criu on this host")
        }
        EngineError::Processes(LookError::Stopped(_)) => {
            Failure::new(Exit::FailedRestored, error).next("try again; nothing had begun")
        }
        EngineError::NothingToRollBack(_) => Failure::new(Exit::Refused, error).next("update history"),
        EngineError::Image { .. } => Failure::new(Exit::Refused, error)
            .next("tell who signed the manifest: its payload and its digest of the image do not go together"),
        EngineError::Module { .. } => Failure::new(Exit::Refused, error)
            .next("tell who signed the manifest: the payload is the signed one, and is no livepatch module"),
        EngineError::Host(KernelError::NoLivepatch { .. }) => Failure::new(Exit::Refused, error)
            .next("boot a kernel with CONFIG_LIVEPATCH, and see that sysfs is mounted"),
        _ => Failure::new(Exit::Refused, error).next("see the cause above, and try again"),
    }
}

/// Where a resume that stopped leaves the host.
fn half_way(done: &[String], open: &StillOpen) -> String {
    let open = match open {
        StillOpen::Unknown => "the journal does not tell which transactions are open".to_owned(),
        StillOpen::These(open) if open.is_empty() => "no transaction is open".to_owned(),
        StillOpen::These(open) => {
            let names: Vec<String> = open.iter().map(ToString::to_string).collect();
            format!("transaction {} is half-way and is in the journal", names.join(", "))
        }
    };
    match done {
        [] => open,
        done => format!("{open}; before, {}", done.join(", ")),
    }
}

const PAYLOADS: &str =
    "fetch the payloads again and put them beside the manifest, or name their folder with --payloads";

/// The transaction was driven as far as it goes; a plain success is `Ok`.
pub(crate) fn driven(driven: &Driven, stored: &Stored) -> Result<(), Failure> {
    let why = driven
        .first_error
        .as_ref()
        .map_or_else(|| "it was stopped before its commit".to_owned(), |(_, error)| error.clone());
    let show = format!("update show {}", driven.id);
    match &driven.reached {
        Reached::Ended(Outcome::Committed) => Ok(()),
        Reached::Ended(Outcome::RolledBack) => {
            Err(Failure::new(Exit::FailedRestored, why).state(State::Restored).next(show))
        }
        Reached::NeedsOperator(_) => {
            let stuck: Vec<String> =
                stored.stuck().into_iter().map(|(title, error)| format!("{title}: {error}")).collect();
            let next = match stored.progress.phase() {
                Phase::Forward if !stored.progress.committed() => {
                    "look at the host; then `update resume` rolls the transaction back".to_owned()
                }
                _ => format!("mend the cause; then `update resume` tries once more ({show} has the details)"),
            };
            let state = format!("transaction {} is open; {}", driven.id, stuck.join("; "));
            Err(Failure::new(Exit::NeedsOperator, why).state(State::Named(state)).next(next))
        }
    }
}
