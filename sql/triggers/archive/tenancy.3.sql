/*
version = 3
summary = "what belongs to one hospital stays there, and nothing of it leads to another one"
order   = 160

[[attach]]
tables = ["branches", "staff", "patients", "role_master", "module_master"]
function = "hospital_stays"
when = "AFTER UPDATE"
condition = "NEW.hospital_id IS DISTINCT FROM OLD.hospital_id"

[[attach]]
tables = ["role_module_access"]
function = "role_access"
when = "BEFORE INSERT OR UPDATE"

[[attach]]
tables = ["module_master"]
function = "module_parent"
when = "BEFORE INSERT OR UPDATE"

[[attach]]
tables = ["users"]
function = "user_entity"
when = "BEFORE INSERT OR UPDATE OF hospital_id, entity_id, entity_type"

[[attach]]
tables = ["patients", "staff"]
function = "entity_user"
when = "BEFORE INSERT OR UPDATE"

[needs]
hospitals = ["hospital_id uuid"]
branches = ["hospital_id uuid"]
staff = ["staff_id uuid", "hospital_id uuid"]
patients = ["patient_id uuid", "hospital_id uuid"]
users = ["user_id text", "hospital_id uuid null", "entity_type text", "entity_id uuid"]
role_master = ["role_id integer", "hospital_id uuid null"]
module_master = ["module_id integer", "hospital_id uuid null", "parent_module integer null"]
role_module_access = ["role_id integer", "module_id integer", "hospital_id uuid null"]
*/
-- After, so that no other trigger changes it later.
CREATE OR REPLACE FUNCTION public.hospital_stays() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'a row of % does not change its hospital', TG_TABLE_NAME
        USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'hospital_id',
            HINT = 'For a move that is meant: invoke triggers.disable --name=tenancy, and triggers.enable after it.';
END
$$;

-- What is of the whole system has no hospital, and may be beside rows of any. Neither roles nor modules ever change theirs, so
-- that no lock is needed between the look and the commit.
CREATE OR REPLACE FUNCTION public.role_access() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (
        SELECT count(DISTINCT hospital) FROM (
            SELECT NEW.hospital_id UNION ALL SELECT hospital_id FROM public.role_master WHERE role_id = NEW.role_id
            UNION ALL SELECT hospital_id FROM public.module_master WHERE module_id = NEW.module_id
        ) AS hospitals (hospital)
    ) > 1 THEN
        RAISE EXCEPTION 'role % and module % are not of one hospital', NEW.role_id, NEW.module_id
            USING ERRCODE = 'check_violation', TABLE = 'role_module_access';
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.module_parent() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM public.module_master WHERE module_id = NEW.parent_module AND hospital_id IS NOT NULL
            AND hospital_id IS DISTINCT FROM NEW.hospital_id
    ) THEN
        RAISE EXCEPTION 'module % would be a part of another hospital''s module', NEW.module_id
            USING ERRCODE = 'check_violation', TABLE = 'module_master';
    END IF;
    RETURN NEW;
END
$$;

-- No sequential scan: a session keeps the plan that it made while a table was empty, and may load a million rows with it.
-- An account of the whole system may be anybody's; a person who is not there yet is nobody's.
CREATE OR REPLACE FUNCTION public.user_entity() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    IF NEW.hospital_id IS NOT NULL AND (
        EXISTS (SELECT FROM public.patients WHERE patient_id = NEW.entity_id AND hospital_id <> NEW.hospital_id)
        OR EXISTS (SELECT FROM public.staff WHERE staff_id = NEW.entity_id AND hospital_id <> NEW.hospital_id)
    ) THEN
        RAISE EXCEPTION 'user % would be a patient or employee of another hospital', NEW.user_id
            USING ERRCODE = 'check_violation', TABLE = 'users', COLUMN = 'entity_id';
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.entity_user() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    entity uuid;
BEGIN
    IF TG_TABLE_NAME = 'patients' THEN
        entity := NEW.patient_id;
    ELSE
        entity := NEW.staff_id;
    END IF;
    -- Both types by name: so the index on the two columns serves.
    IF EXISTS (
        SELECT FROM public.users WHERE entity_type IN ('patient', 'staff') AND entity_id = entity AND hospital_id <> NEW.hospital_id
    ) THEN
        RAISE EXCEPTION 'a user of another hospital has the account of %', entity
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NEW;
END
$$;
