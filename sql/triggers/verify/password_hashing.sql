-- Proves what sql/triggers/password_hashing.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    stored text;
    value text;
BEGIN
    PERFORM pg_temp.parameter('PASSWORD_HASH_COST', '4');
    stored := pg_temp.add('public.users', '{"user_id": "proof", "entity_type": "staff", "password_hash": "Secret 1"}') ->> 'password_hash';
    PERFORM pg_temp.expect(stored ~ '^\$2a\$04\$' AND length(stored) = 60, 'a plain value is hashed, with the cost of the setting');
    PERFORM pg_temp.expect(public.verify_password('proof', 'Secret 1'), 'the password opens it');
    PERFORM pg_temp.expect(NOT public.verify_password('proof', 'Secret 2'), 'another does not');
    PERFORM pg_temp.expect(NOT public.verify_password('proof', '') AND NOT public.verify_password('proof', NULL), 'nothing does not');
    PERFORM pg_temp.expect(NOT public.verify_password('nobody', 'Secret 1'), 'nobody has no password');
    INSERT INTO public.users SELECT * FROM public.users WHERE user_id = 'proof'
        ON CONFLICT (user_id) DO UPDATE SET password_hash = EXCLUDED.password_hash;
    PERFORM pg_temp.expect((SELECT password_hash FROM public.users WHERE user_id = 'proof') = stored, 'a hash is not hashed again');
    FOREACH value IN ARRAY ARRAY[
        '$2b$04$' || repeat('a', 53), '$2y$04$' || repeat('/', 53), 'scrypt:32768:8:1$salt$' || repeat('0', 128),
        'pbkdf2:sha256:600000$salt$' || repeat('f', 64), '$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA'
    ] LOOP
        UPDATE public.users SET password_hash = value WHERE user_id = 'proof' RETURNING password_hash INTO stored;
        PERFORM pg_temp.expect(stored = value, format('a hash stays byte for byte: %s', value));
        PERFORM pg_temp.expect(public.verify_password('proof', 'x') IS NOT DISTINCT FROM CASE WHEN value ~ '^\$2' THEN false END,
            format('only the application can check: %s', value));
        PERFORM pg_temp.expect(public.verify_password('proof', '') IS NOT DISTINCT FROM CASE WHEN value ~ '^\$2' THEN false END,
            format('whatever the candidate is: %s', value));
    END LOOP;
    FOREACH value IN ARRAY ARRAY['$2a$12$short', '$2b$04$' || repeat('a', 54), '$2b$99$' || repeat('a', 53), 'scrypt:1:2', repeat('p', 72)] LOOP
        UPDATE public.users SET password_hash = value WHERE user_id = 'proof' RETURNING password_hash INTO stored;
        PERFORM pg_temp.expect(stored <> value AND public.verify_password('proof', value), format('what only looks like a hash is a password: %s', value));
    END LOOP;
    -- bcrypt's other names, by a known answer: $2b$ of 'U*U'.
    UPDATE public.users SET password_hash = '$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW' WHERE user_id = 'proof';
    PERFORM pg_temp.expect(public.verify_password('proof', 'U*U') AND NOT public.verify_password('proof', 'U*V'), '$2b$ is verified too');
    UPDATE public.users SET password_hash = NULL WHERE user_id = 'proof' RETURNING password_hash INTO stored;
    PERFORM pg_temp.expect(stored IS NULL AND NOT public.verify_password('proof', 'x'), 'NULL stays NULL and opens for nobody');
    FOREACH value IN ARRAY ARRAY['', repeat('p', 73), repeat('é', 37)] LOOP
        BEGIN
            UPDATE public.users SET password_hash = value WHERE user_id = 'proof';
            PERFORM pg_temp.expect(false, format('%s bytes must be refused', octet_length(value)));
        EXCEPTION WHEN check_violation THEN
        END;
    END LOOP;
END
$$;
