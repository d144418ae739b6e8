-- Proves what sql/triggers/login_tracking.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    account public.users;
    status text;
BEGIN
    PERFORM pg_temp.parameter('MAX_LOGIN_ATTEMPTS', '3'), pg_temp.parameter('LOCKOUT_MINUTES', '10');
    PERFORM pg_temp.add('public.users', '{"user_id": "proof", "entity_type": "staff", "failed_login_attempts": 0}');
    PERFORM pg_temp.add('public.login_history', '{"user_id": "proof", "status": "failed"}') FROM generate_series(1, 2);
    SELECT * INTO account FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(account.failed_login_attempts = 2 AND account.locked_until IS NULL, 'failures are counted');
    FOREACH status IN ARRAY ARRAY['locked', 'Success', NULL] LOOP
        BEGIN
            PERFORM pg_temp.add('public.login_history', jsonb_build_object('user_id', 'proof', 'status', status));
        EXCEPTION WHEN check_violation OR not_null_violation THEN  -- a table that has none of these
        END;
    END LOOP;
    PERFORM pg_temp.expect((SELECT (u.failed_login_attempts, u.locked_until, u.last_login) IS NOT DISTINCT FROM (2, NULL::timestamptz, account.last_login)
        FROM public.users u WHERE user_id = 'proof'), 'a status that is neither success nor failure changes nothing');
    PERFORM pg_temp.add('public.login_history', '{"user_id": "proof", "status": "success", "login_time": "2020-01-01Z"}');
    SELECT * INTO account FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(account.failed_login_attempts = 0 AND account.last_login = '2020-01-01Z', 'a success resets and is noted');
    PERFORM pg_temp.add('public.login_history', '{"user_id": "proof", "status": "failed"}') FROM generate_series(1, 3);
    SELECT * INTO account FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(account.failed_login_attempts = 3 AND account.locked_until = now() + interval '10 minutes', 'the third locks');
    PERFORM pg_temp.add('public.login_history', '{"user_id": "proof", "status": "success"}');
    PERFORM pg_temp.expect((SELECT locked_until > now() AND failed_login_attempts = 3 AND last_login = '2020-01-01Z' FROM public.users
        WHERE user_id = 'proof'), 'a success while locked does not unlock');
    PERFORM pg_temp.expect((SELECT count(*) FROM public.login_history h WHERE h.user_id = 'proof' AND h.status IN ('success', 'failed')) = 7, 'and is recorded');
    UPDATE public.users SET locked_until = now() + interval '1 minute' WHERE user_id = 'proof';
    PERFORM pg_temp.add('public.login_history', '{"user_id": "proof", "status": "failed"}');
    PERFORM pg_temp.expect((SELECT locked_until = now() + interval '1 minute' FROM public.users WHERE user_id = 'proof'), 'a failure does not prolong a lock');
    UPDATE public.users SET locked_until = now() - interval '1 second' WHERE user_id = 'proof';
    PERFORM pg_temp.add('public.login_history', '{"user_id": "proof", "status": "failed"}');
    SELECT * INTO account FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(account.failed_login_attempts = 1 AND account.locked_until IS NULL, 'after the lock counting begins anew');
    UPDATE public.users SET locked_until = now() - interval '1 second' WHERE user_id = 'proof';
    PERFORM pg_temp.add('public.login_history', '{"user_id": "proof", "status": "success"}');
    SELECT * INTO account FROM public.users WHERE user_id = 'proof';
    PERFORM pg_temp.expect(account.failed_login_attempts = 0 AND account.locked_until IS NULL, 'and a success opens again');
    PERFORM pg_temp.add('public.login_history', '{"user_id": "proof", "status": "success", "login_time": "2019-01-01Z"}');
    PERFORM pg_temp.expect((SELECT last_login > '2019-01-01Z' FROM public.users WHERE user_id = 'proof'), 'an older login is not the last one');
END
$$;
