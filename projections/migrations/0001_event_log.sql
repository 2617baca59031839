-- The event log. Only append_to_events() writes it: one call, one transaction, one round trip.
CREATE TABLE events (
    position    bigint      PRIMARY KEY,                -- 1, 2, 3 … without gaps, in the order of visibility
    stream_id   uuid        NOT NULL,
    version     bigint      NOT NULL,
    topic       text        NOT NULL,
    state       bytea       NOT NULL,
    event_id    uuid        NOT NULL,
    metadata    jsonb       NOT NULL,
    recorded_at timestamptz NOT NULL,                   -- never falls as positions rise
    UNIQUE (stream_id, version)
);

-- Appends are serialised by an advisory lock that ends with the transaction: a position is given only when every
-- lower one is visible, so a reader that goes by position misses nothing. LOCK TABLE would do the same, but VACUUM and
-- CREATE INDEX CONCURRENTLY would block it.
CREATE FUNCTION append_to_events(
    stream_ids uuid[], versions bigint[], topics text[], states bytea[], event_ids uuid[], metadata jsonb[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last_position bigint;
    last_recorded_at timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(1463899220, 1);
    SELECT e.position, e.recorded_at INTO last_position, last_recorded_at FROM events e ORDER BY e.position DESC LIMIT 1;
    last_position := coalesce(last_position, 0);
    INSERT INTO events (position, stream_id, version, topic, state, event_id, metadata, recorded_at)
    SELECT last_position + n, s, v, t, b, e, m, greatest(clock_timestamp(), last_recorded_at)
    FROM unnest(stream_ids, versions, topics, states, event_ids, metadata) WITH ORDINALITY AS new (s, v, t, b, e, m, n);
    PERFORM pg_notify('events', '');
    RETURN last_position;
END $$;
