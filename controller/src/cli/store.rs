//! Where a controller keeps what is decided: a file in its directory, or a database that it shares with others.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifests::bounded;
use system::clock::SystemClock;
use system::exit::{Exit, Failure, State};

use super::serve::Directory;
use crate::store::postgres::{Database, DatabaseError};
use crate::store::{Postgres, Sqlite, Store, StoreError};

/// The most bytes of a password.
const MAX_PASSWORD: usize = 4096;

/// Where a password may be instead of a file. It is not an option, so that nobody can put it where `ps` shows it.
const PASSWORD: &str = "UPDATE_DATABASE_PASSWORD";

/// Where it is kept
#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// The controller's directory
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/update-controller")]
    pub(super) directory: PathBuf,
    /// Keep what is decided in this PostgreSQL database, which several controllers can share:
    /// postgres://USER@HOST[,HOST]/NAME, with libpq's sslmode, sslrootcert, sslcert and sslkey
    #[arg(long, value_name = "URL", env = "UPDATE_DATABASE")]
    database: Option<String>,
    /// A file with the password for the database; without, it is in UPDATE_DATABASE_PASSWORD, or none is needed
    #[arg(long, value_name = "FILE", env = "UPDATE_DATABASE_PASSWORD_FILE", requires = "database")]
    database_password: Option<PathBuf>,
}

/// A store that is open.
pub(super) enum Kept {
    File(Arc<Sqlite>),
    Server(Arc<Postgres>),
}

impl Kept {
    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::File(store) => store.clone(),
            Self::Server(store) => store.clone(),
        }
    }

    /// What several controllers share.
    pub(super) fn shared(&self) -> Option<Arc<Postgres>> {
        match self {
            Self::File(_) => None,
            Self::Server(store) => Some(store.clone()),
        }
    }
}

impl StoreArgs {
    /// Opens it, and makes it if there is none.
    pub(super) fn open(&self) -> Result<Kept, Failure> {
        if let Some(server) = self.server()? {
            return Ok(Kept::Server(server));
        }
        let directory = Directory::open(&self.directory)?;
        let store = Sqlite::open(&directory.database(), Arc::new(SystemClock)).map_err(failed)?;
        Ok(Kept::File(Arc::new(store)))
    }

    /// Opens it if it is there.
    pub(super) fn open_existing(&self) -> Result<Kept, Failure> {
        if self.database.is_none() && !self.directory.join("controller.sqlite").is_file() {
            let nothing = format!("there is no store in {}", self.directory.display());
            return Err(Failure::new(Exit::Refused, nothing));
        }
        self.open()
    }

    /// The database, if one is named.
    pub(super) fn server(&self) -> Result<Option<Arc<Postgres>>, Failure> {
        let Some(address) = &self.database else { return Ok(None) };
        let password = self.password()?;
        let database = Database::new(address, password.as_deref()).map_err(|error| {
            Failure::new(Exit::Usage, error).next("see docs/controller.md, \"PostgreSQL\"")
        })?;
        let store = Postgres::open(database, Arc::new(SystemClock)).map_err(failed)?;
        Ok(Some(Arc::new(store)))
    }

    /// What the store is called, for people.
    pub(super) fn name(&self) -> String {
        match &self.database {
            Some(address) => address.clone(),
            None => self.directory.join("controller.sqlite").display().to_string(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a password has no place on a command line")]
    fn password(&self) -> Result<Option<String>, Failure> {
        match &self.database_password {
            Some(path) => read_password(path).map(Some),
            None => Ok(std::env::var(PASSWORD).ok()),
        }
    }
}

fn read_password(path: &Path) -> Result<String, Failure> {
    let refuse = |error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Exit::Usage, error).because("a file with the password", path.display())
    };
    let file = std::fs::File::open(path).map_err(|error| refuse(error.into()))?;
    let mode = file.metadata().map_err(|error| refuse(error.into()))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(Failure::new(Exit::Usage, "everybody can read the password")
            .because("a file for its owner alone", format_args!("mode {:o}", mode & 0o777))
            .next(format_args!("chmod 600 {}", path.display())));
    }
    let bytes = bounded::read(file, MAX_PASSWORD).map_err(|error| refuse(error.into()))?;
    let text = String::from_utf8(bytes).map_err(|error| refuse(error.into()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Why a store cannot be used, and what to do.
pub(super) fn failed(error: StoreError) -> Failure {
    let StoreError::Postgres { source, .. } = &error else { return Failure::new(Exit::Refused, error) };
    let (exit, next) = match &**source {
        DatabaseError::Away(_) | DatabaseError::Silent { .. } => {
            (Exit::Busy, "see whether the server runs and lets this machine in (pg_hba.conf); then again")
        }
        DatabaseError::Login(_) => (
            Exit::NotAuthentic,
            "see the password (--database-password, UPDATE_DATABASE_PASSWORD) and pg_hba.conf",
        ),
        DatabaseError::Tls(_) => (
            Exit::NotAuthentic,
            "see sslmode and sslrootcert in the address, and ssl in the server's configuration",
        ),
        DatabaseError::Missing(_) => (Exit::Refused, "createdb, with the controller's user as its owner"),
        DatabaseError::Forbidden(_) => (Exit::Refused, "ALTER DATABASE ... OWNER TO the controller's user"),
        DatabaseError::ReadOnly(_) => {
            (Exit::Refused, "name the primary; or all servers, with commas between")
        }
        DatabaseError::Full(_) => (Exit::Refused, "make room on the server; then again"),
        DatabaseError::Pooler => (Exit::Refused, "name the server itself, or set pool_mode = session"),
        DatabaseError::Taken => (Exit::Refused, "createdb, and restore into that"),
        _ => (Exit::Refused, "see the server's log"),
    };
    let in_doubt = matches!(&**source, DatabaseError::InDoubt(_));
    let failure = Failure::new(exit, error).next(next);
    if in_doubt {
        return failure.state(State::Named("what was asked may have been written or not".to_owned()));
    }
    failure
}
