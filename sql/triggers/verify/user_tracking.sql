-- Proves what sql/triggers/user_tracking.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    row record;
BEGIN
    CREATE TEMP TABLE proof_rows (what text, again text, created_by varchar(50), updated_by varchar(50));
    CREATE TRIGGER proof BEFORE INSERT OR UPDATE ON pg_temp.proof_rows FOR EACH ROW EXECUTE FUNCTION public.user_tracking();
    PERFORM set_config('app.current_user', '', true);
    INSERT INTO proof_rows (what) VALUES ('proof') RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_by = left(session_user, 50) AND row.updated_by = left(session_user, 50), 'without an actor it is the database role');
    UPDATE proof_rows SET again = 'UTC', created_by = 'forged', updated_by = 'application' WHERE what = 'proof' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_by = 'application', 'what the application wrote counts');
    PERFORM pg_temp.expect(row.created_by = left(session_user, 50), 'created_by never changes again');
    PERFORM set_config('app.current_user', '9876543210', true);
    UPDATE proof_rows SET what = what WHERE what = 'proof' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_by = 'application', 'an update that changes nothing names nobody');
    UPDATE proof_rows SET again = 'Asia/Tokyo', updated_by = 'other' WHERE what = 'proof' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_by = '9876543210', 'app.current_user beats what was written');
    INSERT INTO proof_rows (what, created_by) VALUES ('proof 2', 'other') RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_by = '9876543210' AND row.updated_by = '9876543210', 'and so it does on insert');
    PERFORM set_config('app.current_user', '', true);
    UPDATE proof_rows SET again = 'Tokyo again' WHERE what = 'proof' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_by = left(session_user, 50), 'a former actor is not taken for this one');
    INSERT INTO proof_rows (what, created_by) VALUES ('proof 3', 'application') RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_by = 'application' AND row.updated_by = 'application', 'what was written counts on insert');
    PERFORM set_config('app.current_user', repeat('x', 80), true);
    INSERT INTO proof_rows (what) VALUES ('proof 4') RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_by = repeat('x', 50), 'a long actor is cut, not refused');
    -- A generated column, which is an argument of the trigger, is no change.
    PERFORM set_config('app.current_user', '', true);
    CREATE TEMP TABLE proof_both (what text, again text GENERATED ALWAYS AS (what || '!') STORED, created_by text, updated_by text);
    CREATE TRIGGER proof BEFORE INSERT OR UPDATE ON pg_temp.proof_both FOR EACH ROW EXECUTE FUNCTION public.user_tracking('again');
    INSERT INTO proof_both (what, updated_by) VALUES ('a', 'application');
    UPDATE proof_both SET what = what;
    PERFORM pg_temp.expect((SELECT updated_by = 'application' FROM proof_both), 'a generated column alone is no change');
    UPDATE proof_both SET what = 'b';
    PERFORM pg_temp.expect((SELECT updated_by = session_user FROM proof_both), 'but another with it is');
    -- Tables with one of the two columns.
    CREATE TEMP TABLE proof_created (what text, created_by varchar(50));
    CREATE TEMP TABLE proof_updated (what text, updated_by varchar(50));
    CREATE TRIGGER proof BEFORE INSERT OR UPDATE ON pg_temp.proof_created FOR EACH ROW EXECUTE FUNCTION public.creator_tracking();
    CREATE TRIGGER proof BEFORE INSERT OR UPDATE ON pg_temp.proof_updated FOR EACH ROW EXECUTE FUNCTION public.updater_tracking();
    PERFORM set_config('app.current_user', 'actor', true);
    INSERT INTO proof_created VALUES ('a', 'other');
    INSERT INTO proof_updated VALUES ('a', 'other');
    PERFORM set_config('app.current_user', '', true);
    INSERT INTO proof_created VALUES ('b', 'application'), ('c', NULL);
    INSERT INTO proof_updated VALUES ('b', 'application'), ('c', NULL);
    UPDATE proof_created SET created_by = 'forged';
    UPDATE proof_updated SET what = what;
    PERFORM pg_temp.expect((SELECT array_agg(created_by ORDER BY what) FROM proof_created) = ARRAY['actor', 'application', left(session_user, 50)]::varchar[], 'created_by alone: who, and for good');
    PERFORM pg_temp.expect((SELECT array_agg(updated_by ORDER BY what) FROM proof_updated) = ARRAY['actor', 'application', left(session_user, 50)]::varchar[], 'updated_by alone: who, and not by nothing');
    UPDATE proof_updated SET what = what || '!', updated_by = CASE what WHEN 'c' THEN 'writer' ELSE updated_by END;
    PERFORM pg_temp.expect((SELECT array_agg(updated_by ORDER BY what) FROM proof_updated) = ARRAY[left(session_user, 50), left(session_user, 50), 'writer']::varchar[], 'updated_by alone: an update says who');
    PERFORM set_config('app.current_user', 'actor', true);
    UPDATE proof_updated SET what = what || '!', updated_by = 'ignored';
    PERFORM pg_temp.expect((SELECT bool_and(updated_by = 'actor') FROM proof_updated), 'updated_by alone: app.current_user beats what was written');
END
$$;
