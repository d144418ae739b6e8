-- Proves what sql/triggers/role_assignment.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    one uuid;
    two uuid;
    own CONSTANT integer := -1;
    other CONSTANT integer := -2;
    system CONSTANT integer := -3;
    idle CONSTANT integer := -4;
    general integer;
    statement text;
BEGIN
    -- Keys of our own: what a sequence has given is not rolled back.
    one := pg_temp.add('public.hospitals', '{"name": "proof 1", "is_active": true, "is_deleted": false}') ->> 'hospital_id';
    two := pg_temp.add('public.hospitals', '{"name": "proof 2", "is_active": true, "is_deleted": false}') ->> 'hospital_id';
    PERFORM pg_temp.add('public.role_master', jsonb_build_object('role_id', id, 'hospital_id', home, 'role_name', name, 'status', 'active', 'is_active', id <> idle))
        FROM (VALUES (own, one, 'Hospital Administrator'), (other, two, 'Proof'), (system, NULL, 'Proof of the system'), (idle, NULL, 'Proof of idleness'),
                     (-6, one, 'Proof of a home')) AS roles (id, home, name);
    PERFORM pg_temp.add('public.users', jsonb_build_object('user_id', name, 'hospital_id', one, 'entity_type', 'staff', 'is_active', true, 'is_deleted', false))
        FROM unnest('{proof a,proof b,proof c}'::text[]) AS name;
    PERFORM pg_temp.add('public.user_role_mapping', jsonb_build_object('user_id', name, 'role_id', role, 'is_active', role <> idle))
        FROM (VALUES ('proof a', own), ('proof a', system), ('proof c', idle), ('proof b', -6)) AS mappings (name, role);
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
        format('UPDATE public.role_master SET status = ''inactive'' WHERE role_id = %s', own)
    ] LOOP
        BEGIN
            EXECUTE statement;
            PERFORM pg_temp.expect(false, format('the last administrator must stay: %s', statement));
        EXCEPTION WHEN restrict_violation OR check_violation THEN
        END;
    END LOOP;
    -- By a second role of that name too: one of the two may go. Who has an idle one alone is no administrator.
    UPDATE public.role_master SET is_active = true, status = 'active' WHERE hospital_id IS NULL AND role_name = 'Hospital Administrator'
        RETURNING role_id INTO general;
    IF NOT FOUND THEN
        general := pg_temp.add('public.role_master', '{"role_id": -5, "role_name": "Hospital Administrator", "status": "active", "is_active": true}') ->> 'role_id';
    END IF;
    PERFORM pg_temp.add('public.user_role_mapping', jsonb_build_object('user_id', name, 'role_id', role, 'is_active', true))
        FROM (VALUES ('proof a', general), ('proof b', own)) AS mappings (name, role);
    DELETE FROM public.user_role_mapping WHERE user_id = 'proof b';
    DELETE FROM public.user_role_mapping WHERE user_id = 'proof a' AND role_id = own;
    PERFORM pg_temp.add('public.user_role_mapping', jsonb_build_object('user_id', 'proof b', 'role_id', own, 'is_active', true));
    UPDATE public.role_master SET is_active = false WHERE role_id = own;
    UPDATE public.user_role_mapping SET role_id = role_id WHERE user_id = 'proof b';
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
    PERFORM pg_temp.add('public.user_role_mapping', jsonb_build_object('user_id', 'proof a', 'role_id', general, 'is_active', true));
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
