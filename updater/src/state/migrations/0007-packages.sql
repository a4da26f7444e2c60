-- The packages that this host should have, in the version to which it was committed.
CREATE TABLE baseline_packages (
    package TEXT PRIMARY KEY,         -- NAME:ARCHITECTURE
    value   TEXT NOT NULL,            -- JSON: Package
    tx      TEXT NOT NULL
) STRICT;
