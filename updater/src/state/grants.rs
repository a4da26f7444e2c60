//! Grants that this host took: each once, in the write that begins what it lets begin.
//!
//! They outlive the transactions of the journal: a grant that comes again is known however old it is, and so are the highest
//! epoch and the largest ledger that a controller ever showed.

use jiff::Timestamp;
use manifests::{Grant, GrantedAction, LedgerHead, Nonce, Sha256};
use rusqlite::{Connection, OptionalExtension as _, params};
use system::boot::BootId;

use crate::state::chain::Link;
use crate::state::journal::{Journal, JournalError, TransactionId};

/// A grant as it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenGrant {
    /// What the controller signed.
    pub grant: Grant,
    /// The kernel's taint flags at that moment.
    pub taint: u64,
    /// The boot in which it was taken.
    pub boot: BootId,
    /// When.
    pub at: Timestamp,
}

/// A grant that was taken, as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What it let this host do.
    pub action: GrantedAction,
    /// The kernel's taint flags when it was taken.
    pub taint: u64,
    /// The boot in which it was taken.
    pub boot: String,
    /// What was begun; nothing if nothing was to be done.
    pub transaction: Option<TransactionId>,
}

/// A grant that began something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// In which rollout.
    pub rollout: Sha256,
    /// What it let this host do.
    pub action: GrantedAction,
    /// What was begun.
    pub transaction: TransactionId,
    /// The kernel's taint flags when it was taken.
    pub taint: u64,
    /// The boot in which it was taken.
    pub boot: String,
    /// When it was taken.
    pub at: Timestamp,
}

/// The most that controllers have shown this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// The highest epoch.
    pub epoch: u64,
    /// The largest ledger.
    pub ledger: Option<LedgerHead>,
}

const APPLY: &str = "apply";
const ROLLBACK: &str = "rollback";

/// The action of this word.
fn action(word: &str) -> GrantedAction {
    if word == APPLY { GrantedAction::Apply } else { GrantedAction::Rollback }
}

impl TakenGrant {
    /// Writes it down, with what it begins. A grant that was taken before fails here, and the write with it.
    pub(crate) fn write(
        &self,
        db: &Connection,
        begins: Option<&TransactionId>,
        link: Link<'_>,
    ) -> rusqlite::Result<()> {
        let Grant { id, rollout, nonce, action, epoch, ledger, .. } = self.grant;
        let action = match action {
            GrantedAction::Apply => APPLY,
            GrantedAction::Rollback => ROLLBACK,
        };
        db.execute(
            "INSERT INTO grants (id, rollout, nonce, action, epoch, ledger_size, ledger_root, taint, boot_id, taken, tx)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                id.to_string(),
                rollout.to_string(),
                nonce.to_string(),
                action,
                epoch.cast_signed(),
                ledger.size.cast_signed(),
                ledger.root.to_string(),
                self.taint.cast_signed(),
                self.boot.to_string(),
                self.at.to_string(),
                begins.map(TransactionId::as_str)
            ],
        )?;
        link.grant(db, id)
    }
}

impl Journal {
    /// Whether a grant was taken before.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn has_taken(&self, grant: Sha256) -> Result<bool, JournalError> {
        self.read("look for a grant", |db| {
            db.prepare("SELECT 1 FROM grants WHERE id = ?1")?.exists([grant.to_string()])
        })
    }

    /// The grant of an attempt.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn taken(&self, rollout: Sha256, nonce: &Nonce) -> Result<Option<Taken>, JournalError> {
        self.read("read a grant", |db| {
            db.query_row(
                "SELECT action, taint, boot_id, tx FROM grants WHERE rollout = ?1 AND nonce = ?2",
                [rollout.to_string(), nonce.to_string()],
                |row| {
                    let action: String = row.get(0)?;
                    let transaction: Option<String> = row.get(3)?;
                    Ok(Taken {
                        action: self::action(&action),
                        taint: row.get::<_, i64>(1)?.cast_unsigned(),
                        boot: row.get(2)?,
                        transaction: transaction.map(TransactionId::stored),
                    })
                },
            )
            .optional()
        })
    }

    /// The last grants that began something, the last first, at most so many.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn granted(&self, most: usize) -> Result<Vec<Granted>, JournalError> {
        self.read("read the last grants", |db| {
            db.prepare(
                "SELECT rollout, action, tx, taint, boot_id, taken FROM grants WHERE tx IS NOT NULL
                 ORDER BY rowid DESC LIMIT ?1",
            )?
            .query_map([most as i64], |row| {
                let (rollout, taken): (String, String) = (row.get(0)?, row.get(5)?);
                let damaged = |column| {
                    rusqlite::Error::InvalidColumnType(column, "grants".into(), rusqlite::types::Type::Text)
                };
                Ok(Granted {
                    rollout: rollout.parse().map_err(|_| damaged(0))?,
                    action: action(&row.get::<_, String>(1)?),
                    transaction: TransactionId::stored(row.get(2)?),
                    taint: row.get::<_, i64>(3)?.cast_unsigned(),
                    boot: row.get(4)?,
                    at: taken.parse().map_err(|_| damaged(5))?,
                })
            })?
            .collect()
        })
    }

    /// Whether a grant began a transaction.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn is_granted(&self, transaction: &TransactionId) -> Result<bool, JournalError> {
        self.read("look for a transaction's grant", |db| {
            db.prepare("SELECT 1 FROM grants WHERE tx = ?1")?.exists([transaction.as_str()])
        })
    }

    /// The transactions by which a rollout changed this host, the last one first.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn begun_by(&self, rollout: Sha256) -> Result<Vec<TransactionId>, JournalError> {
        self.read("read the grants of a rollout", |db| {
            db.prepare(
                "SELECT tx FROM grants WHERE rollout = ?1 AND action = ?2 AND tx IS NOT NULL ORDER BY rowid DESC",
            )?
            .query_map([rollout.to_string(), APPLY.to_owned()], |row| row.get(0).map(TransactionId::stored))?
            .collect()
        })
    }

    /// The most that controllers have shown this host.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn seen(&self) -> Result<Seen, JournalError> {
        let (epoch, ledger): (i64, Option<(i64, String)>) =
            self.read("read what controllers showed", |db| {
                let epoch =
                    db.query_row("SELECT coalesce(max(epoch), 0) FROM grants", [], |row| row.get(0))?;
                let ledger = db
                .query_row(
                    "SELECT ledger_size, ledger_root FROM grants ORDER BY ledger_size DESC, rowid LIMIT 1",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
                Ok((epoch, ledger))
            })?;
        let ledger = ledger.and_then(|(size, root)| {
            Some(LedgerHead { size: size.cast_unsigned(), root: root.parse().ok()? })
        });
        Ok(Seen { epoch: epoch.cast_unsigned(), ledger })
    }
}
