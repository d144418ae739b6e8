/*
version = 2
summary = "created_at and updated_at keep themselves"
order   = 100

[[attach]]
columns = ["created_at", "updated_at"]
when = "BEFORE INSERT OR UPDATE"

[[attach]]
columns = ["updated_at"]
without = ["created_at"]
function = "update_timestamp"
when = "BEFORE INSERT OR UPDATE"
*/
CREATE OR REPLACE FUNCTION timestamps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.created_at := coalesce(NEW.created_at, now());
        NEW.updated_at := coalesce(NEW.updated_at, NEW.created_at);
    ELSE
        NEW.created_at := OLD.created_at;
        -- *= compares bytes: it works on every type, json included, which has no equality.
        IF NOT (NEW *= OLD) THEN
            NEW.updated_at := now();
        END IF;
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION update_timestamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.updated_at := coalesce(NEW.updated_at, now());
    ELSIF NOT (NEW *= OLD) THEN
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END
$$;
