/*
version = 5
summary = "only active roles of the own hospital or the system; a hospital keeps its last administrator"
order   = 150

[[attach]]
tables = ["user_role_mapping"]
function = "role_assignment"
when = "BEFORE INSERT OR UPDATE"

[[attach]]
tables = ["user_role_mapping"]
function = "role_removal"
when = "BEFORE UPDATE OR DELETE"
condition = "OLD.is_active"

[[attach]]
tables = ["role_master"]
function = "role_change"
when = "BEFORE UPDATE"

[[attach]]
tables = ["hospitals"]
function = "hospital_return"
when = "AFTER UPDATE"
condition = "NEW.is_active AND NOT NEW.is_deleted AND (OLD.is_deleted OR NOT OLD.is_active)"

[[attach]]
tables = ["users", "user_role_mapping", "role_master"]
function = "administrators_stay"
when = "BEFORE TRUNCATE"

[[attach]]
tables = ["users"]
function = "user_move"
when = "BEFORE UPDATE OF hospital_id"

[[attach]]
tables = ["users"]
function = "user_removal"
when = "BEFORE UPDATE"
condition = """OLD.is_active AND NOT OLD.is_deleted
    AND (NOT NEW.is_active OR NEW.is_deleted OR NEW.hospital_id IS DISTINCT FROM OLD.hospital_id)"""

[[attach]]
tables = ["users"]
function = "user_removal"
name = "user_deletion"
when = "BEFORE DELETE"
condition = "OLD.is_active AND NOT OLD.is_deleted"

[needs]
hospitals = ["hospital_id uuid", "name text", "is_active boolean", "is_deleted boolean"]
users = ["user_id text", "hospital_id uuid null", "is_active boolean", "is_deleted boolean"]
role_master = ["role_id integer", "hospital_id uuid null", "role_name text", "status text", "is_active boolean"]
user_role_mapping = ["user_id -> users cascade", "role_id -> role_master", "is_active boolean"]
*/
-- No sequential scan: a session keeps the plan that it made while a table was empty, and may load a million rows with it.
-- Whatever the session's search_path is, nothing that others made in a schema is taken for what these functions call, and no
-- temporary table stands before a table of ours. Arguments are cast: a better match in public would be called instead.
CREATE OR REPLACE FUNCTION public.role_assignment() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    role record;
    home uuid;
BEGIN
    -- FOR SHARE: the role must not be deactivated, nor the user change its hospital, before this is committed.
    SELECT * INTO role FROM public.role_master WHERE role_id = NEW.role_id FOR SHARE;
    IF role.hospital_id IS NOT NULL THEN
        -- Under a snapshot a lock alone would not tell a later move of the user about this role: the row is written, so that
        -- one of the two fails.
        IF current_setting('transaction_isolation') = 'read committed' THEN
            SELECT hospital_id INTO home FROM public.users WHERE user_id = NEW.user_id FOR SHARE;
        ELSE
            UPDATE public.users SET user_id = user_id WHERE user_id = NEW.user_id RETURNING hospital_id INTO home;
        END IF;
        IF role.hospital_id IS DISTINCT FROM home THEN
            RAISE EXCEPTION 'role % belongs to another hospital than its user', NEW.role_id
                USING ERRCODE = 'check_violation', TABLE = 'user_role_mapping';
        END IF;
    END IF;
    IF TG_OP = 'UPDATE' AND (NEW.role_id, NEW.user_id, NEW.is_active) = (OLD.role_id, OLD.user_id, OLD.is_active) THEN
        RETURN NEW;
    END IF;
    IF NEW.is_active AND role.role_id IS NOT NULL AND NOT (role.is_active AND role.status IS NOT DISTINCT FROM 'active') THEN
        RAISE EXCEPTION 'role % is not active', NEW.role_id USING ERRCODE = 'check_violation', TABLE = 'user_role_mapping';
    END IF;
    RETURN NEW;
END
$$;

-- Raises when the hospital is in use and would be left without an active administrator once `leaving` has lost `lost_role`.
-- NULL for `leaving` is every user, NULL for `lost_role` every role.
CREATE OR REPLACE FUNCTION public.keep_an_administrator(hospital uuid, leaving text, lost_role integer)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    in_use boolean;
BEGIN
    -- The hospital's row is what all who take an administrator away queue for. It is written, not only locked: a transaction
    -- that looks at an older snapshot fails here, instead of not seeing what the one before it did.
    -- Also the row of one that is not in use: a transaction that brings it back meanwhile must learn of this.
    UPDATE public.hospitals SET name = name WHERE hospital_id = hospital RETURNING is_active AND NOT is_deleted INTO in_use;
    IF in_use IS NOT TRUE OR NOT EXISTS (
        SELECT FROM public.users u WHERE u.user_id = coalesce(leaving, u.user_id) AND u.hospital_id = hospital AND u.is_active
            AND NOT u.is_deleted
    ) THEN
        RETURN;
    END IF;
    -- A mapping that another transaction is changing does not count; waiting for it could be waiting for one that waits for us.
    PERFORM FROM public.users u JOIN public.user_role_mapping m ON m.user_id = u.user_id AND m.is_active
        JOIN public.role_master r ON r.role_id = m.role_id AND r.role_name = 'Hospital Administrator' AND r.is_active AND r.status = 'active'
        WHERE u.hospital_id = hospital AND u.is_active AND NOT u.is_deleted
            AND NOT (u.user_id = coalesce(leaving, u.user_id) AND m.role_id = coalesce(lost_role, m.role_id))
        LIMIT 1 FOR SHARE OF m SKIP LOCKED;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is the last administrator of its hospital', coalesce('user ' || leaving, 'whoever has role ' || lost_role::text)
            USING ERRCODE = 'restrict_violation', HINT = 'Make somebody else administrator first.';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION public.role_removal() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    home uuid;
BEGIN
    IF TG_OP = 'DELETE' OR NOT NEW.is_active OR NEW.role_id <> OLD.role_id OR NEW.user_id <> OLD.user_id THEN
        -- No row when the user itself is being deleted: user_removal() has looked then.
        SELECT u.hospital_id INTO home FROM public.users u JOIN public.role_master r ON r.role_id = OLD.role_id
            WHERE u.user_id = OLD.user_id AND r.role_name = 'Hospital Administrator' AND r.is_active AND r.status = 'active';
        IF home IS NOT NULL THEN
            PERFORM public.keep_an_administrator(home, OLD.user_id::text, OLD.role_id);
        END IF;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;

CREATE OR REPLACE FUNCTION public.role_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    home uuid;
BEGIN
    IF OLD.role_name = 'Hospital Administrator' AND OLD.is_active AND OLD.status = 'active'
        AND NOT (NEW.role_name = OLD.role_name AND NEW.is_active AND NEW.status IS NOT DISTINCT FROM 'active')
    THEN
        FOR home IN
            SELECT DISTINCT u.hospital_id FROM public.users u JOIN public.user_role_mapping m ON m.user_id = u.user_id AND m.is_active
            WHERE m.role_id = OLD.role_id AND u.is_active AND NOT u.is_deleted AND u.hospital_id IS NOT NULL ORDER BY 1
        LOOP
            PERFORM public.keep_an_administrator(home, NULL::text, OLD.role_id);
        END LOOP;
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.user_move() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.hospital_id IS DISTINCT FROM OLD.hospital_id AND EXISTS (
        SELECT FROM public.user_role_mapping m JOIN public.role_master r USING (role_id)
        WHERE m.user_id = OLD.user_id AND r.hospital_id IS NOT NULL AND r.hospital_id IS DISTINCT FROM NEW.hospital_id
    ) THEN
        RAISE EXCEPTION 'user % has roles of the hospital that it would leave', OLD.user_id
            USING ERRCODE = 'check_violation', TABLE = 'users';
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.user_removal() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.hospital_id IS NOT NULL AND EXISTS (
        SELECT FROM public.user_role_mapping m JOIN public.role_master r USING (role_id)
        WHERE m.user_id = OLD.user_id AND m.is_active AND r.role_name = 'Hospital Administrator' AND r.is_active
            AND r.status = 'active'
    ) THEN
        PERFORM public.keep_an_administrator(OLD.hospital_id, OLD.user_id::text, NULL::integer);
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;

-- A hospital that was out of use, when its last administrator may leave, comes back with an administrator only.
CREATE OR REPLACE FUNCTION public.hospital_return() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM public.users u JOIN public.user_role_mapping m ON m.user_id = u.user_id AND m.is_active
            JOIN public.role_master r ON r.role_id = m.role_id AND r.role_name = 'Hospital Administrator' AND r.is_active
                AND r.status = 'active'
        WHERE u.hospital_id = NEW.hospital_id AND u.is_active AND NOT u.is_deleted
    ) THEN
        RAISE EXCEPTION 'hospital % has no administrator', NEW.hospital_id
            USING ERRCODE = 'restrict_violation', HINT = 'Make somebody administrator first.';
    END IF;
    RETURN NULL;
END
$$;

-- TRUNCATE fires no trigger for the rows that it removes.
CREATE OR REPLACE FUNCTION public.administrators_stay() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM public.users u JOIN public.hospitals h ON h.hospital_id = u.hospital_id AND h.is_active AND NOT h.is_deleted
            JOIN public.user_role_mapping m ON m.user_id = u.user_id AND m.is_active
            JOIN public.role_master r ON r.role_id = m.role_id AND r.role_name = 'Hospital Administrator' AND r.is_active
                AND r.status = 'active'
        WHERE u.is_active AND NOT u.is_deleted
    ) THEN
        RAISE EXCEPTION 'TRUNCATE of % would take the last administrators of hospitals', TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation', HINT = 'DELETE what is not needed.';
    END IF;
    RETURN NULL;
END
$$;
