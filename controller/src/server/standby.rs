//! A controller that does not lead: it refuses politely, says who does, and takes over when nobody does any more.
//!
//! Hosts ask the next of their controllers; people's commands follow the header [`LEADER`](crate::client::LEADER) once. Nothing is answered from what a
//! controller without the lease knows: a host's poll has to be heard by whoever counts silent hosts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use url::Url;

use super::answer::Refusal;
use super::repository::PLACE;
use super::{Controller, Shared, page};
use crate::authority::Denied;
use crate::store::{LeaseAnswer, LeaseRequest};

/// Who leads, as it was seen last.
#[derive(Debug, Default)]
pub(super) struct Leader {
    this: AtomicBool,
    another: Mutex<Option<String>>,
}

/// The name under which a controller that people reach at `address` takes leases. Two that run at once may have the same
/// address, behind one name: so each adds something that no other has.
pub(crate) fn holder(address: &str, run: u64) -> String {
    format!("{address}#{run:016x}")
}

/// Where a holder of the lease can be reached; nothing if its name does not say.
fn address(holder: &str) -> Option<String> {
    let mut url = Url::parse(holder).ok().filter(|url| url.scheme() == "https")?;
    url.set_fragment(None);
    Some(url.as_str().trim_end_matches('/').to_owned())
}

impl Leader {
    fn is(&self, holder: Option<String>) {
        *self.another.lock().unwrap_or_else(PoisonError::into_inner) = holder;
    }

    fn another(&self) -> Option<String> {
        self.another.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Controller {
    /// Whether this controller held the lease a moment ago. For politeness: what is written is fenced by the lease itself.
    pub(super) fn leads(&self) -> bool {
        self.leader.this.load(Ordering::Relaxed)
    }

    /// Remembers whether this controller leads.
    pub(super) fn count_lead(&self) {
        let leads = self.authority.leads();
        self.leader.this.store(leads, Ordering::Relaxed);
        self.counters.leads.set(i64::from(leads));
    }

    /// Keeps the lease, or takes one that is nobody's; whether this controller leads.
    pub(super) fn lead(&self) -> Result<bool, Denied> {
        match self.authority.renew() {
            Err(Denied::NoLease) => {}
            renewed => return renewed.map(|()| true),
        }
        if self.leads() {
            tracing::warn!("another controller may lead: the lease of this one ran out");
        }
        if let LeaseAnswer::Others(lease) = self.authority.store().lease(LeaseRequest::Look)?
            && lease.holder != self.authority.holder()
        {
            self.leader.is(Some(lease.holder));
            return Ok(false);
        }
        self.leader.is(None);
        match self.authority.retake() {
            Err(Denied::NoLease) => Ok(false),
            Err(other) => Err(other),
            Ok(()) => {
                self.listens.store(false, Ordering::Relaxed);
                tracing::info!(epoch = self.authority.epoch(), "this controller leads from now on");
                Ok(true)
            }
        }
    }

    /// Says who leads.
    pub(super) fn refer(&self) -> Refusal {
        let Some(holder) = self.leader.another() else {
            return Refusal::elsewhere(None, "no controller leads this fleet at this moment: ask again");
        };
        let leader = address(&holder);
        let words =
            format!("{} leads this fleet, and not this controller", leader.as_ref().unwrap_or(&holder));
        Refusal::elsewhere(leader, words)
    }
}

/// What a controller says of itself, whoever leads; and what is everybody's.
const ITS_OWN: [&str; 3] = ["/healthz", "/livez", "/v1/openapi.json"];

pub(super) async fn only_who_leads(
    State(controller): State<Shared>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if controller.leads() || ITS_OWN.contains(&path) || path.starts_with(PLACE) || page::is_asset(path) {
        return next.run(request).await;
    }
    match page::is_page(path) {
        true => page::Failed::from(controller.refer()).into_response(),
        false => controller.refer().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_says_where_it_is_and_no_two_are_the_same() {
        let one = holder("https://fleet.example.org:7443", 1);
        assert_ne!(one, holder("https://fleet.example.org:7443", 2));
        assert_eq!(address(&one).unwrap(), "https://fleet.example.org:7443");
        assert_eq!(address("restore by anna"), None);
    }
}
