-- Proves what sql/triggers/timestamps.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    row record;
BEGIN
    SET LOCAL TimeZone = 'Asia/Kolkata';
    CREATE TEMP TABLE proof_both (what text, again text, created_at timestamptz, updated_at timestamptz);
    CREATE TRIGGER proof BEFORE INSERT OR UPDATE ON pg_temp.proof_both FOR EACH ROW EXECUTE FUNCTION public.timestamps();
    INSERT INTO proof_both (what, created_at, updated_at) VALUES ('proof', NULL, NULL) RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_at = now() AND row.updated_at = now(), 'an insert sets both, whatever the time zone');
    INSERT INTO proof_both (what, created_at, updated_at) VALUES ('given', '2020-01-01Z', '2020-01-02Z') RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_at = '2020-01-01Z' AND row.updated_at = '2020-01-02Z', 'given values are kept');
    INSERT INTO proof_both (what, created_at, updated_at) VALUES ('half', '2020-01-01Z', NULL) RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_at = '2020-01-01Z', 'updated_at begins as created_at');
    UPDATE proof_both SET what = what WHERE what = 'given' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_at = '2020-01-02Z', 'an update that changes nothing moves nothing');
    UPDATE proof_both SET again = 'changed', created_at = '2000-01-01Z', updated_at = '2000-01-01Z' WHERE what = 'given' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_at = now(), 'an update moves updated_at');
    PERFORM pg_temp.expect(row.created_at = '2020-01-01Z', 'created_at never changes again');
    -- A table without created_at.
    CREATE TEMP TABLE proof_rows (what text, updated_at timestamptz);
    CREATE TRIGGER proof BEFORE INSERT OR UPDATE ON pg_temp.proof_rows FOR EACH ROW EXECUTE FUNCTION public.update_timestamp();
    INSERT INTO proof_rows VALUES ('a', NULL), ('b', '2020-01-01Z');
    PERFORM pg_temp.expect((SELECT updated_at = now() FROM proof_rows WHERE what = 'a'), 'an insert sets updated_at alone');
    UPDATE proof_rows SET what = what;
    PERFORM pg_temp.expect((SELECT updated_at = '2020-01-01Z' FROM proof_rows WHERE what = 'b'), 'given, and not moved by nothing');
    UPDATE proof_rows SET what = 'c', updated_at = '2000-01-01Z' WHERE what = 'b';
    PERFORM pg_temp.expect((SELECT updated_at = now() FROM proof_rows WHERE what = 'c'), 'an update moves updated_at alone');
    -- Columns without a time zone, and a generated column, which is an argument of the trigger.
    CREATE TEMP TABLE proof_plain (what text, again text GENERATED ALWAYS AS (what || '!') STORED, created_at timestamp, updated_at timestamp);
    CREATE TRIGGER proof BEFORE INSERT OR UPDATE ON pg_temp.proof_plain FOR EACH ROW EXECUTE FUNCTION public.timestamps_in_utc('again');
    INSERT INTO proof_plain (what, updated_at) VALUES ('a', '2020-01-01');
    PERFORM pg_temp.expect((SELECT created_at = now() AT TIME ZONE 'UTC' FROM proof_plain), 'without a time zone it is UTC');
    UPDATE proof_plain SET what = what;
    PERFORM pg_temp.expect((SELECT updated_at = '2020-01-01' FROM proof_plain), 'a generated column alone is no change');
    UPDATE proof_plain SET what = 'b', created_at = '2000-01-01';
    PERFORM pg_temp.expect((SELECT updated_at = now() AT TIME ZONE 'UTC' AND created_at = updated_at FROM proof_plain), 'it moves in UTC');
    CREATE TEMP TABLE proof_timed (what text, again text GENERATED ALWAYS AS (what || '!') STORED, created_at timestamptz, updated_at timestamptz);
    CREATE TRIGGER proof BEFORE INSERT OR UPDATE ON pg_temp.proof_timed FOR EACH ROW EXECUTE FUNCTION public.timestamps('again');
    INSERT INTO proof_timed (what, updated_at) VALUES ('a', '2020-01-01Z');
    UPDATE proof_timed SET what = what;
    PERFORM pg_temp.expect((SELECT updated_at = '2020-01-01Z' FROM proof_timed), 'a generated column alone is no change here either');
    CREATE TEMP TABLE proof_plain_rows (what text, updated_at timestamp);
    CREATE TRIGGER proof BEFORE INSERT OR UPDATE ON pg_temp.proof_plain_rows FOR EACH ROW EXECUTE FUNCTION public.update_timestamp_in_utc();
    INSERT INTO proof_plain_rows VALUES ('a', NULL), ('b', '2020-01-01');
    UPDATE proof_plain_rows SET what = what;
    PERFORM pg_temp.expect((SELECT array_agg(updated_at ORDER BY what) FROM proof_plain_rows) = ARRAY[now() AT TIME ZONE 'UTC', '2020-01-01'], 'updated_at alone in UTC');
    UPDATE proof_plain_rows SET what = 'c' WHERE what = 'b';
    PERFORM pg_temp.expect((SELECT updated_at = now() AT TIME ZONE 'UTC' FROM proof_plain_rows WHERE what = 'c'), 'updated_at alone in UTC moves');
END
$$;
