/*
version = 4
summary = "users.password_hash: a plain value is hashed, a hash is left alone"
order   = 120
attach  = { tables = ["users"] }
when    = "BEFORE INSERT OR UPDATE OF password_hash"
*/
-- Looked up at each call, and called by its schema: pgcrypto can be moved, and nothing that others made is taken for its functions.
CREATE OR REPLACE FUNCTION public.pgcrypto_schema() RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place text := (SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pgcrypto');
BEGIN
    IF place IS NULL THEN
        RAISE EXCEPTION 'the extension pgcrypto is missing' USING ERRCODE = 'undefined_object', HINT = 'CREATE EXTENSION pgcrypto';
    END IF;
    RETURN place;
END
$$;

CREATE OR REPLACE FUNCTION public.bcrypt(password text, salt text) RETURNS text
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    hash text;
BEGIN
    EXECUTE format('SELECT %s.crypt($1, $2)', public.pgcrypto_schema()) INTO hash USING password, salt;
    RETURN hash;
END
$$;

CREATE OR REPLACE FUNCTION public.bcrypt_salt(cost integer) RETURNS text
LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    salt text;
BEGIN
    EXECUTE format('SELECT %s.gen_salt(''bf''::text, $1)', public.pgcrypto_schema()) INTO salt USING cost;
    RETURN salt;
END
$$;

-- Recognised by the whole format: a password that merely begins with $2a$ is a password.
CREATE OR REPLACE FUNCTION public.is_password_hash(value text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT value ~ '^\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}$'
        OR value ~ '^scrypt:[0-9]+:[0-9]+:[0-9]+\$[^$]+\$[0-9a-f]{128}$'
        OR value ~ '^pbkdf2:[a-z0-9]+:[0-9]+\$[^$]+\$([0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})$'
        OR value ~ '^\$argon2(id|i|d)\$v=[0-9]+\$m=[0-9]+,t=[0-9]+,p=[0-9]+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+$'
$$;

CREATE OR REPLACE FUNCTION public.password_hashing() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- What is a hash stays byte for byte, or a restore and ON CONFLICT DO UPDATE would hash it twice.
    IF NEW.password_hash IS NULL OR public.is_password_hash(NEW.password_hash) THEN
        RETURN NEW;
    END IF;
    IF octet_length(NEW.password_hash) NOT BETWEEN 1 AND 72 THEN
        -- bcrypt would silently ignore what comes after the 72nd byte.
        RAISE EXCEPTION 'a password has 1 to 72 bytes, this one has %', octet_length(NEW.password_hash)
            USING ERRCODE = 'check_violation', TABLE = 'users', COLUMN = 'password_hash';
    END IF;
    NEW.password_hash := public.bcrypt(
        NEW.password_hash, public.bcrypt_salt(public.integer_parameter('PASSWORD_HASH_COST'::text, 12, 4, 16)));
    RETURN NEW;
END
$$;

-- true, false, or NULL where only the application can tell: PostgreSQL computes bcrypt and nothing else.
CREATE OR REPLACE FUNCTION public.verify_password(account text, candidate text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored text := (SELECT password_hash FROM public.users WHERE user_id = account);
BEGIN
    IF stored IS NULL OR NOT public.is_password_hash(stored) THEN
        RETURN false;
    END IF;
    IF stored !~ '^\$2' THEN
        RETURN NULL;
    END IF;
    -- pgcrypto knows $2a$ alone; $2b$ and $2y$ are the same computation under another name.
    stored := '$2a$' || substr(stored, 5);
    -- What has more than 72 bytes was never accepted, and crypt() would ignore the rest of it.
    RETURN candidate IS NOT NULL AND octet_length(candidate) BETWEEN 1 AND 72 AND public.bcrypt(candidate, stored) = stored;
END
$$;
