//! How a database in SQLite gets its [layout](super::super::layout).

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::store::layout::{Layout, Migration};

/// In the order in which they are made.
pub(super) const MIGRATIONS: &[Migration] =
    &[Migration { sql: include_str!("0001-records-ledger-lease.sql"), oldest: 1 }];

/// Makes the migrations that are missing, each of them or none; the layout afterwards. One whose `oldest` is above
/// what this program knows is left as it is.
pub(super) fn migrate(db: &mut Connection, migrations: &[Migration]) -> rusqlite::Result<Layout> {
    let all = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    all.execute_batch(
        "CREATE TABLE IF NOT EXISTS layout
         (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER NOT NULL, oldest INTEGER NOT NULL)",
    )?;
    let read = |row: &rusqlite::Row<'_>| Ok(Layout { version: row.get(0)?, oldest: row.get(1)? });
    let mut layout =
        all.query_row("SELECT version, oldest FROM layout", [], read).optional()?.unwrap_or_default();
    let missing = layout.missing(migrations);
    if missing.is_empty() {
        return Ok(layout);
    }
    for (sql, after) in missing {
        all.execute_batch(sql)?;
        layout = after;
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
