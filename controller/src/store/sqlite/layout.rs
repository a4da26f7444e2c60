//! The layout of the controller's database, as numbered migrations. One that has landed is never changed again.
//!
//! Controllers of two versions run at once while they are replaced, so a change of the layout takes three releases:
//! **expand** (new tables and columns that an older program need not know), **migrate** (both forms are written, the
//! old rows are brought over), **contract** (the old form goes). So beside the number of the last migration the
//! database keeps the oldest layout that a program must know to use it: an expanding migration leaves that as it
//! is, a contracting one raises it. A program below it refuses the store and changes nothing.
//!
//! (A host's journal has one program at a time and simply refuses what is newer: `updater/src/state/migrations`.)

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

/// A step from one layout to the next.
pub(super) struct Migration {
    pub(super) sql: &'static str,
    /// The oldest layout that a program must know after it.
    pub(super) oldest: i64,
}

/// In the order in which they are made.
pub(super) const MIGRATIONS: &[Migration] =
    &[Migration { sql: include_str!("0001-records-ledger-lease.sql"), oldest: 1 }];

/// What a database says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The last migration that was made.
    pub(super) version: i64,
    /// The oldest layout that a program must know.
    pub(super) oldest: i64,
}

/// Makes the migrations that are missing, each of them or none; the layout afterwards. One whose `oldest` is above
/// what this program knows is left as it is.
pub(super) fn migrate(db: &mut Connection, migrations: &[Migration]) -> rusqlite::Result<Layout> {
    let all = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    all.execute_batch(
        "CREATE TABLE IF NOT EXISTS layout
         (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER NOT NULL, oldest INTEGER NOT NULL)",
    )?;
    let read = |row: &rusqlite::Row<'_>| Ok(Layout { version: row.get(0)?, oldest: row.get(1)? });
    let found = all.query_row("SELECT version, oldest FROM layout", [], read).optional()?;
    let mut layout = found.unwrap_or(Layout { version: 0, oldest: 0 });
    let known = migrations.len() as i64;
    if layout.oldest > known || layout.version >= known {
        return Ok(layout);
    }
    for (number, migration) in (1..).zip(migrations).skip(usize::try_from(layout.version).unwrap_or(0)) {
        all.execute_batch(migration.sql)?;
        layout = Layout { version: number, oldest: migration.oldest.max(layout.oldest) };
    }
    all.execute(
        "INSERT OR REPLACE INTO layout (only, version, oldest) VALUES (1, ?1, ?2)",
        params![layout.version, layout.oldest],
    )?;
    all.commit()?;
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Migration; 3] = [
        Migration { sql: "CREATE TABLE one (a)", oldest: 1 },
        Migration { sql: "ALTER TABLE one ADD COLUMN b", oldest: 1 },
        Migration { sql: "ALTER TABLE one DROP COLUMN a", oldest: 2 },
    ];

    fn columns(db: &Connection) -> Vec<String> {
        let mut query = db.prepare("SELECT name FROM pragma_table_info('one')").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn an_older_program_uses_an_expanded_store_and_refuses_a_contracted_one() {
        let mut db = Connection::open_in_memory().unwrap();
        assert_eq!(migrate(&mut db, &STEPS[..2]).unwrap(), Layout { version: 2, oldest: 1 });
        let by_older = migrate(&mut db, &STEPS[..1]).unwrap();
        assert_eq!(by_older, Layout { version: 2, oldest: 1 });
        assert!(by_older.oldest <= 1, "the program that knows layout 1 may use it");
        assert_eq!(migrate(&mut db, &STEPS).unwrap(), Layout { version: 3, oldest: 2 });
        assert!(migrate(&mut db, &STEPS[..1]).unwrap().oldest > 1, "and now it may not");
        assert_eq!(columns(&db), ["b"]);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_layout_before_it() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate(&mut db, &STEPS[..1]).unwrap();
        let broken = [
            Migration { sql: "", oldest: 1 },
            Migration { sql: "ALTER TABLE one ADD COLUMN c", oldest: 1 },
            Migration { sql: "CREATE TABLE one (d)", oldest: 1 },
        ];
        assert!(migrate(&mut db, &broken).is_err());
        assert_eq!(columns(&db), ["a"]);
        assert_eq!(migrate(&mut db, &STEPS).unwrap().version, 3, "it can be mended and made again");
    }
}
