-- What hosts fetch, for all controllers: documents and payloads in pieces.
CREATE TABLE content (
    digest bytea PRIMARY KEY,
    pieces integer NOT NULL
);
CREATE TABLE content_pieces (
    digest bytea NOT NULL,
    number integer NOT NULL,             -- from 0
    piece  bytea NOT NULL,
    PRIMARY KEY (digest, number)
);
-- Modules and archives are compressed.
ALTER TABLE content_pieces ALTER piece SET STORAGE EXTERNAL;
