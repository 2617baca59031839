-- When each API key was last used, to the minute; apart from the read model, which a rebuild replaces.
CREATE TABLE api_key_uses (
    key_id       uuid PRIMARY KEY,
    last_used_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- What callers and organisations have spent of their budgets, over all processes. Not in the write-ahead log: after a crash
-- of the database each begins a new minute.
CREATE UNLOGGED TABLE rate_budgets (
    key     text PRIMARY KEY,
    spent   integer     NOT NULL,
    ends_at timestamptz NOT NULL
) WITH (fillfactor = 50);
