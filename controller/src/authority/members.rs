//! The hosts of the fleet as the authority knows them: what it could offer each, what they say of themselves, and who
//! leaves.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use fleet::facts::{Change, Exposed, FleetExposure, HostFacts};
use fleet::host::Host;
use fleet::protocol::{Hint, Offer};
use fleet::rollout::{Action, Claim, HostState, Place, Stage};
use manifests::{CveId, DomainName, GroupName, HostId, KeyName, LabelValue, ManifestName, Sha256, UtcTime};
use serde::Serialize;

use super::facts::{Departure, Fact, FactsRecord, decode, encode, of_hosts};
use super::standing::word;
use super::{Authority, Denied, known_rollout};
use crate::store::{Expect, Key, Put, Record};

/// What a host could do now. A hint: only `begin` lets it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outlook {
    /// What it could begin.
    pub offers: Vec<Offer>,
    /// Rollouts of which what runs on it should turn back.
    pub stop: Vec<Sha256>,
    /// Whether it was told to begin and has not said how it went.
    pub under_way: bool,
    /// Manifests of the fleet that mean it, the latest version of each: it says what it is exposed to by them.
    pub manifests: Vec<Sha256>,
}

/// A host with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Portrait {
    /// What rollouts know of it.
    pub host: Host,
    /// What it says of itself; nothing before it did.
    pub facts: Option<HostFacts>,
    /// For how many hours it has been exposed to what, all told.
    pub exposed_hours: BTreeMap<CveId, u64>,
    /// Where it stands in each rollout that has it, in one word.
    pub rollouts: BTreeMap<Sha256, String>,
}

/// A host, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Known {
    /// What rollouts know of it.
    #[serde(flatten)]
    pub host: Host,
    /// What it calls itself.
    pub name: LabelValue,
}

/// The fleet at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// A line for each host.
    pub lines: Vec<HostLine>,
    /// How it stands to each vulnerability that a host has named.
    pub exposures: Vec<FleetExposure>,
}

/// A host, in a list of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLine {
    /// What rollouts know of it.
    pub host: Host,
    /// What it calls itself.
    pub name: LabelValue,
    /// What it is exposed to.
    pub exposed: Vec<CveId>,
    /// Whether something was wrong with it after the fleet changed it: complaints of its kernel, failed probes, restarts.
    pub ails: bool,
}

impl HostLine {
    fn of(host: Host, record: Option<FactsRecord>) -> Self {
        let Some(FactsRecord { facts, exposed }) = record else {
            return Self { name: host.role.clone(), host, exposed: Vec::new(), ails: false };
        };
        let ill = |change: &Change| {
            change.splats > 0 || change.taints > 0 || change.probes.failed > 0 || !change.restarted.is_empty()
        };
        let exposed = exposed.into_iter().filter(|(_, exposed)| exposed.since.is_some()).map(|(cve, _)| cve);
        // The last one: what was before it is over.
        let ails = facts.changes.first().is_some_and(ill);
        Self { host, name: facts.name, exposed: exposed.collect(), ails }
    }
}

/// What a host is moved to; nothing stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The groups that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupName>>,
    /// What it fails together with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainName>,
    /// What it is there for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<LabelValue>,
}

impl Authority {
    /// What a host could do now.
    ///
    /// # Errors
    /// [`Denied::NoSuchHost`] if it is not, or no more, in the fleet.
    pub fn outlook(&self, host: HostId) -> Result<Outlook, Denied> {
        let turn = self.turn()?;
        if !turn.known.hosts.contains_key(&host) {
            return Err(Denied::NoSuchHost { host });
        }
        let mut outlook = Outlook { manifests: manifests_for(&turn.known, host), ..Outlook::default() };
        for (rollout, running) in &turn.known.rollouts {
            let Some(place) = running.place(host) else { continue };
            let Some(state) = running.progress.host(place) else { continue };
            let stage = running.progress.stage();
            outlook.under_way |= state.is_open();
            let offer = |action, earliest| Offer {
                rollout: *rollout,
                manifest: running.document.manifest,
                action,
                earliest,
            };
            match (stage, state) {
                (Stage::Running | Stage::Completed, HostState::Offered | HostState::Ready) => {
                    let earliest = running.document.schedule.earliest(*rollout, host);
                    outlook.offers.extend(earliest.map(|earliest| offer(Action::Apply, earliest)));
                }
                (Stage::Halted(_) | Stage::RollingBack, HostState::Granted { .. }) => {
                    outlook.stop.push(*rollout);
                }
                (Stage::RollingBack, HostState::RollbackGranted { .. }) => {}
                (Stage::RollingBack, _) => {
                    let since = running.progress.changed_since(place).filter(|_| !state.is_open());
                    outlook.offers.extend(since.map(|since| offer(Action::Rollback, since)));
                }
                _ => {}
            }
        }
        Ok(outlook)
    }

    /// A host that is in the fleet.
    ///
    /// # Errors
    /// [`Denied::NoSuchHost`].
    pub fn host(&self, host: HostId) -> Result<Host, Denied> {
        self.turn()?.known.hosts.get(&host).cloned().ok_or(Denied::NoSuchHost { host })
    }

    /// Who is in the fleet.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn members(&self) -> Result<Vec<HostId>, Denied> {
        Ok(self.turn()?.known.hosts.keys().copied().collect())
    }

    /// The fleet.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn hosts(&self) -> Result<Vec<Known>, Denied> {
        let facts_too = |(host, record): (Host, Option<FactsRecord>)| {
            let name = record.map_or_else(|| host.role.clone(), |record| record.facts.name);
            Known { host, name }
        };
        Ok(self.roster()?.into_iter().map(facts_too).collect())
    }

    /// The fleet, with what each host says of itself.
    fn roster(&self) -> Result<Vec<(Host, Option<FactsRecord>)>, Denied> {
        // Nobody who is about to begin waits while so much is read.
        let hosts: Vec<Host> = self.turn()?.known.hosts.values().cloned().collect();
        let mut facts = self.all_facts()?;
        let with_facts = |host: Host| {
            let record = facts.remove(&facts_key(host.id));
            (host, record)
        };
        Ok(hosts.into_iter().map(with_facts).collect())
    }

    /// The fleet, a line for each host, and what it is exposed to.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn census(&self) -> Result<Census, Denied> {
        let (roster, now) = (self.roster()?, self.now());
        let exposures = exposures(&roster, None, now);
        let lines = roster.into_iter().map(|(host, record)| HostLine::of(host, record)).collect();
        Ok(Census { lines, exposures })
    }

    fn all_facts(&self) -> Result<BTreeMap<Key, FactsRecord>, Denied> {
        let read = |(key, record): (Key, Record)| Ok((key, decode("facts of a host", &record.value)?));
        self.store.room("facts")?.into_iter().map(read).collect()
    }

    fn facts_record(&self, host: HostId) -> Result<Option<FactsRecord>, Denied> {
        let Some(record) = self.store.record(&facts_key(host))? else { return Ok(None) };
        Ok(Some(decode("facts of a host", &record.value)?))
    }

    /// A host with all that it says of itself, and where it stands in each rollout that has it.
    ///
    /// # Errors
    /// [`Denied::NoSuchHost`].
    pub fn portrait(&self, host: HostId) -> Result<Portrait, Denied> {
        let turn = self.turn()?;
        let known = turn.known.hosts.get(&host).cloned().ok_or(Denied::NoSuchHost { host })?;
        let record = self.facts_record(host)?;
        let now = self.now();
        let rollouts = turn.known.rollouts.iter().filter_map(|(rollout, running)| {
            let state = running.place(host).and_then(|place| running.progress.host(place))?;
            Some((*rollout, word(state).to_owned()))
        });
        let rollouts = rollouts.collect();
        let (facts, exposed) =
            record.map_or((None, BTreeMap::new()), |record| (Some(record.facts), record.exposed));
        let hours = |(cve, exposed): (CveId, Exposed)| (cve, exposed.until(now) / 3600);
        let exposed_hours = exposed.into_iter().map(hours).collect();
        Ok(Portrait { host: known, facts, exposed_hours, rollouts })
    }

    /// How the fleet stands to each vulnerability that a host has named, or to this one; by the hosts' own words.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn exposures(&self, wanted: Option<&CveId>) -> Result<Vec<FleetExposure>, Denied> {
        Ok(exposures(&self.roster()?, wanted, self.now()))
    }

    /// The digest of what a host last said of itself; nothing if it never did.
    ///
    /// # Errors
    /// [`Denied::Store`].
    pub fn facts_of(&self, host: HostId) -> Result<Option<Sha256>, Denied> {
        Ok(self.facts_record(host)?.map(|record| record.facts.digest()))
    }

    /// A host says what it is like. Rollouts that are laid out keep what they knew.
    ///
    /// # Errors
    /// [`Denied::NoSuchHost`].
    pub fn describe(&self, host: HostId, facts: &HostFacts) -> Result<(), Denied> {
        self.change_host(host, |decision, known| {
            facts.describe(known);
            let key = facts_key(host);
            let before = self.store.record(&key)?;
            let revision = before.as_ref().map_or(0, |record| record.revision);
            let before = before.map(|record| decode("facts of a host", &record.value)).transpose()?;
            let value = encode(&FactsRecord::next(before, facts.clone(), decision.now));
            decision.batch.expects.push(Expect { key: key.clone(), revision });
            decision.batch.puts.push(Put { key, value });
            Ok(Fact::Described { at: decision.now, host, facts: facts.digest() })
        })
    }

    /// Moves a host between groups, domains and roles. Rollouts that are laid out keep what they knew.
    ///
    /// # Errors
    /// [`Denied::NoSuchHost`].
    pub fn relabel(&self, host: HostId, to: &Move, by: &KeyName) -> Result<(), Denied> {
        self.change_host(host, |decision, known| {
            let Move { groups, domain, role } = to.clone();
            known.groups = groups.unwrap_or_else(|| std::mem::take(&mut known.groups));
            known.domain = domain.unwrap_or_else(|| known.domain.clone());
            known.role = role.unwrap_or_else(|| known.role.clone());
            let Host { groups, domain, role, .. } = known.clone();
            Ok(Fact::Moved { at: decision.now, host, by: by.clone(), groups, domain, role })
        })
    }

    fn change_host(
        &self,
        host: HostId,
        mut change: impl FnMut(&mut super::Decision<'_>, &mut Host) -> Result<Fact, Denied>,
    ) -> Result<(), Denied> {
        self.settle(|decision| {
            let mut known =
                decision.turn.known.hosts.get(&host).cloned().ok_or(Denied::NoSuchHost { host })?;
            let fact = change(decision, &mut known)?;
            let key = Key::new("host", host);
            let revision = self.store.record(&key)?.map_or(0, |record| record.revision);
            decision.batch.expects.push(Expect { key: key.clone(), revision });
            decision.batch.puts.push(Put { key, value: encode(&known) });
            decision.say(&fact, of_hosts());
            decision.seat(known);
            Ok(())
        })
    }

    /// A host leaves the fleet: nothing is said to it any more, and it gets nothing in any rollout.
    ///
    /// # Errors
    /// [`Denied::NoSuchHost`].
    pub fn dismiss(&self, host: HostId, how: Departure, by: &KeyName) -> Result<(), Denied> {
        self.settle(|decision| {
            if !decision.turn.known.hosts.contains_key(&host) {
                return Err(Denied::NoSuchHost { host });
            }
            let rollouts: Vec<(Sha256, Place)> = decision
                .turn
                .known
                .rollouts
                .iter()
                .filter_map(|(rollout, running)| Some((*rollout, running.place(host)?)))
                .collect();
            for (rollout, place) in rollouts {
                let running = known_rollout(&decision.turn.known, rollout)?;
                let may = matches!(
                    running.progress.host(place),
                    Some(HostState::Listed | HostState::Offered | HostState::Ready | HostState::Busy { .. })
                );
                if may && running.progress.stage().is_live() {
                    decision.happen(rollout, fleet::rollout::Event::Withdrawn { host: place })?;
                }
            }
            let key = Key::new("left", host);
            let revision = self.store.record(&key)?.map_or(0, |record| record.revision);
            decision.batch.expects.push(Expect { key: key.clone(), revision });
            decision.batch.puts.push(Put { key, value: encode(&how) });
            decision.say(&Fact::Left { at: decision.now, host, how, by: by.clone() }, of_hosts());
            decision.turn.known.unseat(host);
            Ok(())
        })
    }
}

/// How these hosts stand to each vulnerability that one has named, or to this one.
fn exposures(
    roster: &[(Host, Option<FactsRecord>)],
    wanted: Option<&CveId>,
    now: UtcTime,
) -> Vec<FleetExposure> {
    let mut all: BTreeMap<CveId, (FleetExposure, u64)> = BTreeMap::new();
    for (host, record) in roster {
        let Some(record) = record else { continue };
        for (cve, exposed) in record.exposed.iter().filter(|(cve, _)| wanted.is_none_or(|w| w == *cve)) {
            let (fleet, seconds) = all.entry(cve.clone()).or_insert_with(|| (FleetExposure::none(cve), 0));
            *seconds += exposed.until(now);
            fleet.count(host.id, record.facts.standing(cve));
        }
    }
    let in_hours =
        |(fleet, seconds): (FleetExposure, u64)| FleetExposure { host_hours: seconds / 3600, ..fleet };
    all.into_values().map(in_hours).collect()
}

/// The latest version of each manifest that is for this host, by rollouts that count. The latest first, as far as a hint
/// holds them.
fn manifests_for(known: &super::Known, host: HostId) -> Vec<Sha256> {
    let Some(host) = known.hosts.get(&host) else { return Vec::new() };
    let mut latest: BTreeMap<&ManifestName, &Claim> = BTreeMap::new();
    for running in known.rollouts.values().filter(|running| running.plan.policy.selector.selects(host)) {
        let claim = latest.entry(&running.claim.name).or_insert(&running.claim);
        if (running.claim.version, running.claim.issued) > (claim.version, claim.issued) {
            *claim = &running.claim;
        }
    }
    let mut latest: Vec<&Claim> = latest.into_values().collect();
    latest.sort_by_key(|claim| Reverse(claim.issued));
    latest.into_iter().take(Hint::MAX_MANIFESTS).map(|claim| claim.manifest).collect()
}

fn facts_key(host: HostId) -> Key {
    Key::new("facts", host)
}
