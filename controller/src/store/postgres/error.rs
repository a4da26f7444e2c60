//! Why a database did not do what it was asked, and whether that passes.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// Why a database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The address is none.
    #[error("the address of the database: {why}")]
    Address {
        /// What is wrong with it.
        why: String,
    },
    /// A file for TLS cannot be used.
    #[error("{what} for the database: {path}")]
    File {
        /// What it is for.
        what: &'static str,
        /// Where it is.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody answers, or whoever answered is gone, or starts.
    #[error("the database cannot be reached")]
    Away(#[source] Error),
    /// It is not whom it should be, or does not speak TLS.
    #[error("the database cannot be believed over TLS")]
    Tls(#[source] Error),
    /// It does not know the user, or expects another password.
    #[error("the database does not let this user in")]
    Login(#[source] Error),
    /// There is none of that name.
    #[error("there is no such database: expected one that is empty or a controller's")]
    Missing(#[source] Error),
    /// The user may not do that.
    #[error("the database's user may not do that: expected the owner of the database, or of its schema")]
    Forbidden(#[source] Error),
    /// It is a standby, or was told not to write.
    #[error(
        "the database only reads: expected the primary, found a standby or default_transaction_read_only"
    )]
    ReadOnly(#[source] Error),
    /// Its disk is full.
    #[error("the database's disk is full: nothing was written")]
    Full(#[source] Error),
    /// It did not answer in time.
    #[error("the database did not answer within {seconds} s")]
    Silent {
        /// For how long it was waited.
        seconds: u64,
    },
    /// A pooler gives each transaction another session.
    #[error(
        "the address is that of a transaction pooler: expected the server itself, or a pooler that gives each client a session of its own"
    )]
    Pooler,
    /// It is too old.
    #[error("the server is too old: expected PostgreSQL 13 or later, found {found}")]
    Old {
        /// Its version.
        found: String,
    },
    /// Rows are not as this program left them: somebody else wrote past the lock.
    #[error("rows changed under the lock: somebody writes who is no controller; nothing was written")]
    Elsewhere,
    /// Something is there already.
    #[error("the database has a fleet already: expected an empty one")]
    Taken,
    /// It failed otherwise.
    #[error("the database refuses")]
    Failed(#[source] Error),
    /// The connection broke at the commit.
    #[error("the commit was not acknowledged: it may have been written or not")]
    InDoubt(#[source] Box<DatabaseError>),
}

impl DatabaseError {
    /// Whether it is worth asking again soon. What may have been written does not pass.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Silent { .. } | Self::ReadOnly(_))
    }
}

impl From<Error> for DatabaseError {
    fn from(error: Error) -> Self {
        let Some(code) = error.code() else {
            return match error.source() {
                // A standby among the hosts of the address: this crate's word for it.
                Some(cause) if cause.to_string() == "database does not allow writes" => Self::ReadOnly(error),
                Some(cause) if cause.to_string() == "password missing" => Self::Login(error),
                _ if error.to_string().contains("TLS") => Self::Tls(error),
                _ if error.to_string().contains("authentication") => Self::Login(error),
                _ => Self::Away(error),
            };
        };
        // PgBouncer's own words; it has no code of its own for them.
        if error.as_db_error().is_some_and(|said| said.message().contains("pooling mode")) {
            return Self::Pooler;
        }
        match code.clone() {
            SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Self::Login(error),
            SqlState::INVALID_CATALOG_NAME => Self::Missing(error),
            SqlState::INSUFFICIENT_PRIVILEGE => Self::Forbidden(error),
            SqlState::READ_ONLY_SQL_TRANSACTION => Self::ReadOnly(error),
            SqlState::DISK_FULL => Self::Full(error),
            // The server ends or begins, has no room for one more, or somebody holds a row for too long.
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::TOO_MANY_CONNECTIONS
            | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
            | SqlState::LOCK_NOT_AVAILABLE
            | SqlState::QUERY_CANCELED
            | SqlState::T_R_DEADLOCK_DETECTED
            | SqlState::T_R_SERIALIZATION_FAILURE => Self::Away(error),
            code if code.code().starts_with("08") => Self::Away(error),
            _ => Self::Failed(error),
        }
    }
}
