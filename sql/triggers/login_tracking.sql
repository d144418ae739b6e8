/*
version = 5
summary = "login_history keeps the user's counter, lock and last login"
order   = 130
attach  = { tables = ["login_history"] }
when    = "AFTER INSERT"

[needs]
login_history = ["user_id text", "status text", "login_time timestamptz"]
users = ["user_id text", "failed_login_attempts integer", "locked_until timestamptz null", "last_login timestamptz null"]
parameter_settings = ["param_code text", "param_value text null", "unique (param_code)"]
*/
-- No sequential scan: a session keeps the plan that it made while a table was empty, and may load a million rows with it.
CREATE OR REPLACE FUNCTION public.login_tracking() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    -- Nothing here raises: the count would be rolled back with it, and nobody were ever locked.
    IF NEW.status = 'failed' THEN
        -- One statement that reads and writes the row's latest version: two failures at once count as two.
        UPDATE public.users u SET
            failed_login_attempts = CASE WHEN u.locked_until <= now() THEN 1 ELSE coalesce(u.failed_login_attempts, 0) + 1 END,
            locked_until = CASE
                WHEN u.locked_until > now() THEN u.locked_until
                WHEN (CASE WHEN u.locked_until <= now() THEN 1 ELSE coalesce(u.failed_login_attempts, 0) + 1 END)
                     >= public.integer_parameter('MAX_LOGIN_ATTEMPTS'::text, 5, 1, 1000)
                THEN now() + make_interval(mins => public.integer_parameter('LOCKOUT_MINUTES'::text, 30, 1, 525600))
            END
        WHERE u.user_id = NEW.user_id;
    ELSIF NEW.status = 'success' THEN  -- another status, or none, says nothing of the account
        -- A success while the account is locked is recorded, and does not unlock.
        UPDATE public.users u SET failed_login_attempts = 0, locked_until = NULL, last_login = greatest(u.last_login, NEW.login_time)
        WHERE u.user_id = NEW.user_id AND (u.locked_until IS NULL OR u.locked_until <= now());
    END IF;
    RETURN NULL;
END
$$;
