//! When hosts were last heard of, and whether two machines share one key.
//!
//! Kept in memory: whoever was silent counts as silent only since this controller listens. Hosts are heard by the one that holds the lease, so it
//! has listened since it took that, however long it had waited beside another. A machine that was copied with
//! its key shows by boots that come back: A, B, and A again. A reboot never brings an earlier boot back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use manifests::{HostId, Nonce, UtcTime};

/// So many boots of a host are remembered.
const BOOTS: usize = 8;

/// See [the module](self).
#[derive(Debug)]
pub struct Presence {
    /// Since when somebody listens.
    since: Mutex<UtcTime>,
    hosts: Mutex<HashMap<HostId, Heard>>,
}

#[derive(Debug)]
struct Heard {
    last: UtcTime,
    /// The boots in the order in which they came, the current one last.
    boots: Vec<Nonce>,
    cloned: bool,
}

impl Presence {
    /// Nobody was heard of yet.
    pub fn new(since: UtcTime) -> Self {
        Self { since: Mutex::new(since), hosts: Mutex::default() }
    }

    /// Since when somebody has listened without a break.
    pub fn since(&self) -> UtcTime {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hosts come here from now on.
    pub fn listens(&self, now: UtcTime) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// A host is heard of, in this boot.
    pub fn heard(&self, host: HostId, boot: Nonce, now: UtcTime) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = hosts.entry(host).or_insert(Heard { last: now, boots: vec![boot], cloned: false });
        heard.last = heard.last.max(now);
        if heard.boots.last() == Some(&boot) {
            return;
        }
        heard.cloned |= heard.boots.contains(&boot);
        heard.boots.push(boot);
        if heard.boots.len() > BOOTS {
            heard.boots.remove(0);
        }
    }

    /// When it was last heard of.
    pub fn last(&self, host: HostId) -> Option<UtcTime> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).get(&host).map(|heard| heard.last)
    }

    /// Whether two machines seem to have its key.
    pub fn is_cloned(&self, host: HostId) -> bool {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).get(&host).is_some_and(|heard| heard.cloned)
    }
}

#[cfg(test)]
mod tests {
    use manifests::Sha256;

    use super::*;

    #[test]
    fn a_reboot_is_no_clone_and_a_boot_that_comes_back_is() {
        let now: UtcTime = "2026-11-02T00:00:00Z".parse().unwrap();
        let (presence, host) = (Presence::new(now), HostId::new(Sha256::of(b"host")));
        let boot = |number| Nonce::from_bytes([number; 16]);
        for number in [1, 1, 2, 2, 3] {
            presence.heard(host, boot(number), now);
        }
        assert!(!presence.is_cloned(host));
        presence.heard(host, boot(2), now);
        assert!(presence.is_cloned(host));
        assert!(!presence.is_cloned(HostId::new(Sha256::of(b"another"))));
    }
}
