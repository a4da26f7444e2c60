//! The layout of `journal.sqlite`, as numbered migrations. One that has landed is never changed again.
//!
//! `PRAGMA user_version` is the number of the last one that was made. Each is one SQLite transaction together with
//! its number, so a power cut leaves a whole layout. A program refuses a layout that it does not know, and changes
//! nothing in it: an older program must not write what a newer one would misread.

use rusqlite::{Connection, TransactionBehavior};

/// In the order in which they are made.
const MIGRATIONS: &[&str] = &[
    include_str!("0001-transactions-baseline-guards-floors.sql"),
    include_str!("0002-trust-memory.sql"),
    include_str!("0003-starts-of-userspace.sql"),
    include_str!("0004-grants.sql"),
    include_str!("0005-hold.sql"),
];

/// The layout that this program writes.
pub(super) const LAYOUT: i64 = MIGRATIONS.len() as i64;

/// Brings the database to [`LAYOUT`]; the layout found before. One above it is left as it is. Of two programs that
/// migrate at once, the second finds it done.
pub(super) fn migrate(db: &mut Connection) -> rusqlite::Result<i64> {
    migrate_by(db, MIGRATIONS)
}

fn migrate_by(db: &mut Connection, migrations: &[&str]) -> rusqlite::Result<i64> {
    let version = |db: &Connection| db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let found = version(db)?;
    if found >= migrations.len() as i64 {
        return Ok(found);
    }
    let all = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (number, migration) in (1..).zip(migrations).skip(usize::try_from(version(&all)?).unwrap_or(0)) {
        all.execute_batch(migration)?;
        all.pragma_update(None, "user_version", number)?;
    }
    all.commit()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MORE: [&str; 2] = ["CREATE TABLE one (a)", "ALTER TABLE one ADD COLUMN b; CREATE TABLE two (c)"];

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
        let broken = ["", "CREATE TABLE two (c); CREATE TABLE one (d)"];
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
}
