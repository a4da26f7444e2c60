//! The one thread that writes: it takes all that waits for it, so that all of it waits for the disk once.

use std::sync::mpsc;
use std::thread::JoinHandle;

use super::{Batch, LeaseAnswer, LeaseRequest, Receipt, Refused, StoreError};

/// So many batches share one wait for the disk at most, that the first of them does not wait for the last for long.
const MAX_GROUP: usize = 4096;

/// What one caller asks.
#[derive(Debug)]
pub(super) enum Asked {
    /// A group of batches.
    Commit(Vec<Batch>),
    /// The lease.
    Lease(LeaseRequest),
}

/// What it came to.
#[derive(Debug)]
pub(super) enum Done {
    /// Of a group of batches.
    Commit(Vec<Result<Receipt, Refused>>),
    /// Of a question about the lease.
    Lease(LeaseAnswer),
}

struct Job {
    asked: Asked,
    answer: mpsc::SyncSender<Result<Done, StoreError>>,
}

/// Whoever writes, in a thread of its own.
pub(super) struct Queue {
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Queue {
    /// `write` does all that it is asked, in order and in one transaction; an error undoes all of it.
    pub(super) fn start(
        write: impl FnMut(&[Asked]) -> Result<Vec<Done>, StoreError> + Send + 'static,
    ) -> Self {
        let (jobs, waiting) = mpsc::channel();
        let writer = std::thread::spawn(move || run(&waiting, write));
        Self { jobs: Some(jobs), writer: Some(writer) }
    }

    pub(super) fn commit(&self, group: Vec<Batch>) -> Result<Vec<Result<Receipt, Refused>>, StoreError> {
        match self.ask(Asked::Commit(group))? {
            Done::Commit(receipts) => Ok(receipts),
            Done::Lease(_) => Err(StoreError::Ended),
        }
    }

    pub(super) fn lease(&self, request: LeaseRequest) -> Result<LeaseAnswer, StoreError> {
        match self.ask(Asked::Lease(request))? {
            Done::Lease(answer) => Ok(answer),
            Done::Commit(_) => Err(StoreError::Ended),
        }
    }

    fn ask(&self, asked: Asked) -> Result<Done, StoreError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or(StoreError::Ended)?;
        jobs.send(Job { asked, answer }).map_err(|_| StoreError::Ended)?;
        answered.recv().map_err(|_| StoreError::Ended)?
    }
}

impl Drop for Queue {
    /// What was handed in before is written.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // It panicked, or it ended as it was told; either way it is over.
            let _ = writer.join();
        }
    }
}

impl Asked {
    fn weight(&self) -> usize {
        match self {
            Self::Commit(group) => group.len(),
            Self::Lease(_) => 1,
        }
    }
}

/// Until nobody can ask any more.
fn run(waiting: &mpsc::Receiver<Job>, mut write: impl FnMut(&[Asked]) -> Result<Vec<Done>, StoreError>) {
    while let Ok(Job { asked, answer }) = waiting.recv() {
        let mut weight = asked.weight();
        let (mut all, mut answers) = (vec![asked], vec![answer]);
        while weight < MAX_GROUP
            && let Ok(next) = waiting.try_recv()
        {
            weight += next.asked.weight();
            all.push(next.asked);
            answers.push(next.answer);
        }
        // Whoever does not wait for the answer any more reads it from the store.
        match write(&all) {
            Ok(done) => {
                answers.iter().zip(done).for_each(|(answer, done)| drop(answer.send(Ok(done))));
            }
            Err(error) => answers.iter().for_each(|answer| drop(answer.send(Err(error.clone())))),
        }
    }
}
