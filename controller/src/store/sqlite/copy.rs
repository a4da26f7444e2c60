//! Rows on their way between this store and [another](crate::store::postgres).

use rusqlite::types::Value;
use rusqlite::{params, params_from_iter};

use super::Sqlite;
use crate::store::{Lease, StoreError};

impl Sqlite {
    /// Rows of a table that another store had; all of them are on disk, or none.
    pub(crate) fn insert_copied(
        &self,
        table: &str,
        columns: &str,
        rows: impl Iterator<Item = [Value; 3]>,
    ) -> Result<(), StoreError> {
        self.read("copy all", |db| {
            let all = db.unchecked_transaction()?;
            let mut insert = all.prepare(&format!("INSERT INTO {table} ({columns}) VALUES (?1, ?2, ?3)"))?;
            for row in rows {
                insert.execute(params_from_iter(row))?;
            }
            drop(insert);
            all.commit()
        })
    }

    /// The lease that another store had.
    pub(crate) fn keep_copied_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        self.read("copy the lease", |db| super::writer::keep_lease(db, lease))
    }

    /// All rows of a table, so many at once.
    pub(crate) fn pages(
        &self,
        table: &str,
        columns: &str,
        size: usize,
        mut take: impl FnMut(Vec<[Value; 3]>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // The columns in front are the primary key.
        let sql = format!("SELECT {columns} FROM {table} ORDER BY 1, 2 LIMIT ?1 OFFSET ?2");
        for number in 0.. {
            let page = self.read("read all", |db| {
                let mut query = db.prepare_cached(&sql)?;
                let rows = query.query_map(params![size as i64, (number * size) as i64], |row| {
                    Ok([row.get(0)?, row.get(1)?, row.get(2)?])
                })?;
                rows.collect::<rusqlite::Result<Vec<[Value; 3]>>>()
            })?;
            if page.is_empty() {
                break;
            }
            take(page)?;
        }
        Ok(())
    }
}
