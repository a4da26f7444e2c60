CREATE TABLE lease (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    holder TEXT NOT NULL,
    epoch  INTEGER NOT NULL,
    until  TEXT NOT NULL              -- RFC 3339
) STRICT;
CREATE TABLE records (
    key      TEXT PRIMARY KEY,        -- room/id
    revision INTEGER NOT NULL,
    value    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE ledger (
    number INTEGER PRIMARY KEY,       -- from 0, without gaps
    stream TEXT NOT NULL,
    body   BLOB NOT NULL
) STRICT;
CREATE INDEX ledger_by_stream ON ledger (stream, number);
-- Full subtrees of the ledger's tree (RFC 6962); none is ever written twice.
CREATE TABLE nodes (
    level  INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hash   BLOB NOT NULL,
    PRIMARY KEY (level, number)
) STRICT, WITHOUT ROWID;
