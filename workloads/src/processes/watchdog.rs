//! Looking at what may never answer, from a thread that can be left behind.
//!
//! Where a file system is served by a process, or a process holds the lock of its own mappings, a system call of
//! ours may wait for as long as that process likes, and no signal ends it. So one thread does the looking and one
//! watches it: if it shows no sign of life for [`PATIENCE`] it is left behind, the subject counts as without an
//! answer, and a new thread goes on with the next one. A thread that was left behind ends with this process, or
//! as soon as it gets its answer.
//!
//! The one that watches also hears who asks to stop, and tells how far the look has come.

#![expect(clippy::disallowed_methods, reason = "an answer is waited for in real time")]

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use system::clock::{Interrupt, Uninterrupted};

use crate::model::SeenPath;

/// How long one system call may take. A disk that is being woken up takes less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How often the looking thread is looked at: at once, for a person.
const SLICE: Duration = Duration::from_millis(100);

/// Who watches a look, and may end it.
#[derive(Clone, Copy)]
pub struct Onlooker<'a> {
    /// May ask to stop.
    pub interrupt: &'a dyn Interrupt,
    /// Is told how far it has come, a few times a second if it takes long.
    pub told: &'a dyn Fn(&Progress),
}

impl Onlooker<'static> {
    /// Nobody.
    pub const NOBODY: Self = Self { interrupt: &Uninterrupted, told: &|_| () };
}

/// How far a look has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// How many processes were looked at.
    pub done: usize,
    /// How many there are.
    pub all: usize,
    /// The file that is being read, if that takes a while.
    pub file: Option<SeenPath>,
}

/// Somebody asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operator asked to stop while processes were looked at")]
pub struct Stopped;

/// Why a look came to no result at all.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Somebody asked to stop.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// No thread could be started.
    #[error("could not start a thread to look at processes")]
    Thread(#[source] io::Error),
    /// The processes could not be listed.
    #[error("could not list the processes in /proc")]
    List(#[source] io::Error),
}

/// The sign of life of a looking thread.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    beats: AtomicU64,
    stopped: AtomicBool,
    at: Mutex<Option<Subject>>,
}

/// What a looking thread is busy with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The device, as `/proc/PID/maps` shows it.
    pub(crate) device: Vec<u8>,
    /// The file.
    pub(crate) file: SeenPath,
}

impl Pulse {
    /// Tells that it lives.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells that it lives, and what it does now.
    pub(crate) fn begins(&self, subject: Option<Subject>) {
        *self.at() = subject;
        self.beat();
    }

    /// Whether it should come to an end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn at(&self) -> MutexGuard<'_, Option<Subject>> {
        locked(&self.at)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does all `jobs` in their order, in a thread that `make` gives its work to: once, and once more for each job
/// that got no answer, with the subjects that gave none, so that they can be left alone.
pub(crate) fn over<J, R, W>(
    jobs: &[J],
    onlooker: Onlooker<'_>,
    patience: Duration,
    make: impl Fn(&[Subject]) -> W,
    no_answer: impl Fn(&J, Option<&Subject>) -> R,
) -> Result<Vec<R>, LookError>
where
    J: Clone + Send + 'static,
    R: Send + 'static,
    W: FnMut(&J, &Pulse) -> R + Send + 'static,
{
    let mut results = Vec::with_capacity(jobs.len());
    let mut silent = Vec::new();
    while results.len() < jobs.len() {
        // Nothing is ever sent: that the thread has ended is the message. To wake the one that watches for each job would take
        // as long as many a job.
        let (lives, ended) = channel::<Infallible>();
        let pulse = Arc::new(Pulse::default());
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut work = make(&silent);
        let rest = jobs[results.len()..].to_vec();
        let (its, its_done) = (Arc::clone(&pulse), Arc::clone(&done));
        let looking = thread::Builder::new().name("look".into()).spawn(move || {
            let _lives = lives;
            for job in &rest {
                its.begins(None);
                if its.is_stopped() {
                    break;
                }
                let result = work(job, &its);
                locked(&its_done).push(result);
            }
        });
        let looking = looking.map_err(LookError::Thread)?;
        let (mut sign, mut since) = ((0, 0), Instant::now());
        loop {
            let waited = ended.recv_timeout(SLICE);
            if onlooker.interrupt.asked() {
                pulse.stopped.store(true, Ordering::Relaxed);
                return Err(Stopped.into());
            }
            if matches!(waited, Err(RecvTimeoutError::Disconnected)) {
                if let Err(panic) = looking.join() {
                    std::panic::resume_unwind(panic);
                }
                results.append(&mut locked(&done));
                break;
            }
            let subject = pulse.at().clone();
            let file = subject.as_ref().map(|subject| subject.file.clone());
            let mut done = locked(&done);
            (onlooker.told)(&Progress { done: results.len() + done.len(), all: jobs.len(), file });
            let now = (pulse.beats.load(Ordering::Relaxed), done.len());
            if now != sign {
                (sign, since) = (now, Instant::now());
            } else if since.elapsed() > patience {
                // What it still finds is not waited for.
                results.append(&mut done);
                results.push(no_answer(&jobs[results.len()], subject.as_ref()));
                silent.extend(subject);
                break;
            }
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    fn subject(device: &str) -> Subject {
        Subject { device: device.into(), file: "/mnt/file".into() }
    }

    #[test]
    fn what_gives_no_answer_is_left_behind_and_the_rest_is_looked_at() {
        // Held by the test: who waits for it waits for ever.
        let served = Arc::new(Mutex::new(()));
        let silent = served.lock().unwrap();
        let make = |avoided: &[Subject]| {
            let (served, avoided) = (Arc::clone(&served), avoided.to_vec());
            move |job: &u32, pulse: &Pulse| {
                if job % 3 == 1 && !avoided.contains(&subject("00:2f")) {
                    pulse.begins(Some(subject("00:2f")));
                    drop(served.lock());
                }
                format!("{job} after {}", avoided.len())
            }
        };
        let no_answer = |job: &u32, subject: Option<&Subject>| format!("{job} silent, {subject:?}");
        let found = over(&[0, 1, 2, 3, 4], Onlooker::NOBODY, SHORT, make, no_answer).unwrap();
        drop(silent);
        assert_eq!(
            found,
            [
                "0 after 0",
                &format!("1 silent, {:?}", Some(subject("00:2f"))),
                "2 after 1",
                "3 after 1",
                "4 after 1"
            ]
        );
    }

    #[test]
    fn who_shows_that_it_lives_may_take_its_time() {
        let make = |_: &[Subject]| {
            |_: &(), pulse: &Pulse| {
                let begun = Instant::now();
                while begun.elapsed() < 3 * SHORT {
                    pulse.beat();
                    thread::yield_now();
                }
                "done"
            }
        };
        assert_eq!(over(&[()], Onlooker::NOBODY, SHORT, make, |(), _| "silent").unwrap(), ["done"]);
    }

    struct Impatient;

    impl Interrupt for Impatient {
        fn asked(&self) -> bool {
            true
        }
    }

    #[test]
    fn who_asks_to_stop_is_heard_and_the_thread_too() {
        let (send, ended) = channel();
        let make = |_: &[Subject]| {
            let send = send.clone();
            move |_: &(), pulse: &Pulse| {
                while !pulse.is_stopped() {
                    pulse.beat();
                    thread::yield_now();
                }
                send.send(()).unwrap();
            }
        };
        let onlooker = Onlooker { interrupt: &Impatient, told: &|_| () };
        let error = over(&[()], onlooker, SHORT, make, |(), _| ()).unwrap_err();
        assert!(matches!(error, LookError::Stopped(Stopped)), "{error}");
        ended.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}
