//! What the agent must not forget over a crash: what it asked to begin, and whether it has told how that went.
//!
//! One small file, replaced as a whole. It is written before anything is asked of a controller that could not be asked twice.

use std::path::{Path, PathBuf};

use fleet::rollout::Action;
use manifests::{Nonce, Sha256, UtcTime};
use serde::{Deserialize, Serialize};

/// The most bytes of the file.
const MAX_BYTES: usize = 1 << 20;

/// For so long a change is looked after. The bake of a wave is shorter: what comes later has other causes.
const WATCH: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

/// So many attempts are remembered; the oldest that were told go first.
const ATTEMPTS: usize = 256;

/// See [the module](self).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The number of the last report.
    pub report: u64,
    /// The digest of the facts that a controller heard last.
    pub facts: Option<Sha256>,
    /// The longest time since the last change without an answer of any controller, in minutes.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unreachable_min: u32,
    /// When to ask for the next certificate.
    pub renew_at: Option<UtcTime>,
    /// Attempts, the oldest first.
    pub attempts: Vec<Attempt>,
}

/// What an older program would not know is written only where there is something to say.
fn is_none(minutes: &u32) -> bool {
    *minutes == 0
}

/// Something that this host asked to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// In which rollout.
    pub rollout: Sha256,
    /// To do what.
    pub action: Action,
    /// The executor's nonce.
    pub nonce: Nonce,
    /// How far it has come.
    pub phase: Phase,
    /// When it came that far.
    pub since: UtcTime,
}

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// A controller may have granted it.
    Asked,
    /// A change is on this host, and a controller knows; it is looked after.
    Watched,
    /// A controller knows how it ended.
    Told,
}

/// The memory cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the agent's memory {path}")]
pub struct MemoryError {
    /// The file.
    path: PathBuf,
    /// Why.
    source: std::io::Error,
}

impl Memory {
    /// What was remembered; nothing before the first time.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn read(path: &Path) -> Result<Self, MemoryError> {
        let failed = |source| MemoryError { path: path.to_owned(), source };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let bytes = manifests::bounded::read(file, MAX_BYTES)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))
    }

    /// Remembers, durably.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn write(&self, path: &Path) -> Result<(), MemoryError> {
        let failed = |source| MemoryError { path: path.to_owned(), source };
        let bytes = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        system::durable::replace(path, &bytes).map_err(failed)
    }

    /// A new attempt.
    pub fn attempt(&mut self, rollout: Sha256, action: Action, nonce: Nonce, now: UtcTime) {
        self.attempts.push(Attempt { rollout, action, nonce, phase: Phase::Asked, since: now });
        while self.attempts.len() > ATTEMPTS {
            let oldest = self.attempts.iter().position(|one| one.phase == Phase::Told).unwrap_or(0);
            self.attempts.remove(oldest);
        }
    }

    /// An attempt has come further.
    pub fn advance(&mut self, nonce: &Nonce, phase: Phase, now: UtcTime) {
        for one in self.attempts.iter_mut().filter(|one| one.nonce == *nonce) {
            (one.phase, one.since) = (phase, now);
        }
    }

    /// Looks after changes no longer that are old by now; whether there were any.
    pub fn let_go(&mut self, now: UtcTime) -> bool {
        let old = |one: &&mut Attempt| {
            one.phase == Phase::Watched && now.timestamp().duration_since(one.since.timestamp()) > WATCH
        };
        self.attempts.iter_mut().filter(old).map(|one| one.phase = Phase::Told).count() > 0
    }

    /// Rollouts of which something is under way or looked after, and whose papers may be needed for the way back.
    pub fn is_busy_with(&self, rollout: Sha256) -> bool {
        self.attempts.iter().any(|one| one.rollout == rollout && one.phase != Phase::Told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_forgotten_before_what_is_open() {
        let mut memory = Memory::default();
        let nonce = |number: usize| Nonce::from_bytes((number as u128).to_be_bytes());
        let rollout = |number: usize| Sha256::of(&number.to_be_bytes());
        let now: UtcTime = "2026-11-02T00:00:00Z".parse().unwrap();
        for number in 0..ATTEMPTS {
            memory.attempt(rollout(number), Action::Apply, nonce(number), now);
        }
        memory.advance(&nonce(5), Phase::Told, now);
        memory.attempt(rollout(ATTEMPTS), Action::Apply, nonce(ATTEMPTS), now);
        assert!(!memory.is_busy_with(rollout(5)) && memory.is_busy_with(rollout(0)));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert_eq!(Memory::read(&path).unwrap(), Memory::default());
        memory.write(&path).unwrap();
        assert_eq!(Memory::read(&path).unwrap(), memory);
        std::fs::write(&path, b"{").unwrap();
        assert!(Memory::read(&path).is_err());
    }

    #[test]
    fn a_change_is_looked_after_for_a_month_and_a_question_until_it_is_answered() {
        let mut memory = Memory::default();
        let [asked, watched] = [1, 2].map(|number| Nonce::from_bytes([number; 16]));
        let at = |text: &str| text.parse::<UtcTime>().unwrap();
        for nonce in [asked, watched] {
            memory.attempt(Sha256::of(b"rollout"), Action::Apply, nonce, at("2026-11-02T00:00:00Z"));
        }
        memory.advance(&watched, Phase::Watched, at("2026-11-03T00:00:00Z"));
        assert!(!memory.let_go(at("2026-12-03T00:00:00Z")));
        assert!(memory.let_go(at("2026-12-03T00:00:01Z")));
        assert_eq!(
            memory.attempts.iter().map(|one| one.phase).collect::<Vec<_>>(),
            [Phase::Asked, Phase::Told]
        );
    }
}
