//! What hosts fetch, in the database: so that whichever controller leads has it. Each controller keeps what passed through it in its directory, too.
//!
//! A payload is in pieces, each written by itself; the row that says how many there are comes last, and without it nothing is there. Nobody
//! believes what is read here: payloads are hashed again by whoever fetches them.

use std::io::{Read, Write};
use std::sync::Arc;

use manifests::Sha256;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::Postgres;
use super::writer::Array;
use crate::store::StoreError;

/// The size of a piece in bytes: far below what one row may have, far above what a row costs.
const PIECE: usize = 1 << 20;

/// Why content did not come or go.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file failed.
    #[error("a file of content")]
    Io(#[from] std::io::Error),
}

impl Postgres {
    /// Whether all of it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_content(&self, digest: Sha256) -> Result<bool, StoreError> {
        Ok(self.pieces(digest)?.is_some())
    }

    fn pieces(&self, digest: Sha256) -> Result<Option<i32>, StoreError> {
        self.ask("look for content", move |db: Arc<Client>| async move {
            let sql = "SELECT pieces FROM content WHERE digest = $1";
            let row = db.query_typed_opt(sql, &[(&digest.as_bytes().as_slice(), Type::BYTEA)]).await?;
            Ok(row.map(|row| row.get(0)))
        })
    }

    /// Keeps it, in place of what has this digest. Each piece can be written twice, so all of it is tried again when the server went away.
    ///
    /// # Errors
    /// [`ShelfError`]; it is not there then, or it is what was there before.
    pub fn keep_content(&self, digest: Sha256, mut from: impl Read) -> Result<(), ShelfError> {
        let mut number = 0;
        loop {
            let mut piece = Vec::new();
            from.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
            if piece.is_empty() {
                break;
            }
            let piece = Arc::new(piece);
            let sql = "INSERT INTO content_pieces (digest, number, piece) VALUES ($1, $2, $3)
                       ON CONFLICT (digest, number) DO UPDATE SET piece = excluded.piece";
            self.ask("keep content", move |db: Arc<Client>| {
                let piece = Arc::clone(&piece);
                async move {
                    let digest = digest.as_bytes().as_slice();
                    let values: [Array<'_>; 3] =
                        [(&digest, Type::BYTEA), (&number, Type::INT4), (&*piece, Type::BYTEA)];
                    db.execute_typed(sql, &values).await?;
                    Ok(())
                }
            })?;
            number += 1;
        }
        let sql = "INSERT INTO content (digest, pieces) VALUES ($1, $2)
                   ON CONFLICT (digest) DO UPDATE SET pieces = excluded.pieces";
        self.ask("keep content", move |db: Arc<Client>| async move {
            let digest = digest.as_bytes().as_slice();
            db.execute_typed(sql, &[(&digest, Type::BYTEA), (&number, Type::INT4)]).await?;
            Ok(())
        })?;
        Ok(())
    }

    /// Writes it to `to`; false if it is not there.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn fetch_content(&self, digest: Sha256, mut to: impl Write) -> Result<bool, ShelfError> {
        let Some(pieces) = self.pieces(digest)? else { return Ok(false) };
        for number in 0..pieces {
            let piece = self.ask("fetch content", move |db: Arc<Client>| async move {
                let sql = "SELECT piece FROM content_pieces WHERE digest = $1 AND number = $2";
                let digest = digest.as_bytes().as_slice();
                let row = db.query_typed_opt(sql, &[(&digest, Type::BYTEA), (&number, Type::INT4)]).await?;
                Ok(row.map(|row| row.get::<_, Vec<u8>>(0)))
            })?;
            let none = || StoreError::Damaged { what: format!("content {digest} has no piece {number}") };
            to.write_all(&piece.ok_or_else(none)?)?;
        }
        Ok(true)
    }
}
