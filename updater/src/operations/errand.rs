//! What a controller of the fleet lets this host do: judged by this host's own policy, under its lock, and done by the
//! same operations as everything else.
//!
//! A grant decides nothing but *now*. What changes, for whom and how early at most stands in documents that people
//! signed; the way back is open only to what this very rollout began here, and only for as long as its document says.

use std::path::Path;
use std::time::Duration;

use manifests::{
    Asked, Attempt, DocumentKind, Envelope, EnvelopeError, Examination, Grant, GrantRefusal, GrantedAction,
    GroupName, HostId, LedgerHead, Manifest, Nonce, NotAllowed, Rollout, Sha256, UtcTime, Verified, VerifyAt,
    VerifyError,
};
use system::clock::{Clock, Interrupt};
use system::lock::Turn;
use workloads::processes::Onlooker;

use crate::operations::apply::{Applied, Quarantine, Request};
use crate::operations::hold::Heeding;
use crate::operations::resume::Resumed;
use crate::operations::rollback::{Back, LetBy};
use crate::operations::standing::Standing;
use crate::operations::{Driven, Engine, EngineError, Listeners};
use crate::plan::Plan;
use crate::state::floors::raise_floor;
use crate::state::grants::{Seen, TakenGrant};
use crate::state::journal::{Journal, Origin, Stored, TransactionId};
use crate::state::payloads::PayloadSource;
use crate::transaction::state::{Cause, Event, Next, Outcome};

/// Kernel taint flags that a change must not add: a page in a bad state, an oops, a warning, a soft lockup
/// (`Documentation/admin-guide/tainted-kernels.rst`).
const COMPLAINTS: u64 = 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14;

/// Why a controller's word is not followed.
#[derive(Debug, thiserror::Error)]
pub enum ErrandError {
    /// A document is not a well-formed envelope.
    #[error("the {kind} cannot be read")]
    Envelope {
        /// Which.
        kind: DocumentKind,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// A document is not authentic.
    #[error("the {kind} is not to be acted upon")]
    NotAuthentic {
        /// Which.
        kind: DocumentKind,
        /// Why.
        source: VerifyError,
    },
    /// The rollout is of another manifest.
    #[error("the rollout is of another manifest: expected {expected}, found {found}")]
    AnotherManifest {
        /// The rollout's.
        expected: Sha256,
        /// The one that came with it.
        found: Sha256,
    },
    /// The grant is not for this attempt of this host.
    #[error(transparent)]
    Grant(#[from] GrantRefusal),
    /// The rollout does not allow a controller to ask that of this host.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The grant is known.
    #[error("the grant {id} was taken before")]
    Taken {
        /// Which.
        id: Sha256,
    },
    /// The controller shows two ledgers: what it told others was rewritten.
    #[error("the controller's ledger was rewritten: with {} entries its root was {}, and is {}", .seen.size, .seen.root, .found.root)]
    Fork {
        /// What it showed before.
        seen: LedgerHead,
        /// What it shows now.
        found: LedgerHead,
    },
}

/// Who this host is in its fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub host: HostId,
    /// The groups that it is in, by its settings and by its enrolment.
    pub groups: Vec<GroupName>,
}

/// A rollout and its manifest, as they came.
#[derive(Clone, Copy)]
pub struct Papers<'a> {
    /// The envelope of the rollout document.
    pub rollout: &'a str,
    /// The file with the envelope of the manifest.
    pub manifest: &'a Path,
    /// Where its payloads are.
    pub payloads: &'a dyn PayloadSource,
}

/// A grant, and the attempt that it has to be for.
#[derive(Debug, Clone, Copy)]
pub struct Errand<'a> {
    /// Who this host is.
    pub member: &'a Member,
    /// The envelope of the grant.
    pub grant: &'a str,
    /// What this host made for the attempt.
    pub nonce: Nonce,
    /// When, by the monotonic clock.
    pub made: Duration,
}

/// What an errand came to.
#[derive(Debug)]
pub enum Done {
    /// The host has all of it already; nothing was begun.
    Nothing,
    /// A transaction was driven.
    Transaction(Driven),
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// This host began nothing by it.
    NeverBegan,
    /// Nothing was to be done.
    NotNeeded,
    /// The transaction has not ended.
    Open(TransactionId),
    /// It ended.
    Ended {
        /// What it was.
        action: GrantedAction,
        /// The transaction.
        transaction: TransactionId,
        /// How it ended.
        outcome: Outcome,
        /// What is wrong since then; nothing if all is well.
        since: Option<Ailment>,
        /// Why it went back, if it did.
        cause: Option<Cause>,
        /// The first error that was recorded.
        error: Option<String>,
    },
}

/// What is wrong with a host that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ailment {
    /// The kernel complained: its taint flags grew by these.
    Kernel(u64),
    /// The host does not have what it should have.
    Unsound,
    /// Somebody took the change back.
    Undone,
}

fn envelope(kind: DocumentKind, text: &str) -> Result<Envelope, ErrandError> {
    Envelope::parse(text.as_bytes()).map_err(|source| ErrandError::Envelope { kind, source })
}

/// Nobody takes the grant any more.
struct TooLate<'a> {
    clock: &'a (dyn Clock + Send + Sync),
    made: Duration,
}

impl Interrupt for TooLate<'_> {
    fn asked(&self) -> bool {
        self.clock.elapsed().saturating_sub(self.made) > Grant::VALID
    }
}

impl Engine {
    fn rollout(&self, text: &str, manifest: Sha256) -> Result<Verified<Rollout>, EngineError> {
        let now = self.host.clock.now();
        let (policy, floor) = self.trusting(now)?;
        let kind = DocumentKind::Rollout;
        let rollout: Verified<Rollout> = policy
            .verify(&envelope(kind, text)?, VerifyAt { now, floor: &floor })
            .map_err(|source| ErrandError::NotAuthentic { kind, source })?;
        if manifest == rollout.manifest {
            return Ok(rollout);
        }
        Err(ErrandError::AnotherManifest { expected: rollout.manifest, found: manifest }.into())
    }

    /// The document of what is taken back: the signatures have to hold, and neither its end nor a revocation of what it
    /// brought stands in the way. When the way back closes, it says itself ([`Rollout::refuse`]).
    fn rollout_to_undo(&self, text: &str) -> Result<(Rollout, Sha256), EngineError> {
        let now = self.host.clock.now();
        let (policy, floor) = self.trusting(now)?;
        let kind = DocumentKind::Rollout;
        let examined: Examination<Rollout> =
            policy.examine(&envelope(kind, text)?, VerifyAt { now, floor: &floor });
        match (examined.outcome, examined.signed) {
            (Ok(rollout), _) => Ok((rollout.into_inner(), examined.digest)),
            (Err(VerifyError::Expired { .. } | VerifyError::ManifestRevoked { .. }), Some(rollout)) => {
                Ok((rollout, examined.digest))
            }
            (Err(source), _) => Err(ErrandError::NotAuthentic { kind, source }.into()),
        }
    }

    /// Whether a rollout's manifest could be applied here; changes nothing but the payload store.
    ///
    /// # Errors
    /// As [`Engine::plan`], and [`EngineError::Errand`].
    pub fn preflight(&self, member: &Member, papers: &Papers<'_>) -> Result<Plan, EngineError> {
        let _in_use = self.payloads.in_use()?;
        let manifest = self.authenticate(papers.manifest)?;
        let rollout = self.rollout(papers.rollout, manifest.digest())?;
        // Its time may still come: a controller does not let anybody begin before.
        let now = UtcTime::floor(self.host.clock.now());
        let then = rollout.schedule.earliest(rollout.digest(), member.host).map_or(now, |time| time.max(now));
        let asked = Asked { host: member.host, groups: &member.groups, changed: None, now: then };
        rollout.refuse(rollout.digest(), GrantedAction::Apply, &asked).map_err(ErrandError::from)?;
        self.plan_as(&self.look()?, &self.new_id(), &manifest, &request(papers), Onlooker::NOBODY)
    }

    /// Applies a manifest because a controller says that it is this host's turn.
    ///
    /// # Errors
    /// As [`Engine::apply`], and [`EngineError::Errand`]; except for [`EngineError::Stopped`] nothing was touched.
    pub fn apply_granted(
        &self,
        errand: &Errand<'_>,
        papers: &Papers<'_>,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Done, EngineError> {
        let applied = self.apply_by(&request(papers), Some((errand, papers.rollout)), listeners, begun)?;
        Ok(match applied {
            Applied::Nothing(_) => Done::Nothing,
            Applied::Transaction { driven, .. } => Done::Transaction(driven),
        })
    }

    /// Takes back what a rollout began here, because a controller says so.
    ///
    /// # Errors
    /// As [`Engine::rollback`], and [`EngineError::Errand`]; except for [`EngineError::Stopped`] nothing was touched.
    pub fn roll_back_granted(
        &self,
        errand: &Errand<'_>,
        rollout: &str,
        listeners: &Listeners<'_>,
        begun: &dyn Fn(&TransactionId, &Plan),
    ) -> Result<Done, EngineError> {
        // Nobody asks for the same way back twice: it waits its turn, for as long as the grant counts.
        let turn = Turn::Wait {
            interrupt: &TooLate { clock: &*self.host.clock, made: errand.made },
            told: &|holder| tracing::info!(holder, "waits for its turn"),
        };
        let session = self.lock("rollback for the fleet", turn)?;
        self.expect_finished()?;
        self.expect_not_held(Heeding::Heed)?;
        self.judge_crashes()?;
        let (rollout, digest) = self.rollout_to_undo(rollout)?;
        let of = self.begun_by(digest)?;
        let ended = |stored: &Stored| stored.events.last().map_or(stored.began, |recorded| recorded.at);
        let changed = of.as_ref().map(|stored| UtcTime::floor(ended(stored)));
        let taken = self.heed(errand, &rollout, digest, GrantedAction::Rollback, changed)?;
        let Some(of) = of else {
            // Unreachable: without a change the rollout allows no way back.
            return Err(ErrandError::NotAllowed(NotAllowed::NothingBegun).into());
        };
        let let_by = LetBy { grant: Some(&taken), despite: None };
        let driven = self.roll_back(&session, &of, Back::Files, let_by, listeners, begun)?;
        Ok(Done::Transaction(driven))
    }

    /// The last transaction of a rollout that is in force.
    fn begun_by(&self, rollout: Sha256) -> Result<Option<Stored>, EngineError> {
        let begun = self.journal().begun_by(rollout)?;
        for id in begun {
            match self.rollback_target(Some(id.as_str())) {
                Ok(stored) => return Ok(Some(stored)),
                Err(EngineError::NothingToRollBack(_) | EngineError::Journal(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Judges a grant, as somebody who holds the host.
    pub(super) fn heed(
        &self,
        errand: &Errand<'_>,
        rollout: &Rollout,
        digest: Sha256,
        action: GrantedAction,
        changed: Option<UtcTime>,
    ) -> Result<TakenGrant, EngineError> {
        let now = self.host.clock.now();
        let (policy, floor) = self.trusting(now)?;
        let kind = DocumentKind::Grant;
        let grant: Verified<Grant> = policy
            .verify(&envelope(kind, errand.grant)?, VerifyAt { now, floor: &floor })
            .map_err(|source| ErrandError::NotAuthentic { kind, source })?;
        let (seen, known) = {
            let journal = self.journal();
            (journal.seen()?, journal.has_taken(grant.id)?)
        };
        if known {
            return Err(ErrandError::Taken { id: grant.id }.into());
        }
        let attempt = Attempt {
            host: errand.member.host,
            rollout: digest,
            manifest: rollout.manifest,
            nonce: errand.nonce,
            age: self.host.clock.elapsed().saturating_sub(errand.made),
            epoch: seen.epoch,
        };
        let judged = grant.refuse(&attempt).map_err(ErrandError::from).and_then(|()| {
            let member = errand.member;
            let asked =
                Asked { host: member.host, groups: &member.groups, changed, now: UtcTime::floor(now) };
            // What the attempt was made for is what the grant has to be for.
            if grant.action != action {
                return Err(ErrandError::Grant(GrantRefusal::Nonce));
            }
            rollout.refuse(digest, action, &asked)?;
            refuse_fork(&seen, grant.ledger)
        });
        judged?;
        Ok(TakenGrant {
            grant: Grant::clone(&grant),
            taint: self.taint(),
            boot: self.host.incarnation.boot_id.clone(),
            at: now,
        })
    }

    /// For an apply: the grant, with the rollout that it is of.
    pub(super) fn heed_apply(
        &self,
        (errand, rollout): (&Errand<'_>, &str),
        manifest: &Verified<Manifest>,
    ) -> Result<TakenGrant, EngineError> {
        let rollout = self.rollout(rollout, manifest.digest())?;
        let taken = self.heed(errand, &rollout, rollout.digest(), GrantedAction::Apply, None)?;
        raise_floor(&mut self.journal(), &rollout)?;
        Ok(taken)
    }

    /// What became of an attempt, by the journal alone.
    ///
    /// # Errors
    /// [`EngineError::Journal`], or why the host cannot be looked at.
    pub fn fate(&self, rollout: Sha256, nonce: &Nonce) -> Result<Fate, EngineError> {
        let (taken, stored, all) = {
            let journal = self.journal();
            let Some(taken) = journal.taken(rollout, nonce)? else { return Ok(Fate::NeverBegan) };
            let Some(id) = &taken.transaction else { return Ok(Fate::NotNeeded) };
            let stored = journal.transaction(id.as_str())?;
            (taken, stored, journal.all()?)
        };
        let transaction = stored.id.clone();
        let Some(outcome) = stored.outcome() else { return Ok(Fate::Open(transaction)) };
        let applied = taken.action == GrantedAction::Apply && outcome == Outcome::Committed;
        let undone = |other: &Stored| {
            matches!(&other.origin, Origin::Rollback { of, .. } if *of == transaction)
                && other.outcome() == Some(Outcome::Committed)
        };
        let since = if !applied {
            None
        } else if all.iter().any(undone) {
            Some(Ailment::Undone)
        } else {
            self.ailment(taken.taint, &taken.boot)?
        };
        let error = stored.first_error().map(|(_, error)| error);
        let cause = stored.events.iter().find_map(|recorded| match &recorded.event {
            Event::RollbackDecided { cause } => Some(cause.clone()),
            _ => None,
        });
        Ok(Fate::Ended { action: taken.action, transaction, outcome, since, cause, error })
    }

    /// Ends what a grant began and nobody drives any more: whoever did was killed between two steps. What waits for an
    /// operator goes on waiting.
    ///
    /// # Errors
    /// As [`Engine::resume`].
    pub fn resume_errands(&self, listeners: &Listeners<'_>) -> Result<Option<Resumed>, EngineError> {
        let open = {
            let journal = self.journal();
            let mut open = journal.unfinished()?;
            open.retain(|stored| !matches!(stored.progress.next(), Next::NeedsOperator(_)));
            let granted = open.iter().map(|stored| journal.is_granted(&stored.id));
            granted.collect::<Result<Vec<bool>, _>>()?.contains(&true)
        };
        open.then(|| self.resume(Turn::Now, listeners)).transpose()
    }

    fn ailment(&self, before: u64, boot: &str) -> Result<Option<Ailment>, EngineError> {
        let grown = self.taint() & !before & COMPLAINTS;
        if grown != 0 && boot == self.host.incarnation.boot_id.to_string() {
            return Ok(Some(Ailment::Kernel(grown)));
        }
        let status = self.status()?;
        // In the middle of something else nothing can be said of this.
        let settled = status.in_progress.is_none() && status.unfinished.is_empty();
        Ok((settled && !status.standings().all(Standing::is_sound)).then_some(Ailment::Unsound))
    }

    /// The kernel's taint flags; none where they cannot be read.
    pub(super) fn taint(&self) -> u64 {
        let path = self.host.root.join("proc/sys/kernel/tainted");
        std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// The most that controllers have shown this host.
    ///
    /// # Errors
    /// [`EngineError::Journal`].
    pub fn seen(&self) -> Result<Seen, EngineError> {
        Ok(self.journal().seen()?)
    }

    /// Takes a grant where nothing is to be done.
    pub(super) fn take_alone(journal: &mut Journal, grant: &TakenGrant) -> Result<(), EngineError> {
        Ok(journal.write("take a grant", |db, link| grant.write(db, None, link))?)
    }
}

fn request<'a>(papers: &Papers<'a>) -> Request<'a> {
    Request {
        manifest: papers.manifest,
        payloads: papers.payloads,
        quarantine: Quarantine::Heed,
        heeding: Heeding::Heed,
        along: None,
    }
}

/// A ledger only grows: of one size it has one root.
fn refuse_fork(seen: &Seen, found: LedgerHead) -> Result<(), ErrandError> {
    match seen.ledger {
        Some(seen) if seen.size == found.size && seen.root != found.root => {
            Err(ErrandError::Fork { seen, found })
        }
        Some(seen) if seen.size > found.size => {
            tracing::warn!(
                seen = seen.size,
                found = found.size,
                "the controller's ledger is shorter than it was: it was restored, or somebody rewrites it"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}
