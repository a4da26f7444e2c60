//! What Prometheus is told.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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
    ledger: Gauge,
    standing: Family<Vec<(String, String)>, Gauge>,
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
            ledger: Gauge::default(),
            standing: Family::default(),
            registry: Registry::default(),
        };
        registry.register("polls", "Polls answered", this.polls.clone());
        registry.register("reports", "Reports heard", this.reports.clone());
        registry.register("grants", "Grants given, also those given again", this.grants.clone());
        registry.register("leads", "Whether this controller holds the lease", this.leads.clone());
        registry.register("ledger_edited", "Whether the ledger was edited in the store", this.edited.clone());
        registry.register("hosts", "Hosts in the fleet", this.hosts.clone());
        registry.register("ledger_entries", "Entries of the ledger", this.ledger.clone());
        registry.register("rollout_hosts", "Hosts of a rollout, by where they stand", this.standing.clone());
        registry.register("turned_away", "Who was turned away or given up, by what", turned_away);
        Self { registry, ..this }
    }

    /// The page, with what is so at this moment.
    pub(super) fn page(&self, hosts: usize, ledger: u64, rollouts: &[Standing]) -> String {
        self.hosts.set(i64::try_from(hosts).unwrap_or(i64::MAX));
        self.ledger.set(i64::try_from(ledger).unwrap_or(i64::MAX));
        self.standing.clear();
        for rollout in rollouts {
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
