//! The executor: root's half of a host in a fleet. It answers the agent over a socket ([`fleet::local`]), parses nothing
//! that came over a network but signed documents, and does what grants let it by the operations of the command line.
//!
//! An attempt is a nonce that was made here, and when: a grant counts for [`Grant::VALID`](manifests::Grant::VALID) from
//! then, by this host's monotonic clock. Attempts are kept in memory: an executor that ended knows none, a grant for one of
//! those begins nothing, and [`Engine::fate`] says so.

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
use manifests::{Nonce, Sha256};
use system::clock::Clock;

pub use self::socket::{SocketError, serve, socket};
use crate::config::Config;
use crate::operations::{Engine, EngineError};

/// An operator's wish that nothing of the fleet begins here: while this file is there.
pub const HOLD: &str = "/etc/update/hold";

/// Attempts that are open at once. An agent that asks for more loses the oldest.
const ATTEMPTS: usize = 64;

/// Where the executor looks, and how it comes to an engine.
pub struct Surroundings {
    /// Makes the host's engine, as each command does.
    pub engine: Box<dyn Fn() -> Result<Engine, EngineError> + Send + Sync>,
    /// The file with what this host is in its fleet.
    pub membership: PathBuf,
    /// The file that holds everything back.
    pub hold: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock + Send + Sync>,
}

impl Surroundings {
    /// This host, by its settings.
    pub fn of(config: Config, clock: Arc<dyn Clock + Send + Sync>) -> Self {
        Self {
            engine: Box::new(move || Engine::open(config.clone())),
            membership: PathBuf::from(Membership::PATH),
            hold: PathBuf::from(HOLD),
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

/// See [the module](self).
pub struct Executor {
    around: Surroundings,
    attempts: Mutex<BTreeMap<Nonce, Made>>,
    /// The rollout in whose name something runs, and whether it should turn back.
    running: Mutex<Option<(Sha256, Arc<AtomicBool>)>>,
    /// Whether this program was asked to end.
    ending: Arc<AtomicBool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Executor {
    /// An executor; `ending` turns what runs back, and is for signals.
    pub fn new(around: Surroundings, ending: Arc<AtomicBool>) -> Self {
        Self { around, attempts: Mutex::default(), running: Mutex::default(), ending }
    }

    /// Answers a question. Nothing that goes wrong is left unanswered.
    pub fn answer(&self, question: Question) -> Answer {
        let answered = match question {
            Question::Look => self.look(),
            Question::Preflight { what } => self.preflight(&what),
            Question::Attempt { rollout, action } => self.attempt(rollout, action),
            Question::Begin { grant, what } => self.begin(&grant, &what),
            Question::Outcome { rollout, nonce } => self.outcome(rollout, &nonce),
            Question::Stop { rollout } => {
                if let Some((running, turn_back)) = &*locked(&self.running)
                    && *running == rollout
                {
                    turn_back.store(true, Ordering::Relaxed);
                }
                Ok(Answer::Stopped)
            }
        };
        answered.unwrap_or_else(|error| Answer::Failed { error })
    }

    fn attempt(&self, rollout: Sha256, action: Action) -> Result<Answer, String> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
        let nonce = Nonce::from_bytes(bytes);
        let mut attempts = locked(&self.attempts);
        if attempts.len() >= ATTEMPTS
            && let Some(oldest) = attempts.iter().min_by_key(|(_, made)| made.at).map(|(nonce, _)| *nonce)
        {
            attempts.remove(&oldest);
        }
        attempts.insert(nonce, Made { rollout, action, at: self.around.clock.elapsed() });
        Ok(Answer::Nonce { nonce })
    }

    /// Whether operators hold this host back.
    fn is_held(&self) -> bool {
        self.around.hold.exists()
    }

    fn preflight(&self, what: &Papers) -> Result<Answer, String> {
        if self.is_held() {
            return Ok(held(&self.around));
        }
        let engine = (self.around.engine)().map_err(|error| answer::words(&error))?;
        let (member, _) = self.member(engine.config())?;
        let papers = answer::Unpacked::of(what, &engine)?;
        let said = match engine.preflight(&member, &papers.papers()) {
            Ok(plan) if plan.is_empty() => answer::declined(Outcome::NotNeeded, String::new()),
            Ok(_) => Verdict { said: Said::Ready, why: String::new(), transaction: None },
            Err(error) => answer::of_refusal(error),
        };
        Ok(Answer::Said(said))
    }
}

fn held(around: &Surroundings) -> Answer {
    Answer::Said(answer::declined(Outcome::Held, format!("{} is there", around.hold.display())))
}

#[cfg(test)]
mod tests;
