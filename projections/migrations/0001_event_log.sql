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

-- A request that its caller may repeat: the row is made in the transaction that records the request's first events, the
-- answer is added when it is known.
CREATE TABLE idempotency_keys (
    caller       text        NOT NULL,
    key          text        NOT NULL,
    request_hash bytea       NOT NULL,
    position     bigint,                                -- of the last event before the request's own, if it had any
    events       integer,                               -- how many of its own were recorded with it
    answer       json,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key)
);
CREATE INDEX ON idempotency_keys (created_at);

-- Appends are serialised by an advisory lock that ends with the transaction: a position is given only when every
-- lower one is visible, so a reader that goes by position misses nothing. LOCK TABLE would do the same, but VACUUM and
-- CREATE INDEX CONCURRENTLY would block it.
CREATE FUNCTION append_to_events(
    stream_ids uuid[], versions bigint[], topics text[], states bytea[], event_ids uuid[], metadata jsonb[],
    idempotency_caller text DEFAULT NULL, idempotency_key text DEFAULT NULL, idempotency_hash bytea DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last_position bigint;
    last_recorded_at timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(1463899220, 1);
    SELECT e.position, e.recorded_at INTO last_position, last_recorded_at FROM events e ORDER BY e.position DESC LIMIT 1;
    last_position := coalesce(last_position, 0);
    IF idempotency_key IS NOT NULL THEN
        INSERT INTO idempotency_keys (caller, key, request_hash, position, events)
        VALUES (idempotency_caller, idempotency_key, idempotency_hash, last_position, cardinality(stream_ids));
    END IF;
    INSERT INTO events (position, stream_id, version, topic, state, event_id, metadata, recorded_at)
    SELECT last_position + n, s, v, t, b, e, m, greatest(clock_timestamp(), last_recorded_at)
    FROM unnest(stream_ids, versions, topics, states, event_ids, metadata) WITH ORDINALITY AS new (s, v, t, b, e, m, n);
    PERFORM pg_notify('events', '');
    RETURN last_position;
END $$;
