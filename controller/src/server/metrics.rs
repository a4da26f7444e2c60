//! What Prometheus is told.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use fleet::rollout::Comparison;
use manifests::GroupName;

use super::limits::TurnedAway;
use crate::authority::Standing;

/// Hosts of a rollout that stand somewhere.
type Place = [(&'static str, String); 2];

/// What is counted while the controller runs, and what is looked up when somebody asks.
pub(super) struct Counters {
    /// Polls answered.
    pub(super) polls: Counter,
    /// Reports heard.
    pub(super) reports: Counter,
    /// Grants given, also those given again.
    pub(super) grants: Counter,
    /// Whether this controller holds the lease.
    pub(super) leads: Gauge,
    /// Whether the ledger was found edited.
    pub(super) edited: Gauge,
    hosts: Gauge,
    silent: Gauge,
    cloned: Gauge,
    ledger: Gauge,
    standing: Family<Vec<(String, String)>, Gauge>,
    stage: Family<Vec<(String, String)>, Gauge>,
    /// What came out of health queries that were asked.
    health_asked: Family<Vec<(String, String)>, Counter>,
    /// What came out of them, as it is written down.
    health: Family<Vec<(String, String)>, Gauge>,
    registry: Registry,
}

impl Counters {
    /// `turned_away` is counted by the gate.
    pub(super) fn new(turned_away: TurnedAway) -> Self {
        let mut registry = Registry::with_prefix("update_controller");
        let this = Self {
            polls: Counter::default(),
            reports: Counter::default(),
            grants: Counter::default(),
            leads: Gauge::default(),
            edited: Gauge::default(),
            hosts: Gauge::default(),
            silent: Gauge::default(),
            cloned: Gauge::default(),
            ledger: Gauge::default(),
            standing: Family::default(),
            stage: Family::default(),
            health_asked: Family::default(),
            health: Family::default(),
            registry: Registry::default(),
        };
        registry.register("polls", "Polls answered", this.polls.clone());
        registry.register("reports", "Reports heard", this.reports.clone());
        registry.register("grants", "Grants given, also those given again", this.grants.clone());
        registry.register("leads", "Whether this controller holds the lease", this.leads.clone());
        registry.register("ledger_edited", "Whether the ledger was edited in the store", this.edited.clone());
        registry.register("hosts", "Hosts in the fleet", this.hosts.clone());
        registry.register(
            "hosts_silent",
            "Hosts that were not heard of for a quarter of an hour",
            this.silent.clone(),
        );
        registry.register("hosts_cloned", "Hosts whose key two machines use", this.cloned.clone());
        registry.register("ledger_entries", "Entries of the ledger", this.ledger.clone());
        registry.register("rollout_hosts", "Hosts of a rollout, by where they stand", this.standing.clone());
        registry.register("rollout_stage", "Where a rollout stands: 1", this.stage.clone());
        registry.register(
            "health_asked",
            "Health queries asked, by what came out",
            this.health_asked.clone(),
        );
        registry.register(
            "rollout_health",
            "What a rollout's health queries come to: 1",
            this.health.clone(),
        );
        registry.register("turned_away", "Who was turned away or given up, by what", turned_away);
        Self { registry, ..this }
    }

    /// A health query was asked.
    pub(super) fn asked(&self, query: &GroupName, comparison: &Comparison) {
        self.health_asked.get_or_create(&of_health(query, comparison)).inc();
    }

    /// The page, with what is so at this moment.
    pub(super) fn page(&self, fleet: Fleet, ledger: u64, rollouts: &[Standing]) -> String {
        let Fleet { hosts, silent, cloned } = fleet;
        for (gauge, number) in [(&self.hosts, hosts), (&self.silent, silent), (&self.cloned, cloned)] {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        self.ledger.set(i64::try_from(ledger).unwrap_or(i64::MAX));
        self.standing.clear();
        self.stage.clear();
        self.health.clear();
        for rollout in rollouts {
            for health in &rollout.health {
                let Some(comparison) = &health.comparison else { continue };
                let mut labels = of_health(&health.query, comparison);
                labels.push(("rollout".to_owned(), rollout.rollout.to_string()));
                self.health.get_or_create(&labels).set(1);
            }
            self.stage.get_or_create(&of_stage(rollout)).set(1);
            for (state, hosts) in &rollout.hosts {
                let place: Place = [("rollout", rollout.rollout.to_string()), ("state", state.clone())];
                let labels = place.map(|(name, value)| (name.to_owned(), value)).to_vec();
                self.standing.get_or_create(&labels).set(i64::from(*hosts));
            }
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// How many hosts there are, and what is wrong with some.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fleet {
    pub(super) hosts: usize,
    /// Not heard of for long.
    pub(super) silent: usize,
    /// With a key that two machines use.
    pub(super) cloned: usize,
}

/// Which rollout, and where it stands: its stage, and why it paused, halted or ended.
fn of_stage(rollout: &Standing) -> Vec<(String, String)> {
    let value = serde_json::to_value(&rollout.stage).unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let labels = [
        ("rollout", rollout.rollout.to_string()),
        ("name", rollout.name.to_string()),
        ("version", rollout.version.to_string()),
        ("stage", text(&value["stage"])),
        ("cause", text(&value["because"]["cause"])),
    ];
    labels.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// A query, and what came out of it: `well`, `worse`, or why there is no answer.
fn of_health(query: &GroupName, comparison: &Comparison) -> Vec<(String, String)> {
    let value = serde_json::to_value(comparison).unwrap_or_default();
    let outcome = value["because"]["why"].as_str().or_else(|| value["outcome"].as_str()).unwrap_or_default();
    vec![("query".to_owned(), query.to_string()), ("outcome".to_owned(), outcome.to_owned())]
}
