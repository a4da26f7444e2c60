-- What operators keep this host as it is for, until it ends. What began despite it says so.
CREATE TABLE hold (
    only  INTEGER PRIMARY KEY CHECK (only = 1),
    value TEXT NOT NULL               -- JSON: the hold, and how much of its time is over
) STRICT;
ALTER TABLE transactions ADD COLUMN despite TEXT;   -- JSON: the hold, and who went past it
