-- What a read model's table looked like to the code that filled it; null until the follower first sees the slot.
ALTER TABLE slots ADD COLUMN columns text;

-- Read models are made anew in `rebuild`, and what they replaced stays in `previous`, for a rollback.
CREATE SCHEMA IF NOT EXISTS rebuild;
CREATE SCHEMA IF NOT EXISTS previous;

-- Every swap of a read model's table, and what it replaced.
CREATE TABLE rebuilds (
    id                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              text        NOT NULL,
    swapped_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    position          bigint      NOT NULL,
    version           integer     NOT NULL,
    columns           text,
    previous_position bigint      NOT NULL,
    previous_version  integer     NOT NULL,
    previous_columns  text,
    difference        text,                             -- found by the comparison at the same position
    reason            text                              -- why it was swapped all the same, or 'rollback'
);
CREATE INDEX ON rebuilds (name, id);
