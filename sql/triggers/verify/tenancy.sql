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
    INSERT INTO public.hospitals (name) VALUES ('proof 1') RETURNING hospital_id INTO one;
    INSERT INTO public.hospitals (name) VALUES ('proof 2') RETURNING hospital_id INTO two;
    INSERT INTO public.patients (hospital_id, personal_info, contact_info) VALUES (one, '{}', '{}') RETURNING patient_id INTO patient;
    INSERT INTO public.staff (hospital_id, personal_info, contact_info) VALUES (one, '{}', '{}') RETURNING staff_id INTO employee;
    INSERT INTO public.branches (hospital_id, name) VALUES (one, 'proof');
    INSERT INTO public.role_master (role_id, hospital_id, role_name) VALUES (-1, one, 'Proof 1'), (-2, two, 'Proof 2'), (-3, NULL, 'Proof 3');
    INSERT INTO public.module_master (module_id, hospital_id, module_name) VALUES (-1, one, 'Proof 1'), (-2, two, 'Proof 2'), (-3, NULL, 'Proof 3');
    -- All that is of one hospital, and what is of the system beside it.
    INSERT INTO public.role_module_access (role_id, module_id, hospital_id) VALUES (-1, -1, one), (-1, -3, one), (-3, -1, one), (-3, -3, NULL);
    INSERT INTO public.module_master (module_id, hospital_id, module_name, parent_module) VALUES (-4, one, 'Part', -1), (-5, two, 'Part', -3);
    INSERT INTO public.users (user_id, hospital_id, entity_type, entity_id) VALUES
        ('proof a', one, 'patient', patient), ('proof b', NULL, 'staff', employee), ('proof c', two, 'patient', gen_random_uuid());
    UPDATE public.patients SET hospital_id = hospital_id, title = 'Dr.' WHERE patient_id = patient;
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
        format('INSERT INTO public.patients (patient_id, hospital_id, personal_info, contact_info) SELECT entity_id, %L, ''{}'', ''{}'''
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
