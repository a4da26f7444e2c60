//! The one authority of a fleet: it decides by `fleet`'s state machine, and writes each decision before it says it.
//!
//! - **`begin` is the only way to a grant.** It is decided on what follows from the ledger, and written only if the
//!   ledger still has the size that it was decided on and the lease still is this controller's: so halts, caps and
//!   grants are one order, whoever else writes. A grant is given out after it is on disk, never before.
//! - The same attempt gets the same bytes again, and only while it could begin now.
//! - Many hosts ask at once: whoever gets the turn answers all that wait, in one group, with one wait for the disk.
//! - A holder that could not renew its lease for [`HELD`] stops by itself.
//! - After an error of the store nothing in memory is believed: it is made again from the ledger.
//!
//! Rooms: [`facts`] what the ledger says, `known` what follows from it, `members` the hosts, `grant` the document, `error` the
//! refusals; what people see: `standing`, `view`, `trace` and `calendar` of rollouts, `told` of the ledger, `failures`.

mod calendar;
mod error;
pub mod facts;
mod failures;
mod grant;
mod known;
mod members;
mod standing;
mod told;
mod trace;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet::assurance::{Assurance, assure};
use fleet::host::Host;
use fleet::policy::HealthQuery;
use fleet::protocol::{AttemptReport, BeginRequest};
use fleet::rollout::{
    Action, Author, Begin, Comparison, Entry, Event, Explanation, Facts, Fault, HostState, NotNow, Pause,
    Place, Proof, Report, Request, Sides, Stage, Stale, Waiting, begin, decide, explain, hear, succeed,
    waiting,
};
use manifests::{
    Envelope, GroupName, HostId, LedgerHead, Ordered, Rollout, SecretKey, Sha256, UtcTime, Verified,
};
use system::clock::Clock;

pub use self::calendar::RolloutCalendar;
pub use self::failures::{Cause, FailedHost, Wrong};
pub use self::members::{Census, HostLine, Known as KnownHost, Move, Outlook, Portrait};
pub use self::standing::{HealthStanding, Reason, Standing, WaveStanding};
pub use self::told::Told;
pub use self::trace::Point;
pub use self::view::{Reach, TestView, View, fault};
pub use error::Denied;

use self::facts::{Fact, PlanRecord, of_retries, of_rollout, of_store};
use self::grant::Granting;
use self::known::{Known, Running, grant_key};
use crate::ledger::{Origin, checkpoint};
use crate::store::lease::HELD;
use crate::store::{
    Batch, Expect, Key, Lease, LeaseAnswer, LeaseRequest, Put, Receipt, Refused, Store, StoreError, Which,
};

/// A host that reports a higher epoch is believed up to so many above the current one: leases last for seconds at
/// least, so this is months of nothing but changes, and a lie cannot use the numbers up.
pub const MAX_JUMP: u64 = 1 << 20;

/// How often a decision is made again because somebody else wrote first. Whoever holds the lease has no rival.
const TRIES: u32 = 4;

/// Since when hosts were heard of, and what else is known besides the ledger.
pub struct Surroundings<'s> {
    /// When a host was last heard of.
    pub last_seen: &'s dyn Fn(HostId) -> Option<UtcTime>,
    /// Since when somebody has been listening without a break.
    pub listening_since: UtcTime,
    /// What came out of the health queries that were asked, by rollout.
    pub readings: &'s BTreeMap<Sha256, BTreeMap<GroupName, Comparison>>,
}

/// A health query that somebody has to ask.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthQuestion {
    /// Of which rollout.
    pub rollout: Sha256,
    /// What to ask.
    pub query: HealthQuery,
    /// How often.
    pub every: Duration,
}

impl HealthQuestion {
    /// What tells it from all others.
    pub fn key(&self) -> (Sha256, GroupName) {
        (self.rollout, self.query.name.clone())
    }
}

/// A rollout that was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// What it is worth for this fleet.
    pub assurance: Assurance,
    /// Rollouts that end when it begins.
    pub supersedes: Vec<Sha256>,
}

/// What people want of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// It may begin, or go on after its first wave.
    Approve,
    /// Nobody begins until told.
    Pause,
    /// It goes on.
    Resume,
    /// It is given up; what is applied stays.
    Abort,
    /// Hosts go back.
    RollBack,
    /// Hosts that came back from its manifest may have that again: these, or all of them.
    Retry(Vec<HostId>),
}

impl Order {
    /// An order, and the hosts that it names.
    pub fn of(order: Ordered, hosts: &[HostId]) -> Self {
        match order {
            Ordered::Approve => Self::Approve,
            Ordered::Pause => Self::Pause,
            Ordered::Resume => Self::Resume,
            Ordered::Abort => Self::Abort,
            Ordered::RollBack => Self::RollBack,
            Ordered::Retry => Self::Retry(hosts.to_vec()),
        }
    }
}

/// A host's question.
enum Question {
    Begin(BeginRequest),
    Report(AttemptReport),
}

/// What a host is told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Grant(String),
    Heard(Event),
}

type Slot = Arc<Mutex<Option<Result<Answer, Denied>>>>;

struct Asked {
    host: HostId,
    question: Question,
    slot: Slot,
}

/// Hosts that wait for an answer.
#[derive(Default)]
struct Queue {
    asked: Vec<Asked>,
    /// Whether somebody answers a group.
    serving: bool,
}

/// The turn to answer a group. It ends also by a panic: the next one takes over.
struct Serving<'a>(&'a Authority);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        locked(&self.0.queue).serving = false;
        self.0.served.notify_all();
    }
}

/// See [the module](self).
pub struct Authority {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock + Send + Sync>,
    key: SecretKey,
    origin: Origin,
    holder: String,
    queue: Mutex<Queue>,
    served: Condvar,
    turn: Mutex<Turn>,
}

/// What only one at a time may touch.
struct Turn {
    lease: Lease,
    /// When it was taken or renewed last, by the clock that does not jump; never, if this controller has had none yet.
    renewed: Option<Duration>,
    known: Known,
    /// Whether `known` may be another thing than the ledger says.
    doubt: bool,
}

/// Whatever a panic left in a lock was not written, or is written and read again.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Authority {
    /// Takes the lease, and learns from the ledger what there is. `holder` is a name that no other running controller
    /// has; `above` the highest epoch that is known to have been in force.
    ///
    /// # Errors
    /// [`Denied::NoLease`] if another controller holds the lease; it is worth asking again when that may have run out.
    pub fn take(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock + Send + Sync>,
        key: SecretKey,
        origin: Origin,
        holder: String,
        above: u64,
    ) -> Result<Self, Denied> {
        let turn = Turn::take(&*store, &*clock, &holder, above)?;
        Ok(Self::with(store, clock, key, origin, holder, turn))
    }

    /// Takes the lease if it is nobody's. Beside a controller that holds it this one waits: it answers nothing before it has
    /// [retaken](Self::retake) it.
    ///
    /// # Errors
    /// [`Denied::Store`].
    pub fn take_or_wait(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock + Send + Sync>,
        key: SecretKey,
        origin: Origin,
        holder: String,
    ) -> Result<Self, Denied> {
        let turn = match Turn::take(&*store, &*clock, &holder, 0) {
            Err(Denied::NoLease) => {
                let lease = Lease { holder: holder.clone(), epoch: 0, until: jiff::Timestamp::UNIX_EPOCH };
                let known = Known::load(&*store, lease.epoch)?;
                Turn { lease, renewed: None, known, doubt: true }
            }
            taken => taken?,
        };
        Ok(Self::with(store, clock, key, origin, holder, turn))
    }

    fn with(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock + Send + Sync>,
        key: SecretKey,
        origin: Origin,
        holder: String,
        turn: Turn,
    ) -> Self {
        let (queue, served, turn) = (Mutex::default(), Condvar::new(), Mutex::new(turn));
        Self { store, clock, key, origin, holder, queue, served, turn }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The name under which this controller takes leases.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Whether it has a lease that it may still act on.
    pub fn leads(&self) -> bool {
        self.in_time(&locked(&self.turn))
    }

    fn in_time(&self, turn: &Turn) -> bool {
        turn.renewed.is_some_and(|renewed| self.clock.elapsed().saturating_sub(renewed) < HELD)
    }

    /// The epoch under which this controller writes.
    pub fn epoch(&self) -> u64 {
        locked(&self.turn).lease.epoch
    }

    /// Renews the lease. To be called every few seconds.
    ///
    /// # Errors
    /// [`Denied::NoLease`] if it is lost: this authority grants nothing any more.
    pub fn renew(&self) -> Result<(), Denied> {
        self.renew_lease(&mut locked(&self.turn))
    }

    /// Takes a lease after the last one was lost, or for the first time, and learns from the ledger what others did meanwhile. A store
    /// that lost its end (a failover) may have forgotten the epoch that this controller had: it goes above that, too.
    ///
    /// # Errors
    /// [`Denied::NoLease`] while another holds it.
    pub fn retake(&self) -> Result<(), Denied> {
        let mut turn = locked(&self.turn);
        *turn = Turn::take(&*self.store, &*self.clock, &self.holder, turn.lease.epoch)?;
        Ok(())
    }

    fn renew_lease(&self, turn: &mut Turn) -> Result<(), Denied> {
        if turn.renewed.is_none() {
            return Err(Denied::NoLease);
        }
        // Before it is asked: the store counts from later on.
        let asked = self.clock.elapsed();
        match self.store.lease(LeaseRequest::Renew { epoch: turn.lease.epoch })? {
            LeaseAnswer::Yours(lease) => {
                turn.lease = lease;
                turn.renewed = Some(asked);
                Ok(())
            }
            _ => Err(Denied::NoLease),
        }
    }

    /// Gives the lease back, so that another controller need not wait.
    ///
    /// # Errors
    /// [`Denied::Store`]; it runs out by itself.
    pub fn release(self) -> Result<(), Denied> {
        self.store.lease(LeaseRequest::Release { epoch: locked(&self.turn).lease.epoch })?;
        Ok(())
    }

    /// The turn, with a lease that is in time and knowledge that is the ledger's.
    fn turn(&self) -> Result<MutexGuard<'_, Turn>, Denied> {
        let mut turn = locked(&self.turn);
        self.ready(&mut turn)?;
        Ok(turn)
    }

    fn ready(&self, turn: &mut Turn) -> Result<(), Denied> {
        if !self.in_time(turn) {
            self.renew_lease(turn)?;
        }
        if turn.doubt {
            turn.known = Known::load(&*self.store, turn.lease.epoch)?;
            turn.doubt = false;
        }
        Ok(())
    }

    fn now(&self) -> UtcTime {
        UtcTime::floor(self.store.now())
    }

    /// Answers a host that is about to begin: the signed grant, on disk.
    ///
    /// # Errors
    /// [`Denied::NotNow`] says why not; the others are no answer to the host.
    pub fn begin(&self, host: HostId, request: BeginRequest) -> Result<String, Denied> {
        match self.ask(host, Question::Begin(request))? {
            Answer::Grant(envelope) => Ok(envelope),
            Answer::Heard(event) => unreachable!("a host that asked to begin was heard: {event:?}"),
        }
    }

    /// Hears what a host says of an attempt; the event that it is.
    ///
    /// # Errors
    /// [`Denied::Stale`] if it says nothing new.
    pub fn report(&self, host: HostId, report: AttemptReport) -> Result<Event, Denied> {
        match self.ask(host, Question::Report(report))? {
            Answer::Heard(event) => Ok(event),
            Answer::Grant(grant) => unreachable!("a host that reported was told to begin: {grant}"),
        }
    }

    fn ask(&self, host: HostId, question: Question) -> Result<Answer, Denied> {
        let slot = Slot::default();
        let mut queue = locked(&self.queue);
        queue.asked.push(Asked { host, question, slot: Arc::clone(&slot) });
        // While one group is on its way to the disk, the next one gathers.
        while queue.serving {
            queue = self.served.wait(queue).unwrap_or_else(PoisonError::into_inner);
            if let Some(answer) = locked(&slot).take() {
                return answer;
            }
        }
        queue.serving = true;
        let all = std::mem::take(&mut queue.asked);
        drop(queue);
        let serving = Serving(self);
        self.serve(&mut locked(&self.turn), all);
        drop(serving);
        locked(&slot).take().unwrap_or(Err(Denied::Lost))
    }

    /// Answers everybody. Who was decided on what was not so after all is decided again.
    fn serve(&self, turn: &mut Turn, mut asked: Vec<Asked>) {
        for _ in 0..TRIES {
            asked = self.serve_once(turn, asked);
            if asked.is_empty() {
                return;
            }
        }
        answer_all(asked, &Denied::Busy { tries: TRIES });
    }

    /// One group; those who have to be asked once more.
    fn serve_once(&self, turn: &mut Turn, all: Vec<Asked>) -> Vec<Asked> {
        let seen = all.iter().filter_map(|asked| match &asked.question {
            Question::Begin(request) if turn.known.hosts.contains_key(&asked.host) => Some(request.epoch),
            _ => None,
        });
        let seen =
            seen.filter(|epoch| *epoch <= turn.lease.epoch.saturating_add(MAX_JUMP)).max().unwrap_or(0);
        let ready = if seen > turn.lease.epoch { self.go_above(turn, seen) } else { self.ready(turn) };
        if let Err(denied) = ready {
            answer_all(all, &denied);
            return Vec::new();
        }
        // Until all is known to be on disk; also if this panics.
        turn.doubt = true;
        let mut doubt = false;
        let now = self.now();
        let mut group = Vec::new();
        let mut decided = Vec::new();
        // Grants of this group, which the store does not have yet.
        let mut fresh = BTreeMap::new();
        for asked in all {
            match self.decide_one(turn, &asked, now, &mut fresh) {
                Ok((batch, head, answer)) => {
                    group.push(batch);
                    decided.push((asked, head, answer));
                }
                Err(denied) => answer_one(&asked, Err(denied)),
            }
        }
        if group.is_empty() {
            turn.doubt = false;
            return Vec::new();
        }
        let receipts = match self.store.commit(group) {
            Ok(receipts) => receipts,
            Err(error) => {
                let denied = Denied::from(error);
                decided.iter().for_each(|(asked, ..)| answer_one(asked, Err(denied.clone())));
                return Vec::new();
            }
        };
        let mut again = Vec::new();
        for ((asked, head, answer), receipt) in decided.into_iter().zip(receipts) {
            match receipt {
                Ok(Receipt { head: found }) if found == head => answer_one(&asked, Ok(answer)),
                Ok(Receipt { head: found }) => {
                    doubt = true;
                    let what = format!("its tree grew to {found:?}, and its entries make {head:?}");
                    answer_one(&asked, Err(StoreError::Damaged { what }.into()));
                }
                Err(Refused::Epoch { .. } | Refused::RanOut { .. }) => {
                    doubt = true;
                    answer_one(&asked, Err(Denied::NoLease));
                }
                Err(_) => {
                    doubt = true;
                    again.push(asked);
                }
            }
        }
        turn.doubt = doubt;
        again
    }

    /// A host has seen a later lease than this: a failover or a backup lost it. Its grants would be refused.
    /// Nobody else had the lease in between, so what is known stays.
    fn go_above(&self, turn: &mut Turn, seen: u64) -> Result<(), Denied> {
        self.ready(turn)?;
        let renewed = Some(self.clock.elapsed());
        let request = LeaseRequest::Take { holder: self.holder.clone(), above: seen };
        let LeaseAnswer::Yours(lease) = self.store.lease(request)? else { return Err(Denied::NoLease) };
        turn.doubt = true;
        let fact = Fact::LeaseTaken { at: self.now(), holder: self.holder.clone(), epoch: lease.epoch };
        turn.known.book.epoch = lease.epoch;
        (turn.lease, turn.renewed) = (lease, renewed);
        let mut batch = follow(turn);
        append(turn, &mut batch, &fact, of_store());
        match self.store.commit(vec![batch])?.pop() {
            Some(Ok(receipt)) => turn.doubt = receipt.head != turn.known.frontier.head(),
            Some(Err(Refused::Epoch { .. } | Refused::RanOut { .. })) | None => return Err(Denied::NoLease),
            Some(Err(_)) => {}
        }
        self.ready(turn)
    }

    fn decide_one(
        &self,
        turn: &mut Turn,
        asked: &Asked,
        now: UtcTime,
        fresh: &mut BTreeMap<Key, String>,
    ) -> Result<(Batch, LedgerHead, Answer), Denied> {
        match &asked.question {
            Question::Begin(request) => self.decide_begin(turn, asked.host, request, now, fresh),
            Question::Report(report) => {
                let AttemptReport { rollout, nonce, said, .. } = *report;
                let running = known_rollout(&turn.known, rollout)?;
                let place = running.place(asked.host).ok_or(Denied::Stale(Stale::NoSuchHost))?;
                let heard = Report { host: place, nonce, said };
                let event = hear(&running.progress, &heard).map_err(Denied::Stale)?;
                let mut batch = follow(turn);
                batch.puts.extend(failures::record(asked.host, report, &event, now));
                self.write(turn, &mut batch, rollout, Entry { at: now, event: event.clone() })?;
                Ok((batch, turn.known.frontier.head(), Answer::Heard(event)))
            }
        }
    }

    fn decide_begin(
        &self,
        turn: &mut Turn,
        host: HostId,
        request: &BeginRequest,
        now: UtcTime,
        fresh: &mut BTreeMap<Key, String>,
    ) -> Result<(Batch, LedgerHead, Answer), Denied> {
        let BeginRequest { rollout, action, nonce, epoch: claimed, .. } = *request;
        let epoch = turn.lease.epoch;
        if claimed > epoch {
            return Err(Denied::FarAhead { claimed, current: epoch, most: epoch.saturating_add(MAX_JUMP) });
        }
        let manifest = known_rollout(&turn.known, rollout)?.document.manifest;
        turn.known.book.came_back = turn.known.came_back(manifest);
        let running = known_rollout(&turn.known, rollout)?;
        let place = running.place(host).ok_or(Denied::NotNow(NotNow::NoSuchHost))?;
        let question = Request { host: place, action, nonce, epoch };
        let answer = begin(&running.plan, &running.progress, &turn.known.book, &question, now);
        let key = grant_key(rollout, host);
        let mut batch = follow(turn);
        match answer.map_err(Denied::NotNow)? {
            Begin::Again => {
                // Also this is written, as nothing: refused if a halt came, or another controller.
                let bytes = match fresh.get(&key) {
                    Some(envelope) => envelope.clone(),
                    None => self.given(&key)?,
                };
                Ok((batch, turn.known.frontier.head(), Answer::Grant(bytes)))
            }
            Begin::Write(event) => {
                if action == Action::Apply {
                    in_time(&running.document, rollout, host, now)?;
                }
                let wave = running.progress.wave_of(place);
                self.write(turn, &mut batch, rollout, Entry { at: now, event })?;
                let (ledger, document) =
                    (turn.known.frontier.head(), &known_rollout(&turn.known, rollout)?.document);
                let granting =
                    Granting { rollout, document, host, action, wave, epoch, nonce, at: now, ledger };
                let envelope = granting.sign(&self.key);
                batch.puts.push(Put { key: key.clone(), value: envelope.clone().into_bytes() });
                fresh.insert(key, envelope.clone());
                Ok((batch, ledger, Answer::Grant(envelope)))
            }
        }
    }

    fn given(&self, key: &Key) -> Result<String, Denied> {
        let damaged =
            || StoreError::Damaged { what: format!("{key} is not there, and the ledger says it was given") };
        let record = self.store.record(key)?.ok_or_else(damaged)?;
        Ok(String::from_utf8(record.value).map_err(|_| damaged())?)
    }

    /// Applies an event, and puts its entry into the batch. What fails changes neither.
    fn write(&self, turn: &mut Turn, batch: &mut Batch, rollout: Sha256, entry: Entry) -> Result<(), Denied> {
        turn.known.apply(rollout, &entry).map_err(Denied::Impossible)?;
        append(turn, batch, &Fact::happened(&entry), of_rollout(rollout));
        Ok(())
    }

    /// Makes a decision, and writes it; again while others write first. `decide` finds the knowledge as it was each time.
    pub(crate) fn settle<T>(
        &self,
        mut decide: impl FnMut(&mut Decision<'_>) -> Result<T, Denied>,
    ) -> Result<T, Denied> {
        let mut turn = self.turn()?;
        for _ in 0..TRIES {
            self.ready(&mut turn)?;
            let batch = follow(&turn);
            // Until it is known to be on disk; also if this panics.
            turn.doubt = true;
            let mut decision = Decision { authority: self, batch, now: self.now(), turn: &mut turn };
            let value = decide(&mut decision);
            let batch = decision.batch;
            let head = turn.known.frontier.head();
            if batch.entries.is_empty() && batch.puts.is_empty() {
                turn.doubt = false;
                return value;
            }
            // Of several events some may have been applied before one could not.
            let value = value?;
            match self.store.commit(vec![batch])?.pop() {
                Some(Ok(receipt)) if receipt.head == head => {
                    turn.doubt = false;
                    return Ok(value);
                }
                Some(Err(Refused::Epoch { .. } | Refused::RanOut { .. })) => return Err(Denied::NoLease),
                _ => {}
            }
        }
        Err(Denied::Busy { tries: TRIES })
    }

    /// Accepts a rollout that people signed. `document` is the verified content of `envelope`, `version` its manifest's.
    ///
    /// # Errors
    /// [`Denied::Unfit`] with the arithmetic if it could never end well, [`Denied::Outdated`] if it comes too late, and
    /// others that say why.
    pub fn submit(
        &self,
        envelope: &Envelope,
        document: &Verified<Rollout>,
        policy: &str,
        version: u64,
    ) -> Result<Accepted, Denied> {
        let rollout = document.digest();
        let (expected, found) = (document.policy, Sha256::of(policy.as_bytes()));
        if expected != found {
            return Err(Denied::Policy { expected, found });
        }
        self.settle(|decision| {
            if decision.turn.known.rollouts.contains_key(&rollout) {
                return Err(Denied::Known { rollout });
            }
            let groups = |host: &&Host| host.groups.iter().any(|group| document.groups.contains(group));
            let inventory: Vec<Host> = decision.turn.known.hosts.values().filter(groups).cloned().collect();
            let (document, policy) = (envelope.to_json(), policy.to_owned());
            let mut record = PlanRecord { document, policy, version, supersedes: Vec::new(), inventory };
            let mut running = Running::new(rollout, &record)?;
            let known = decision.turn.known.rollouts.values();
            let known = known.map(|running| (&running.claim, &running.progress));
            let supersedes = succeed(&running.claim, known).map_err(Denied::Outdated)?;
            record.supersedes.clone_from(&supersedes);
            running.supersedes.clone_from(&supersedes);
            let bytes = facts::encode(&record);
            let start = running.plan.not_before.max(decision.now);
            let assurance = assure(&running.plan.policy, &running.plan.layout, start, running.plan.expires);
            let assurance = assurance.map_err(|why| Denied::Unfit { why })?;
            let (manifest, plan) = (running.claim.manifest, Sha256::of(&bytes));
            let key = Key::new("plan", rollout);
            decision.batch.expects.push(Expect { key: key.clone(), revision: 0 });
            decision.batch.puts.push(Put { key, value: bytes });
            decision.turn.known.rollouts.insert(rollout, running);
            let fact = Fact::Accepted { at: decision.now, manifest, plan };
            decision.say(&fact, of_rollout(rollout));
            decision.happen(rollout, Event::Submitted)?;
            Ok(Accepted { assurance, supersedes })
        })
    }

    /// Tells a rollout what people want. Whether they may say it, `fleet` says: a token only slows down.
    ///
    /// # Errors
    /// [`Denied::Impossible`] if that cannot follow, or if it needs a signature.
    pub fn order(&self, rollout: Sha256, order: &Order, by: &Author) -> Result<(), Denied> {
        let event = {
            let by = by.clone();
            match order {
                Order::Approve => Event::Approved { by },
                Order::Pause => Event::Paused { cause: Pause::Operator { by } },
                Order::Resume => Event::Resumed { by },
                Order::Abort => Event::Aborted { by },
                Order::RollBack => Event::RollbackBegun { by: Some(by) },
                Order::Retry(hosts) => return self.retry(rollout, hosts, &by),
            }
        };
        self.settle(|decision| decision.happen(rollout, event.clone()))
    }

    /// Hosts that came back from a rollout's manifest may have it again: these, or all of them. In each rollout of that
    /// manifest that may go on they stand where they stood before they began.
    fn retry(&self, rollout: Sha256, hosts: &[HostId], by: &Author) -> Result<(), Denied> {
        if by.proof != Proof::Signature {
            return Err(Denied::Unsigned { order: Ordered::Retry });
        }
        self.settle(|decision| {
            let manifest = known_rollout(&decision.turn.known, rollout)?.document.manifest;
            let back = decision.turn.known.came_back(manifest);
            if let Some(host) = hosts.iter().find(|host| !back.contains(host)) {
                return Err(Denied::NeverCameBack { host: *host, manifest });
            }
            let named = |host: &HostId| hosts.is_empty() || hosts.contains(host);
            let hosts: Vec<HostId> = back.into_iter().filter(named).collect();
            if hosts.is_empty() {
                return Err(Denied::NobodyCameBack { manifest });
            }
            let number = decision.turn.known.frontier.size();
            let at = decision.now;
            decision.say(&Fact::Retried { at, manifest, hosts: hosts.clone(), by: by.clone() }, of_retries());
            decision.turn.known.retry(manifest, &hosts, number);
            for (rollout, host) in waiting_for(&decision.turn.known, manifest, &hosts) {
                decision.happen(rollout, Event::Retried { host, by: by.clone() })?;
            }
            Ok(())
        })
    }

    /// Writes down everything that is due, in all rollouts; how many events that were.
    ///
    /// # Errors
    /// [`Denied`]; what was due stays due.
    pub fn tick(&self, around: &Surroundings<'_>) -> Result<usize, Denied> {
        self.settle(|decision| {
            let mut rollouts: Vec<(u64, Sha256)> = decision
                .turn
                .known
                .rollouts
                .iter()
                .map(|(rollout, running)| (running.claim.version, *rollout))
                .collect();
            // What takes another's place begins before it is asked what that comes to.
            rollouts.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
            let mut written = 0;
            for (_, rollout) in rollouts {
                for host in late_joiners(&decision.turn.known, rollout)? {
                    decision.happen(rollout, Event::Joined { host: Box::new(host) })?;
                    written += 1;
                }
                for (host, into) in rebooted(&decision.turn.known, rollout)? {
                    decision.happen(rollout, Event::Rebooted { host, into: Box::new(into) })?;
                    written += 1;
                }
                loop {
                    let running = known_rollout(&decision.turn.known, rollout)?;
                    let came_back = decision.turn.known.came_back(running.document.manifest);
                    let none = BTreeMap::new();
                    let facts = Facts {
                        last_seen: &|place| (around.last_seen)(running.host(place)?.id),
                        listening_since: around.listening_since,
                        readings: around.readings.get(&rollout).unwrap_or(&none),
                        came_back: &came_back,
                        successor: decision.turn.known.successor(rollout),
                    };
                    let due = decide(&running.plan, &running.progress, &facts, decision.now);
                    if due.is_empty() {
                        break;
                    }
                    for event in due {
                        decision.happen(rollout, event)?;
                        written += 1;
                    }
                }
            }
            Ok(written)
        })
    }

    /// The health queries that are to be asked now: of rollouts in which hosts with the change can be compared with others.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn questions(&self, around: &Surroundings<'_>) -> Result<Vec<HealthQuestion>, Denied> {
        let (turn, now) = (self.turn()?, self.now());
        let asks = |(rollout, running): (&Sha256, &Running)| {
            let every = Duration::from_secs(running.plan.policy.asks_every().secs().into());
            let question =
                |query: &HealthQuery| HealthQuestion { rollout: *rollout, query: query.clone(), every };
            sides(running, around, now)
                .map(|_| running.plan.policy.health.iter().map(question).collect::<Vec<_>>())
        };
        Ok(turn.known.rollouts.iter().filter_map(asks).flatten().collect())
    }

    /// What the numbers of hosts come to; nothing if there is nothing to compare any more.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn compare(
        &self,
        around: &Surroundings<'_>,
        question: &HealthQuestion,
        numbers: &BTreeMap<HostId, f64>,
    ) -> Result<Option<Comparison>, Denied> {
        let (turn, now) = (self.turn()?, self.now());
        let running = known_rollout(&turn.known, question.rollout)?;
        let number = |place| numbers.get(&running.host(place)?.id).copied();
        Ok(sides(running, around, now).map(|sides| sides.compare(&question.query, number)))
    }

    /// Hosts of which a word is waited for: told to begin or to go back, or watched.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn in_flight(&self) -> Result<Vec<HostId>, Denied> {
        let turn = self.turn()?;
        let moves = |state: &HostState| state.is_open() || matches!(state, HostState::Applied { .. });
        let of = |running: &Running| {
            let hosts = running.progress.hosts().iter().enumerate().filter(|(_, state)| moves(state));
            hosts.filter_map(|(place, _)| Some(running.host(place)?.id)).collect::<Vec<_>>()
        };
        let all: BTreeSet<HostId> = turn.known.rollouts.values().flat_map(of).collect();
        Ok(all.into_iter().collect())
    }

    /// Keeps records that no decision follows from, for as long as the lease is this controller's.
    ///
    /// # Errors
    /// [`Denied::NoLease`], [`Denied::Store`].
    pub fn keep(&self, puts: Vec<Put>) -> Result<(), Denied> {
        let turn = self.turn()?;
        let batch = Batch { epoch: turn.lease.epoch, puts, ..Batch::default() };
        match self.store.commit(vec![batch])?.pop() {
            Some(Ok(_)) => Ok(()),
            _ => Err(Denied::NoLease),
        }
    }

    /// Where a rollout stands, and why it does not go on.
    ///
    /// # Errors
    /// [`Denied::NoSuchRollout`].
    pub fn standing(&self, rollout: Sha256) -> Result<(Stage, Vec<Waiting>), Denied> {
        let turn = self.turn()?;
        let running = known_rollout(&turn.known, rollout)?;
        let reasons = waiting(&running.plan, &running.progress, &turn.known.book, self.now());
        Ok((running.progress.stage().clone(), reasons))
    }

    /// Where a host stands in a rollout; nothing if it is not in it.
    ///
    /// # Errors
    /// [`Denied::NoSuchRollout`].
    pub fn host_state(&self, rollout: Sha256, host: HostId) -> Result<Option<HostState>, Denied> {
        let turn = self.turn()?;
        let running = known_rollout(&turn.known, rollout)?;
        Ok(running.place(host).and_then(|place| running.progress.host(place)).copied())
    }

    /// Whether a host came back from a rollout's manifest, and nobody has said that it may have it again.
    ///
    /// # Errors
    /// [`Denied::NoSuchRollout`].
    pub fn came_back(&self, rollout: Sha256, host: HostId) -> Result<bool, Denied> {
        let turn = self.turn()?;
        let manifest = known_rollout(&turn.known, rollout)?.document.manifest;
        Ok(turn.known.came_back(manifest).contains(&host))
    }

    /// Tells from the ledger why a host got something or did not.
    ///
    /// # Errors
    /// [`Denied::NoSuchRollout`], or what is wrong with the ledger.
    pub fn explain(&self, rollout: Sha256, host: HostId) -> Result<Explanation, Denied> {
        let turn = self.turn()?;
        let running = known_rollout(&turn.known, rollout)?;
        let mut entries = Vec::new();
        for (_, entry) in self.store.entries(&Which::Stream(of_rollout(rollout)), usize::MAX)? {
            if let Fact::Happened { at, event } = Fact::read(&entry)? {
                entries.push(Entry { at, event });
            }
        }
        explain(&running.plan, &entries, host).map_err(Denied::Impossible)
    }

    /// The ledger's head: what everything that this controller wrote or read makes.
    ///
    /// # Errors
    /// [`Denied::NoLease`]: only its holder knows that nobody writes another history.
    pub fn head(&self) -> Result<LedgerHead, Denied> {
        Ok(self.turn()?.known.frontier.head())
    }

    /// The same, signed.
    ///
    /// # Errors
    /// [`Denied::NoLease`]: only its holder knows that nobody writes another history.
    pub fn checkpoint(&self) -> Result<String, Denied> {
        Ok(checkpoint::sign(&self.origin, &self.head()?, &self.key))
    }
}

/// A decision in the making.
pub(crate) struct Decision<'d> {
    authority: &'d Authority,
    turn: &'d mut Turn,
    pub(crate) batch: Batch,
    pub(crate) now: UtcTime,
}

impl Decision<'_> {
    /// Something happens to a rollout.
    pub(crate) fn happen(&mut self, rollout: Sha256, event: Event) -> Result<(), Denied> {
        known_rollout(&self.turn.known, rollout)?;
        self.authority.write(self.turn, &mut self.batch, rollout, Entry { at: self.now, event })
    }

    /// The ledger is told something.
    pub(crate) fn say(&mut self, fact: &Fact, stream: Key) {
        append(self.turn, &mut self.batch, fact, stream);
    }

    /// A host comes in, or is another one than before.
    pub(crate) fn seat(&mut self, host: Host) {
        self.turn.known.seat(host);
    }

    /// The rollouts that may go on.
    pub(crate) fn live(&self) -> Vec<(Sha256, Stage)> {
        let stage = |(rollout, running): (&Sha256, &Running)| (*rollout, running.progress.stage().clone());
        self.turn.known.rollouts.iter().map(stage).filter(|(_, stage)| stage.is_live()).collect()
    }
}

/// An empty batch that follows what is known.
fn follow(turn: &Turn) -> Batch {
    Batch { epoch: turn.lease.epoch, after: Some(turn.known.frontier.size()), ..Batch::default() }
}

fn append(turn: &mut Turn, batch: &mut Batch, fact: &Fact, stream: Key) {
    let entry = fact.entry(stream);
    turn.known.frontier.append(&entry.leaf_bytes());
    batch.entries.push(entry);
}

fn known_rollout(known: &Known, rollout: Sha256) -> Result<&Running, Denied> {
    known.rollouts.get(&rollout).ok_or(Denied::NoSuchRollout { rollout })
}

/// Which hosts can be compared with which.
fn sides(running: &Running, around: &Surroundings<'_>, now: UtcTime) -> Option<Sides> {
    let seen = |place| (around.last_seen)(running.host(place)?.id);
    let heard = |place| seen(place).max(Some(around.listening_since));
    Sides::of(&running.plan, &running.progress, heard, now)
}

/// Hosts refuse a grant before their time; one that was given too early would only be lost.
fn in_time(document: &Rollout, rollout: Sha256, host: HostId, now: UtcTime) -> Result<(), Denied> {
    match document.schedule.earliest(rollout, host) {
        Some(earliest) if earliest <= now => Ok(()),
        Some(until) => Err(Denied::NotNow(NotNow::NotBefore { until })),
        None => Err(Denied::NotNow(NotNow::NotReady)),
    }
}

/// Hosts that came in after the rollout was laid out, and that it is for.
fn late_joiners(known: &Known, rollout: Sha256) -> Result<Vec<Host>, Denied> {
    let running = known_rollout(known, rollout)?;
    if !running.progress.stage().is_live() {
        return Ok(Vec::new());
    }
    let is_for = |host: &&Host| {
        host.groups.iter().any(|group| running.document.groups.contains(group))
            && running.plan.policy.selector.selects(host)
            && running.place(host.id).is_none()
    };
    Ok(known.hosts.values().filter(is_for).cloned().collect())
}

/// Where these hosts get nothing any more, in rollouts of this manifest that may go on.
fn waiting_for(known: &Known, manifest: Sha256, hosts: &[HostId]) -> Vec<(Sha256, Place)> {
    let live = known
        .rollouts
        .iter()
        .filter(|(_, running)| running.document.manifest == manifest && running.progress.stage().is_live());
    live.flat_map(|(rollout, running)| {
        // Who left the fleet stays away.
        let there = hosts.iter().filter(|host| known.hosts.contains_key(host));
        let out = there.filter_map(|host| running.place(*host)).filter(|place| {
            matches!(
                running.progress.host(*place),
                Some(HostState::Withdrawn | HostState::Bad { fault: Fault::Restored, .. })
            )
        });
        out.map(|place| (*rollout, place)).collect::<Vec<_>>()
    })
    .collect()
}

/// Hosts that have come out of a completed rollout and run another kernel now than they were offered it for.
fn rebooted(known: &Known, rollout: Sha256) -> Result<Vec<(Place, Host)>, Denied> {
    let running = known_rollout(known, rollout)?;
    if running.progress.stage() != &Stage::Completed {
        return Ok(Vec::new());
    }
    let due = known.hosts.values().filter_map(|host| {
        let place = running.place(host.id)?;
        running.progress.is_due_again(&running.plan, place, host).then(|| (place, host.clone()))
    });
    Ok(due.collect())
}

fn answer_one(asked: &Asked, answer: Result<Answer, Denied>) {
    *locked(&asked.slot) = Some(answer);
}

fn answer_all(all: Vec<Asked>, denied: &Denied) {
    all.iter().for_each(|asked| answer_one(asked, Err(denied.clone())));
}

impl Turn {
    /// Takes a lease above `above`, writes that down, and learns what there is.
    fn take(store: &dyn Store, clock: &dyn Clock, holder: &str, above: u64) -> Result<Self, Denied> {
        let renewed = Some(clock.elapsed());
        let lease = match store.lease(LeaseRequest::Take { holder: holder.to_owned(), above })? {
            LeaseAnswer::Yours(lease) => lease,
            _ => return Err(Denied::NoLease),
        };
        let at = UtcTime::floor(store.now());
        let fact = Fact::LeaseTaken { at, holder: holder.to_owned(), epoch: lease.epoch };
        for _ in 0..TRIES {
            // The last batch of the holder before may still have been under way when the size was read.
            let batch = Batch {
                epoch: lease.epoch,
                after: Some(store.size()?),
                entries: vec![fact.entry(of_store())],
                ..Batch::default()
            };
            match store.commit(vec![batch])?.pop() {
                Some(Ok(_)) => {
                    let known = Known::load(store, lease.epoch)?;
                    return Ok(Self { lease, renewed, known, doubt: false });
                }
                Some(Err(Refused::Ledger { .. })) => {}
                _ => return Err(Denied::NoLease),
            }
        }
        Err(Denied::Busy { tries: TRIES })
    }
}
