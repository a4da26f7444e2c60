//! The lease: who may write, for how long, and the epoch that fences off whoever held it before.
//!
//! A lease is judged by the store's clock, in the transaction that writes. Its holder renews it early and stops by
//! itself after [`HELD`], by a clock that does not jump: so it stops before the store would let another in. Should both
//! clocks be wrong, the epoch still holds: every batch carries it, and hosts refuse grants below the highest that they
//! have seen.

use jiff::{SignedDuration, Timestamp};

/// How long a lease is good for after it was taken or renewed.
pub const TERM: SignedDuration = SignedDuration::from_secs(15);

/// How long its holder acts on it without having renewed it.
pub const HELD: std::time::Duration = std::time::Duration::from_secs(10);

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it: a name that no other running controller has.
    pub holder: String,
    /// Higher than that of any lease before.
    pub epoch: u64,
    /// When it runs out, by the store's clock.
    pub until: Timestamp,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseRequest {
    /// A new lease, with an epoch above this one. Also for its holder, who loses the old one by it.
    Take {
        /// Who asks.
        holder: String,
        /// The highest epoch that a host has seen.
        above: u64,
    },
    /// More time.
    Renew {
        /// Under which epoch.
        epoch: u64,
    },
    /// No more time: another may come at once.
    Release {
        /// Under which epoch.
        epoch: u64,
    },
    /// Only a look.
    Look,
}

/// What is so afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// It is yours.
    Yours(Lease),
    /// It is another's, or yours no more.
    Others(Lease),
    /// It is nobody's.
    Nobodys,
}

/// The highest epoch that a grant can carry (2^53 - 1: numbers that every reader of JSON holds exactly).
pub const MAX_EPOCH: u64 = (1 << 53) - 1;

/// Whether a lease still counts. One that would for longer than two terms is of a time before the clock was set back by
/// more than one: nobody should have to wait until that time comes again, and the epoch fences its holder off.
fn counts(lease: &Lease, now: Timestamp) -> bool {
    now < lease.until && lease.until.duration_since(now) <= TERM + TERM
}

/// What a request makes of the lease that is stored; the one rule of every store. Nothing: leave it as it is.
pub(super) fn judge(
    stored: Option<&Lease>,
    request: &LeaseRequest,
    now: Timestamp,
) -> (Option<Lease>, LeaseAnswer) {
    let until = now.saturating_add(TERM).unwrap_or(Timestamp::MAX);
    let others = || match stored {
        Some(lease) if counts(lease, now) => LeaseAnswer::Others(lease.clone()),
        _ => LeaseAnswer::Nobodys,
    };
    let in_force = |epoch: u64| stored.filter(|lease| lease.epoch == epoch && counts(lease, now));
    match request {
        LeaseRequest::Take { holder, above } => {
            let taken = stored.is_some_and(|lease| counts(lease, now) && lease.holder != *holder);
            let epoch = stored.map_or(0, |lease| lease.epoch).max(*above) + 1;
            // The last epoch is never reached by leases; only by a host's lie, which must not end the fleet.
            if taken || epoch > MAX_EPOCH {
                return (None, others());
            }
            let lease = Lease { holder: holder.clone(), epoch, until };
            (Some(lease.clone()), LeaseAnswer::Yours(lease))
        }
        LeaseRequest::Renew { epoch } => match in_force(*epoch) {
            Some(lease) => {
                let lease = Lease { until, ..lease.clone() };
                (Some(lease.clone()), LeaseAnswer::Yours(lease))
            }
            None => (None, others()),
        },
        LeaseRequest::Release { epoch } => match in_force(*epoch) {
            Some(lease) => (Some(Lease { until: now, ..lease.clone() }), LeaseAnswer::Nobodys),
            None => (None, others()),
        },
        LeaseRequest::Look => (None, others()),
    }
}

/// Whether a batch of this epoch may be written.
pub(super) fn fence(stored: Option<&Lease>, epoch: u64, now: Timestamp) -> Result<(), super::Refused> {
    match stored {
        Some(lease) if lease.epoch == epoch => {
            if counts(lease, now) {
                Ok(())
            } else {
                Err(super::Refused::RanOut { until: lease.until })
            }
        }
        other => Err(super::Refused::Epoch { current: other.map_or(0, |lease| lease.epoch), found: epoch }),
    }
}
