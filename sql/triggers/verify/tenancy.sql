-- Proves what sql/triggers/tenancy.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    one uuid;
    two uuid;
    patient uuid;
    employee uuid;
    statement text;
BEGIN
    one := pg_temp.add('public.hospitals', '{"name": "proof 1"}') ->> 'hospital_id';
    two := pg_temp.add('public.hospitals', '{"name": "proof 2"}') ->> 'hospital_id';
    patient := pg_temp.add('public.patients', jsonb_build_object('hospital_id', one)) ->> 'patient_id';
    employee := pg_temp.add('public.staff', jsonb_build_object('hospital_id', one)) ->> 'staff_id';
    PERFORM pg_temp.add('public.branches', jsonb_build_object('hospital_id', one));
    PERFORM pg_temp.add('public.role_master', jsonb_build_object('role_id', id, 'hospital_id', home)),
            pg_temp.add('public.module_master', jsonb_build_object('module_id', id, 'hospital_id', home))
        FROM (VALUES (-1, one), (-2, two), (-3, NULL)) AS each (id, home);
    -- All that is of one hospital, and what is of the system beside it.
    PERFORM pg_temp.add('public.role_module_access', jsonb_build_object('role_id', role, 'module_id', module, 'hospital_id', home))
        FROM (VALUES (-1, -1, one), (-1, -3, one), (-3, -1, one), (-3, -3, NULL)) AS each (role, module, home);
    PERFORM pg_temp.add('public.module_master', jsonb_build_object('module_id', id, 'hospital_id', home, 'parent_module', parent))
        FROM (VALUES (-4, one, -1), (-5, two, -3)) AS each (id, home, parent);
    PERFORM pg_temp.add('public.users', jsonb_build_object('user_id', name, 'hospital_id', home, 'entity_type', type, 'entity_id', entity))
        FROM (VALUES ('proof a', one, 'patient', patient), ('proof b', NULL, 'staff', employee), ('proof c', two, 'patient', gen_random_uuid()))
            AS each (name, home, type, entity);
    UPDATE public.patients SET hospital_id = hospital_id WHERE patient_id = patient;
    FOREACH statement IN ARRAY ARRAY[
        format('UPDATE public.patients SET hospital_id = %L WHERE patient_id = %L', two, patient),
        format('UPDATE public.staff SET hospital_id = %L WHERE staff_id = %L', two, employee),
        format('UPDATE public.branches SET hospital_id = %L WHERE hospital_id = %L', two, one),
        format('UPDATE public.role_master SET hospital_id = %L WHERE role_id = -1', two),
        format('UPDATE public.role_master SET hospital_id = %L WHERE role_id = -3', two),
        'UPDATE public.role_master SET hospital_id = NULL WHERE role_id = -1',
        format('UPDATE public.module_master SET hospital_id = %L WHERE module_id = -1', two),
        'INSERT INTO public.role_module_access (role_id, module_id) VALUES (-1, -2)',
        format('INSERT INTO public.role_module_access (role_id, module_id, hospital_id) VALUES (-2, -3, %L)', one),
        'UPDATE public.role_module_access SET module_id = -2 WHERE role_id = -1 AND module_id = -1',
        format('UPDATE public.role_module_access SET hospital_id = %L WHERE role_id = -1', two),
        format('INSERT INTO public.module_master (module_id, hospital_id, module_name, parent_module) VALUES (-6, %L, ''Other'', -1)', two),
        'INSERT INTO public.module_master (module_id, module_name, parent_module) VALUES (-6, ''Other'', -1)',
        'UPDATE public.module_master SET parent_module = -2 WHERE module_id = -4',
        format('INSERT INTO public.users (user_id, hospital_id, entity_type, entity_id) VALUES (''proof d'', %L, ''patient'', %L)', two, patient),
        format('UPDATE public.users SET entity_id = %L WHERE user_id = ''proof c''', patient),
        format('UPDATE public.users SET entity_type = ''staff'', entity_id = %L WHERE user_id = ''proof c''', employee),
        format('UPDATE public.users SET hospital_id = %L WHERE user_id = ''proof a''', two),
        format('UPDATE public.users SET hospital_id = %L WHERE user_id = ''proof b''', two),
        format('SELECT pg_temp.add(''public.patients'', jsonb_build_object(''patient_id'', entity_id, ''hospital_id'', %L))'
            ' FROM public.users WHERE user_id = ''proof c''', one)
    ] LOOP
        BEGIN
            EXECUTE statement;
            PERFORM pg_temp.expect(false, format('must be refused: %s', statement));
        EXCEPTION WHEN check_violation THEN
        END;
    END LOOP;
END
$$;
