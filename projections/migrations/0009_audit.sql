-- The log as auditors read it. A stream's first event names its organisation, unless it is the organisation's own; a queue
-- prefix may change hands. What a state's fields are called is storage format, as its topic is.
CREATE VIEW audit_events AS
SELECT e.*, coalesce(o.organization_id, e.stream_id) AS organization_id,
       CASE WHEN e.topic LIKE 'plant:%' THEN e.stream_id ELSE o.plant_id END AS plant_id
FROM events e CROSS JOIN LATERAL (
    SELECT (first.state ->> 'organization_id')::uuid AS organization_id, (first.state ->> 'plant_id')::uuid AS plant_id
    FROM (SELECT convert_from(f.state, 'UTF8')::json AS state FROM events f
          WHERE f.stream_id = e.stream_id AND f.version = 1
          LIMIT 1) first -- each by its key: as a join, the whole log would be read for a page of it
) o WHERE e.topic NOT LIKE 'queue-prefix:%'
UNION ALL
SELECT e.*, (convert_from(holder.state, 'UTF8')::json ->> 'organization_id')::uuid, NULL
FROM events e CROSS JOIN LATERAL (
    SELECT h.state FROM events h WHERE h.stream_id = e.stream_id AND h.version <= e.version
        AND h.topic IN ('queue-prefix:created', 'queue-prefix:claimed') ORDER BY h.version DESC LIMIT 1
) holder WHERE e.topic LIKE 'queue-prefix:%';

-- Where each organisation's events are in the log; what they say stays there. `request` and `correlation` are hashes of
-- the ids in the metadata.
CREATE TABLE audit_log (
    organization_id uuid    NOT NULL,
    position        bigint  NOT NULL,
    plant_id        uuid,
    topic           text    NOT NULL,
    actor           text    NOT NULL,
    request         integer,
    correlation     integer,
    PRIMARY KEY (organization_id, position)
);
CREATE INDEX ON audit_log (organization_id, plant_id, position) WHERE plant_id IS NOT NULL;
-- What is rare among very many commands: all else, and what people did.
CREATE INDEX ON audit_log (organization_id, position) WHERE topic NOT LIKE 'relayed-command:%';
CREATE INDEX ON audit_log (organization_id, actor, position)
    WHERE actor LIKE 'user:%' OR actor LIKE 'key:%' OR actor LIKE 'cli%';
CREATE INDEX ON audit_log (request);
CREATE INDEX ON audit_log (correlation) WHERE correlation IS NOT NULL;

-- The last position that was recorded by a moment, 0 if none was: neither ever falls, and positions have no gaps, so
-- halving finds it without an index.
CREATE FUNCTION position_at(moment timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := 0;
    high bigint := coalesce((SELECT max(position) FROM events), 0);
    middle bigint;
BEGIN
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        IF (SELECT recorded_at <= moment FROM events WHERE position = middle) THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;

-- What the last self-audit found, one row of each thing it looked at; `problem` is null where all was well.
CREATE TABLE audit_checks (
    name       text PRIMARY KEY,
    checked_at timestamptz NOT NULL DEFAULT now(),
    position   bigint NOT NULL,
    problem    text
);
