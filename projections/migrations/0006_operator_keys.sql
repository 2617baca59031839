-- A data key may be wrapped by several of the operator's keys at once: while one is added or retired, processes that know
-- only the other go on. The nil UUID's data key is the pepper of the API keys' hashes.
ALTER TABLE organisation_keys DROP CONSTRAINT organisation_keys_pkey, ADD PRIMARY KEY (organization_id, key_id);
CREATE INDEX ON organisation_keys (key_id);
