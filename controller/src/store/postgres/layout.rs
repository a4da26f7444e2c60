//! How a database gets its [layout](super::super::layout).
//!
//! Controllers that are started at once wait for one another here, and only here, by an advisory lock. It dies with its connection and so
//! fences nobody: what is written is fenced by the lease.

use tokio_postgres::Client;

use super::error::DatabaseError;
use crate::store::layout::{Layout, Migration};

/// In the order in which they are made.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { sql: include_str!("0001-records-ledger-lease.sql"), oldest: 1 },
    Migration { sql: include_str!("0002-content.sql"), oldest: 1 },
];

/// Makes the migrations that are missing, all or none; the layout afterwards. One whose `oldest` is above what this program
/// knows is left as it is.
pub(super) async fn migrate(db: &Client, migrations: &[Migration]) -> Result<Layout, DatabaseError> {
    let found = read(db).await?;
    // Whoever may not make tables can use those that are there.
    if found.missing(migrations).is_empty() {
        return Ok(found);
    }
    // "update" in ASCII: nobody else's lock.
    db.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(129125580895333)").await?;
    let mut layout = read(db).await?;
    if layout.version == 0 {
        db.batch_execute(
            "CREATE TABLE layout
             (one boolean PRIMARY KEY DEFAULT true CHECK (one), version bigint NOT NULL, oldest bigint NOT NULL);
             INSERT INTO layout (version, oldest) VALUES (0, 0)",
        )
        .await?;
    }
    for (sql, after) in layout.missing(migrations) {
        db.batch_execute(sql).await?;
        layout = after;
    }
    let Layout { version, oldest } = layout;
    db.batch_execute(&format!("UPDATE layout SET version = {version}, oldest = {oldest}; COMMIT")).await?;
    Ok(layout)
}

async fn read(db: &Client) -> Result<Layout, DatabaseError> {
    // Looked for in the table of tables: `to_regclass` may answer from before somebody was waited for.
    let sql =
        "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'layout')";
    let there = db.query_typed_one(sql, &[]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(Layout::default());
    }
    let row = db.query_typed_one("SELECT version, oldest FROM layout", &[]).await?;
    Ok(Layout { version: row.get(0), oldest: row.get(1) })
}
