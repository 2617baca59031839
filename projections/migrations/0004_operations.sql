-- What is kept beside the event log and can't be derived from it: secrets, and when each organisation syncs next.

-- Each organisation has a data key of its own, wrapped by a key of the operator: destroy it, and the secrets are gone.
CREATE TABLE organisation_keys (
    organization_id uuid PRIMARY KEY,
    key_id          text NOT NULL,                      -- which of the operator's keys wraps it
    wrapped_key     bytea NOT NULL
);

CREATE TABLE secrets (
    organization_id uuid NOT NULL,
    field           text NOT NULL,
    version         integer NOT NULL,
    sealed          bytea NOT NULL,
    PRIMARY KEY (organization_id, field, version)
);

CREATE TABLE sync_turns (
    organization_id uuid PRIMARY KEY,
    last_success_at timestamptz,
    failures        integer NOT NULL DEFAULT 0,
    next_at         timestamptz NOT NULL DEFAULT now()
);
