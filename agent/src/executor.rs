//! Questions to the executor of this host: a line of JSON each.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fleet::local::{Answer, MAX_ANSWER, Question};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long it may take for anything but a transaction; a preflight hashes payloads.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why the executor gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// It cannot be reached, or went away.
    #[error("ask the executor at {path}")]
    Io {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says that it cannot.
    #[error("the executor: {words}")]
    Failed {
        /// In its words.
        words: String,
    },
    /// It says something that was not asked.
    #[error("the executor answers something else: {answer}")]
    Strange {
        /// What.
        answer: String,
    },
}

/// The executor.
#[derive(Debug, Clone)]
pub struct Executor {
    /// Its socket.
    pub socket: PathBuf,
}

impl Executor {
    /// Asks. The answer to `begin` comes when the transaction has ended, however long that takes.
    ///
    /// # Errors
    /// [`ExecutorError`]; what was asked may have been done.
    pub async fn ask(&self, question: &Question) -> Result<Answer, ExecutorError> {
        let failed = |source| ExecutorError::Io { path: self.socket.clone(), source };
        let asked = self.talk(question);
        let answer = match question {
            Question::Begin { .. } => asked.await,
            _ => match timeout(PATIENCE, asked).await {
                Ok(answered) => answered,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            },
        };
        match answer.map_err(failed)? {
            Answer::Failed { error } => Err(ExecutorError::Failed { words: error }),
            answer => Ok(answer),
        }
    }

    async fn talk(&self, question: &Question) -> io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        BufReader::new(stream).take(MAX_ANSWER as u64 + 1).read_until(b'\n', &mut answer).await?;
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if answer.len() > MAX_ANSWER {
            return Err(io::Error::other("its answer is too long"));
        }
        Ok(serde_json::from_slice(&answer)?)
    }
}

/// For an answer that does not fit its question.
pub fn strange(answer: &Answer) -> ExecutorError {
    ExecutorError::Strange { answer: format!("{answer:?}") }
}
