//! Every order of messages, crashes and changes of leadership, for two controllers, three hosts and two waves.
//!
//! The rollout's own `apply`, `decide` and `begin` run in a model of the world around them: a store whose transactions
//! are atomic, a network that delivers whatever was ever sent, as often and as late as it likes or never, controllers
//! that do not know that their lease is over, executors that crash and forget what they asked. Each mutant takes one
//! safeguard away, and the checker has to find what the safeguard is for.

mod checked;

use std::collections::{BTreeMap, BTreeSet};

use fleet::host::Host;
use fleet::policy::RolloutPolicy;
use fleet::rollout::{
    Action as Doing, Begin, Book, Entry, Event, Facts, Fault, HostState, Outcome, Place, Plan, Progress,
    Report, Request, Said, Stage, begin, decide, hear,
};
use fleet::simulate::inventory::Synthetic;
use manifests::{Nonce, Sha256, UtcTime};
use stateright::{Model, Property};

const HOSTS: usize = 3;
const DAYS: u8 = 2;
const EPOCHS: u64 = 2;
/// How often a host may ask, all told.
const ATTEMPTS: u8 = 2;

/// Which safeguard is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    None,
    /// The stage of the rollout is not looked at when a grant is given.
    HaltNotChecked,
    /// A controller that lost its lease goes on writing.
    EpochIgnored,
    /// An executor does not forget a nonce that it has used.
    NonceReused,
    /// A report is taken for one of the attempt that is under way, whichever it speaks of.
    AttemptIgnored,
    /// Caps are counted before the transaction that grants.
    CapCountedOutside,
}

struct Fleet {
    plan: Plan,
    mutant: Mutant,
    days: [UtcTime; DAYS as usize + 1],
    /// With nothing open, under no epoch.
    empty: Book,
}

/// What a host's executor is doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Executor {
    /// What it has asked for and not been answered.
    asked: Option<(Doing, Nonce)>,
    attempts: u8,
    running: Option<(Doing, Nonce)>,
    /// Under which nonces it has begun.
    begun: Vec<Nonce>,
    crashed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Ask { host: Place, rollback: bool, nonce: Nonce },
    Grant { host: Place, rollback: bool, nonce: Nonce },
    Report { host: Place, nonce: Nonce, said: Said },
}

const APPLIED: Said = Said::Applied;
const HURT: Said = Said::Hurt { fault: Fault::Restored };
const BACK: Said = Said::RolledBack;
const NOT_BEGUN: Said = Said::Declined { outcome: Outcome::Refused };

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    progress: Progress,
    day: u8,
    epoch: u64,
    /// The epoch that each controller believes in.
    leases: [u64; 2],
    /// What a controller has answered a host and not written yet; only with caps counted outside.
    unwritten: [Option<(usize, Event)>; HOSTS],
    /// Everything that was ever sent.
    sent: BTreeSet<Message>,
    hosts: [Executor; HOSTS],
    /// What must never have happened.
    granted_after_halt: bool,
    stale_write: bool,
    most_failures: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Day,
    TakeOver { controller: usize },
    Decide { controller: usize },
    Write { host: Place },
    Deliver { controller: usize, message: Message },
    Ask { host: Place, rollback: bool },
    Begin { host: Place, rollback: bool, nonce: Nonce },
    Finish { host: Place, said: Said },
    Crash { host: Place },
}

fn doing(rollback: bool) -> Doing {
    if rollback { Doing::Rollback } else { Doing::Apply }
}

fn day(day: u8) -> UtcTime {
    format!("2026-11-0{}T00:00:00Z", day + 1).parse().unwrap()
}

impl Fleet {
    fn new(mutant: Mutant) -> Self {
        let policy = "schema: 1\nselector: {groups: [fleet]}\nwaves: {start_over: 0s, largest: 100%}\n\
            deadline: {host: 1d}\ncaps: {fleet: 100%, domain: 1}\n";
        let policy = RolloutPolicy::parse(policy.as_bytes()).unwrap();
        let inventory = Synthetic { hosts: HOSTS as u32, ..Synthetic::default() }.inventory();
        let plan =
            Plan::new(Sha256::of(b"r"), policy, &inventory, day(0), "2027-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(plan.layout.ends, [1, 3]);
        let empty = Book::of(&inventory, 0);
        Self { plan, mutant, days: std::array::from_fn(|at| day(at as u8)), empty }
    }

    fn host(&self, host: Place) -> &Host {
        &self.plan.layout.members[host].host
    }

    fn now(&self, world: &World) -> UtcTime {
        self.days[usize::from(world.day)]
    }

    /// What a transaction reads of all rollouts.
    fn book(&self, world: &World) -> Book {
        let mut book = Book { epoch: world.epoch, ..self.empty.clone() };
        for (host, state) in world.progress.hosts().iter().enumerate() {
            if state.is_open() {
                book.enter(self.host(host));
            }
        }
        book
    }

    /// A transaction of `controller`: the epoch is compared, and the event written. Whether it was.
    fn write(&self, world: &mut World, controller: usize, event: Event) -> bool {
        let current = world.leases[controller] == world.epoch;
        if !current && self.mutant != Mutant::EpochIgnored {
            return false;
        }
        let written =
            world.progress.apply(&self.plan, &Entry { at: self.days[usize::from(world.day)], event }).is_ok();
        world.stale_write |= written && !current;
        world.most_failures = world.most_failures.max(world.progress.failures().len());
        written
    }

    fn decide(&self, world: &mut World, controller: usize) {
        loop {
            let (now, hosts) = (self.now(world), world.hosts.clone());
            // A host that is in the middle of it, or crashed, is not heard of.
            let seen = |host: Place| (hosts[host].running.is_none() && !hosts[host].crashed).then_some(now);
            let (readings, came_back) = (BTreeMap::new(), BTreeSet::new());
            let facts = Facts {
                last_seen: &seen,
                listening_since: self.days[0],
                readings: &readings,
                came_back: &came_back,
                successor: None,
            };
            let events = decide(&self.plan, &world.progress, &facts, now);
            if events.is_empty() || !events.into_iter().all(|event| self.write(world, controller, event)) {
                return;
            }
        }
    }

    fn answer(&self, world: &mut World, controller: usize, host: Place, rollback: bool, nonce: Nonce) {
        let book = self.book(world);
        let epoch = match self.mutant {
            Mutant::EpochIgnored => book.epoch,
            _ => world.leases[controller],
        };
        let request = Request { host, action: doing(rollback), nonce, epoch };
        let grant = Message::Grant { host, rollback, nonce };
        let halted = matches!(world.progress.stage(), Stage::Halted(_) | Stage::RollingBack);
        match begin(&self.plan, &world.progress, &book, &request, self.now(world)) {
            Ok(Begin::Again) => {
                world.sent.insert(grant);
            }
            Ok(Begin::Write(event)) if self.mutant == Mutant::CapCountedOutside => {
                world.unwritten[host] = Some((controller, event));
            }
            Ok(Begin::Write(event)) => {
                if self.write(world, controller, event) {
                    world.granted_after_halt |= halted && !rollback;
                    world.sent.insert(grant);
                }
            }
            Err(_) => {
                let ready = world.progress.host(host) == Some(&HostState::Ready);
                if self.mutant == Mutant::HaltNotChecked && ready && !rollback && halted {
                    world.granted_after_halt = true;
                    world.sent.insert(grant);
                }
            }
        }
    }

    fn report(&self, world: &mut World, controller: usize, report: Report) {
        let attempt = world.progress.host(report.host).and_then(HostState::attempt);
        let nonce = if self.mutant == Mutant::AttemptIgnored { attempt } else { report.nonce };
        // What was said before, or comes too late, changes nothing.
        if let Ok(event) = hear(&world.progress, &Report { nonce, ..report }) {
            self.write(world, controller, event);
        }
    }
}

impl Model for Fleet {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            progress: Progress::new(&self.plan),
            day: 0,
            epoch: 1,
            leases: [1, 0],
            unwritten: [None, None, None],
            sent: BTreeSet::new(),
            hosts: Default::default(),
            granted_after_halt: false,
            stale_write: false,
            most_failures: 0,
        };
        self.write(&mut world, 0, Event::Submitted);
        self.decide(&mut world, 0);
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.day < DAYS {
            steps.push(Step::Day);
        }
        for controller in 0..2 {
            if world.epoch < EPOCHS && world.leases[controller] != world.epoch {
                steps.push(Step::TakeOver { controller });
            }
            if world.leases[controller] == 0 {
                continue;
            }
            steps.push(Step::Decide { controller });
            for message in &world.sent {
                if !matches!(message, Message::Grant { .. }) {
                    steps.push(Step::Deliver { controller, message: message.clone() });
                }
            }
        }
        for (host, executor) in world.hosts.iter().enumerate() {
            if world.unwritten[host].is_some() {
                steps.push(Step::Write { host });
            }
            match executor.running {
                Some((Doing::Apply, _)) => {
                    steps.push(Step::Finish { host, said: APPLIED });
                    steps.push(Step::Finish { host, said: HURT });
                }
                Some((Doing::Rollback, _)) => steps.push(Step::Finish { host, said: BACK }),
                None => {
                    let state = world.progress.hosts()[host];
                    if executor.asked.is_none() && executor.attempts < ATTEMPTS {
                        // A poll's answer is a hint, and may be an old one: the host may ask whenever it once could.
                        if matches!(state, HostState::Offered | HostState::Ready) {
                            steps.push(Step::Ask { host, rollback: false });
                        }
                        if state.changed_since().is_some() {
                            steps.push(Step::Ask { host, rollback: true });
                        }
                    }
                    if executor.asked.is_some() && !world.hosts.iter().any(|host| host.crashed) {
                        steps.push(Step::Crash { host });
                    }
                }
            }
            for message in &world.sent {
                if let Message::Grant { host: to, rollback, nonce } = *message
                    && to == host
                {
                    steps.push(Step::Begin { host, rollback, nonce });
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
            Step::TakeOver { controller } => {
                world.epoch += 1;
                world.leases[controller] = world.epoch;
            }
            Step::Decide { controller } => self.decide(&mut world, controller),
            Step::Write { host } => {
                let (controller, event) = world.unwritten[host].take()?;
                if let Event::Granted { host, nonce, .. } | Event::RollbackGranted { host, nonce, .. } = event
                {
                    let rollback = matches!(event, Event::RollbackGranted { .. });
                    if self.write(&mut world, controller, event) {
                        world.sent.insert(Message::Grant { host, rollback, nonce });
                    }
                }
            }
            Step::Deliver { controller, message } => match message {
                Message::Ask { host, rollback, nonce } => {
                    self.answer(&mut world, controller, host, rollback, nonce)
                }
                Message::Report { host, nonce, said } => {
                    self.report(&mut world, controller, Report { host, nonce: Some(nonce), said });
                }
                Message::Grant { .. } => return None,
            },
            Step::Ask { host, rollback } => {
                // It says that it is ready, and asks.
                let ready = Entry { at: self.now(&world), event: Event::Ready { host } };
                if world.progress.hosts()[host] == HostState::Offered {
                    world.progress.apply(&self.plan, &ready).ok()?;
                }
                let executor = &mut world.hosts[host];
                executor.attempts += 1;
                let nonce = Nonce::from_bytes([16 * host as u8 + executor.attempts; 16]);
                executor.asked = Some((doing(rollback), nonce));
                world.sent.insert(Message::Ask { host, rollback, nonce });
            }
            Step::Begin { host, rollback, nonce } => {
                let executor = &mut world.hosts[host];
                if executor.asked != Some((doing(rollback), nonce)) || executor.running.is_some() {
                    return None;
                }
                executor.begun.push(nonce);
                executor.running = Some((doing(rollback), nonce));
                if self.mutant != Mutant::NonceReused {
                    executor.asked = None;
                }
            }
            Step::Finish { host, said } => {
                let (_, nonce) = world.hosts[host].running.take()?;
                world.sent.insert(Message::Report { host, nonce, said });
            }
            Step::Crash { host } => {
                let (_, nonce) = world.hosts[host].asked.take()?;
                world.hosts[host].crashed = true;
                // When it is up again it says that it has begun nothing, and never will for this attempt.
                world.sent.insert(Message::Report { host, nonce, said: NOT_BEGUN });
            }
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one attempt begins once", |_, world: &World| {
                world
                    .hosts
                    .iter()
                    .all(|host| host.begun.iter().collect::<BTreeSet<_>>().len() == host.begun.len())
            }),
            Property::always("caps are never passed", |_, world: &World| {
                let open = world.progress.hosts().iter().filter(|host| host.is_open()).count();
                open <= 1
            }),
            Property::always("who is in the middle of it is known or counted as lost", |_, world: &World| {
                world.hosts.iter().zip(world.progress.hosts()).all(|(host, state)| {
                    host.running.is_none()
                        || state.is_open()
                        || matches!(state, HostState::Bad { .. } | HostState::Stuck)
                })
            }),
            Property::always("no grant after a halt", |_, world: &World| !world.granted_after_halt),
            Property::always("nothing is written under an old lease", |_, world: &World| !world.stale_write),
            Property::always("nothing of a wave before the one in front has passed", |_, world: &World| {
                // A wave that takes more hosts takes them from the next.
                let of = |host| world.progress.wave_of(host) <= world.progress.passed();
                world.hosts.iter().enumerate().all(|(host, executor)| executor.begun.is_empty() || of(host))
            }),
            Property::always("a counted failure stays counted", |_, world: &World| {
                world.progress.failures().len() == world.most_failures
            }),
            Property::sometimes("completes", |_, world: &World| world.progress.stage() == &Stage::Completed),
            Property::sometimes("rolls back", |_, world: &World| {
                world.progress.stage() == &Stage::RolledBack
            }),
        ]
    }
}

fn found(mutant: Mutant, property: &'static str) {
    checked::found(Fleet::new(mutant), mutant, property);
}

#[test]
fn in_every_order_of_messages_the_invariants_hold() {
    checked::holds(Fleet::new(Mutant::None));
}

#[test]
fn a_grant_after_a_halt_is_caught() {
    found(Mutant::HaltNotChecked, "no grant after a halt");
}

#[test]
fn a_controller_that_ignores_the_epoch_is_caught() {
    found(Mutant::EpochIgnored, "nothing is written under an old lease");
}

#[test]
fn an_executor_that_uses_a_nonce_twice_is_caught() {
    found(Mutant::NonceReused, "one attempt begins once");
}

#[test]
fn caps_that_are_counted_outside_of_the_transaction_are_caught() {
    found(Mutant::CapCountedOutside, "caps are never passed");
}

#[test]
fn a_report_that_is_taken_for_one_of_another_attempt_is_caught() {
    found(Mutant::AttemptIgnored, "who is in the middle of it is known or counted as lost");
}
