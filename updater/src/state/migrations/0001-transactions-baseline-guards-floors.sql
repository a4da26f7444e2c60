CREATE TABLE transactions (
    id     TEXT PRIMARY KEY,
    origin TEXT NOT NULL,             -- JSON: what began it
    plan   TEXT NOT NULL,             -- JSON: the closed list of steps
    began  TEXT NOT NULL              -- RFC 3339
);
CREATE TABLE events (
    tx      TEXT NOT NULL REFERENCES transactions (id),
    seq     INTEGER NOT NULL,
    at      TEXT NOT NULL,            -- RFC 3339
    boot_id TEXT NOT NULL,
    event   TEXT NOT NULL,            -- JSON
    PRIMARY KEY (tx, seq)
) WITHOUT ROWID;
-- What this host should have, now and after its next boot.
CREATE TABLE baseline_livepatches (
    module  TEXT PRIMARY KEY,
    value   TEXT NOT NULL,            -- JSON: Livepatch
    tx      TEXT NOT NULL
);
CREATE TABLE baseline_rootfs (
    container TEXT PRIMARY KEY,
    value     TEXT NOT NULL,          -- JSON: Rootfs
    tx        TEXT NOT NULL
);
-- One row for each livepatch load, until the host has survived it.
CREATE TABLE crash_guards (
    digest TEXT PRIMARY KEY,
    value  TEXT NOT NULL              -- JSON: the guard's record
);
CREATE TABLE quarantine (
    digest TEXT PRIMARY KEY,
    value  TEXT NOT NULL              -- JSON: which module, why, since when
);
-- Trust floors.
CREATE TABLE version_floors (
    name     TEXT PRIMARY KEY,
    version  INTEGER NOT NULL,
    manifest TEXT NOT NULL            -- SHA-256 of the signed bytes
);
CREATE TABLE clock_floor (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    at   TEXT NOT NULL                -- RFC 3339, whole seconds of UTC
);
