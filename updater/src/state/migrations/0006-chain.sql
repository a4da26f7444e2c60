-- What the journal is held by: one record for each row of transactions, events, audit and grants, in the order in which
-- they were written, each with the hash of the one before (manifests::chain). Records are never removed.
CREATE TABLE chain (
    seq      INTEGER PRIMARY KEY,
    at       TEXT NOT NULL,           -- RFC 3339
    kind     TEXT NOT NULL,           -- start, transaction, event, audit, grant, forgotten
    about    TEXT NOT NULL,           -- which row
    by       TEXT NOT NULL,           -- JSON: who; null of what was there before
    content  TEXT NOT NULL,           -- SHA-256 of the row
    previous TEXT NOT NULL,
    hash     TEXT NOT NULL
) STRICT;
CREATE INDEX chain_by_row ON chain (kind, about);
ALTER TABLE transactions ADD COLUMN manifest TEXT;  -- the envelope of what was applied, as it was signed
