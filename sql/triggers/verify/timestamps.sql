-- Proves what sql/triggers/timestamps.sql says. Runs in a transaction that is always rolled back.
DO $$
DECLARE
    row hospitals;
BEGIN
    SET LOCAL TimeZone = 'Asia/Kolkata';
    INSERT INTO hospitals (name, created_at, updated_at) VALUES ('proof', NULL, NULL) RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_at = now() AND row.updated_at = now(), 'an insert sets both, whatever the time zone');
    INSERT INTO hospitals (name, created_at, updated_at) VALUES ('proof given', '2020-01-01Z', '2020-01-02Z') RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_at = '2020-01-01Z' AND row.updated_at = '2020-01-02Z', 'given values are kept');
    INSERT INTO hospitals (name, created_at, updated_at) VALUES ('proof half', '2020-01-01Z', NULL) RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_at = '2020-01-01Z', 'updated_at begins as created_at');
    UPDATE hospitals SET name = name WHERE name = 'proof given' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_at = '2020-01-02Z', 'an update that changes nothing moves nothing');
    UPDATE hospitals SET timezone = 'UTC', created_at = '2000-01-01Z', updated_at = '2000-01-01Z'
        WHERE name = 'proof given' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_at = now(), 'an update moves updated_at');
    PERFORM pg_temp.expect(row.created_at = '2020-01-01Z', 'created_at never changes again');
    -- A table without created_at.
    CREATE TEMP TABLE proof_rows (what text, updated_at timestamptz);
    CREATE TRIGGER proof BEFORE INSERT OR UPDATE ON proof_rows FOR EACH ROW EXECUTE FUNCTION update_timestamp();
    INSERT INTO proof_rows VALUES ('a', NULL), ('b', '2020-01-01Z');
    PERFORM pg_temp.expect((SELECT updated_at = now() FROM proof_rows WHERE what = 'a'), 'an insert sets updated_at alone');
    UPDATE proof_rows SET what = what;
    PERFORM pg_temp.expect((SELECT updated_at = '2020-01-01Z' FROM proof_rows WHERE what = 'b'), 'given, and not moved by nothing');
    UPDATE proof_rows SET what = 'c', updated_at = '2000-01-01Z' WHERE what = 'b';
    PERFORM pg_temp.expect((SELECT updated_at = now() FROM proof_rows WHERE what = 'c'), 'an update moves updated_at alone');
END
$$;
