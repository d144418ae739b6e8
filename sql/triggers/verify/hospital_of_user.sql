-- Proves what sql/triggers/hospital_of_user.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    one uuid;
    two uuid;
    session uuid;
    statement text;
BEGIN
    one := pg_temp.add('public.hospitals', '{"name": "proof 1"}') ->> 'hospital_id';
    two := pg_temp.add('public.hospitals', '{"name": "proof 2"}') ->> 'hospital_id';
    PERFORM pg_temp.add('public.users', jsonb_build_object('user_id', name, 'hospital_id', home, 'entity_type', 'staff'))
        FROM (VALUES ('proof a', one), ('proof b', two), ('proof c', NULL)) AS accounts (name, home);
    PERFORM pg_temp.add('public.role_master', '{"role_id": -1, "role_name": "Proof", "status": "active", "is_active": true}');
    PERFORM pg_temp.add('public.user_sessions', jsonb_build_object('user_id', 'proof ' || letter, 'token', letter, 'expires_at', now() + interval '1 hour'))
        FROM unnest(ARRAY['a', 'b', 'c']) AS letter;
    PERFORM pg_temp.add('public.login_history', jsonb_build_object('user_id', user_id, 'session_id', session_id, 'status', 'success'))
        FROM public.user_sessions WHERE user_id LIKE 'proof _';
    PERFORM pg_temp.add('public.user_role_mapping', jsonb_build_object('user_id', name, 'role_id', -1))
        FROM unnest('{proof a,proof b,proof c}'::text[]) AS name;
    PERFORM pg_temp.expect((SELECT count(*) = 9 AND bool_and(r.hospital_id IS NOT DISTINCT FROM u.hospital_id) FROM public.users u JOIN (
            SELECT user_id, hospital_id FROM public.user_sessions UNION ALL SELECT user_id, hospital_id FROM public.login_history
            UNION ALL SELECT user_id, hospital_id FROM public.user_role_mapping) AS r USING (user_id) WHERE user_id LIKE 'proof _'),
        'each row is of its user''s hospital');
    FOREACH statement IN ARRAY ARRAY[
        format('INSERT INTO public.user_sessions (user_id, token, expires_at, hospital_id) VALUES (''proof a'', ''x'', now(), %L)', two),
        format('INSERT INTO public.login_history (user_id, status, hospital_id) VALUES (''proof c'', ''success'', %L)', one),
        format('UPDATE public.user_role_mapping SET hospital_id = %L WHERE user_id = ''proof a''', two)
    ] LOOP
        BEGIN
            EXECUTE statement;
            PERFORM pg_temp.expect(false, format('must be refused: %s', statement));
        EXCEPTION WHEN foreign_key_violation THEN
        END;
    END LOOP;
    UPDATE public.user_sessions SET hospital_id = NULL WHERE user_id = 'proof a' RETURNING hospital_id INTO session;
    PERFORM pg_temp.expect(session = one, 'a row does not lose its hospital');
    UPDATE public.user_sessions SET user_id = 'proof b' WHERE user_id = 'proof a' RETURNING hospital_id INTO session;
    PERFORM pg_temp.expect(session = two, 'a row that changes its user changes its hospital');
    SET CONSTRAINTS ALL DEFERRED;
    UPDATE public.login_history SET session_id = NULL WHERE user_id LIKE 'proof _';
    UPDATE public.users SET hospital_id = CASE user_id WHEN 'proof a' THEN two WHEN 'proof b' THEN NULL ELSE one END WHERE user_id LIKE 'proof _';
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM pg_temp.expect((SELECT array_agg(hospital_id ORDER BY user_id) = ARRAY[two, NULL, one] FROM public.login_history WHERE user_id LIKE 'proof _')
        AND (SELECT array_agg(hospital_id ORDER BY user_id) = ARRAY[two, NULL, one] FROM public.user_role_mapping WHERE user_id LIKE 'proof _')
        AND (SELECT bool_and(hospital_id IS NOT DISTINCT FROM CASE user_id WHEN 'proof c' THEN one END) FROM public.user_sessions WHERE user_id LIKE 'proof _'),
        'what is a user''s moves with it, from a hospital, to one and between two');
END
$$;
