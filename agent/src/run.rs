//! `update agent`: polls, fetches, asks the executor, and tells what came of it; until it is ended.
//!
//! Nothing here decides over the host. A controller that cannot be reached changes nothing: what was begun goes on in the
//! executor, and is told when somebody listens again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fleet::local::{Answer, Look, Membership, Papers, Question, Verdict};
use fleet::protocol::{
    AttemptReport, BeginAnswer, BeginRequest, Certificate, Challenge, FactsWanted, Heard, Hint, HostFacts,
    Offer, Poll, Renew, Report, Version, paths,
};
use fleet::rollout::{Action, Outcome, Said};
use manifests::{Nonce, Sha256, UtcTime};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::client::{Client, ClientError};
use crate::duty::{self, End};
use crate::executor::{Executor, ExecutorError, strange};
use crate::identity::{Directory, Identity, IdentityError};
use crate::memory::{Memory, MemoryError, Phase};
use crate::spool::{Changed, Spool, SpoolError};

/// The memory's file in the agent's directory.
pub const MEMORY: &str = "state.json";

/// Why something was not done this time.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The key or the certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Controllers.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The executor.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// What was to be fetched.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl AgentError {
    /// How the turn ended that this ended.
    fn end(&self) -> End {
        match self {
            Self::Client(ClientError::Limited { after, .. })
            | Self::Spool(SpoolError::Fetch { source: ClientError::Limited { after, .. }, .. }) => {
                End::Limited(*after)
            }
            _ => End::Failed,
        }
    }
}

/// A transaction that was handed to the executor, and its answer.
type Ended = (Nonce, Result<Answer, ExecutorError>);

/// See [the module](self).
pub struct Agent {
    directory: Directory,
    identity: Identity,
    membership: Membership,
    executor: Executor,
    spool: Spool,
    memory: Memory,
    client: Client,
    /// Answers of transactions that run beside the polls.
    ended: mpsc::Receiver<Ended>,
    ends: mpsc::Sender<Ended>,
    /// The attempt whose transaction runs.
    running: Option<Nonce>,
    /// What the executor said when it was asked to begin, until that was told. Why it declined stands in no journal.
    heard: BTreeMap<Nonce, Answer>,
    /// What the executor said of the host, and when.
    looked: Option<(Look, Instant)>,
    /// Since when no controller answers.
    outage: Option<Instant>,
    /// When it was last asked whether what was changed is well.
    watched: Option<Instant>,
    /// Since when the host is known to be ready, by rollout.
    ready: BTreeMap<Sha256, Instant>,
}

impl Agent {
    /// The agent of a host that was enrolled.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn new(directory: PathBuf, membership: Membership, executor: Executor) -> Result<Self, AgentError> {
        let directory = Directory(directory);
        let identity = Identity::open(&directory)?;
        let client = connect(&directory, &identity, &membership)?;
        let memory = Memory::read(&directory.0.join(MEMORY))?;
        let spool = Spool(directory.0.join("spool"));
        let (ends, ended) = mpsc::channel(4);
        Ok(Self {
            directory,
            identity,
            membership,
            executor,
            spool,
            memory,
            client,
            ended,
            ends,
            running: None,
            heard: BTreeMap::new(),
            looked: None,
            outage: None,
            watched: None,
            ready: BTreeMap::new(),
        })
    }

    /// Goes on until `end`.
    pub async fn run(mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let mut failures = 0;
        // A controller that is away keeps no unit from starting.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        loop {
            let end_of_turn = match self.turn().await {
                Ok(again) => {
                    failures = 0;
                    self.is_over();
                    End::Told(again)
                }
                Err(error) => {
                    failures += 1;
                    if matches!(error, AgentError::Client(ClientError::Reach { .. })) {
                        self.outage.get_or_insert_with(Instant::now);
                    }
                    let end = error.end();
                    let error = system::error::with_causes(&error);
                    tracing::warn!(error, failures, "this host is as it was; it is tried again");
                    end
                }
            };
            let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
            let wait = duty::wait(end_of_turn, failures, chance());
            tokio::select! {
                () = &mut end => return,
                ended = self.ended.recv() => {
                    if let Some((nonce, answer)) = ended {
                        self.running = None;
                        // Its epoch may be another, and what it could do.
                        self.looked = None;
                        self.ready.clear();
                        // How it has been is counted from here on.
                        self.memory.unreachable_min = 0;
                        match answer {
                            Ok(answer @ Answer::Said(_)) => drop(self.heard.insert(nonce, answer)),
                            Ok(_) => {}
                            Err(error) => {
                                let error = system::error::with_causes(&error);
                                tracing::warn!(%nonce, error, "how it went, the journal tells");
                            }
                        }
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One turn: what became of what was begun, what a controller wants, and the next thing to do. How long until the next.
    async fn turn(&mut self) -> Result<Duration, AgentError> {
        if self.memory.renew_at.is_some_and(|time| time <= now())
            && let Err(error) = self.renew().await
        {
            // The one that there is counts for as long again.
            tracing::warn!(error = system::error::with_causes(&error), "the certificate was not renewed");
        }
        if self.memory.let_go(now()) {
            self.remember()?;
        }
        let look = self.look().await?;
        self.tell_news().await?;
        let poll = Poll { version: Version, boot: look.boot, epoch: look.epoch, facts: self.memory.facts };
        let hint: Hint = match self.client.ask(paths::POLL, &poll).await {
            Err(error) if error.is_about_the_certificate() => {
                // Its certificate ran out while it was away; its key counts all the same.
                self.renew().await?;
                self.client.ask(paths::POLL, &poll).await?
            }
            answered => answered?,
        };
        if self.spool.keep_manifests(&self.client, &hint.manifests).await? == Changed::Yes {
            self.looked = None;
        }
        let facts = self.facts().await?;
        if hint.facts == FactsWanted::Yes || self.memory.facts != Some(facts.digest()) {
            self.tell_facts(facts).await?;
        }
        for rollout in &hint.stop {
            self.executor.ask(&Question::Stop { rollout: *rollout }).await?;
        }
        for rollout in self.spool.rollouts() {
            let offered = hint.offers.iter().any(|offer| offer.rollout == rollout);
            if !offered && !self.memory.is_busy_with(rollout) {
                self.spool.forget(rollout)?;
            }
        }
        self.ready.retain(|rollout, _| hint.offers.iter().any(|offer| offer.rollout == *rollout));
        if self.running.is_none()
            && let Some(offer) = duty::choose(&self.memory, &hint.offers)
        {
            self.take_up(offer, look.epoch).await?;
        }
        Ok(Duration::from_secs(u64::from(hint.again.secs())))
    }

    /// What the host is like; asked again when it may have changed.
    async fn look(&mut self) -> Result<Look, AgentError> {
        if let Some((look, at)) = &self.looked
            && !duty::is_due(Some(at.elapsed()), duty::LOOK)
        {
            return Ok(look.clone());
        }
        match self.executor.ask(&Question::Look { manifests: Some(self.spool.manifests()) }).await? {
            Answer::Host(look) => {
                self.looked = Some(((*look).clone(), Instant::now()));
                Ok(*look)
            }
            other => Err(strange(&other).into()),
        }
    }

    /// Tells what became of attempts, as far as controllers do not know.
    async fn tell_news(&mut self) -> Result<(), AgentError> {
        let watch = duty::is_due(self.watched.map(|at| at.elapsed()), duty::LOOK_AFTER);
        if watch {
            self.watched = Some(Instant::now());
        }
        for attempt in self.memory.attempts.clone() {
            let asks = match attempt.phase {
                Phase::Asked => self.running != Some(attempt.nonce),
                Phase::Watched => watch && self.running.is_none(),
                Phase::Told => false,
            };
            if !asks {
                continue;
            }
            let (rollout, nonce) = (attempt.rollout, attempt.nonce);
            let answer = match self.heard.get(&nonce) {
                Some(answer) => answer.clone(),
                None => match self.executor.ask(&Question::Outcome { rollout, nonce }).await {
                    // Of this one it cannot tell; that keeps nothing else from being told.
                    Err(error @ ExecutorError::Failed { .. }) => {
                        let error = system::error::with_causes(&error);
                        tracing::warn!(%rollout, %nonce, error, "not told yet");
                        continue;
                    }
                    answered => answered?,
                },
            };
            let Some((said, phase)) = duty::news(&attempt, &answer) else { continue };
            let transaction = match &answer {
                Answer::Said(Verdict { transaction, .. }) => transaction.clone(),
                _ => None,
            };
            let report = AttemptReport {
                rollout,
                nonce: Some(nonce),
                said,
                transaction,
                fingerprint: fingerprint(&answer),
            };
            self.report(vec![report], None).await?;
            self.memory.advance(&nonce, phase, now());
            self.heard.remove(&nonce);
            self.remember()?;
            tracing::info!(%rollout, ?said, "told");
        }
        Ok(())
    }

    /// What there is to be told of the host: what the executor says, and whether controllers could be reached since the
    /// last change, which nobody else knows.
    async fn facts(&mut self) -> Result<HostFacts, AgentError> {
        let mut facts = self.look().await?.facts;
        if let Some(last) = facts.changes.first_mut() {
            last.unreachable_min = self.memory.unreachable_min;
        }
        Ok(facts)
    }

    async fn tell_facts(&mut self, facts: HostFacts) -> Result<(), AgentError> {
        let digest = facts.digest();
        self.report(Vec::new(), Some(facts)).await?;
        self.memory.facts = Some(digest);
        self.remember()
    }

    /// A controller answers. If none did for a while, that is kept.
    fn is_over(&mut self) {
        let Some(since) = self.outage.take() else { return };
        let minutes = duty::outage(since.elapsed());
        self.memory.unreachable_min = self.memory.unreachable_min.max(minutes);
    }

    async fn report(
        &mut self,
        attempts: Vec<AttemptReport>,
        facts: Option<HostFacts>,
    ) -> Result<Heard, AgentError> {
        self.memory.report += 1;
        self.remember()?;
        let report = Report { version: Version, number: self.memory.report, attempts, facts };
        Ok(self.client.ask(paths::REPORT, &report).await?)
    }

    fn remember(&self) -> Result<(), AgentError> {
        Ok(self.memory.write(&self.directory.0.join(MEMORY))?)
    }

    /// Takes up an offer as far as it goes now.
    async fn take_up(&mut self, offer: &Offer, epoch: u64) -> Result<(), AgentError> {
        let Offer { rollout, manifest, action, earliest } = *offer;
        let fetch = self.spool.fetch(&self.client, rollout, manifest);
        let Ok(fetched) = tokio::time::timeout(duty::FETCH, fetch).await else {
            tracing::info!(%rollout, "it is fetched further with the next poll");
            return Ok(());
        };
        let papers = fetched?;
        let known = self.ready.get(&rollout).map(Instant::elapsed);
        if action == Action::Apply && duty::is_due(known, duty::READY) {
            let verdict = match self.executor.ask(&Question::Preflight { what: papers.clone() }).await? {
                Answer::Said(verdict) => verdict,
                other => return Err(strange(&other).into()),
            };
            let said = verdict.said;
            let ready = said == Said::Ready;
            if !ready {
                tracing::warn!(%rollout, why = verdict.why, "declined");
            }
            let fingerprint = fingerprint(&Answer::Said(verdict));
            let report = AttemptReport { rollout, nonce: None, said, transaction: None, fingerprint };
            self.report(vec![report], None).await?;
            if !ready {
                self.ready.remove(&rollout);
                return Ok(());
            }
            self.ready.insert(rollout, Instant::now());
        }
        if action == Action::Apply && earliest > now() {
            return Ok(());
        }
        let nonce = match self.executor.ask(&Question::Attempt { rollout, action }).await? {
            Answer::Nonce { nonce } => nonce,
            other => return Err(strange(&other).into()),
        };
        // Before it is asked: whoever crashes after a grant has to know of it.
        self.memory.attempt(rollout, action, nonce, now());
        self.remember()?;
        let request = BeginRequest { version: Version, rollout, action, nonce, epoch };
        match self.client.ask(paths::BEGIN, &request).await {
            Ok(BeginAnswer::Granted { grant, .. }) => {
                tracing::info!(%rollout, ?action, "begins");
                self.begin(nonce, grant, papers);
                Ok(())
            }
            Ok(BeginAnswer::NotNow { because, .. }) => {
                tracing::debug!(%rollout, because, "not now");
                self.drop_attempt(&nonce)
            }
            Err(error) if error.is_refusal() => {
                self.drop_attempt(&nonce)?;
                Err(error.into())
            }
            // Perhaps it was granted: the executor never begins it, and that is told.
            Err(error) => Err(error.into()),
        }
    }

    fn drop_attempt(&mut self, nonce: &Nonce) -> Result<(), AgentError> {
        self.memory.attempts.retain(|attempt| attempt.nonce != *nonce);
        self.remember()
    }

    /// Hands a grant on. The polls go on meanwhile, so that a stop is heard.
    fn begin(&mut self, nonce: Nonce, grant: String, what: Papers) {
        self.running = Some(nonce);
        let (executor, ends) = (self.executor.clone(), self.ends.clone());
        tokio::spawn(async move {
            let answer = executor.ask(&Question::Begin { grant, what }).await;
            // Nobody listens any more if the agent ends; the journal knows.
            let _ = ends.send((nonce, answer)).await;
        });
    }

    /// A new certificate for the same key.
    async fn renew(&mut self) -> Result<(), AgentError> {
        let authority = self.directory.read(&self.directory.authority())?;
        let nobody = Client::new(&self.membership.controllers, &authority, None)?;
        let challenge: Challenge = nobody.get(paths::CHALLENGE).await?;
        let renew = Renew {
            version: Version,
            request: self.identity.request()?,
            nonce: challenge.nonce,
            signature: self.identity.sign(&challenge.nonce)?,
        };
        let certificate: Certificate = nobody.ask(paths::RENEW, &renew).await?;
        self.directory.keep(&self.directory.certificate(), &certificate.chain)?;
        self.client = connect(&self.directory, &self.identity, &self.membership)?;
        self.memory.renew_at = Some(duty::renewal(certificate.renew_at, now(), chance()));
        self.remember()?;
        tracing::info!(renew_at = %certificate.renew_at, "the certificate was renewed");
        Ok(())
    }
}

fn connect(
    directory: &Directory,
    identity: &Identity,
    membership: &Membership,
) -> Result<Client, AgentError> {
    let authority = directory.read(&directory.authority())?;
    let certificate = directory.read(&directory.certificate())?;
    Ok(Client::new(&membership.controllers, &authority, Some(&identity.with(&certificate)))?)
}

/// Failures with one cause have one fingerprint, on all hosts: the reason without its numbers.
fn fingerprint(answer: &Answer) -> Option<Sha256> {
    let Answer::Said(Verdict { why, said, .. }) = answer else { return None };
    let hurt = matches!(said, Said::Hurt { .. } | Said::NotRolledBack)
        || matches!(said, Said::Declined { outcome } if *outcome != Outcome::NotNeeded);
    let words: String = why.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    (hurt && !words.is_empty()).then(|| Sha256::of(words.as_bytes()))
}

pub(crate) fn now() -> UtcTime {
    UtcTime::floor(jiff::Timestamp::now())
}

/// Evenly from 0 to 1.
pub(crate) fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}
