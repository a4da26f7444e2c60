-- What controllers of a fleet let this host begin, each once. `tx` is NULL where nothing was to be done. `taint` is the
-- kernel's when the grant was taken.
CREATE TABLE grants (
    id TEXT PRIMARY KEY,
    rollout TEXT NOT NULL,
    nonce TEXT NOT NULL,
    action TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    ledger_size INTEGER NOT NULL,
    ledger_root TEXT NOT NULL,
    taint INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    taken TEXT NOT NULL,
    tx TEXT
) STRICT;
CREATE INDEX grants_by_attempt ON grants (rollout, nonce);
