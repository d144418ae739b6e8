-- Proves what sql/triggers/role_assignment.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    one uuid;
    two uuid;
    own integer;
    other integer;
    system integer;
    idle integer;
    general integer;
    statement text;
BEGIN
    -- Keys of our own: what a sequence has given is not rolled back.
    INSERT INTO public.hospitals (name) VALUES ('proof 1') RETURNING hospital_id INTO one;
    INSERT INTO public.hospitals (name) VALUES ('proof 2') RETURNING hospital_id INTO two;
    INSERT INTO public.role_master (role_id, hospital_id, role_name) VALUES (-1, one, 'Hospital Administrator') RETURNING role_id INTO own;
    INSERT INTO public.role_master (role_id, hospital_id, role_name) VALUES (-2, two, 'Proof') RETURNING role_id INTO other;
    INSERT INTO public.role_master (role_id, role_name) VALUES (-3, 'Proof of the system') RETURNING role_id INTO system;
    INSERT INTO public.role_master (role_id, role_name, is_active) VALUES (-4, 'Proof of idleness', false) RETURNING role_id INTO idle;
    INSERT INTO public.users (user_id, hospital_id, entity_type, entity_id)
        SELECT name, one, 'staff', gen_random_uuid() FROM unnest('{proof a,proof b,proof c}'::text[]) AS name;
    INSERT INTO public.user_role_mapping (user_id, role_id) VALUES ('proof a', own), ('proof a', system);
    INSERT INTO public.user_role_mapping (user_id, role_id, is_active) VALUES ('proof c', idle, false);
    INSERT INTO public.role_master (role_id, hospital_id, role_name) VALUES (-6, one, 'Proof of a home');
    INSERT INTO public.user_role_mapping (user_id, role_id) VALUES ('proof b', -6);
    FOREACH statement IN ARRAY ARRAY[
        format('INSERT INTO public.user_role_mapping (user_id, role_id) VALUES (''proof b'', %s)', other),
        format('INSERT INTO public.user_role_mapping (user_id, role_id, is_active) VALUES (''proof b'', %s, false)', other),
        format('INSERT INTO public.user_role_mapping (user_id, role_id) VALUES (''proof b'', %s)', idle),
        'UPDATE public.user_role_mapping SET is_active = true WHERE user_id = ''proof c''',
        format('UPDATE public.users SET hospital_id = %L WHERE user_id = ''proof b''', two),
        format('UPDATE public.user_role_mapping SET role_id = %s WHERE user_id = ''proof c''', other)
    ] LOOP
        BEGIN
            EXECUTE statement;
            PERFORM pg_temp.expect(false, format('must be refused: %s', statement));
        EXCEPTION WHEN check_violation THEN
        END;
    END LOOP;
    DELETE FROM public.user_role_mapping WHERE role_id = -6;
    FOREACH statement IN ARRAY ARRAY[
        format('DELETE FROM public.user_role_mapping WHERE role_id = %s', own),
        format('UPDATE public.user_role_mapping SET is_active = false WHERE role_id = %s', own),
        format('UPDATE public.user_role_mapping SET role_id = %s WHERE role_id = %s', system, own),
        format('UPDATE public.user_role_mapping SET user_id = ''proof d'' WHERE role_id = %s', own),
        'UPDATE public.users SET is_active = false WHERE user_id = ''proof a''',
        'UPDATE public.users SET is_deleted = true WHERE user_id = ''proof a''',
        'UPDATE public.users SET hospital_id = NULL WHERE user_id = ''proof a''',
        'DELETE FROM public.users WHERE user_id = ''proof a''',
        'DELETE FROM public.users WHERE user_id LIKE ''proof %''',
        format('UPDATE public.role_master SET role_name = ''Other'' WHERE role_id = %s', own),
        format('UPDATE public.role_master SET is_active = false WHERE role_id = %s', own),
        format('UPDATE public.role_master SET status = ''inactive'' WHERE role_id = %s', own),
        format('UPDATE public.role_master SET hospital_id = %L WHERE role_id = %s', two, own)
    ] LOOP
        BEGIN
            EXECUTE statement;
            PERFORM pg_temp.expect(false, format('the last administrator must stay: %s', statement));
        EXCEPTION WHEN restrict_violation OR check_violation THEN
        END;
    END LOOP;
    -- By a second role of that name too: one of the two may go. Who has an idle one alone is no administrator.
    INSERT INTO public.role_master (role_id, role_name) VALUES (-5, 'Hospital Administrator')
        ON CONFLICT (hospital_id, role_name) DO UPDATE SET is_active = true, status = 'active' RETURNING role_id INTO general;
    INSERT INTO public.user_role_mapping (user_id, role_id) VALUES ('proof a', general), ('proof b', own);
    DELETE FROM public.user_role_mapping WHERE user_id = 'proof b';
    DELETE FROM public.user_role_mapping WHERE user_id = 'proof a' AND role_id = own;
    INSERT INTO public.user_role_mapping (user_id, role_id) VALUES ('proof b', own);
    UPDATE public.role_master SET is_active = false WHERE role_id = own;
    UPDATE public.user_role_mapping SET updated_by = 'proof' WHERE user_id = 'proof b';
    BEGIN
        DELETE FROM public.user_role_mapping WHERE user_id = 'proof a';
        PERFORM pg_temp.expect(false, 'who has an idle role is no administrator');
    EXCEPTION WHEN restrict_violation THEN
    END;
    UPDATE public.hospitals SET is_active = false WHERE hospital_id = one;
    DELETE FROM public.user_role_mapping WHERE user_id = 'proof a' AND role_id = general;
    BEGIN
        UPDATE public.hospitals SET is_active = true WHERE hospital_id = one;
        PERFORM pg_temp.expect(false, 'a hospital comes back with an administrator only');
    EXCEPTION WHEN restrict_violation THEN
    END;
    INSERT INTO public.user_role_mapping (user_id, role_id) VALUES ('proof a', general);
    UPDATE public.hospitals SET is_active = true WHERE hospital_id = one;
    UPDATE public.role_master SET is_active = true WHERE role_id = own;
    UPDATE public.users SET is_active = false WHERE user_id = 'proof a';
    DELETE FROM public.users WHERE user_id = 'proof a';
    PERFORM pg_temp.expect(NOT EXISTS (SELECT FROM public.user_role_mapping WHERE user_id = 'proof a'), 'one of two may go, with all that is his');
    BEGIN
        DELETE FROM public.users WHERE user_id = 'proof b';
        PERFORM pg_temp.expect(false, 'the one that is left must stay');
    EXCEPTION WHEN restrict_violation THEN
    END;
END
$$;
