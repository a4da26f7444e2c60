//! The executor: root's half of a host in a fleet. It answers the agent over a socket ([`fleet::local`]), parses nothing
//! that came over a network but signed documents, and does what grants let it by the operations of the command line.
//!
//! An attempt is a nonce that was made here, and when: a grant counts for [`Grant::VALID`](manifests::Grant::VALID) from
//! then, by this host's monotonic clock. Attempts are kept in memory: an executor that ended knows none, a grant for one of
//! those begins nothing, and [`Engine::fate`] says so.
//!
//! - An attempt that was begun, or asked about, is not begun any more: what was said of it stays true.
//! - Before a transaction is begun this host *declines*; nothing of the rollout is on it, whatever else is wrong.
//! - What is told to turn back is not hurt by it. A way back is walked to its end.

mod answer;
mod host;
mod socket;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet::local::{Answer, Membership, Papers, Question, Verdict};
use fleet::rollout::{Action, Outcome, Said};
use manifests::{Grant, GroupName, Nonce, Sha256};
use system::clock::Clock;

pub use self::socket::{Listener, SocketError, serve};
use crate::config::Config;
use crate::operations::hold::HoldError;
use crate::operations::{Engine, EngineError, Listeners};

/// Attempts that are open at once. An agent that asks for more loses the oldest.
const ATTEMPTS: usize = 64;

/// Makes the host's engine, as each command does, for a host that is in these groups, too.
pub type MakeEngine = dyn Fn(&[GroupName]) -> Result<Engine, EngineError> + Send + Sync;

/// Where the executor looks, and how it comes to an engine.
pub struct Surroundings {
    /// How an engine is made.
    pub engine: Box<MakeEngine>,
    /// The file with what this host is in its fleet.
    pub membership: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock + Send + Sync>,
}

impl Surroundings {
    /// This host, by its settings.
    pub fn of(config: Config, clock: Arc<dyn Clock + Send + Sync>) -> Self {
        Self {
            engine: Box::new(move |groups| Engine::open(config.clone().and_in(groups))),
            membership: PathBuf::from(Membership::PATH),
            clock,
        }
    }
}

/// A nonce that was made here.
#[derive(Debug, Clone, Copy)]
struct Made {
    rollout: Sha256,
    action: Action,
    at: Duration,
}

/// What is known of attempts and stands on no disk. Each is in one of the two, or in neither any more.
#[derive(Debug, Default)]
struct Attempts {
    /// They wait for their grants.
    waiting: BTreeMap<Nonce, Made>,
    /// They are being judged, or done; and whether they should turn back.
    running: BTreeMap<Nonce, (Made, Arc<AtomicBool>)>,
}

/// See [the module](self).
pub struct Executor {
    around: Surroundings,
    attempts: Mutex<Attempts>,
    /// Whether this program was asked to end.
    ending: Arc<AtomicBool>,
}

/// An attempt while it runs.
struct Run<'a> {
    executor: &'a Executor,
    nonce: Nonce,
    made: Made,
    turn_back: Arc<AtomicBool>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.executor.attempts().running.remove(&self.nonce);
    }
}

impl Executor {
    /// An executor; `ending` turns what runs back, and is for signals.
    pub fn new(around: Surroundings, ending: Arc<AtomicBool>) -> Self {
        Self { around, attempts: Mutex::default(), ending }
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an attempt up: from here on it waits no more.
    fn run(&self, nonce: Nonce) -> Option<Run<'_>> {
        let mut attempts = self.attempts();
        let made = attempts.waiting.remove(&nonce)?;
        let turn_back = Arc::new(AtomicBool::new(false));
        attempts.running.insert(nonce, (made, turn_back.clone()));
        Some(Run { executor: self, nonce, made, turn_back })
    }

    /// Ends what an executor before this one began and was killed over.
    ///
    /// # Errors
    /// In words.
    pub fn take_up(&self) -> Result<(), String> {
        let (engine, _) = self.engine()?;
        let leash = answer::Leash::none();
        let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: &leash };
        let resumed = engine.resume_errands(&listeners).map_err(|error| answer::words(&error))?;
        if let Some(resumed) = resumed {
            tracing::warn!(transactions = resumed.transactions.len(), "ended what was left half-way");
        }
        Ok(())
    }

    /// Answers a question. Nothing that goes wrong is left unanswered.
    pub fn answer(&self, question: Question) -> Answer {
        let answered = match question {
            Question::Look { manifests } => self.look(manifests.as_deref()),
            Question::Preflight { what } => self.preflight(&what),
            Question::Attempt { rollout, action } => self.attempt(rollout, action),
            Question::Begin { grant, what } => self.begin(&grant, &what),
            Question::Outcome { rollout, nonce } => self.outcome(rollout, &nonce),
            Question::Stop { rollout } => {
                self.stop(rollout);
                Ok(Answer::Stopped)
            }
        };
        answered.unwrap_or_else(|error| Answer::Failed { error })
    }

    fn attempt(&self, rollout: Sha256, action: Action) -> Result<Answer, String> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
        let nonce = Nonce::from_bytes(bytes);
        let now = self.around.clock.elapsed();
        let waiting = &mut self.attempts().waiting;
        waiting.retain(|_, made| now.saturating_sub(made.at) <= Grant::VALID);
        if waiting.len() >= ATTEMPTS
            && let Some(oldest) = waiting.iter().min_by_key(|(_, made)| made.at).map(|(nonce, _)| *nonce)
        {
            waiting.remove(&oldest);
        }
        waiting.insert(nonce, Made { rollout, action, at: now });
        Ok(Answer::Nonce { nonce })
    }

    /// Nothing more in the name of this rollout, but its way back.
    fn stop(&self, rollout: Sha256) {
        let stopped = |made: &Made| made.rollout == rollout && made.action == Action::Apply;
        let mut attempts = self.attempts();
        attempts.waiting.retain(|_, made| !stopped(made));
        for (_, turn_back) in attempts.running.values().filter(|(made, _)| stopped(made)) {
            turn_back.store(true, Ordering::Relaxed);
        }
    }

    fn preflight(&self, what: &Papers) -> Result<Answer, String> {
        let (engine, member) = self.member()?;
        let held = engine.held().map_err(|error| answer::words(&error))?;
        if !held.is_free() {
            return Ok(Answer::Said(answer::of_refusal(HoldError::Held(held).into())));
        }
        let papers = answer::Unpacked::of(what, &engine)?;
        let said = match engine.preflight(&member, &papers.papers()) {
            Ok(plan) if plan.is_empty() => answer::declined(Outcome::NotNeeded, String::new()),
            Ok(_) => Verdict { said: Said::Ready, why: String::new(), transaction: None },
            Err(error) => answer::of_refusal(error),
        };
        Ok(Answer::Said(said))
    }
}

#[cfg(test)]
mod tests;
