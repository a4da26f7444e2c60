//! All of a store into a file of SQLite, and back: a backup is the same file whatever the store was, and so it is also the way from one
//! to the other.

use std::sync::Arc;

use rusqlite::types::Value;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::error::DatabaseError;
use super::session::{PATIENCE, in_time};
use super::writer::read_lease;
use super::{Postgres, READING, wait};
use crate::store::{Sqlite, StoreError};

/// So many rows are on their way at once.
const PAGE: usize = 1000;

/// What a column is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Whole,
    Bytes,
}

struct Table {
    name: &'static str,
    columns: [(&'static str, Kind); 3],
}

/// The same names in both.
const TABLES: [Table; 3] = [
    Table {
        name: "records",
        columns: [("key", Kind::Text), ("revision", Kind::Whole), ("value", Kind::Bytes)],
    },
    Table {
        name: "ledger",
        columns: [("number", Kind::Whole), ("stream", Kind::Text), ("body", Kind::Bytes)],
    },
    Table {
        name: "nodes",
        columns: [("level", Kind::Whole), ("number", Kind::Whole), ("hash", Kind::Bytes)],
    },
];

impl Table {
    fn columns(&self) -> String {
        self.columns.map(|(name, _)| name).join(", ")
    }

    fn value(&self, row: &Row, at: usize) -> Value {
        match self.columns[at].1 {
            Kind::Text => Value::Text(row.get(at)),
            Kind::Whole => Value::Integer(row.get(at)),
            Kind::Bytes => Value::Blob(row.get(at)),
        }
    }
}

impl Postgres {
    /// Copies one state of all of it into a new store, while others go on.
    ///
    /// # Errors
    /// [`StoreError`]; the copy is of no use then.
    pub(crate) fn copy_to(&self, to: &Sqlite) -> Result<(), StoreError> {
        let db = self.session("copy all")?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.on(&db, "copy all", async move |db| Ok(db.batch_execute(begin).await?))?;
        let lease = self.on(&db, "copy the lease", async |db| {
            Ok(db.query_typed_one("SELECT holder, epoch, until FROM lease", &[]).await?)
        })?;
        if let Some(lease) = read_lease(&lease) {
            to.keep_copied_lease(&lease)?;
        }
        for table in &TABLES {
            let select = table.columns.map(|(name, kind)| match kind {
                Kind::Whole => format!("{name}::int8"),
                Kind::Text | Kind::Bytes => name.to_owned(),
            });
            let name = table.name;
            let declare = format!(
                "DECLARE rows_of_{name} NO SCROLL CURSOR FOR SELECT {} FROM {name}",
                select.join(", ")
            );
            self.on(&db, "copy all", async move |db| Ok(db.batch_execute(&declare).await?))?;
            loop {
                let fetch = format!("FETCH {PAGE} FROM rows_of_{name}");
                let rows =
                    self.on(&db, "copy all", async move |db| Ok(db.query_typed(&fetch, &[]).await?))?;
                if rows.is_empty() {
                    break;
                }
                let values = rows.iter().map(|row| [0, 1, 2].map(|at| table.value(row, at)));
                to.insert_copied(name, &table.columns(), values)?;
            }
        }
        Ok(())
    }

    /// Takes over all of a store; this one has to be empty. All of it is there afterwards, or nothing.
    ///
    /// # Errors
    /// [`StoreError`], with [`DatabaseError::Taken`] if something is there.
    pub(crate) fn fill_from(&self, from: &Sqlite) -> Result<(), StoreError> {
        let (epoch, size) = (from.epoch()? as i64, crate::store::Store::size(from)? as i64);
        let db = self.session("fill it")?;
        self.on(&db, "fill it", async |db| {
            db.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
            let epoch = db.query_typed_one("SELECT epoch FROM lease FOR UPDATE", &[]).await?;
            let size = db.query_typed_one("SELECT size FROM ledger_size FOR UPDATE", &[]).await?;
            let empty = (epoch.get::<_, i64>(0), size.get::<_, i64>(0)) == (0, 0);
            if empty { Ok(()) } else { Err(DatabaseError::Taken) }
        })?;
        for table in &TABLES {
            from.pages(table.name, &table.columns(), PAGE, |page| {
                self.on(&db, "fill it", async move |db| insert(&db, table, &page).await)
            })?;
        }
        self.on(&db, "fill it", async move |db| {
            let lease = "UPDATE lease SET epoch = $1, holder = 'restored'";
            db.execute_typed(lease, &[(&epoch, Type::INT8)]).await?;
            db.execute_typed("UPDATE ledger_size SET size = $1", &[(&size, Type::INT8)]).await?;
            let committed = in_time(PATIENCE, async { Ok(db.batch_execute("COMMIT").await?) }).await;
            committed.map_err(|error| DatabaseError::InDoubt(Box::new(error)))
        })
    }

    fn session(&self, doing: &'static str) -> Result<Arc<Client>, StoreError> {
        let database = Arc::clone(&self.reader.database);
        wait(self.runtime()?, doing, async move { Ok(Arc::new(database.connect().await?)) })
    }

    /// A step of several in one session.
    fn on<T, Q, A>(&self, db: &Arc<Client>, doing: &'static str, step: Q) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Q: FnOnce(Arc<Client>) -> A,
        A: Future<Output = Result<T, DatabaseError>> + Send + 'static,
    {
        wait(self.runtime()?, doing, in_time(READING, step(Arc::clone(db))))
    }
}

async fn insert(db: &Client, table: &Table, page: &[[Value; 3]]) -> Result<(), DatabaseError> {
    let mut arrays: Vec<(Box<dyn ToSql + Sync + Send>, Type)> = Vec::new();
    for (at, (_, kind)) in table.columns.iter().enumerate() {
        let column = page.iter().map(|row| &row[at]);
        arrays.push(match kind {
            Kind::Text => (Box::new(column.filter_map(text).collect::<Vec<_>>()), Type::TEXT_ARRAY),
            Kind::Whole => (Box::new(column.filter_map(whole).collect::<Vec<_>>()), Type::INT8_ARRAY),
            Kind::Bytes => (Box::new(column.filter_map(bytes).collect::<Vec<_>>()), Type::BYTEA_ARRAY),
        });
    }
    let types = arrays
        .iter()
        .enumerate()
        .map(|(at, (_, kind))| format!("${}::{}[]", at + 1, kind.name().trim_start_matches('_')));
    let sql = format!(
        "INSERT INTO {} ({}) SELECT * FROM unnest({})",
        table.name,
        table.columns(),
        types.collect::<Vec<_>>().join(", ")
    );
    let arrays: Vec<(&(dyn ToSql + Sync), Type)> =
        arrays.iter().map(|(array, kind)| (&**array as &(dyn ToSql + Sync), kind.clone())).collect();
    let made = db.execute_typed(&sql, &arrays).await?;
    if made == page.len() as u64 { Ok(()) } else { Err(DatabaseError::Elsewhere) }
}

fn text(value: &Value) -> Option<String> {
    if let Value::Text(text) = value { Some(text.clone()) } else { None }
}

fn whole(value: &Value) -> Option<i64> {
    if let Value::Integer(number) = value { Some(*number) } else { None }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    if let Value::Blob(bytes) = value { Some(bytes.clone()) } else { None }
}
