-- The least and the greatest value of each minute, for charts; null where no sample has the field.
ALTER TABLE telemetry_1m
    ADD COLUMN soc_min float8, ADD COLUMN soc_max float8,
    ADD COLUMN grid_power_min float8, ADD COLUMN grid_power_max float8,
    ADD COLUMN fve_power_min float8, ADD COLUMN fve_power_max float8,
    ADD COLUMN consumption_min float8, ADD COLUMN consumption_max float8,
    ADD COLUMN invertor_power_min float8, ADD COLUMN invertor_power_max float8,
    ADD COLUMN fve_reg_min float8, ADD COLUMN fve_reg_max float8;

UPDATE telemetry_1m SET
    soc_min = sample.soc_min, soc_max = sample.soc_max,
    grid_power_min = sample.grid_power_min, grid_power_max = sample.grid_power_max,
    fve_power_min = sample.fve_power_min, fve_power_max = sample.fve_power_max,
    consumption_min = sample.consumption_min, consumption_max = sample.consumption_max,
    invertor_power_min = sample.invertor_power_min, invertor_power_max = sample.invertor_power_max,
    fve_reg_min = sample.fve_reg_min, fve_reg_max = sample.fve_reg_max
FROM (
    SELECT plant_id, date_trunc('minute', time) AS bucket,
        min(soc) AS soc_min, max(soc) AS soc_max,
        min(grid_power) AS grid_power_min, max(grid_power) AS grid_power_max,
        min(fve_power) AS fve_power_min, max(fve_power) AS fve_power_max,
        min(consumption) AS consumption_min, max(consumption) AS consumption_max,
        min(invertor_power) AS invertor_power_min, max(invertor_power) AS invertor_power_max,
        min(fve_reg) AS fve_reg_min, max(fve_reg) AS fve_reg_max
    FROM telemetry GROUP BY plant_id, bucket) sample
WHERE telemetry_1m.plant_id = sample.plant_id AND telemetry_1m.bucket = sample.bucket;

-- Each sample of a bucket rewrites its row: where the page has room for that, the index stays as it is. The setting is
-- each partition's own; projections/partitions.py makes new ones with it.
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT inhrelid FROM pg_inherits
        WHERE inhparent IN ('telemetry_1m'::regclass, 'telemetry_5m'::regclass, 'meter_1m'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s SET (fillfactor = 50)', part);
    END LOOP;
END $$;
