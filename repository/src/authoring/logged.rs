//! What is published is in the repository's log first.

use std::path::PathBuf;

use manifests::log::LogEntry;
use manifests::{Envelope, SecretKey};

use crate::authoring::metadata::{Signed, Targets};
use crate::authoring::publish::Outgoing;
use crate::authoring::{AuthoringError, Repository, disk, placed};
use crate::client::catalogue::manifest_of;
use crate::log::Log;
use crate::log::store::Appended;

impl Repository {
    /// Where the log of this repository is, if it has one.
    pub fn log(&self) -> PathBuf {
        self.directory.join("public/log")
    }

    /// Appends what these roles list and the log has not; nothing where there is no log.
    pub(super) fn append_listed(
        &self,
        roles: &Outgoing,
        key: Option<&SecretKey>,
    ) -> Result<Option<Appended>, AuthoringError> {
        let directory = self.log();
        let failed = |error| AuthoringError::Log(Box::new(error));
        let log = match (Log::open(&directory), key) {
            (Ok(log), _) => log,
            // A key for a log that is not there: somebody thinks that it is.
            (Err(error), Some(_)) => return Err(failed(error)),
            (Err(_), None) => return Ok(None),
        };
        let mut entries = Vec::new();
        for (file, bytes) in roles {
            let role: Signed<Targets> = Signed::parse(file, bytes)?;
            for (path, target) in &role.signed.targets {
                if manifest_of(path).is_none() {
                    continue;
                }
                let place = placed(path, &target.hashes.sha256);
                let mut found = None;
                for below in [self.staged().join("targets"), self.targets()] {
                    found = found.or(disk::read(&below.join(&place), Envelope::MAX_BYTES)?);
                }
                let found = found.ok_or_else(|| AuthoringError::Unlisted { what: path.clone() })?;
                let envelope = Envelope::parse(&found)
                    .map_err(|source| AuthoringError::Envelope { path: PathBuf::from(path), source })?;
                let entry = LogEntry::of(&envelope)
                    .map_err(|source| failed(crate::log::LogError::Entry { what: path.clone(), source }))?;
                entries.push(entry);
            }
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let key = key.ok_or(AuthoringError::NoLogKey { directory })?;
        log.append(&entries, key).map(Some).map_err(failed)
    }
}
