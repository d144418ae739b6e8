/*
version = 4
summary = "sessions, logins and roles of a user are of the user's hospital, and move with the user"
order   = 95  # before the timestamps, which then see what it changed

[[attach]]
tables = ["user_sessions", "login_history", "user_role_mapping"]
function = "hospital_of_user"
when = "BEFORE INSERT OR UPDATE"
condition = "NEW.hospital_id IS NULL"

[[attach]]
tables = ["user_sessions", "login_history", "user_role_mapping"]
function = "hospital_of_user"
name = "hospital_of_other_user"
when = "BEFORE UPDATE OF user_id"
condition = "NEW.user_id <> OLD.user_id AND NEW.hospital_id IS NOT DISTINCT FROM OLD.hospital_id"

[[attach]]
tables = ["login_history"]
function = "session_of_login"
when = "BEFORE INSERT OR UPDATE OF session_id"
condition = "NEW.session_id IS NOT NULL"

[[attach]]
tables = ["users"]
function = "hospital_of_user_leaves"
when = "BEFORE UPDATE OF hospital_id"
condition = "NEW.hospital_id IS DISTINCT FROM OLD.hospital_id"

[[attach]]
tables = ["users"]
function = "hospital_of_user_moves"
when = "AFTER UPDATE OF hospital_id"
condition = "NEW.hospital_id IS DISTINCT FROM OLD.hospital_id"

[needs]
users = ["user_id text", "hospital_id uuid null", "unique (hospital_id, user_id)"]
user_sessions = ["session_id uuid", "user_id -> users cascade", "hospital_id uuid null", "token text"]
login_history = ["user_id -> users cascade", "hospital_id uuid null", "session_id uuid null", "status text"]
user_role_mapping = ["user_id -> users cascade", "hospital_id uuid null", "role_id -> role_master"]
hospitals = ["hospital_id uuid"]
role_master = ["role_id integer"]
*/
-- No sequential scan: a session keeps the plan that it made while a table was empty, and may load a million rows with it.
-- KEY SHARE: the user does not change its hospital before this is committed. The foreign key takes the same lock.
CREATE OR REPLACE FUNCTION public.hospital_of_user() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    NEW.hospital_id := (SELECT hospital_id FROM public.users WHERE user_id = NEW.user_id FOR KEY SHARE);
    RETURN NEW;
END
$$;

-- The check of a foreign key passes by row security: a session that is not seen is refused as one that is not there.
CREATE OR REPLACE FUNCTION public.session_of_login() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    IF row_security_active('public.user_sessions')
        AND NOT EXISTS (SELECT FROM public.user_sessions WHERE session_id = NEW.session_id) THEN
        RAISE EXCEPTION 'there is no session %', NEW.session_id USING ERRCODE = 'foreign_key_violation', TABLE = 'login_history';
    END IF;
    RETURN NEW;
END
$$;

-- The tables whose rows move with their user are those with the trigger above. Their foreign keys over both columns would
-- refuse the user's move while the rows are where they were.
CREATE OR REPLACE FUNCTION public.hospital_of_user_leaves() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    keys text := (
        SELECT string_agg(DISTINCT format('%I.%I', n.nspname, k.conname), ', ') FROM pg_trigger t
        JOIN pg_constraint k ON k.conrelid = t.tgrelid AND k.confrelid = TG_RELID AND k.condeferrable
        JOIN pg_namespace n ON n.oid = k.connamespace WHERE t.tgfoid = 'public.hospital_of_user()'::regprocedure);
BEGIN
    IF keys IS NOT NULL THEN
        EXECUTE format('SET CONSTRAINTS %s DEFERRED', keys);
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.hospital_of_user_moves() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rows_of_users regclass;
BEGIN
    FOR rows_of_users IN SELECT DISTINCT tgrelid FROM pg_trigger WHERE tgfoid = 'public.hospital_of_user()'::regprocedure LOOP
        EXECUTE format('UPDATE %s SET hospital_id = $1 WHERE user_id = $2', rows_of_users) USING NEW.hospital_id, NEW.user_id;
    END LOOP;
    RETURN NULL;
END
$$;
