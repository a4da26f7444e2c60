//! A newer rollout of the same manifest takes an older one's place half-way, in every order of messages and crashes.
//!
//! As in `model.rs`, the rollouts' own `apply`, `decide`, `begin` and `succeed` run in a model of the world around them: a
//! network that delivers whatever was ever sent, as often and as late as it likes or never; executors that crash and forget what
//! they asked. The newer rollout is handed in at any moment, or never. Both are decided in one transaction, the newer one
//! first, as the controller does. That two controllers write in one order is the business of the other model.

mod checked;

use std::collections::{BTreeMap, BTreeSet};

use fleet::host::Host;
use fleet::policy::RolloutPolicy;
use fleet::rollout::{
    Action as Doing, Begin, Book, Claim, Entry, Event, Facts, Fault, HostState, Outcome, Place, Plan,
    Progress, Report, Request, Said, Stage, Successor, begin, decide, hear, succeed,
};
use fleet::simulate::inventory::Synthetic;
use manifests::{Nonce, Sha256, UtcTime};
use stateright::{Model, Property};

const HOSTS: usize = 2;
const DAYS: u8 = 2;

/// The rollouts, by the version of their manifest.
const OLDER: usize = 0;
const NEWER: usize = 1;

/// Which safeguard is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    None,
    /// Nobody tells the older rollout that the newer one has begun.
    SuccessorIgnored,
    /// The older rollout is decided before the newer one, and so learns of it a round too late.
    OlderFirst,
    /// Open grants are counted for each rollout by itself.
    BookOfEach,
}

struct Fleet {
    plans: [Plan; 2],
    claims: [Claim; 2],
    mutant: Mutant,
    days: [UtcTime; DAYS as usize + 1],
    empty: Book,
}

/// An attempt: of which rollout, and its nonce.
type Attempt = (usize, Doing, Nonce);

/// What a host's executor is doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Executor {
    asked: Option<Attempt>,
    running: Option<Attempt>,
    /// How often it has asked for something of each rollout.
    attempts: [u8; 2],
    crashed: bool,
    /// The newest rollout that it has begun: it refuses what is older.
    floor: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Ask { host: Place, rollout: usize, rollback: bool, nonce: Nonce },
    Grant { host: Place, rollout: usize, rollback: bool, nonce: Nonce },
    Report { host: Place, rollout: usize, nonce: Nonce, said: Said },
}

const APPLIED: Said = Said::Applied;
const HURT: Said = Said::Hurt { fault: Fault::Restored };
const BACK: Said = Said::RolledBack;
const NOT_BEGUN: Said = Said::Declined { outcome: Outcome::Refused };

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// The older one is there from the beginning.
    rollouts: [Option<Progress>; 2],
    day: u8,
    sent: BTreeSet<Message>,
    hosts: [Executor; HOSTS],
    /// What must never have happened.
    granted_behind: bool,
    /// What may: a host finished for the older one when that was over.
    finished_after: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Day,
    HandIn,
    Decide,
    Deliver { message: Message },
    Ask { host: Place, rollout: usize, rollback: bool },
    Begin { host: Place, attempt: Attempt },
    Finish { host: Place, said: Said },
    Crash { host: Place },
}

fn doing(rollback: bool) -> Doing {
    if rollback { Doing::Rollback } else { Doing::Apply }
}

impl Fleet {
    fn new(mutant: Mutant) -> Self {
        let policy = "schema: 1\nselector: {groups: [fleet]}\nwaves: {start_over: 0s, largest: 100%}\n\
            deadline: {host: 1d}\ncaps: {fleet: 100%, domain: 100%}\n";
        let policy = RolloutPolicy::parse(policy.as_bytes()).unwrap();
        let inventory = Synthetic { hosts: HOSTS as u32, ..Synthetic::default() }.inventory();
        let days: [UtcTime; DAYS as usize + 1] =
            std::array::from_fn(|day| format!("2026-11-0{}T00:00:00Z", day + 1).parse().unwrap());
        let plans = [b"r", b"s"].map(|name| {
            let end = "2027-01-01T00:00:00Z".parse().unwrap();
            Plan::new(Sha256::of(name), policy.clone(), &inventory, days[0], end)
        });
        plans.iter().for_each(|plan| assert_eq!(plan.layout.ends, [1, 2]));
        let claims = std::array::from_fn(|rollout| Claim {
            rollout: plans[rollout].rollout,
            issued: days[0],
            name: "fix".parse().unwrap(),
            version: rollout as u64 + 1,
            manifest: Sha256::of(&[rollout as u8]),
            selector: policy.selector.clone(),
            supersedes: Vec::new(),
        });
        Self { plans, claims, mutant, days, empty: Book::of(&inventory, 0) }
    }

    fn host(&self, host: Place) -> &Host {
        &self.plans[OLDER].layout.members[host].host
    }

    /// Where a host stands in the order of a rollout: each has an order of its own.
    fn place(&self, rollout: usize, host: Place) -> Place {
        let members = &self.plans[rollout].layout.members;
        members.iter().position(|member| member.host.id == self.host(host).id).unwrap()
    }

    fn state(&self, world: &World, rollout: usize, host: Place) -> Option<HostState> {
        Some(world.rollouts[rollout].as_ref()?.hosts()[self.place(rollout, host)])
    }

    fn now(&self, world: &World) -> UtcTime {
        self.days[usize::from(world.day)]
    }

    /// What a transaction reads of all rollouts.
    fn book(&self, world: &World, asked: usize) -> Book {
        let mut book = self.empty.clone();
        for (rollout, host) in
            [OLDER, NEWER].into_iter().flat_map(|rollout| (0..HOSTS).map(move |host| (rollout, host)))
        {
            let counts = self.mutant != Mutant::BookOfEach || rollout == asked;
            if counts && self.state(world, rollout, host).is_some_and(|state| state.is_open()) {
                book.enter(self.host(host));
            }
        }
        book
    }

    fn write(&self, world: &mut World, rollout: usize, event: Event) -> bool {
        let entry = Entry { at: self.now(world), event };
        let Some(progress) = &mut world.rollouts[rollout] else { return false };
        progress.apply(&self.plans[rollout], &entry).is_ok()
    }

    fn successor(&self, world: &World, rollout: usize) -> Option<Successor> {
        let newer = world.rollouts[NEWER].as_ref().filter(|newer| rollout == OLDER && newer.opened() > 0);
        let by = Successor { rollout: self.plans[NEWER].rollout, version: 2 };
        newer.map(|_| by).filter(|_| self.mutant != Mutant::SuccessorIgnored)
    }

    /// One round of the clockwork: all of it is written, or nothing.
    fn decide(&self, world: &mut World) {
        let order = if self.mutant == Mutant::OlderFirst { [OLDER, NEWER] } else { [NEWER, OLDER] };
        for rollout in order {
            while let Some(progress) = &world.rollouts[rollout] {
                let hosts = world.hosts.clone();
                // A host that is in the middle of it, or crashed, is not heard of.
                let seen = |place: Place| {
                    let id = self.plans[rollout].layout.members[place].host.id;
                    let host = (0..HOSTS).find(|host| self.host(*host).id == id)?;
                    (hosts[host].running.is_none() && !hosts[host].crashed).then_some(self.now(world))
                };
                let (readings, came_back) = (BTreeMap::new(), BTreeSet::new());
                let facts = Facts {
                    last_seen: &seen,
                    listening_since: self.days[0],
                    readings: &readings,
                    came_back: &came_back,
                    successor: self.successor(world, rollout),
                };
                let events = decide(&self.plans[rollout], progress, &facts, self.now(world));
                if events.is_empty() || !events.into_iter().all(|event| self.write(world, rollout, event)) {
                    break;
                }
            }
        }
    }

    fn answer(&self, world: &mut World, (rollout, action, nonce): Attempt, host: Place) {
        let Some(progress) = &world.rollouts[rollout] else { return };
        let book = self.book(world, rollout);
        let place = self.place(rollout, host);
        let request = Request { host: place, action, nonce, epoch: book.epoch };
        let rollback = action == Doing::Rollback;
        let grant = Message::Grant { host, rollout, rollback, nonce };
        let behind =
            rollout == OLDER && world.rollouts[NEWER].as_ref().is_some_and(|newer| newer.opened() > 0);
        match begin(&self.plans[rollout], progress, &book, &request, self.now(world)) {
            Ok(Begin::Again) => {
                world.granted_behind |= behind && !rollback;
                world.sent.insert(grant);
            }
            Ok(Begin::Write(event)) => {
                if self.write(world, rollout, event) {
                    world.granted_behind |= behind && !rollback;
                    world.sent.insert(grant);
                }
            }
            Err(_) => {}
        }
    }

    fn report(&self, world: &mut World, host: Place, rollout: usize, (nonce, said): (Nonce, Said)) {
        let Some(progress) = &world.rollouts[rollout] else { return };
        let over = matches!(progress.stage(), Stage::Superseded(_));
        let report = Report { host: self.place(rollout, host), nonce: Some(nonce), said };
        // What was said before, or comes too late, changes nothing.
        if let Ok(event) = hear(progress, &report) {
            let written = self.write(world, rollout, event);
            world.finished_after |= written && over && said == APPLIED;
        }
    }
}

impl Model for Fleet {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            rollouts: [Some(Progress::new(&self.plans[OLDER])), None],
            day: 0,
            sent: BTreeSet::new(),
            hosts: Default::default(),
            granted_behind: false,
            finished_after: false,
        };
        self.write(&mut world, OLDER, Event::Submitted);
        self.decide(&mut world);
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.day < DAYS {
            steps.push(Step::Day);
        }
        if world.rollouts[NEWER].is_none() {
            steps.push(Step::HandIn);
        }
        steps.push(Step::Decide);
        for message in &world.sent {
            if !matches!(message, Message::Grant { .. }) {
                steps.push(Step::Deliver { message: message.clone() });
            }
        }
        for (host, executor) in world.hosts.iter().enumerate() {
            match executor.running {
                Some((rollout, Doing::Apply, _)) => {
                    steps.push(Step::Finish { host, said: APPLIED });
                    // What a halt of the older one is worth, the other model says.
                    if rollout == NEWER {
                        steps.push(Step::Finish { host, said: HURT });
                    }
                }
                Some((_, Doing::Rollback, _)) => steps.push(Step::Finish { host, said: BACK }),
                None => {
                    for rollout in [OLDER, NEWER] {
                        let Some(state) = self.state(world, rollout, host) else { continue };
                        if executor.asked.is_some() || executor.attempts[rollout] > 0 {
                            continue;
                        }
                        // A poll's answer is a hint, and may be an old one: the host may ask whenever it once could.
                        if matches!(state, HostState::Offered | HostState::Ready) {
                            steps.push(Step::Ask { host, rollout, rollback: false });
                        }
                        if state.changed_since().is_some() {
                            steps.push(Step::Ask { host, rollout, rollback: true });
                        }
                    }
                    if executor.asked.is_some() && !world.hosts.iter().any(|host| host.crashed) {
                        steps.push(Step::Crash { host });
                    }
                }
            }
            for message in &world.sent {
                if let Message::Grant { host: to, rollout, rollback, nonce } = *message
                    && to == host
                {
                    steps.push(Step::Begin { host, attempt: (rollout, doing(rollback), nonce) });
                }
            }
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Day => {
                world.day += 1;
                // A grant counts for two minutes after its nonce was made.
                world.hosts.iter_mut().for_each(|host| host.asked = None);
            }
            Step::HandIn => {
                let older = world.rollouts[OLDER].as_ref()?;
                let ends = succeed(&self.claims[NEWER], [(&self.claims[OLDER], older)].into_iter()).ok()?;
                let live = older.stage().is_live();
                assert_eq!(ends, if live { vec![self.claims[OLDER].rollout] } else { Vec::new() });
                world.rollouts[NEWER] = Some(Progress::new(&self.plans[NEWER]));
                if !self.write(&mut world, NEWER, Event::Submitted) {
                    return None;
                }
            }
            Step::Decide => self.decide(&mut world),
            Step::Deliver { message } => match message {
                Message::Ask { host, rollout, rollback, nonce } => {
                    self.answer(&mut world, (rollout, doing(rollback), nonce), host);
                }
                Message::Report { host, rollout, nonce, said } => {
                    self.report(&mut world, host, rollout, (nonce, said));
                }
                Message::Grant { .. } => return None,
            },
            Step::Ask { host, rollout, rollback } => {
                // It says that it is ready, and asks.
                let place = self.place(rollout, host);
                let ready = Entry { at: self.now(&world), event: Event::Ready { host: place } };
                let progress = world.rollouts[rollout].as_mut()?;
                if progress.hosts()[place] == HostState::Offered {
                    progress.apply(&self.plans[rollout], &ready).ok()?;
                }
                let executor = &mut world.hosts[host];
                executor.attempts[rollout] += 1;
                let nonce =
                    Nonce::from_bytes([16 * host as u8 + 4 * rollout as u8 + executor.attempts[rollout]; 16]);
                executor.asked = Some((rollout, doing(rollback), nonce));
                world.sent.insert(Message::Ask { host, rollout, rollback, nonce });
            }
            Step::Begin { host, attempt } => {
                let executor = &mut world.hosts[host];
                if executor.asked != Some(attempt) || executor.running.is_some() {
                    return None;
                }
                let (rollout, doing, nonce) = attempt;
                executor.asked = None;
                if doing == Doing::Apply && rollout < executor.floor {
                    world.sent.insert(Message::Report { host, rollout, nonce, said: NOT_BEGUN });
                } else {
                    executor.floor = executor.floor.max(rollout);
                    executor.running = Some(attempt);
                }
            }
            Step::Finish { host, said } => {
                let (rollout, _, nonce) = world.hosts[host].running.take()?;
                world.sent.insert(Message::Report { host, rollout, nonce, said });
            }
            Step::Crash { host } => {
                let (rollout, _, nonce) = world.hosts[host].asked.take()?;
                world.hosts[host].crashed = true;
                // When it is up again it says that it has begun nothing, and never will for this attempt.
                world.sent.insert(Message::Report { host, rollout, nonce, said: NOT_BEGUN });
            }
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn older(world: &World) -> &Progress {
            world.rollouts[OLDER].as_ref().unwrap()
        }
        fn newer(world: &World) -> Option<&Progress> {
            world.rollouts[NEWER].as_ref()
        }
        fn is_over(world: &World) -> bool {
            matches!(older(world).stage(), Stage::Superseded(_))
        }
        vec![
            Property::always("no host has grants of both", |fleet: &Self, world: &World| {
                (0..HOSTS).all(|host| {
                    let open = |rollout: &usize| {
                        fleet.state(world, *rollout, host).is_some_and(|state| state.is_open())
                    };
                    [OLDER, NEWER].iter().filter(|rollout| open(rollout)).count() <= 1
                })
            }),
            Property::always(
                "nobody is told to begin by what the newer one stands before",
                |_, world: &World| !world.granted_behind,
            ),
            Property::always("one of the two goes on", |_, world: &World| {
                let begun = newer(world).is_some_and(|newer| newer.opened() > 0);
                !begun || !older(world).stage().is_live()
            }),
            Property::always("until the newer one begins the older one goes on", |_, world: &World| {
                newer(world).is_some_and(|newer| newer.opened() > 0) || !is_over(world)
            }),
            Property::always(
                "who is in the middle of it is known or counted as lost",
                |fleet: &Self, world: &World| {
                    world.hosts.iter().enumerate().all(|(host, executor)| {
                        executor.running.is_none_or(|(rollout, ..)| {
                            fleet.state(world, rollout, host).is_some_and(|state| {
                                state.is_open() || matches!(state, HostState::Bad { .. } | HostState::Stuck)
                            })
                        })
                    })
                },
            ),
            Property::sometimes("the newer one completes in the place of the older", |_, world: &World| {
                is_over(world) && newer(world).is_some_and(|newer| newer.stage() == &Stage::Completed)
            }),
            Property::sometimes("a host in flight finishes when its rollout is over", |_, world: &World| {
                world.finished_after
            }),
            Property::sometimes("a host that finished is watched to its end", |_, world: &World| {
                world.finished_after
                    && older(world).hosts().iter().any(|host| matches!(host, HostState::Good { .. }))
            }),
            Property::sometimes(
                "the newer one halts and goes back, and the older one stays over",
                |_, world: &World| {
                    is_over(world) && newer(world).is_some_and(|newer| newer.stage() == &Stage::RolledBack)
                },
            ),
            Property::sometimes("the older one completes before the newer one begins", |_, world: &World| {
                older(world).stage() == &Stage::Completed && newer(world).is_some()
            }),
        ]
    }
}

fn found(mutant: Mutant, property: &'static str) {
    checked::found(Fleet::new(mutant), mutant, property);
}

#[test]
fn in_every_order_the_newer_rollout_takes_the_older_ones_place_and_leaves_none_hanging() {
    checked::holds(Fleet::new(Mutant::None));
}

#[test]
fn an_older_rollout_that_goes_on_is_caught() {
    found(Mutant::SuccessorIgnored, "one of the two goes on");
}

#[test]
fn a_grant_of_an_older_rollout_that_learns_too_late_is_caught() {
    found(Mutant::OlderFirst, "nobody is told to begin by what the newer one stands before");
}

#[test]
fn open_grants_that_are_counted_for_each_rollout_by_itself_are_caught() {
    found(Mutant::BookOfEach, "no host has grants of both");
}
