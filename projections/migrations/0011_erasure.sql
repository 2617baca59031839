-- Owners of data keys that were destroyed for good: none of them gets a key ever again.
CREATE TABLE destroyed_keys (
    owner        uuid        PRIMARY KEY,
    destroyed_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE organisations
    ADD COLUMN closed_at timestamptz,                   -- nobody acts for it any more: it is being erased
    ADD COLUMN erased_at timestamptz;
-- A user's or key's id, veiled.
ALTER TABLE config_log ALTER requested_by TYPE text;

-- Both tables hold what this version's code makes of the same events, so there is nothing to rebuild.
UPDATE slots SET columns = columns || ', closed_at timestamp with time zone, erased_at timestamp with time zone'
    WHERE name = 'organisations';
UPDATE slots SET columns = replace(columns, 'requested_by uuid', 'requested_by text') WHERE name = 'config_log';
