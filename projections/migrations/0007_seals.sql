-- Proof that the event log is what was recorded: see infra/audit. Both tables are only ever added to.

-- Ed25519. Each key is endorsed by the one before it, the first by itself. A key that has been followed by another has no
-- private half any more.
CREATE TABLE sealing_keys (
    number         integer     PRIMARY KEY,             -- 1, 2, 3 …
    public_key     bytea       NOT NULL UNIQUE,
    endorsement    bytea       NOT NULL,
    created_at     timestamptz NOT NULL,
    sealed_private bytea                                -- under the data key of the sealer, which the operator's keys wrap
);

CREATE TABLE seals (
    number         bigint      PRIMARY KEY,             -- 1, 2, 3 … without gaps
    first_position bigint      NOT NULL,
    last_position  bigint      NOT NULL UNIQUE,
    previous       bytea       NOT NULL,                -- the digest of the seal before, zeros for the first
    leaves         bytea       NOT NULL,                -- the SHA-256 of each event, one after the other
    sealed_at      timestamptz NOT NULL,
    key            bytea       NOT NULL,                -- the fingerprint of the sealing key
    digest         bytea       NOT NULL,                -- of all the above
    signature      bytea       NOT NULL                 -- of the digest
);
-- Hashes don't compress.
ALTER TABLE seals ALTER leaves SET STORAGE EXTERNAL;

-- Against mistakes; it is the signatures that find intent.
CREATE FUNCTION refuse_to_change_seals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'seals are only ever added';
END $$;
CREATE TRIGGER only_ever_added BEFORE UPDATE OR DELETE OR TRUNCATE ON seals
    EXECUTE FUNCTION refuse_to_change_seals();
