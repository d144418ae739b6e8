-- Proves what sql/triggers/session_management.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    newest uuid;
    touched boolean;
BEGIN
    INSERT INTO public.parameter_settings (param_code, param_value) VALUES ('MAX_ACTIVE_SESSIONS', '2')
        ON CONFLICT (param_code) DO UPDATE SET param_value = EXCLUDED.param_value;
    INSERT INTO public.users (user_id, entity_type, entity_id) VALUES ('proof', 'staff', gen_random_uuid()), ('proof 2', 'staff', gen_random_uuid());
    INSERT INTO public.user_sessions (user_id, token, expires_at) VALUES ('proof 2', 'other', now() + interval '1 hour');
    INSERT INTO public.user_sessions (user_id, token, expires_at, created_at)
        SELECT 'proof', n::text, now() + interval '1 hour', now() - make_interval(hours => 10 - n) FROM generate_series(1, 4) AS n;
    INSERT INTO public.user_sessions (user_id, token, expires_at) VALUES ('proof', '5', now() + interval '1 hour') RETURNING session_id INTO newest;
    PERFORM pg_temp.expect((SELECT array_agg(token ORDER BY token) FROM public.user_sessions WHERE user_id = 'proof' AND is_active) = '{4,5}',
        'the oldest end, all that are too many');
    PERFORM pg_temp.expect((SELECT is_active FROM public.user_sessions WHERE user_id = 'proof 2'), 'nobody else''s do');
    INSERT INTO public.login_history (user_id, session_id, status) VALUES ('proof', newest, 'success'), ('proof', NULL, 'success');
    UPDATE public.user_sessions SET is_active = false WHERE session_id = newest;
    PERFORM pg_temp.expect((SELECT logout_time FROM public.login_history WHERE session_id = newest) = now(), 'the end of a session is its login''s logout');
    PERFORM pg_temp.expect((SELECT count(logout_time) FROM public.login_history WHERE user_id = 'proof') = 1, 'of its own alone');
    UPDATE public.login_history SET logout_time = '2020-01-01Z' WHERE session_id = newest;
    UPDATE public.user_sessions SET is_active = true WHERE session_id = newest;
    UPDATE public.user_sessions SET is_active = false WHERE session_id = newest;
    PERFORM pg_temp.expect((SELECT logout_time FROM public.login_history WHERE session_id = newest) = '2020-01-01Z', 'and once');
    UPDATE public.user_sessions SET expires_at = now() - interval '1 second' WHERE user_id = 'proof' AND token = '4' RETURNING is_active INTO touched;
    PERFORM pg_temp.expect(NOT touched, 'an expired one ends when it is touched');
    INSERT INTO public.user_sessions (user_id, token, expires_at) VALUES ('proof', 'late', now() - interval '1 second') RETURNING is_active INTO touched;
    PERFORM pg_temp.expect(NOT touched, 'one that has expired does not begin');
    -- A session that begins, or begins again, is one more; it stays itself, whatever its clock says.
    INSERT INTO public.user_sessions (user_id, token, expires_at, created_at) SELECT 'proof 2', 'n' || n, now() + interval '1 hour', now() - make_interval(hours => n)
        FROM generate_series(0, 3) AS n;
    INSERT INTO public.user_sessions (user_id, token, expires_at, created_at) VALUES ('proof 2', 'slow clock', now() + interval '1 hour', '2020-01-01Z');
    PERFORM pg_temp.expect((SELECT is_active FROM public.user_sessions WHERE user_id = 'proof 2' AND token = 'slow clock'), 'the one that begins stays');
    UPDATE public.user_sessions SET is_active = true WHERE user_id = 'proof 2' AND token = 'n1';
    PERFORM pg_temp.expect((SELECT count(*) = 2 AND bool_or(token = 'n1') FROM public.user_sessions WHERE user_id = 'proof 2' AND is_active), 'and so does one that begins again');
    UPDATE public.user_sessions SET is_active = false WHERE user_id = 'proof 2' AND token <> 'other';
    UPDATE public.user_sessions SET is_active = true WHERE user_id = 'proof 2' AND token = 'other';
    INSERT INTO public.user_sessions (user_id, token, expires_at) VALUES ('proof', 'due', clock_timestamp() + interval '20 milliseconds') RETURNING session_id INTO newest;
    PERFORM pg_temp.expect((SELECT is_active FROM public.user_sessions WHERE session_id = newest), 'one that expires later begins');
    PERFORM pg_sleep(0.03);
    PERFORM pg_temp.expect(public.expire_sessions() >= 1, 'public.expire_sessions() says how many it ended');
    PERFORM pg_temp.expect(NOT (SELECT is_active FROM public.user_sessions WHERE session_id = newest)
        AND (SELECT is_active FROM public.user_sessions WHERE token = 'other' AND user_id = 'proof 2'), 'public.expire_sessions() ends what is due');
    INSERT INTO public.user_sessions (user_id, token, expires_at) VALUES ('proof', 'deleted', now() + interval '1 hour') RETURNING session_id INTO newest;
    INSERT INTO public.login_history (user_id, session_id, status, user_agent) VALUES ('proof', newest, 'success', 'deleted');
    DELETE FROM public.user_sessions WHERE session_id = newest;
    PERFORM pg_temp.expect((SELECT logout_time FROM public.login_history WHERE user_agent = 'deleted' AND user_id = 'proof') = now(), 'a deleted one has ended');
    UPDATE public.user_sessions SET is_active = true, user_id = 'proof 2' WHERE user_id = 'proof' AND expires_at > now();
    PERFORM pg_temp.expect((SELECT count(*) <= 2 FROM public.user_sessions WHERE user_id = 'proof 2' AND is_active), 'sessions that change their user count as his');
    INSERT INTO public.user_sessions (user_id, token, expires_at) VALUES ('proof', 'last', now() + interval '1 hour') RETURNING session_id INTO newest;
    INSERT INTO public.login_history (user_id, session_id, status) VALUES ('proof', newest, 'success');
    DELETE FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(NOT EXISTS (SELECT FROM public.user_sessions WHERE user_id = 'proof'), 'deleting the user works');
END
$$;
