//! What follows from the ledger: every rollout's state, and the book of what is open over all of them.
//!
//! It is kept in memory so that a question costs no query, and is worth nothing by itself: whatever is decided on it is
//! written only if the ledger still has the size that it was made from.

use std::collections::{BTreeMap, BTreeSet};

use fleet::host::Host;
use fleet::policy::RolloutPolicy;
use fleet::rollout::{
    Book, Claim, Entry, Event, Fault, HostState, Impossible, Place, Plan, Progress, Successor,
};
use manifests::{Envelope, HostId, Profile, Rollout, Sha256};

use super::facts::{Fact, PlanRecord, decode, of_retries, of_rollout};
use super::trace::Trace;
use crate::ledger::Frontier;
use crate::store::{Key, Store, StoreError, Which};

/// A rollout, as far as it has come.
pub(super) struct Running {
    pub(super) document: Rollout,
    pub(super) plan: Plan,
    pub(super) progress: Progress,
    /// Whose place it takes.
    pub(super) claim: Claim,
    /// Rollouts that end when it begins.
    pub(super) supersedes: Vec<Sha256>,
    /// What people see of its way.
    pub(super) trace: Trace,
    places: BTreeMap<HostId, Place>,
}

impl Running {
    /// A rollout from what it follows from, before anything happened to it.
    pub(super) fn new(rollout: Sha256, record: &PlanRecord) -> Result<Self, StoreError> {
        let damaged = |what: String| StoreError::Damaged { what: format!("rollout {rollout}: {what}") };
        let envelope = Envelope::parse(record.document.as_bytes()).map_err(|e| damaged(e.to_string()))?;
        if envelope.payload_digest() != rollout {
            return Err(damaged("its document is another".to_owned()));
        }
        let document = Rollout::parse(envelope.unverified_payload()).map_err(|e| damaged(e.to_string()))?;
        if document.policy != Sha256::of(record.policy.as_bytes()) {
            return Err(damaged("its policy is another".to_owned()));
        }
        let policy = RolloutPolicy::parse(record.policy.as_bytes()).map_err(|e| damaged(e.to_string()))?;
        let policy = match document.profile {
            Profile::Ordinary => policy,
            Profile::Emergency => {
                policy.in_emergency().ok_or_else(|| damaged("its policy knows no emergency".to_owned()))?
            }
        };
        let claim = Claim {
            rollout,
            issued: document.issued,
            name: document.name.clone(),
            version: record.version,
            manifest: document.manifest,
            selector: policy.selector.clone(),
            supersedes: document.supersedes.clone(),
        };
        let plan = Plan::signed(rollout, &document, policy, &record.inventory);
        let places =
            plan.layout.members.iter().enumerate().map(|(at, member)| (member.host.id, at)).collect();
        let (progress, supersedes) = (Progress::new(&plan), record.supersedes.clone());
        Ok(Self { document, plan, progress, claim, supersedes, trace: Trace::default(), places })
    }

    /// Where a host stands in the order.
    pub(super) fn place(&self, host: HostId) -> Option<Place> {
        self.places.get(&host).copied()
    }

    /// Who stands there.
    pub(super) fn host(&self, place: Place) -> Option<&Host> {
        self.progress.member(&self.plan, place).map(|member| &member.host)
    }
}

/// What follows from the ledger.
pub(super) struct Known {
    pub(super) frontier: Frontier,
    pub(super) rollouts: BTreeMap<Sha256, Running>,
    pub(super) hosts: BTreeMap<HostId, Host>,
    pub(super) book: Book,
    /// Hosts that came back and may not try again, by manifest; and which entry of the ledger says so.
    came_back: BTreeMap<Sha256, BTreeMap<HostId, u64>>,
}

impl Known {
    /// Reads the store, and holds it against its own tree.
    pub(super) fn load(store: &dyn Store, epoch: u64) -> Result<Self, StoreError> {
        let size = store.size()?;
        let peaks = store.nodes(&Frontier::positions(size))?;
        let frontier = Frontier::new(size, peaks);
        let frontier =
            frontier.ok_or_else(|| StoreError::Damaged { what: "the ledger's edge".to_owned() })?;
        let mut hosts = BTreeMap::new();
        let left: BTreeSet<String> =
            store.room("left")?.into_iter().map(|(key, _)| key.as_str().replacen("left/", "", 1)).collect();
        for (_, record) in store.room("host")? {
            let host: Host = decode("a host", &record.value)?;
            if !left.contains(&host.id.to_string()) {
                hosts.insert(host.id, host);
            }
        }
        let book = Book::of(hosts.values(), epoch);
        let mut known = Self { frontier, rollouts: BTreeMap::new(), hosts, book, came_back: BTreeMap::new() };
        for (key, record) in store.room("plan")? {
            let rollout = key
                .as_str()
                .trim_start_matches("plan/")
                .parse()
                .map_err(|_| StoreError::Damaged { what: format!("{key} is not named by a digest") })?;
            known.load_rollout(store, rollout, &record.value)?;
        }
        known.load_retries(store)?;
        Ok(known)
    }

    fn load_rollout(&mut self, store: &dyn Store, rollout: Sha256, record: &[u8]) -> Result<(), StoreError> {
        let damaged = |what: String| StoreError::Damaged { what: format!("rollout {rollout}: {what}") };
        let mut running = Running::new(rollout, &decode("a rollout", record)?)?;
        let entries = store.entries(&Which::Stream(of_rollout(rollout)), usize::MAX)?;
        let mut accepted = false;
        for (number, entry) in entries {
            // Read after the size was: what came since belongs to the next look.
            if number >= self.frontier.size() {
                break;
            }
            match Fact::read(&entry)? {
                Fact::Accepted { plan, .. } if plan == Sha256::of(record) && !accepted => accepted = true,
                Fact::Happened { at, event } if accepted => {
                    self.take(&mut running, &Entry { at, event }, number)
                        .map_err(|e| damaged(e.to_string()))?;
                }
                other => return Err(damaged(format!("entry {number} does not belong there: {other:?}"))),
            }
        }
        if accepted {
            self.rollouts.insert(rollout, running);
        }
        Ok(())
    }

    /// What came back before people said that it may try again does not count.
    fn load_retries(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        for (number, entry) in store.entries(&Which::Stream(of_retries()), usize::MAX)? {
            let Fact::Retried { manifest, hosts, .. } = Fact::read(&entry)? else {
                return Err(StoreError::Damaged { what: format!("entry {number} does not belong there") });
            };
            if number < self.frontier.size() {
                self.retry(manifest, &hosts, number);
            }
        }
        Ok(())
    }

    /// Applies an event to a rollout that is known, and moves the book with it.
    pub(super) fn apply(&mut self, rollout: Sha256, entry: &Entry) -> Result<(), Impossible> {
        let Some(mut running) = self.rollouts.remove(&rollout) else {
            let (event, expected) = (format!("{:?}", entry.event), "a rollout that was accepted");
            return Err(Impossible { event, expected, found: rollout.to_string() });
        };
        let result = self.take(&mut running, entry, self.frontier.size());
        self.rollouts.insert(rollout, running);
        result
    }

    /// `number` is that of the entry in the ledger.
    fn take(&mut self, running: &mut Running, entry: &Entry, number: u64) -> Result<(), Impossible> {
        let place = entry.event.host();
        let is_open = |running: &Running| {
            place.and_then(|place| running.progress.host(place)).is_some_and(HostState::is_open)
        };
        let before = is_open(running);
        running.progress.apply(&running.plan, entry)?;
        running.trace.see(&running.plan, &running.progress, entry, number);
        let after = is_open(running);
        if let Event::Joined { host } = &entry.event {
            running.places.insert(host.id, running.progress.hosts().len() - 1);
        }
        let Some(host) = place.and_then(|place| running.host(place)) else { return Ok(()) };
        match (before, after) {
            (false, true) => self.book.enter(host),
            (true, false) => self.book.strike(host),
            _ => {}
        }
        if matches!(entry.event, Event::RolledBack { .. } | Event::Failed { fault: Fault::Restored, .. }) {
            self.came_back.entry(running.document.manifest).or_default().insert(host.id, number);
        }
        Ok(())
    }

    /// The rollout that takes this one's place and has begun; of several the one with the highest version.
    pub(super) fn successor(&self, rollout: Sha256) -> Option<Successor> {
        let takes =
            |running: &&Running| running.supersedes.contains(&rollout) && running.progress.opened() > 0;
        let successor =
            |running: &Running| Successor { rollout: running.claim.rollout, version: running.claim.version };
        self.rollouts.values().filter(takes).map(successor).max_by_key(|by| by.version)
    }

    /// Hosts that came back from a manifest, and may not try again.
    pub(super) fn came_back(&self, manifest: Sha256) -> BTreeSet<HostId> {
        self.came_back.get(&manifest).into_iter().flat_map(BTreeMap::keys).copied().collect()
    }

    /// These hosts may try again, by the entry with this number: whatever came back before.
    pub(super) fn retry(&mut self, manifest: Sha256, hosts: &[HostId], number: u64) {
        if let Some(back) = self.came_back.get_mut(&manifest) {
            back.retain(|host, when| *when > number || !hosts.contains(host));
        }
    }

    /// Takes a host in, or what it newly is.
    pub(super) fn seat(&mut self, host: Host) {
        self.hosts.insert(host.id, host);
        self.count_again();
    }

    /// A host leaves.
    pub(super) fn unseat(&mut self, host: HostId) {
        self.hosts.remove(&host);
        self.count_again();
    }

    fn count_again(&mut self) {
        let mut book = Book::of(self.hosts.values(), self.book.epoch);
        for running in self.rollouts.values() {
            let open =
                |(place, state): (Place, &HostState)| state.is_open().then(|| running.host(place)).flatten();
            running.progress.hosts().iter().enumerate().filter_map(open).for_each(|host| book.enter(host));
        }
        self.book = book;
    }
}

/// The record of a grant.
pub(super) fn grant_key(rollout: Sha256, host: HostId) -> Key {
    Key::new("grant", format_args!("{rollout}-{host}"))
}
