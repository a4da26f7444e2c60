//! When hosts were last heard of, and whether two machines share one key.
//!
//! **Silence counts only while somebody listens.** Once a minute it is written down until when that was, and when hosts in
//! flight were heard of; of the others nobody waits for a word. Whoever begins to listen, after a restart or in place of
//! another controller, goes on from there: the time in which nobody listened is taken out of everybody's silence. So a
//! controller that was away for a day silences nobody, and one that is restarted each hour finds who is silent all the same.
//!
//! A machine that was copied with its key shows by boots that come back: A, B, and A again. A reboot never brings an
//! earlier boot back.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use manifests::{HostId, Nonce, UtcTime};
use serde::{Deserialize, Serialize};

use crate::authority::facts::{decode, encode};
use crate::store::{Key, Put, Store, StoreError};

/// So many boots of a host are remembered.
const BOOTS: usize = 8;

/// How often it is written down who was heard of.
const WRITTEN: Duration = Duration::from_secs(60);

/// Whoever says nothing for so many seconds is silent for people: the longest time between polls is ten minutes. Rollouts
/// have deadlines of their own.
const SILENT: i64 = 15 * 60;

/// See [the module](self).
#[derive(Debug)]
pub struct Presence(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    listening: Listening,
    hosts: HashMap<HostId, Heard>,
    /// When it was written down last, by the clock that does not jump.
    written: Option<Duration>,
}

/// Since when somebody has listened, without what lay between, and until when at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listening {
    since: UtcTime,
    until: UtcTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heard {
    last: UtcTime,
    /// The same, moved by the times since then in which nobody listened.
    counts: UtcTime,
    /// The boots in the order in which they came, the current one last.
    boots: Vec<Nonce>,
    cloned: bool,
    /// Whether something of it is not written down.
    #[serde(skip)]
    news: bool,
}

fn moved(time: UtcTime, by: SignedDuration) -> UtcTime {
    time.timestamp().saturating_add(by).map_or(time, UtcTime::floor)
}

fn listening_key() -> Key {
    Key::new("presence", "listening")
}

fn heard_key(host: HostId) -> Key {
    Key::new("heard", host)
}

impl Presence {
    /// Nobody was heard of yet.
    pub fn new(since: UtcTime) -> Self {
        let listening = Listening { since, until: since };
        Self(Mutex::new(Inner { listening, hosts: HashMap::new(), written: None }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen, where whoever listened before left off. To be called with each lease that is taken.
    ///
    /// # Errors
    /// [`StoreError`]; what was known is then as it was.
    pub fn resume(&self, store: &dyn Store, now: UtcTime) -> Result<(), StoreError> {
        let Some(record) = store.record(&listening_key())? else {
            return Ok(());
        };
        let before: Listening = decode("until when somebody listened", &record.value)?;
        let mut heard = Vec::new();
        for (key, record) in store.room("heard")? {
            let host = key.as_str().trim_start_matches("heard/").parse();
            let host: HostId =
                host.map_err(|_| StoreError::Damaged { what: format!("{key} is not named by a host") })?;
            heard.push((host, decode::<Heard>("when a host was heard of", &record.value)?));
        }
        let gap = now.timestamp().duration_since(before.until.timestamp()).max(SignedDuration::ZERO);
        let mut inner = self.inner();
        for (host, stored) in heard {
            let known = inner.hosts.entry(host).or_insert_with(|| stored.clone());
            if stored.last >= known.last {
                *known = stored;
            }
        }
        for heard in inner.hosts.values_mut().filter(|heard| heard.last <= before.until) {
            heard.counts = moved(heard.counts, gap);
            heard.news = true;
        }
        inner.listening = Listening { since: moved(before.since, gap), until: now };
        inner.written = None;
        Ok(())
    }

    /// Since when somebody has listened; times in which nobody did are left out.
    pub fn since(&self) -> UtcTime {
        self.inner().listening.since
    }

    /// What is to be written down now of those that are `in_flight`; nothing within a minute. `elapsed` is of the clock
    /// that does not jump.
    ///
    /// # Errors
    /// That of `in_flight`; it is due again with the next call.
    pub fn due<E>(
        &self,
        now: UtcTime,
        elapsed: Duration,
        in_flight: impl FnOnce() -> Result<Vec<HostId>, E>,
    ) -> Result<Vec<Put>, E> {
        let mut inner = self.inner();
        if inner.written.is_some_and(|written| elapsed.saturating_sub(written) < WRITTEN) {
            return Ok(Vec::new());
        }
        let in_flight = in_flight()?;
        inner.written = Some(elapsed);
        inner.listening.until = inner.listening.until.max(now);
        let mut puts = vec![Put { key: listening_key(), value: encode(&inner.listening) }];
        for host in in_flight {
            if let Some(heard) = inner.hosts.get_mut(&host).filter(|heard| heard.news) {
                heard.news = false;
                puts.push(Put { key: heard_key(host), value: encode(heard) });
            }
        }
        Ok(puts)
    }

    /// A host is heard of, in this boot.
    pub fn heard(&self, host: HostId, boot: Nonce, now: UtcTime) {
        let mut inner = self.inner();
        let heard = inner.hosts.entry(host).or_insert_with(|| Heard {
            last: now,
            counts: now,
            boots: vec![boot],
            cloned: false,
            news: true,
        });
        (heard.last, heard.counts, heard.news) = (heard.last.max(now), heard.counts.max(now), true);
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
        self.inner().hosts.get(&host).map(|heard| heard.last)
    }

    /// From when on its silence counts.
    pub fn silent_since(&self, host: HostId) -> Option<UtcTime> {
        self.inner().hosts.get(&host).map(|heard| heard.counts)
    }

    /// Whether somebody may want to look why it says nothing: not since somebody listens, or for long.
    pub fn is_silent(&self, host: HostId, now: UtcTime) -> bool {
        let heard = self.last(host).unwrap_or_else(|| self.since());
        now.timestamp().as_second() - heard.timestamp().as_second() > SILENT
    }

    /// Whether two machines seem to have its key.
    pub fn is_cloned(&self, host: HostId) -> bool {
        self.inner().hosts.get(&host).is_some_and(|heard| heard.cloned)
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

    #[test]
    fn it_is_written_once_a_minute_and_of_hosts_in_flight_what_is_new() {
        let now: UtcTime = "2026-11-02T00:00:00Z".parse().unwrap();
        let presence = Presence::new(now);
        let hosts = [b"one", b"two"].map(|name| HostId::new(Sha256::of(name)));
        hosts.into_iter().for_each(|host| presence.heard(host, Nonce::from_bytes([1; 16]), now));
        let due = |seconds: u64| {
            let in_flight = || Ok::<_, std::convert::Infallible>(vec![hosts[0]]);
            presence.due(now, Duration::from_secs(seconds), in_flight).unwrap()
        };
        let keys = |puts: Vec<Put>| puts.into_iter().map(|put| put.key).collect::<Vec<_>>();
        assert_eq!(keys(due(100)), [listening_key(), heard_key(hosts[0])]);
        assert_eq!(keys(due(159)), []);
        assert_eq!(keys(due(160)), [listening_key()], "nothing is new of it");
        presence.heard(hosts[0], Nonce::from_bytes([1; 16]), now);
        assert_eq!(keys(due(220)), [listening_key(), heard_key(hosts[0])]);
    }
}
