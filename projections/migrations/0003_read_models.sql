-- How far each slot of the follower has come.
CREATE TABLE slots (
    name       text        PRIMARY KEY,
    position   bigint      NOT NULL DEFAULT 0,
    version    integer     NOT NULL DEFAULT 1,          -- of the code that filled the read model
    parked_at  bigint,                                  -- the position of the event that it could not apply
    error      text,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE organisations (
    id         uuid PRIMARY KEY,
    slug       text NOT NULL,
    name       text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE api_keys (
    id                  uuid PRIMARY KEY,
    organization_id     uuid NOT NULL,
    name                text NOT NULL,
    scopes              text[] NOT NULL,
    secret_hash         text NOT NULL,
    created_at          timestamptz NOT NULL,
    expires_at          timestamptz,
    revoked_at          timestamptz
);
CREATE INDEX ON api_keys (organization_id, created_at);

CREATE TABLE trading_configs (
    id                  uuid PRIMARY KEY,
    organization_id     uuid NOT NULL UNIQUE,
    status              text NOT NULL,
    queue_prefix        text NOT NULL,
    esm_api_url         text,
    esm_client_id       text,
    has_esm_credentials boolean NOT NULL,
    has_secret          boolean NOT NULL,
    last_sync_error     text,
    version             bigint NOT NULL,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL
);

CREATE TABLE plants (
    id                uuid PRIMARY KEY,
    organization_id   uuid NOT NULL,
    number            bigint NOT NULL,                  -- 1, 2, 3 … within the organisation
    external_plant_id text NOT NULL,
    name              text NOT NULL,
    linked            boolean NOT NULL,
    misses            integer NOT NULL,
    last_seen_at      timestamptz,                      -- null while the latest list has it
    created_at        timestamptz NOT NULL
);
CREATE INDEX ON plants (organization_id, number);

CREATE TABLE config_log (
    change_id       uuid PRIMARY KEY,
    id              bigint NOT NULL,                    -- the position of the change in the event log
    plant_id        uuid NOT NULL,
    number          bigint NOT NULL,                    -- 1, 2, 3 … within the plant
    requested_by    uuid NOT NULL,
    validate_only   boolean NOT NULL,
    config_snapshot jsonb NOT NULL,
    request_code    text,
    result_code     text,
    message         text,
    is_error        boolean NOT NULL,
    is_terminal     boolean NOT NULL,
    sent_at         timestamptz NOT NULL,
    responded_at    timestamptz,
    created_at      timestamptz NOT NULL
);
CREATE INDEX ON config_log (plant_id, number);
CREATE INDEX ON config_log (sent_at) WHERE NOT is_terminal;

CREATE TABLE command_log (
    id               uuid PRIMARY KEY,
    organization_id  uuid NOT NULL,
    plant_id         uuid,
    number           bigint,                            -- 1, 2, 3 … within the plant, of the command log's four types
    type_number      bigint,                            -- the same within the plant and type
    command_type     text NOT NULL,
    message_id       uuid NOT NULL,
    correlation_id   text,
    routing_key      text NOT NULL,
    site_id          text NOT NULL,
    payload          jsonb NOT NULL,
    status           text NOT NULL,
    ack_status       text,
    rejection_reason text,
    executed_at      timestamptz,
    expires_at       timestamptz,
    created_at       timestamptz NOT NULL
);
CREATE INDEX ON command_log (plant_id, number);
CREATE INDEX ON command_log (plant_id, command_type, type_number);
CREATE INDEX ON command_log (expires_at) WHERE status IN ('ACCEPTED', 'RELAYED');
