CREATE TABLE lease (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder text NOT NULL,
    epoch  bigint NOT NULL,              -- 0: there was none yet
    until  timestamptz NOT NULL          -- by this server's clock
);
INSERT INTO lease (holder, epoch, until) VALUES ('', 0, to_timestamp(0));
CREATE TABLE records (
    key      text COLLATE "C" PRIMARY KEY,   -- room/id
    revision bigint NOT NULL,
    value    bytea NOT NULL
);
CREATE TABLE ledger (
    number bigint PRIMARY KEY,           -- from 0, without gaps
    stream text COLLATE "C" NOT NULL,
    body   bytea NOT NULL
);
CREATE INDEX ledger_by_stream ON ledger (stream, number);
-- Whoever appends locks this row first.
CREATE TABLE ledger_size (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    size bigint NOT NULL
);
INSERT INTO ledger_size (size) VALUES (0);
-- Full subtrees of the ledger's tree (RFC 6962); none is ever written twice.
CREATE TABLE nodes (
    level  integer NOT NULL,
    number bigint NOT NULL,
    hash   bytea NOT NULL,
    PRIMARY KEY (level, number)
);
