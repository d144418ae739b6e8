/*
version = 6
summary = "sessions: no more than MAX_ACTIVE_SESSIONS, expired ones end, an ended one notes its logout"
order   = 140

[[attach]]
tables = ["user_sessions"]
function = "session_expiry"
order = 90  # before the timestamps, which then see what it changed
when = "BEFORE INSERT OR UPDATE"

[[attach]]
tables = ["user_sessions"]
function = "session_limit"
when = "AFTER INSERT OR UPDATE"

[[attach]]
tables = ["user_sessions"]
function = "session_end"
when = "AFTER UPDATE"
condition = "OLD.is_active AND NOT NEW.is_active"

[[attach]]
tables = ["user_sessions"]
function = "session_removal"
when = "BEFORE DELETE"
condition = "OLD.is_active"

[needs]
user_sessions = ["session_id uuid", "user_id -> users cascade", "is_active boolean", "expires_at timestamptz", "created_at timestamptz", "token text"]
login_history = ["history_id", "session_id uuid null", "user_id -> users cascade", "logout_time timestamptz null"]
users = ["user_id text"]
parameter_settings = ["param_code text", "param_value text null", "unique (param_code)"]
*/
CREATE OR REPLACE FUNCTION public.session_expiry() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.is_active AND NEW.expires_at <= clock_timestamp() THEN
        NEW.is_active := false;
    END IF;
    RETURN NEW;
END
$$;

-- No sequential scan: a session keeps the plan that it made while a table was empty, and may load a million rows with it.
CREATE OR REPLACE FUNCTION public.session_limit() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    newest uuid;
BEGIN
    IF NOT NEW.is_active OR (TG_OP = 'UPDATE' AND OLD.is_active AND OLD.user_id = NEW.user_id) THEN
        RETURN NULL;
    END IF;
    -- The user's row is what sessions that begin at once queue for; the statement after it sees what the one before did. Under
    -- a snapshot it would not: then the row is written, so that one of the two fails.
    IF current_setting('transaction_isolation') = 'read committed' THEN
        PERFORM FROM public.users WHERE user_id = NEW.user_id FOR NO KEY UPDATE;
    ELSE
        UPDATE public.users SET user_id = user_id WHERE user_id = NEW.user_id;
    END IF;
    -- All rows of one statement are there already: the last of them is the one that begins, as if they had come one by one.
    SELECT other.session_id INTO newest FROM public.user_sessions own JOIN public.user_sessions other
        ON other.user_id = own.user_id AND other.is_active AND other.xmin = own.xmin AND other.cmin = own.cmin
        WHERE own.session_id = NEW.session_id ORDER BY other.ctid DESC LIMIT 1;
    -- The session that begins stays, whatever its clock says. Rows of one transaction have one time; ctid is their order.
    UPDATE public.user_sessions SET is_active = false WHERE session_id IN (
        SELECT session_id FROM public.user_sessions WHERE user_id = NEW.user_id AND is_active
        ORDER BY session_id = coalesce(newest, NEW.session_id) DESC, expires_at > clock_timestamp() DESC, created_at DESC, ctid DESC
        OFFSET public.integer_parameter('MAX_ACTIVE_SESSIONS'::text, 5, 1, 10000)
    );
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION public.session_end() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.login_history SET logout_time = now() WHERE session_id = NEW.session_id AND logout_time IS NULL;
    RETURN NULL;
END
$$;

-- Before, because afterwards the foreign key has cut the login off from its session.
CREATE OR REPLACE FUNCTION public.session_removal() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Not when the user itself is being deleted: its logins go with it, and one that is younger than the transaction would
    -- be checked against the user who is gone.
    UPDATE public.login_history SET logout_time = now() WHERE session_id = OLD.session_id AND logout_time IS NULL
        AND EXISTS (SELECT FROM public.users WHERE user_id = OLD.user_id);
    RETURN OLD;
END
$$;

-- Ends every session that is due; returns how many.
CREATE OR REPLACE FUNCTION public.expire_sessions() RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended integer;
BEGIN
    UPDATE public.user_sessions SET is_active = false WHERE is_active AND expires_at <= clock_timestamp();
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END
$$;
