/*
version = 1
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
*/
CREATE OR REPLACE FUNCTION role_assignment() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    role record;
    home uuid;
BEGIN
    -- FOR SHARE: neither may change its hospital, nor the role be deactivated, before this is committed.
    SELECT * INTO role FROM role_master WHERE role_id = NEW.role_id FOR SHARE;
    SELECT hospital_id INTO home FROM users WHERE user_id = NEW.user_id FOR SHARE;
    IF role.hospital_id IS NOT NULL AND role.hospital_id IS DISTINCT FROM home THEN
        RAISE EXCEPTION 'role % belongs to another hospital than its user', NEW.role_id
            USING ERRCODE = 'check_violation', TABLE = 'user_role_mapping';
    END IF;
    IF NEW.is_active AND role.role_id IS NOT NULL AND NOT (role.is_active AND role.status IS NOT DISTINCT FROM 'active') THEN
        RAISE EXCEPTION 'role % is not active', NEW.role_id USING ERRCODE = 'check_violation', TABLE = 'user_role_mapping';
    END IF;
    RETURN NEW;
END
$$;

-- Raises when nobody but `leaving` is an active administrator of the hospital.
CREATE OR REPLACE FUNCTION keep_an_administrator(hospital uuid, leaving text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- The hospital's row is what two who leave at once queue for; the look after it sees what the first did.
    PERFORM FROM hospitals WHERE hospital_id = hospital FOR NO KEY UPDATE;
    PERFORM FROM users u JOIN user_role_mapping m ON m.user_id = u.user_id AND m.is_active
        JOIN role_master r ON r.role_id = m.role_id AND r.role_name = 'Hospital Administrator'
        WHERE u.hospital_id = hospital AND u.is_active AND NOT u.is_deleted AND u.user_id <> leaving;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'user % is the last administrator of its hospital', leaving
            USING ERRCODE = 'restrict_violation', HINT = 'Make somebody else administrator first.';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION role_removal() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    home uuid;
BEGIN
    IF TG_OP = 'DELETE' OR NOT NEW.is_active OR NEW.role_id <> OLD.role_id OR NEW.user_id <> OLD.user_id THEN
        -- No row when the user itself is being deleted: user_removal() has looked then.
        SELECT u.hospital_id INTO home FROM users u JOIN role_master r ON r.role_id = OLD.role_id
            WHERE u.user_id = OLD.user_id AND u.is_active AND NOT u.is_deleted AND r.role_name = 'Hospital Administrator';
        IF home IS NOT NULL THEN
            PERFORM keep_an_administrator(home, OLD.user_id);
        END IF;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;

CREATE OR REPLACE FUNCTION user_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.hospital_id IS DISTINCT FROM OLD.hospital_id AND EXISTS (
        SELECT FROM user_role_mapping m JOIN role_master r USING (role_id)
        WHERE m.user_id = OLD.user_id AND r.hospital_id IS NOT NULL AND r.hospital_id IS DISTINCT FROM NEW.hospital_id
    ) THEN
        RAISE EXCEPTION 'user % has roles of the hospital that it would leave', OLD.user_id
            USING ERRCODE = 'check_violation', TABLE = 'users';
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION user_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.hospital_id IS NOT NULL AND EXISTS (
        SELECT FROM user_role_mapping m JOIN role_master r USING (role_id)
        WHERE m.user_id = OLD.user_id AND m.is_active AND r.role_name = 'Hospital Administrator'
    ) THEN
        PERFORM keep_an_administrator(OLD.hospital_id, OLD.user_id);
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
