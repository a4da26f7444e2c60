//! Health queries, asked by the controller that leads: how hosts with the change do beside hosts that wait for it.
//!
//! Asked aside, never while something is decided: what came out lies here with its time until the clockwork comes round,
//! and becomes an entry of the ledger when it came out otherwise than before. An answer counts for three rounds, so one
//! that fails holds nobody back; then there is none, and the rollout waits and says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet::rollout::{Comparison, Unanswered};
use futures_util::StreamExt as _;
use manifests::{GroupName, HostId, Sha256, UtcTime};
use schemars::JsonSchema;
use serde::Serialize;

use super::answer::blocking;
use super::{Controller, Surroundings, TICK};
use crate::authority::{HealthQuestion, KnownHost};
use crate::prometheus::PATIENCE;

/// So many are asked at once.
const AT_ONCE: usize = 4;

/// For so many rounds an answer counts.
const COUNTS: u32 = 3;

/// What came out of a question.
#[derive(Debug, Clone, Copy)]
struct Read {
    /// By the clock that does not jump.
    elapsed: Duration,
    at: UtcTime,
    comparison: Comparison,
}

/// What became of a question so far.
#[derive(Debug, Clone, Copy)]
struct Asked {
    every: Duration,
    last: Read,
    /// The last time when there was an answer.
    answered: Option<Read>,
}

/// What is known of all questions.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<BTreeMap<(Sha256, GroupName), Asked>>);

/// What came out of a health query the last time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct Latest {
    /// When.
    at: UtcTime,
    /// What.
    #[serde(flatten)]
    comparison: Comparison,
    /// The same in words.
    words: String,
}

impl Latest {
    /// In words.
    pub(super) fn words(&self) -> &str {
        &self.words
    }
}

impl Asked {
    /// What counts now.
    fn counts(&self, now: Duration) -> Comparison {
        let in_time = |read: &Read| now.saturating_sub(read.elapsed) <= self.every * COUNTS + PATIENCE;
        match (self.answered.filter(in_time), in_time(&self.last)) {
            (Some(answered), _) => answered.comparison,
            (None, true) => self.last.comparison,
            (None, false) => Comparison::Unanswered { because: Unanswered::Late },
        }
    }
}

impl Health {
    fn asked(&self) -> MutexGuard<'_, BTreeMap<(Sha256, GroupName), Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What counts now, by rollout and query.
    pub(super) fn readings(&self, now: Duration) -> BTreeMap<Sha256, BTreeMap<GroupName, Comparison>> {
        let mut readings = BTreeMap::<_, BTreeMap<_, _>>::new();
        for ((rollout, query), asked) in &*self.asked() {
            readings.entry(*rollout).or_default().insert(query.clone(), asked.counts(now));
        }
        readings
    }

    /// What came out the last time.
    pub(super) fn latest(&self, rollout: Sha256, query: &GroupName) -> Option<Latest> {
        let Read { at, comparison, .. } = self.asked().get(&(rollout, query.clone()))?.last;
        Some(Latest { at, comparison, words: comparison.to_string() })
    }

    /// Which of all questions are to be asked now. What nobody asks any more is forgotten.
    fn due(&self, questions: Vec<HealthQuestion>, now: Duration) -> Vec<HealthQuestion> {
        let mut asked = self.asked();
        let all: BTreeSet<_> = questions.iter().map(HealthQuestion::key).collect();
        asked.retain(|key, _| all.contains(key));
        let is_due = |question: &HealthQuestion| {
            let before = asked.get(&question.key());
            before.is_none_or(|before| now.saturating_sub(before.last.elapsed) >= question.every)
        };
        questions.into_iter().filter(is_due).collect()
    }

    fn heard(&self, question: &HealthQuestion, read: Read) {
        let mut asked = self.asked();
        let answered = !matches!(read.comparison, Comparison::Unanswered { .. });
        let before = asked.get(&question.key()).and_then(|before| before.answered);
        let answered = if answered { Some(read) } else { before };
        asked.insert(question.key(), Asked { every: question.every, last: read, answered });
    }

    fn forget(&self) {
        self.asked().clear();
    }
}

/// Hosts by what they are called in metrics: their names, and their ids. A name that two hosts give themselves is nobody's.
struct Names(HashMap<String, Option<HostId>>);

impl Names {
    fn of(hosts: Vec<KnownHost>) -> Self {
        let mut names = HashMap::new();
        for KnownHost { host, name } in hosts {
            names.insert(host.id.to_string(), Some(host.id));
            let one = |known: &mut Option<HostId>| *known = None;
            names.entry(name.to_string().to_ascii_lowercase()).and_modify(one).or_insert(Some(host.id));
        }
        Self(names)
    }

    /// `web-1:9100` is `web-1`.
    fn find(&self, name: &str) -> Option<HostId> {
        let name = name.to_ascii_lowercase();
        let found = self.0.get(&name).or_else(|| {
            let (host, port) = name.rsplit_once(':')?;
            port.parse::<u16>().ok()?;
            self.0.get(host)
        });
        found.copied().flatten()
    }

    /// The numbers of hosts of this fleet.
    fn numbers(&self, answer: Vec<(String, f64)>) -> Result<BTreeMap<HostId, f64>, Unanswered> {
        let mut numbers = BTreeMap::new();
        for (name, number) in answer {
            if let Some(host) = self.find(&name)
                && numbers.insert(host, number).is_some()
            {
                return Err(Unanswered::Twice);
            }
        }
        Ok(numbers)
    }
}

impl Controller {
    /// What is known besides the ledger, for as long as `then` takes.
    pub(super) fn with_surroundings<T>(&self, then: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let readings = self.health.readings(self.clock.elapsed());
        then(&Surroundings {
            last_seen: &|host| self.presence.silent_since(host),
            listening_since: self.presence.since(),
            readings: &readings,
        })
    }

    /// Asks what is to be asked, for as long as this is waited for.
    pub(super) async fn keep_asking(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            if !self.leads() {
                self.health.forget();
                continue;
            }
            let this = self.clone();
            let due = blocking(move || {
                let questions = this.with_surroundings(|around| this.authority.questions(around))?;
                Ok(this.health.due(questions, this.clock.elapsed()))
            });
            // Without the lease somebody else asks; whatever else is wrong, the clockwork says.
            let Ok(due) = due.await else { continue };
            futures_util::stream::iter(due)
                .for_each_concurrent(AT_ONCE, |question| self.clone().ask(question))
                .await;
        }
    }

    async fn ask(self: Arc<Self>, question: HealthQuestion) {
        let answer = match &self.settings.prometheus {
            Some(prometheus) => prometheus.ask(&question.query.query).await,
            None => Err(Unanswered::NobodyToAsk),
        };
        let this = self.clone();
        let heard = blocking(move || {
            let comparison = this.compared(&question, answer)?;
            let Some(comparison) = comparison else { return Ok(()) };
            let (elapsed, at) = (this.clock.elapsed(), this.now());
            this.counters.asked(&question.query.name, &comparison);
            this.health.heard(&question, Read { elapsed, at, comparison });
            Ok(())
        });
        // The lease is lost, or the store: what was said is asked again by whoever leads.
        let _ = heard.await;
    }

    /// What an answer comes to; nothing if there is nothing to compare any more.
    fn compared(
        &self,
        question: &HealthQuestion,
        answer: Result<Vec<(String, f64)>, Unanswered>,
    ) -> Result<Option<Comparison>, super::Denied> {
        let numbers = match answer {
            Ok(answer) => Names::of(self.authority.hosts()?).numbers(answer),
            Err(because) => Err(because),
        };
        match numbers {
            Ok(numbers) => {
                self.with_surroundings(|around| self.authority.compare(around, question, &numbers))
            }
            Err(because) => Ok(Some(Comparison::Unanswered { because })),
        }
    }
}

/// A controller that asks nobody is handed no rollout that needs it.
pub(super) fn nobody_to_ask(query: &GroupName) -> String {
    format!(
        "the policy's health query {query} cannot be asked: this controller knows no server of metrics; serve it with \
         --prometheus URL, or leave `health` out of the policy"
    )
}

#[cfg(test)]
mod tests {
    use fleet::rollout::Figure;

    use super::*;

    fn known(name: &str, key: &str) -> KnownHost {
        let mut host =
            fleet::simulate::inventory::Synthetic { hosts: 1, ..Default::default() }.inventory().remove(0);
        host.id = HostId::new(Sha256::of(key.as_bytes()));
        KnownHost { host, name: name.parse().unwrap() }
    }

    #[test]
    fn hosts_are_found_by_name_and_by_id_and_a_name_of_two_is_nobodys() {
        let hosts = vec![known("Web-1", "1"), known("web-2", "2"), known("twin", "3"), known("twin", "4")];
        let ids: Vec<HostId> = hosts.iter().map(|known| known.host.id).collect();
        let names = Names::of(hosts);
        assert_eq!(names.find("web-1:9100"), Some(ids[0]));
        assert_eq!(names.find("WEB-2"), Some(ids[1]));
        assert_eq!(names.find("web-2:http"), None);
        assert_eq!(names.find("twin:9100"), None);
        assert_eq!(names.find(&ids[3].to_string()), Some(ids[3]));
        assert_eq!(names.find(""), None);
        let numbers = |answer: &[&str]| {
            names
                .numbers(answer.iter().map(|name| ((*name).to_owned(), 1.0)).collect())
                .map(|numbers| numbers.len())
        };
        assert_eq!(numbers(&["web-1:9100", "web-2", "somebody"]), Ok(2));
        assert_eq!(numbers(&["web-1:9100", "web-1:9200"]), Err(Unanswered::Twice));
    }

    #[test]
    fn an_answer_counts_for_three_rounds_and_what_is_asked_no_more_is_forgotten() {
        let health = Health::default();
        let query = fleet::policy::HealthQuery {
            name: "fsync".parse().unwrap(),
            query: "fsync".to_owned(),
            worse: fleet::policy::Worse::Higher,
            ratio: 2.0,
        };
        let question = HealthQuestion { rollout: Sha256::of(b"r"), query, every: Duration::from_secs(60) };
        let (figure, at) = (Figure::new(1.0).unwrap(), "2026-11-02T00:00:00Z".parse().unwrap());
        let well = Comparison::Well { changed: figure, held_back: figure };
        let lost = Comparison::Unanswered { because: Unanswered::Unreachable };
        let read = |elapsed, comparison| Read { elapsed: Duration::from_secs(elapsed), at, comparison };
        let counts = |now| {
            health
                .readings(Duration::from_secs(now))
                .into_values()
                .next()
                .map(|mut all| all.pop_first().unwrap().1)
        };
        assert_eq!(counts(100), None);
        assert_eq!(health.due(vec![question.clone()], Duration::from_secs(100)).len(), 1);
        health.heard(&question, read(100, well));
        assert_eq!(health.due(vec![question.clone()], Duration::from_secs(159)).len(), 0);
        assert_eq!(health.due(vec![question.clone()], Duration::from_secs(160)).len(), 1);
        health.heard(&question, read(160, lost));
        assert_eq!(counts(290), Some(well));
        assert_eq!(health.latest(question.rollout, &question.query.name).unwrap().comparison, lost);
        health.heard(&question, read(220, lost));
        health.heard(&question, read(280, lost));
        assert_eq!(counts(291), Some(lost));
        // Whoever should ask hangs.
        assert_eq!(counts(471), Some(Comparison::Unanswered { because: Unanswered::Late }));
        health.due(Vec::new(), Duration::from_secs(300));
        assert_eq!(counts(300), None);
    }
}
