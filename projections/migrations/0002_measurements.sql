-- Measurements: what plants report, and the roll-ups that every query is answered from.
-- Partitioned tables have no DEFAULT partition: attaching a day would have to lock and scan it.
-- projections/partitions.py makes their partitions.

CREATE TABLE telemetry (
    plant_id uuid NOT NULL,
    time timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    soc float8,
    grid_power float8,
    fve_power float8,
    consumption float8,
    invertor_power float8,
    fve_reg float8,
    available_battery_energy float8,
    battery_temperature float8,
    operating_mode text,
    data_quality text,
    PRIMARY KEY (plant_id, time)
) PARTITION BY RANGE (time); -- daily
COMMENT ON TABLE telemetry IS 'Samples as they came; the first value of an identity stays. kW, %, kWh, °C.';

-- Null fields do not count: a mean is <field>_sum / <field>_count.
CREATE TABLE telemetry_1m (
    plant_id uuid NOT NULL,
    bucket timestamptz NOT NULL,
    soc_sum float8 NOT NULL,
    grid_power_sum float8 NOT NULL,
    fve_power_sum float8 NOT NULL,
    consumption_sum float8 NOT NULL,
    invertor_power_sum float8 NOT NULL,
    fve_reg_sum float8 NOT NULL,
    soc_count integer NOT NULL,
    grid_power_count integer NOT NULL,
    fve_power_count integer NOT NULL,
    consumption_count integer NOT NULL,
    invertor_power_count integer NOT NULL,
    fve_reg_count integer NOT NULL,
    PRIMARY KEY (plant_id, bucket)
) PARTITION BY RANGE (bucket); -- monthly

-- The same by five minutes, which most questions can be answered from.
CREATE TABLE telemetry_5m (LIKE telemetry_1m INCLUDING ALL) PARTITION BY RANGE (bucket); -- monthly

-- fillfactor: each new sample rewrites its plant's row, on the same page and past the index.
CREATE TABLE telemetry_latest (
    plant_id uuid PRIMARY KEY,
    time timestamptz NOT NULL,
    soc float8,
    grid_power float8,
    fve_power float8,
    consumption float8,
    invertor_power float8,
    fve_reg float8
) WITH (fillfactor = 30);

CREATE TABLE meter_readings (
    plant_id uuid NOT NULL,
    meter_id text NOT NULL,
    time timestamptz NOT NULL,
    energy_kwh float8 NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (plant_id, meter_id, time)
) PARTITION BY RANGE (time); -- daily
COMMENT ON TABLE meter_readings IS 'Cumulative registers as they came; the first value of an identity stays.';

-- One row per meter ever seen. A writer locks it, so that one transaction at a time
-- changes a meter's roll-up and sees all the readings before it.
CREATE TABLE meters (
    plant_id uuid NOT NULL,
    meter_id text NOT NULL,
    PRIMARY KEY (plant_id, meter_id)
);

-- energy_kwh counts from the reading before the minute, however long ago; counted_kwh from the
-- minute's own first reading on.
CREATE TABLE meter_1m (
    plant_id uuid NOT NULL,
    meter_id text NOT NULL,
    minute timestamptz NOT NULL,
    first_kwh float8 NOT NULL,
    last_kwh float8 NOT NULL,
    counted_kwh float8 NOT NULL,
    energy_kwh float8 NOT NULL,
    PRIMARY KEY (plant_id, meter_id, minute)
) PARTITION BY RANGE (minute); -- monthly

-- What a register counted between two readings: a lower one was reset and starts from zero; before
-- the first one nothing is known.
CREATE FUNCTION meter_energy(previous float8, current float8) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN previous IS NULL THEN 0 WHEN current >= previous THEN current - previous ELSE current END;

-- Another value for an identity that has one. meter_id is '' for telemetry. The key makes a
-- redelivered conflict harmless.
CREATE TABLE measurement_conflicts (
    plant_id uuid NOT NULL,
    meter_id text NOT NULL,
    time timestamptz NOT NULL,
    first_value jsonb NOT NULL,
    other_value jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (plant_id, meter_id, time, other_value)
);
CREATE INDEX measurement_conflicts_received_at ON measurement_conflicts (received_at);
