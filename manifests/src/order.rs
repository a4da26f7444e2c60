//! The order: people's word to a controller about a rollout that is under way.
//!
//! A token of the controller may slow a rollout down. What makes it go on, again or at all, is worth as much as the
//! rollout's document: people sign it. An order counts for one rollout, for a day at most; told twice it changes nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::document::{Document, DocumentKind};
use crate::host::HostId;
use crate::names::ManifestName;
use crate::policy::scope::{Excess, Scope};
use crate::schema::SchemaVersion;
use crate::time::UtcTime;
use crate::verify::{TrustFloor, VerifyError};
use crate::yaml::{self, YamlError};

/// People's word about a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutOrder {
    /// Version of this format; always 1.
    pub schema: SchemaVersion,
    /// The name of the rollout's manifest, for people and for scopes; the digest decides.
    pub name: ManifestName,
    /// The digest of the signed rollout document.
    pub rollout: Sha256,
    /// What to do.
    pub order: Ordered,
    /// Of `retry`: which hosts. Empty: all that came back from the rollout's manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub hosts: Vec<HostId>,
    /// When it was issued.
    pub issued: UtcTime,
    /// From when on nobody heeds it; at most a day after `issued`.
    pub expires: UtcTime,
}

/// What people want of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ordered {
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
    /// Hosts that came back from its manifest may have that again.
    Retry,
}

/// Why bytes are not an order.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The YAML is outside of the strict form, or does not follow the schema.
    #[error("the order cannot be read")]
    Yaml(#[from] YamlError),
    /// It expires before it was issued, or more than a day later.
    #[error("expires: expected after {issued} and at most a day later, found {expires}")]
    Expires {
        /// When it was issued.
        issued: UtcTime,
        /// When it expires.
        expires: UtcTime,
    },
    /// It names hosts, and is not of hosts; or more than it may.
    #[error("hosts: expected at most {limit} entries, and none but with `order: retry`, found {found}")]
    Hosts {
        /// How many there may be.
        limit: usize,
        /// How many there are.
        found: usize,
    },
}

/// The most hosts that an order names.
const MAX_HOSTS: usize = 1024;

impl Document for RolloutOrder {
    const KIND: DocumentKind = DocumentKind::Order;

    type Error = OrderError;

    fn parse(bytes: &[u8]) -> Result<Self, OrderError> {
        let order: Self = yaml::from_slice(bytes, Self::KIND.max_bytes())?;
        let (limit, found) = (if order.order == Ordered::Retry { MAX_HOSTS } else { 0 }, order.hosts.len());
        if found > limit {
            return Err(OrderError::Hosts { limit, found });
        }
        let (issued, expires) = (order.issued, order.expires);
        let length = expires.timestamp().as_second() - issued.timestamp().as_second();
        if (1..=24 * 3600).contains(&length) {
            Ok(order)
        } else {
            Err(OrderError::Expires { issued, expires })
        }
    }

    fn issued(&self) -> UtcTime {
        self.issued
    }

    fn expires(&self) -> Option<UtcTime> {
        Some(self.expires)
    }

    fn excess(&self, scope: &Scope) -> Option<Excess> {
        scope.excess_of_rollout(&self.name, &[])
    }

    fn refuse(&self, _: Sha256, _: &TrustFloor) -> Result<(), VerifyError> {
        Ok(())
    }

    /// Whether it was heeded stands in the rollout's ledger.
    fn raise(&self, _: Sha256, _: &mut TrustFloor) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(order: &str, expires: &str) -> String {
        let digest = Sha256::of(b"rollout");
        format!(
            "schema: 1\nname: fix\nrollout: {digest}\norder: {order}\nissued: 2026-11-02T00:00:00Z\nexpires: {expires}\n"
        )
    }

    #[test]
    fn an_order_counts_for_a_day_at_most() {
        let good = text("resume", "2026-11-03T00:00:00Z");
        assert_eq!(RolloutOrder::parse(good.as_bytes()).unwrap().order, Ordered::Resume);
        for bad in ["2026-11-03T00:00:01Z", "2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z"] {
            let refused = RolloutOrder::parse(text("resume", bad).as_bytes()).unwrap_err();
            assert!(matches!(refused, OrderError::Expires { .. }), "{bad}: {refused}");
        }
        assert!(RolloutOrder::parse(text("reboot", "2026-11-03T00:00:00Z").as_bytes()).is_err());
    }

    #[test]
    fn hosts_are_named_by_a_retry_alone() {
        let named = |order: &str| {
            let host = HostId::new(Sha256::of(b"host"));
            text(order, "2026-11-03T00:00:00Z") + &format!("hosts: [{host}]\n")
        };
        assert_eq!(RolloutOrder::parse(named("retry").as_bytes()).unwrap().hosts.len(), 1);
        let refused = RolloutOrder::parse(named("resume").as_bytes()).unwrap_err();
        assert!(matches!(refused, OrderError::Hosts { limit: 0, found: 1 }), "{refused}");
    }
}
