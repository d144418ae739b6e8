-- Proves what sql/triggers/login_tracking.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    account public.users;
BEGIN
    INSERT INTO public.parameter_settings (param_code, param_value) VALUES ('MAX_LOGIN_ATTEMPTS', '3'), ('LOCKOUT_MINUTES', '10')
        ON CONFLICT (param_code) DO UPDATE SET param_value = EXCLUDED.param_value;
    INSERT INTO public.users (user_id, entity_type, entity_id) VALUES ('proof', 'staff', gen_random_uuid());
    INSERT INTO public.login_history (user_id, status) VALUES ('proof', 'failed'), ('proof', 'failed');
    SELECT * INTO account FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(account.failed_login_attempts = 2 AND account.locked_until IS NULL, 'failures are counted');
    INSERT INTO public.login_history (user_id, status, login_time) VALUES ('proof', 'success', '2020-01-01Z');
    SELECT * INTO account FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(account.failed_login_attempts = 0 AND account.last_login = '2020-01-01Z', 'a success resets and is noted');
    INSERT INTO public.login_history (user_id, status) VALUES ('proof', 'failed'), ('proof', 'failed'), ('proof', 'failed');
    SELECT * INTO account FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(account.failed_login_attempts = 3 AND account.locked_until = now() + interval '10 minutes', 'the third locks');
    INSERT INTO public.login_history (user_id, status) VALUES ('proof', 'success');
    PERFORM pg_temp.expect((SELECT locked_until > now() AND failed_login_attempts = 3 AND last_login = '2020-01-01Z' FROM public.users
        WHERE user_id = 'proof'), 'a success while locked does not unlock');
    PERFORM pg_temp.expect((SELECT count(*) FROM public.login_history WHERE user_id = 'proof') = 7, 'and is recorded');
    UPDATE public.users SET locked_until = now() + interval '1 minute' WHERE user_id = 'proof';
    INSERT INTO public.login_history (user_id, status) VALUES ('proof', 'failed');
    PERFORM pg_temp.expect((SELECT locked_until = now() + interval '1 minute' FROM public.users WHERE user_id = 'proof'), 'a failure does not prolong a lock');
    UPDATE public.users SET locked_until = now() - interval '1 second' WHERE user_id = 'proof';
    INSERT INTO public.login_history (user_id, status) VALUES ('proof', 'failed');
    SELECT * INTO account FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(account.failed_login_attempts = 1 AND account.locked_until IS NULL, 'after the lock counting begins anew');
    UPDATE public.users SET locked_until = now() - interval '1 second' WHERE user_id = 'proof';
    INSERT INTO public.login_history (user_id, status) VALUES ('proof', 'success');
    SELECT * INTO account FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(account.failed_login_attempts = 0 AND account.locked_until IS NULL, 'and a success opens again');
    INSERT INTO public.login_history (user_id, status, login_time) VALUES ('proof', 'success', '2019-01-01Z');
    PERFORM pg_temp.expect((SELECT last_login > '2019-01-01Z' FROM public.users WHERE user_id = 'proof'), 'an older login is not the last one');
END
$$;
