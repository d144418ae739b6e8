-- What the proofs in verify/ are written with; made in pg_temp before each, and rolled back with it.

CREATE OR REPLACE FUNCTION pg_temp.expect(holds boolean, what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Not ASSERT, which a setting turns off; and NULL does not hold.
    IF holds IS NOT TRUE THEN
        RAISE EXCEPTION '%', what USING ERRCODE = 'assert_failure';
    END IF;
END
$$;

-- Adds a row, or with an array several rows by one INSERT, and returns the last of them as it is then. Columns that are NOT
-- NULL, have no default and are not given get a value of their type, or for a foreign key the key of a row that exists: so that
-- a proof runs on tables with columns that it does not know. All rows of an array have the same keys.
CREATE OR REPLACE FUNCTION pg_temp.add(relation regclass, given jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    parts jsonb := CASE jsonb_typeof(given) WHEN 'array' THEN given ELSE jsonb_build_array(given) END;
    parents jsonb := '{}';
    parent jsonb;
    key record;
    targets text;
    sources text;
    added jsonb;
BEGIN
    FOR key IN
        SELECT k.confrelid::regclass AS target, array_agg(own.attname::text) AS own, array_agg(other.attname::text) AS other
        FROM pg_constraint k CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS pair (here, there)
        JOIN pg_attribute own ON own.attrelid = k.conrelid AND own.attnum = pair.here
        JOIN pg_attribute other ON other.attrelid = k.confrelid AND other.attnum = pair.there
        WHERE k.conrelid = relation AND k.contype = 'f' AND k.confrelid <> relation
        GROUP BY k.oid, k.confrelid
        HAVING bool_and(own.attnotnull AND NOT own.atthasdef AND own.attidentity = '' AND NOT parts -> 0 ? own.attname::text)
    LOOP
        EXECUTE format('SELECT to_jsonb(t) FROM %s AS t LIMIT 1', key.target) INTO parent;
        parent := coalesce(parent, pg_temp.add(key.target, '{}'));
        parents := parents || (SELECT jsonb_object_agg(pair.own, parent -> pair.other) FROM unnest(key.own, key.other) AS pair (own, other));
    END LOOP;
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
        string_agg(CASE
            WHEN (parts -> 0 || parents) ? a.attname::text THEN format('(r).%I', a.attname)
            WHEN t.typname = 'uuid' THEN 'gen_random_uuid()'
            WHEN t.typname IN ('json', 'jsonb') OR t.typcategory = 'A' THEN format('''{}''::%s', format_type(b.oid, NULL))
            WHEN t.typtype = 'e' THEN (SELECT format('%L::%s', e.enumlabel, format_type(b.oid, NULL)) FROM pg_enum e
                WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder LIMIT 1)
            WHEN t.typcategory = 'S' THEN format('left(md5(random()::text), %s)', CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 ELSE 32 END)
            WHEN t.typcategory = 'N' THEN 'floor(random() * 900) + 1'
            WHEN t.typcategory = 'B' THEN 'false'
            WHEN t.typcategory = 'D' THEN 'now()'
            WHEN t.typcategory = 'T' THEN 'interval ''1 hour'''
            WHEN t.typcategory = 'I' THEN 'inet ''127.0.0.1'''
            ELSE 'NULL'
        END, ', ' ORDER BY a.attnum)
    INTO targets, sources
    FROM pg_attribute a JOIN pg_type b ON b.oid = a.atttypid JOIN pg_type t ON t.oid = coalesce(nullif(b.typbasetype, 0), b.oid)
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND ((parts -> 0 || parents) ? a.attname::text
        OR a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND b.typdefault IS NULL);
    EXECUTE format(
        'WITH added AS (INSERT INTO %s AS new (%s) SELECT %s FROM (SELECT jsonb_populate_record(NULL::%s, part || $2) AS r'
        ' FROM jsonb_array_elements($1) AS part) AS rows RETURNING to_jsonb(new) AS row) SELECT row FROM added OFFSET %s',
        relation, targets, sources, relation, jsonb_array_length(parts) - 1) INTO added USING parts, parents;
    RETURN added;
END
$$;

-- Sets a parameter of parameter_settings.
CREATE OR REPLACE FUNCTION pg_temp.parameter(code text, value text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.parameter_settings SET param_value = value WHERE param_code = code;
    IF NOT FOUND THEN
        PERFORM pg_temp.add('public.parameter_settings', jsonb_build_object('param_code', code, 'param_value', value));
    END IF;
END
$$;
