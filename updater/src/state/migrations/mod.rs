//! The layout of `journal.sqlite`, as numbered migrations. One that has landed is never changed again.
//!
//! `PRAGMA user_version` is the number of the last one that was made. Each is one SQLite transaction together with
//! its number, so a power cut leaves a whole layout. A program refuses a layout that it does not know, and changes
//! nothing in it: an older program must not write what a newer one would misread.

use rusqlite::{Connection, TransactionBehavior};

use crate::state::chain;

/// A change of the layout.
#[derive(Clone, Copy)]
struct Migration {
    sql: &'static str,
    /// What SQL alone cannot do, after it and in the same write.
    then: fn(&Connection) -> rusqlite::Result<()>,
}

impl Migration {
    const fn sql(sql: &'static str) -> Self {
        Self { sql, then: |_| Ok(()) }
    }
}

/// In the order in which they are made.
const MIGRATIONS: &[Migration] = &[
    Migration::sql(include_str!("0001-transactions-baseline-guards-floors.sql")),
    Migration::sql(include_str!("0002-trust-memory.sql")),
    Migration::sql(include_str!("0003-starts-of-userspace.sql")),
    Migration::sql(include_str!("0004-grants.sql")),
    Migration::sql(include_str!("0005-hold.sql")),
    Migration { sql: include_str!("0006-chain.sql"), then: chain::begin },
    Migration::sql(include_str!("0007-packages.sql")),
];

/// The layout that this program writes.
pub(super) const LAYOUT: i64 = MIGRATIONS.len() as i64;

/// Brings the database to [`LAYOUT`]; the layout found before. One above it is left as it is. Of two programs that
/// migrate at once, the second finds it done.
pub(super) fn migrate(db: &mut Connection) -> rusqlite::Result<i64> {
    migrate_by(db, MIGRATIONS)
}

fn migrate_by(db: &mut Connection, migrations: &[Migration]) -> rusqlite::Result<i64> {
    let version = |db: &Connection| db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let found = version(db)?;
    if found >= migrations.len() as i64 {
        return Ok(found);
    }
    let all = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (number, migration) in (1..).zip(migrations).skip(usize::try_from(version(&all)?).unwrap_or(0)) {
        all.execute_batch(migration.sql)?;
        (migration.then)(&all)?;
        all.pragma_update(None, "user_version", number)?;
    }
    all.commit()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MORE: [Migration; 2] = [
        Migration::sql("CREATE TABLE one (a)"),
        Migration::sql("ALTER TABLE one ADD COLUMN b; CREATE TABLE two (c)"),
    ];

    fn tables(db: &Connection) -> Vec<String> {
        let mut query = db.prepare("SELECT name FROM sqlite_schema ORDER BY name").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn each_migration_is_made_once_and_in_order() {
        let mut db = Connection::open_in_memory().unwrap();
        assert_eq!(migrate_by(&mut db, &MORE[..1]).unwrap(), 0);
        db.execute("INSERT INTO one VALUES (1)", []).unwrap();
        assert_eq!(migrate_by(&mut db, &MORE).unwrap(), 1);
        assert_eq!(migrate_by(&mut db, &MORE).unwrap(), 2);
        assert_eq!(tables(&db), ["one", "two"]);
        assert_eq!(db.query_row("SELECT a FROM one", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_layout_before_it() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate_by(&mut db, &MORE[..1]).unwrap();
        let broken = ["", "CREATE TABLE two (c); CREATE TABLE one (d)"].map(Migration::sql);
        assert!(migrate_by(&mut db, &broken).is_err());
        assert_eq!(tables(&db), ["one"]);
        assert_eq!(migrate_by(&mut db, &MORE).unwrap(), 1, "it can be mended and made again");
    }

    #[test]
    fn a_layout_of_a_newer_program_is_told_and_not_touched() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate_by(&mut db, &MORE).unwrap();
        let before = tables(&db);
        assert_eq!(migrate_by(&mut db, &MORE[..1]).unwrap(), 2);
        assert_eq!(tables(&db), before);
    }

    /// Databases of the layout before the chain, as the program of that time wrote them.
    #[test]
    fn a_journal_of_before_the_chain_gets_one_that_says_so() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate_by(&mut db, &MIGRATIONS[..5]).unwrap();
        db.execute_batch(
            "INSERT INTO transactions (id, origin, plan, began) VALUES ('a', '{}', '{}', '2026-11-01T00:00:00Z');
             INSERT INTO events (tx, seq, at, boot_id, event) VALUES ('a', 1, '2026-11-01T00:00:01Z', 'b', '{}');
             INSERT INTO audit (at, who, what) VALUES ('2026-11-01T00:00:02Z', 'uid 0', 'held');",
        )
        .unwrap();
        migrate_by(&mut db, &MIGRATIONS[..6]).unwrap();
        let records: Vec<(String, String, String)> = db
            .prepare("SELECT kind, about, by FROM chain ORDER BY seq")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        let words: Vec<String> =
            records.iter().map(|(kind, about, by)| format!("{kind} {about} {by}")).collect();
        assert_eq!(
            words,
            [
                "start a journal with 3 rows of before, taken as they were found null",
                "audit 1 null",
                "transaction a null",
                "event a/1 null"
            ]
        );
    }
}
