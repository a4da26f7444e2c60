//! The crash guard's records on disk; [`crate::kernel::guard`] judges them.
//!
//! A record is written before a livepatch is loaded, and judged after the next boot before anything is loaded.
//! Loads that the host has survived are marked by `update resume --survived`, orderly shutdowns by `update
//! resume --stopping`. A quarantine ends when a transaction that loads the livepatch is committed
//! ([`crate::state::baseline`]), so that a retry which comes to nothing leaves it in place.

use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use manifests::{ModuleName, Sha256};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use system::boot::{BootId, Incarnation, Since};

use crate::kernel::guard::{Decision, LoadFate, LoadRecord, Suspicion, decide};
use crate::state::journal::{Journal, JournalError, decode, encode};

/// A livepatch that this host does not load again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The module.
    pub module: ModuleName,
    /// Its bytes.
    pub digest: Sha256,
    /// Why, for people.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
}

/// Reads and writes the records.
#[derive(Clone, Copy)]
pub struct GuardBook<'a> {
    journal: &'a Mutex<Journal>,
}

impl<'a> GuardBook<'a> {
    /// The records in this journal.
    pub fn new(journal: &'a Mutex<Journal>) -> Self {
        Self { journal }
    }

    fn journal(&self) -> std::sync::MutexGuard<'a, Journal> {
        self.journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Every load that is remembered.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn records(&self) -> Result<Vec<LoadRecord>, JournalError> {
        let rows: Vec<String> = self.journal().read("read the crash guard", |db| {
            db.prepare("SELECT value FROM crash_guards")?.query_map([], |row| row.get(0))?.collect()
        })?;
        rows.iter().map(|row| decode("crash guard", row)).collect()
    }

    /// Remember a load that is about to happen, in place of an earlier one of the same bytes.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn arm(&self, record: &LoadRecord) -> Result<(), JournalError> {
        self.journal().write("arm the crash guard", |db, _| {
            db.execute(
                "INSERT OR REPLACE INTO crash_guards (digest, value) VALUES (?1, ?2)",
                params![record.digest.to_string(), encode(record)],
            )
        })?;
        Ok(())
    }

    /// Whether these bytes were about to be loaded, or were loaded, in this boot.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn armed(&self, digest: Option<&Sha256>, boot: &BootId) -> Result<bool, JournalError> {
        let records = self.records()?;
        Ok(records.iter().any(|record| Some(&record.digest) == digest && record.boot_id == *boot))
    }

    /// Forget a load of this boot: the livepatch is off again and the host is up.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn disarm(&self, digest: &Sha256, boot: &BootId) -> Result<(), JournalError> {
        if self.armed(Some(digest), boot)? {
            self.journal().write("disarm the crash guard", |db, _| {
                db.execute("DELETE FROM crash_guards WHERE digest = ?1", params![digest.to_string()])
            })?;
        }
        Ok(())
    }

    /// Clear every load of this boot whose window is over, `uptime` after the boot. Returns how many.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn mark_survived(
        &self,
        boot: &BootId,
        now: Timestamp,
        uptime: Duration,
    ) -> Result<usize, JournalError> {
        let mut due = self.on_trial(boot)?;
        due.retain(|record| uptime.saturating_sub(record.uptime) >= record.window);
        self.change(due, |record| LoadRecord { fate: LoadFate::Survived(now), ..record })
    }

    /// Clear every load of this boot: the host is being shut down in order. Returns how many.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn mark_stopped(&self, now: &Incarnation, at: Timestamp) -> Result<usize, JournalError> {
        let stopped = now.userspace.clone();
        self.change(self.on_trial(&now.boot_id)?, |record| LoadRecord {
            fate: LoadFate::Stopped(at),
            stopped: stopped.clone(),
            ..record
        })
    }

    /// Put the loads of this boot on trial again that were cleared by an orderly shutdown of an earlier start of
    /// userspace: it was a soft reboot, and the kernel goes on with them. Returns how many.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn go_on(&self, now: &Incarnation) -> Result<usize, JournalError> {
        let mut records = self.records()?;
        records.retain(|record| {
            let then = Incarnation { boot_id: record.boot_id.clone(), userspace: record.stopped.clone() };
            matches!(record.fate, LoadFate::Stopped(_)) && now.since(&then) == Since::SoftRebooted
        });
        self.change(records, |record| LoadRecord { fate: LoadFate::Unknown, stopped: None, ..record })
    }

    fn change(
        &self,
        records: Vec<LoadRecord>,
        change: impl Fn(LoadRecord) -> LoadRecord,
    ) -> Result<usize, JournalError> {
        let changed = records.len();
        records.into_iter().try_for_each(|record| self.arm(&change(record)))?;
        Ok(changed)
    }

    /// The loads of this boot whose fate is not known yet.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn on_trial(&self, boot: &BootId) -> Result<Vec<LoadRecord>, JournalError> {
        let mut records = self.records()?;
        records.retain(|record| record.boot_id == *boot && record.fate == LoadFate::Unknown);
        Ok(records)
    }

    /// Judge the loads of earlier boots; a suspicious livepatch is put into quarantine. Has to come before
    /// [`GuardBook::arm`], which overwrites the record.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn judge(&self, boot: &BootId, now: Timestamp) -> Result<Vec<Quarantined>, JournalError> {
        let records = self.records()?;
        let mut quarantined = Vec::new();
        for record in &records {
            if let Decision::Quarantine(suspicion) = decide(&records, &record.module, &record.digest, boot) {
                let entry = quarantine(&suspicion, record.digest, now);
                self.journal().write("quarantine a livepatch", |db, _| {
                    db.execute(
                        "INSERT OR REPLACE INTO quarantine (digest, value) VALUES (?1, ?2)",
                        params![entry.digest.to_string(), encode(&entry)],
                    )?;
                    db.execute(
                        "DELETE FROM crash_guards WHERE digest = ?1",
                        params![entry.digest.to_string()],
                    )
                })?;
                quarantined.push(entry);
            }
        }
        Ok(quarantined)
    }

    /// Everything in quarantine.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, JournalError> {
        let rows: Vec<String> = self.journal().read("read the quarantine", |db| {
            db.prepare("SELECT value FROM quarantine")?.query_map([], |row| row.get(0))?.collect()
        })?;
        rows.iter().map(|row| decode("quarantine", row)).collect()
    }
}

fn quarantine(suspicion: &Suspicion, digest: Sha256, since: Timestamp) -> Quarantined {
    Quarantined { module: suspicion.module.clone(), digest, why: suspicion.to_string(), since }
}
