/* The functions of PostgreSQL's uuid-ossp 1.1, by name, arguments and result, without its library. The node of versions 1 and 1mc is
random, with the multicast bit set (RFC 4122, section 4.5): no network card is asked. */
\echo Use "CREATE EXTENSION "uuid-ossp"" to load this file. \quit

CREATE FUNCTION uuid_nil() RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
AS $$ SELECT '00000000-0000-0000-0000-000000000000'::pg_catalog.uuid $$;

CREATE FUNCTION uuid_ns_dns() RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
AS $$ SELECT '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::pg_catalog.uuid $$;

CREATE FUNCTION uuid_ns_url() RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
AS $$ SELECT '6ba7b811-9dad-11d1-80b4-00c04fd430c8'::pg_catalog.uuid $$;

CREATE FUNCTION uuid_ns_oid() RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
AS $$ SELECT '6ba7b812-9dad-11d1-80b4-00c04fd430c8'::pg_catalog.uuid $$;

CREATE FUNCTION uuid_ns_x500() RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
AS $$ SELECT '6ba7b814-9dad-11d1-80b4-00c04fd430c8'::pg_catalog.uuid $$;

CREATE FUNCTION uuid_generate_v1() RETURNS uuid VOLATILE STRICT PARALLEL SAFE LANGUAGE plpgsql
AS $$
DECLARE
    -- In steps of 100 ns since 15 October 1582; the clock has microseconds.
    ticks bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 10 + floor(random() * 10)::bigint + 122192928000000000;
    random_bytes bytea := uuid_send(gen_random_uuid());
BEGIN
    RETURN (
        lpad(to_hex(ticks & 4294967295), 8, '0') || lpad(to_hex((ticks >> 32) & 65535), 4, '0')
        || to_hex(4096 | ((ticks >> 48) & 4095)::int)
        || to_hex(32768 | ((get_byte(random_bytes, 14) & 63) << 8) | get_byte(random_bytes, 15))
        || encode(set_byte(substring(random_bytes FROM 1 FOR 6), 0, get_byte(random_bytes, 0) | 1), 'hex')
    )::uuid;
END $$;

CREATE FUNCTION uuid_generate_v1mc() RETURNS uuid VOLATILE STRICT PARALLEL SAFE LANGUAGE plpgsql
AS $$
DECLARE
    ticks bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 10 + floor(random() * 10)::bigint + 122192928000000000;
    random_bytes bytea := uuid_send(gen_random_uuid());
BEGIN
    RETURN (
        lpad(to_hex(ticks & 4294967295), 8, '0') || lpad(to_hex((ticks >> 32) & 65535), 4, '0')
        || to_hex(4096 | ((ticks >> 48) & 4095)::int)
        || to_hex(32768 | ((get_byte(random_bytes, 14) & 63) << 8) | get_byte(random_bytes, 15))
        || encode(set_byte(substring(random_bytes FROM 1 FOR 6), 0, get_byte(random_bytes, 0) | 1), 'hex')
    )::uuid;
END $$;

CREATE FUNCTION uuid_generate_v3(namespace uuid, name text) RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE plpgsql
AS $$
DECLARE
    hashed bytea := decode(md5(uuid_send(namespace) || convert_to(name, getdatabaseencoding())), 'hex');
BEGIN
    hashed := set_byte(hashed, 6, (get_byte(hashed, 6) & 15) | 48);
    hashed := set_byte(hashed, 8, (get_byte(hashed, 8) & 63) | 128);
    RETURN encode(hashed, 'hex')::uuid;
END $$;

CREATE FUNCTION uuid_generate_v4() RETURNS uuid VOLATILE STRICT PARALLEL SAFE LANGUAGE sql
AS $$ SELECT pg_catalog.gen_random_uuid() $$;

-- SHA-1 (FIPS 180-4), which PostgreSQL has only in pgcrypto.
CREATE FUNCTION uuid_generate_v5(namespace uuid, name text) RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE plpgsql
AS $$
DECLARE
    mask CONSTANT bigint := 4294967295;
    message bytea := uuid_send(namespace) || convert_to(name, getdatabaseencoding());
    bits bigint := length(message)::bigint * 8;
    h bigint[] := ARRAY[1732584193, 4023233417, 2562383102, 271733878, 3285377520];
    w bigint[];
    a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; next bigint;
    block int := 0;
    hashed bytea;
BEGIN
    message := message || '\x80'::bytea;
    message := message || decode(repeat('00', (120 - length(message) % 64) % 64), 'hex') || int8send(bits);
    WHILE block < length(message) LOOP
        FOR i IN 0..15 LOOP
            w[i] := (get_byte(message, block + i * 4)::bigint << 24) | (get_byte(message, block + i * 4 + 1)::bigint << 16)
                | (get_byte(message, block + i * 4 + 2)::bigint << 8) | get_byte(message, block + i * 4 + 3)::bigint;
        END LOOP;
        FOR i IN 16..79 LOOP
            next := w[i - 3] # w[i - 8] # w[i - 14] # w[i - 16];
            w[i] := ((next << 1) | (next >> 31)) & mask;
        END LOOP;
        a := h[1]; b := h[2]; c := h[3]; d := h[4]; e := h[5];
        FOR i IN 0..79 LOOP
            IF i < 20 THEN
                f := (b & c) | ((b # mask) & d); k := 1518500249;
            ELSIF i < 40 THEN
                f := b # c # d; k := 1859775393;
            ELSIF i < 60 THEN
                f := (b & c) | (b & d) | (c & d); k := 2400959708;
            ELSE
                f := b # c # d; k := 3395469782;
            END IF;
            next := ((((a << 5) | (a >> 27)) & mask) + f + e + k + w[i]) & mask;
            e := d; d := c; c := ((b << 30) | (b >> 2)) & mask; b := a; a := next;
        END LOOP;
        h := ARRAY[(h[1] + a) & mask, (h[2] + b) & mask, (h[3] + c) & mask, (h[4] + d) & mask, (h[5] + e) & mask];
        block := block + 64;
    END LOOP;
    hashed := substring(int8send(h[1]) FROM 5) || substring(int8send(h[2]) FROM 5) || substring(int8send(h[3]) FROM 5)
        || substring(int8send(h[4]) FROM 5);
    hashed := set_byte(hashed, 6, (get_byte(hashed, 6) & 15) | 80);
    hashed := set_byte(hashed, 8, (get_byte(hashed, 8) & 63) | 128);
    RETURN encode(hashed, 'hex')::uuid;
END $$;
