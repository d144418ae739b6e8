-- Proves what sql/triggers/session_management.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    newest uuid;
    login text;
    soon interval := interval '20 milliseconds';
    touched boolean;
BEGIN
    PERFORM pg_temp.parameter('MAX_ACTIVE_SESSIONS', '2');
    PERFORM pg_temp.add('public.users', jsonb_build_object('user_id', name, 'entity_type', 'staff')) FROM unnest('{proof,proof 2,proof 3}'::text[]) AS name;
    PERFORM pg_temp.add('public.user_sessions', jsonb_build_object('user_id', 'proof 2', 'token', 'other', 'is_active', true, 'expires_at', now() + interval '1 hour', 'created_at', now()));
    PERFORM pg_temp.add('public.user_sessions', (SELECT jsonb_agg(jsonb_build_object('user_id', 'proof', 'token', n, 'is_active', true,
        'expires_at', now() + interval '1 hour', 'created_at', now() - make_interval(hours => 10 - n))) FROM generate_series(1, 4) AS n));
    newest := pg_temp.add('public.user_sessions', jsonb_build_object('user_id', 'proof', 'token', '5', 'is_active', true, 'expires_at', now() + interval '1 hour', 'created_at', now())) ->> 'session_id';
    PERFORM pg_temp.expect((SELECT array_agg(token ORDER BY token) FROM public.user_sessions WHERE user_id = 'proof' AND is_active) = '{4,5}',
        'the oldest end, all that are too many');
    PERFORM pg_temp.expect((SELECT is_active FROM public.user_sessions WHERE user_id = 'proof 2'), 'nobody else''s do');
    PERFORM pg_temp.add('public.login_history', jsonb_build_object('user_id', 'proof', 'session_id', newest, 'status', 'success')), pg_temp.add('public.login_history', jsonb_build_object('user_id', 'proof', 'session_id', NULL, 'status', 'success'));
    UPDATE public.user_sessions SET is_active = false WHERE session_id = newest;
    PERFORM pg_temp.expect((SELECT logout_time FROM public.login_history WHERE session_id = newest) = now(), 'the end of a session is its login''s logout');
    PERFORM pg_temp.expect((SELECT count(logout_time) FROM public.login_history WHERE user_id = 'proof') = 1, 'of its own alone');
    UPDATE public.login_history SET logout_time = '2020-01-01Z' WHERE session_id = newest;
    UPDATE public.user_sessions SET is_active = true WHERE session_id = newest;
    UPDATE public.user_sessions SET is_active = false WHERE session_id = newest;
    PERFORM pg_temp.expect((SELECT logout_time FROM public.login_history WHERE session_id = newest) = '2020-01-01Z', 'and once');
    UPDATE public.user_sessions SET expires_at = now() - interval '1 second' WHERE user_id = 'proof' AND token = '4' RETURNING is_active INTO touched;
    PERFORM pg_temp.expect(NOT touched, 'an expired one ends when it is touched');
    touched := pg_temp.add('public.user_sessions', jsonb_build_object('user_id', 'proof', 'token', 'late', 'is_active', true, 'expires_at', now() - interval '1 second', 'created_at', now())) ->> 'is_active';
    PERFORM pg_temp.expect(NOT touched, 'one that has expired does not begin');
    -- Several in one INSERT, as if they had come one by one: with one time, and with clocks that go back.
    PERFORM pg_temp.add('public.user_sessions', (SELECT jsonb_agg(jsonb_build_object('user_id', 'proof 3', 'token', n, 'is_active', true,
        'expires_at', now() + interval '1 hour', 'created_at', now())) FROM generate_series(1, 3) AS n));
    PERFORM pg_temp.expect((SELECT array_agg(token ORDER BY token) FROM public.user_sessions WHERE user_id = 'proof 3' AND is_active) = '{2,3}',
        'of several that begin at once the first ends');
    UPDATE public.user_sessions SET is_active = false WHERE user_id = 'proof 3';
    PERFORM pg_temp.add('public.user_sessions', (SELECT jsonb_agg(jsonb_build_object('user_id', 'proof 3', 'token', n, 'is_active', true,
        'expires_at', now() + interval '1 hour', 'created_at', now() - make_interval(hours => n))) FROM generate_series(4, 7) AS n));
    PERFORM pg_temp.expect((SELECT array_agg(token ORDER BY token) FROM public.user_sessions WHERE user_id = 'proof 3' AND is_active) = '{4,7}',
        'the last of them stays, whatever its clock says');
    -- A session that begins, or begins again, is one more; it stays itself, whatever its clock says.
    PERFORM pg_temp.add('public.user_sessions', (SELECT jsonb_agg(jsonb_build_object('user_id', 'proof 2', 'token', 'n' || n, 'is_active', true,
        'expires_at', now() + interval '1 hour', 'created_at', now() - make_interval(hours => n))) FROM generate_series(0, 3) AS n));
    PERFORM pg_temp.add('public.user_sessions', jsonb_build_object('user_id', 'proof 2', 'token', 'slow clock', 'is_active', true,
        'expires_at', now() + interval '1 hour', 'created_at', '2020-01-01Z'));
    PERFORM pg_temp.expect((SELECT is_active FROM public.user_sessions WHERE user_id = 'proof 2' AND token = 'slow clock'), 'the one that begins stays');
    UPDATE public.user_sessions SET is_active = true WHERE user_id = 'proof 2' AND token = 'n1';
    PERFORM pg_temp.expect((SELECT count(*) = 2 AND bool_or(token = 'n1') FROM public.user_sessions WHERE user_id = 'proof 2' AND is_active), 'and so does one that begins again');
    UPDATE public.user_sessions SET is_active = false WHERE user_id = 'proof 2' AND token <> 'other';
    UPDATE public.user_sessions SET is_active = true WHERE user_id = 'proof 2' AND token = 'other';
    LOOP  -- one that is due soon, as late as it takes to make it on a busy machine
        newest := pg_temp.add('public.user_sessions', jsonb_build_object('user_id', 'proof', 'token', 'due', 'is_active', true, 'expires_at', clock_timestamp() + soon, 'created_at', now())) ->> 'session_id';
        SELECT is_active INTO touched FROM public.user_sessions WHERE session_id = newest;
        EXIT WHEN touched OR soon > interval '5 seconds';
        soon := soon * 2;
    END LOOP;
    PERFORM pg_temp.expect(touched, 'one that expires later begins');
    PERFORM pg_sleep_for(soon + interval '10 milliseconds');
    PERFORM pg_temp.expect(public.expire_sessions() >= 1, 'public.expire_sessions() says how many it ended');
    PERFORM pg_temp.expect(NOT (SELECT is_active FROM public.user_sessions WHERE session_id = newest)
        AND (SELECT is_active FROM public.user_sessions WHERE token = 'other' AND user_id = 'proof 2'), 'public.expire_sessions() ends what is due');
    newest := pg_temp.add('public.user_sessions', jsonb_build_object('user_id', 'proof', 'token', 'deleted', 'is_active', true, 'expires_at', now() + interval '1 hour', 'created_at', now())) ->> 'session_id';
    login := pg_temp.add('public.login_history', jsonb_build_object('user_id', 'proof', 'session_id', newest, 'status', 'success')) ->> 'history_id';
    DELETE FROM public.user_sessions WHERE session_id = newest;
    PERFORM pg_temp.expect((SELECT logout_time FROM public.login_history WHERE history_id::text = login) = now(), 'a deleted one has ended');
    UPDATE public.user_sessions SET is_active = true, user_id = 'proof 2' WHERE user_id = 'proof' AND expires_at > now();
    PERFORM pg_temp.expect((SELECT count(*) <= 2 FROM public.user_sessions WHERE user_id = 'proof 2' AND is_active), 'sessions that change their user count as his');
    newest := pg_temp.add('public.user_sessions', jsonb_build_object('user_id', 'proof', 'token', 'last', 'is_active', true, 'expires_at', now() + interval '1 hour', 'created_at', now())) ->> 'session_id';
    PERFORM pg_temp.add('public.login_history', jsonb_build_object('user_id', 'proof', 'session_id', newest, 'status', 'success'));
    DELETE FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(NOT EXISTS (SELECT FROM public.user_sessions WHERE user_id = 'proof'), 'deleting the user works');
END
$$;
