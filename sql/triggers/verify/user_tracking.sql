-- Proves what sql/triggers/user_tracking.sql says. Runs in a transaction that is always rolled back.
DO $$
DECLARE
    row hospitals;
BEGIN
    PERFORM set_config('app.current_user', '', true);
    INSERT INTO hospitals (name) VALUES ('proof') RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_by = left(session_user, 50) AND row.updated_by = left(session_user, 50), 'without an actor it is the database role');
    UPDATE hospitals SET timezone = 'UTC', created_by = 'forged', updated_by = 'application' WHERE name = 'proof' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_by = 'application', 'what the application wrote counts');
    PERFORM pg_temp.expect(row.created_by = left(session_user, 50), 'created_by never changes again');
    PERFORM set_config('app.current_user', '9876543210', true);
    UPDATE hospitals SET name = name WHERE name = 'proof' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_by = 'application', 'an update that changes nothing names nobody');
    UPDATE hospitals SET timezone = 'Asia/Tokyo', updated_by = 'other' WHERE name = 'proof' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_by = '9876543210', 'app.current_user beats what was written');
    INSERT INTO hospitals (name, created_by) VALUES ('proof 2', 'other') RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_by = '9876543210' AND row.updated_by = '9876543210', 'and so it does on insert');
    PERFORM set_config('app.current_user', '', true);
    UPDATE hospitals SET timezone = 'UTC' WHERE name = 'proof' RETURNING * INTO row;
    PERFORM pg_temp.expect(row.updated_by = left(session_user, 50), 'a former actor is not taken for this one');
    INSERT INTO hospitals (name, created_by) VALUES ('proof 3', 'application') RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_by = 'application' AND row.updated_by = 'application', 'what was written counts on insert');
    PERFORM set_config('app.current_user', repeat('x', 80), true);
    INSERT INTO hospitals (name) VALUES ('proof 4') RETURNING * INTO row;
    PERFORM pg_temp.expect(row.created_by = repeat('x', 50), 'a long actor is cut, not refused');
END
$$;
