//! The layout of a database of the controller's, as numbered migrations. One that has landed is never changed again.
//!
//! Controllers of two versions run at once while they are replaced, so a change of the layout takes three releases:
//! **expand** (new tables and columns that an older program need not know), **migrate** (both forms are written, the
//! old rows are brought over), **contract** (the old form goes). So beside the number of the last migration the
//! database keeps the oldest layout that a program must know to use it: an expanding migration leaves that as it
//! is, a contracting one raises it. A program below it refuses the store and changes nothing.
//!
//! (A host's journal has one program at a time and simply refuses what is newer: `updater/src/state/migrations`.)

use super::StoreError;

/// A step from one layout to the next.
pub(super) struct Migration {
    pub(super) sql: &'static str,
    /// The oldest layout that a program must know after it.
    pub(super) oldest: i64,
}

/// What a database says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Layout {
    /// The last migration that was made; 0: there was none.
    pub(super) version: i64,
    /// The oldest layout that a program must know.
    pub(super) oldest: i64,
}

impl Layout {
    /// The migrations that are missing, each with the layout after it, in the order in which they are made; none in a
    /// database for which this program is too old.
    pub(super) fn missing(self, known: &[Migration]) -> Vec<(&'static str, Self)> {
        if self.oldest > known.len() as i64 {
            return Vec::new();
        }
        let mut oldest = self.oldest;
        let after = |(number, migration): (i64, &Migration)| {
            oldest = migration.oldest.max(oldest);
            (migration.sql, Self { version: number, oldest })
        };
        (1..).zip(known).skip(usize::try_from(self.version).unwrap_or(0)).map(after).collect()
    }

    /// Whether this program knows enough for it.
    pub(super) fn refuse_newer(self, known: &[Migration]) -> Result<(), StoreError> {
        let known = known.len() as i64;
        if self.oldest > known {
            return Err(StoreError::Newer { oldest: self.oldest, known });
        }
        Ok(())
    }
}
