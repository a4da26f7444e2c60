//! The fleet, a line for each host, kept for a moment: ten thousand hosts are not read anew for each page that names some.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use fleet::facts::FleetExposure;
use manifests::HostId;

use super::HostLink;
use crate::authority::{Census, HostLine};
use crate::server::Controller;
use crate::server::answer::Refusal;

/// What was read counts at least so long, while the ledger grows.
const FRESH: Duration = Duration::from_secs(2);

/// And so many times as long as it took: however many hosts there are, little of the time goes into it.
const REST: u32 = 20;

/// See [the module](self).
#[derive(Debug, Default)]
pub(in crate::server) struct Roster(Mutex<Option<Read>>);

#[derive(Debug)]
struct Read {
    at: Duration,
    took: Duration,
    /// The ledger's size when it was read.
    size: u64,
    lines: Arc<Lines>,
}

/// The fleet, by name.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) all: Vec<HostLine>,
    /// How it stands to each vulnerability that a host has named.
    pub(super) exposures: Vec<FleetExposure>,
    places: HashMap<HostId, usize>,
}

impl Lines {
    fn new(census: Census) -> Self {
        let Census { lines: mut all, exposures } = census;
        all.sort_by(|one, other| (&one.name, one.host.id).cmp(&(&other.name, other.host.id)));
        let places = all.iter().enumerate().map(|(place, line)| (line.host.id, place)).collect();
        Self { all, exposures, places }
    }

    /// A host, as pages name it. Of one that has left only the id is known.
    pub(super) fn link(&self, host: HostId) -> HostLink {
        let line = self.places.get(&host).and_then(|place| self.all.get(*place));
        let name = line.map(|line| line.name.as_str()).filter(|name| !name.trim().is_empty());
        HostLink { id: host.to_string(), name: name.map_or_else(|| super::short(&host), str::to_owned) }
    }
}

impl Controller {
    /// The fleet, as it was a moment ago.
    pub(super) fn roster(&self) -> Result<Arc<Lines>, Refusal> {
        let unreadable = |error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error);
        // Whoever comes while it is read waits for that, and does not read it once more.
        let mut kept = self.roster.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, size) = (self.clock.elapsed(), self.authority.store().size().map_err(unreadable)?);
        if let Some(read) = &*kept
            && (read.size == size || begun.saturating_sub(read.at) < (read.took * REST).max(FRESH))
        {
            return Ok(read.lines.clone());
        }
        let lines = Arc::new(Lines::new(self.authority.census()?));
        let at = self.clock.elapsed();
        *kept = Some(Read { at, took: at.saturating_sub(begun), size, lines: lines.clone() });
        Ok(lines)
    }
}
