//! Connections, and how long they are waited for.
//!
//! A session says itself what it relies on, whatever the server's configuration is: commits wait for the disk; whoever stands still in the
//! middle of a transaction (a controller that was stopped, a network that is gone) loses it after seconds, and so nobody waits long
//! for the rows that it had locked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use system::clock::Clock;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::database::Database;
use super::error::DatabaseError;

/// How long a question may take. Its asker's lease lasts for [`HELD`](crate::store::lease::HELD).
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The oldest version that is maintained.
const OLDEST: i32 = 13_0000;

/// For every session.
const SETTINGS: &str = "
    SET lock_timeout = '3s';
    SET idle_in_transaction_session_timeout = '5s';
    SET tcp_user_timeout = '10s';
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// The server's clock, as far as it is known between two questions.
pub(super) struct Time {
    clock: Arc<dyn Clock + Send + Sync>,
    /// What the server's clock was, and what time it was here, by the clock that does not jump.
    heard: Mutex<(Timestamp, Duration)>,
}

impl Time {
    pub(super) fn new(clock: Arc<dyn Clock + Send + Sync>) -> Self {
        let heard = Mutex::new((clock.now(), clock.elapsed()));
        Self { clock, heard }
    }

    pub(super) fn hear(&self, server: Timestamp) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = (server, self.clock.elapsed());
    }

    pub(super) fn now(&self) -> Timestamp {
        let (server, here) = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let since = SignedDuration::try_from(self.clock.elapsed().saturating_sub(here));
        server.saturating_add(since.unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
    }
}

impl Database {
    /// A session that is ready to be used.
    pub(super) async fn connect(&self) -> Result<Client, DatabaseError> {
        in_time(PATIENCE, async {
            let (client, connection) = self.config.connect(self.tls.clone()).await?;
            tokio::spawn(async move {
                // Whoever uses the client hears of it, too.
                if let Err(error) = connection.await {
                    tracing::debug!(error = system::error::with_causes(&error), "a session ended");
                }
            });
            client.batch_execute(SETTINGS).await?;
            Ok(client)
        })
        .await
    }
}

/// An answer, or that there was none in time.
pub(super) async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    match timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(DatabaseError::Silent { seconds: limit.as_secs() }),
    }
}

/// The server's version and clock.
pub(super) async fn look_over(db: &Client) -> Result<Timestamp, DatabaseError> {
    let sql = "SELECT current_setting('server_version_num')::int4, version(), clock_timestamp()";
    let row = db.query_typed_one(sql, &[]).await?;
    if row.get::<_, i32>(0) < OLDEST {
        return Err(DatabaseError::Old { found: row.get(1) });
    }
    Ok(row.get(2))
}

/// Refuses a pooler that lends its sessions for one transaction: there, nothing that a session says of itself holds.
///
/// It shows by two clients that are given one session, or by one that is given several: one asks twice, whichever session is next for it; then once
/// more while the other is in a transaction and so keeps the one that it was lent.
pub(super) async fn refuse_pooler(one: &Client, other: &Client) -> Result<(), DatabaseError> {
    async fn session(db: &Client) -> Result<i32, DatabaseError> {
        Ok(db.query_typed_one("SELECT pg_backend_pid()", &[]).await?.get(0))
    }
    let mut own = vec![session(one).await?, session(one).await?];
    other.batch_execute("BEGIN").await?;
    let others = session(other).await?;
    own.push(session(one).await?);
    other.batch_execute("ROLLBACK").await?;
    let its_own = own.iter().all(|session| *session == own[0] && *session != others);
    if its_own { Ok(()) } else { Err(DatabaseError::Pooler) }
}

/// Tries that are made again after a while: each waits up to twice as long as the one before, and a random part of
/// that, so that controllers that lost one server together do not come back together.
pub(super) struct Tries {
    left: u32,
    pause: Duration,
}

impl Tries {
    /// Enough for a server that restarts: 3 s on average, 6 s at most.
    pub(super) fn new() -> Self {
        Self { left: 6, pause: Duration::from_millis(100) }
    }

    /// Waits; whether there is another try.
    pub(super) async fn again(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let part = f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        tokio::time::sleep(self.pause.mul_f64(part)).await;
        self.pause *= 2;
        true
    }
}
