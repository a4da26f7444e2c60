-- What this host has seen revoked, the edition of its policy, and who made it forget what.
CREATE TABLE trust_memory (
    only  INTEGER PRIMARY KEY CHECK (only = 1),
    value TEXT NOT NULL               -- JSON: policy, revoked
);
CREATE TABLE audit (
    seq  INTEGER PRIMARY KEY,
    at   TEXT NOT NULL,               -- RFC 3339
    who  TEXT NOT NULL,
    what TEXT NOT NULL
);
-- Layout 1 took this from the host's own clock, which proves nothing: one that was ahead locked the host out.
DELETE FROM clock_floor;
