/*
version = 4
summary = "created_at and updated_at keep themselves"
order   = 100

[[attach]]
columns = ["created_at", "updated_at"]
types = ["timestamp with time zone"]
when = "BEFORE INSERT OR UPDATE"

[[attach]]
columns = ["updated_at"]
types = ["timestamp with time zone"]
without = ["created_at"]
function = "update_timestamp"
when = "BEFORE INSERT OR UPDATE"

[[attach]]
columns = ["created_at", "updated_at"]
types = ["timestamp without time zone"]
function = "timestamps_in_utc"
when = "BEFORE INSERT OR UPDATE"

[[attach]]
columns = ["updated_at"]
types = ["timestamp without time zone"]
without = ["created_at"]
function = "update_timestamp_in_utc"
when = "BEFORE INSERT OR UPDATE"
*/
-- A row has changed when its bytes have: *= works on every type, json included, which has no equality. The arguments of the
-- triggers are the table's generated columns, which are not computed yet here: with some, the rest is compared by value. The
-- operator is named with its schema: one that somebody made for the rows of this table would be taken otherwise.
CREATE OR REPLACE FUNCTION public.timestamps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.created_at := coalesce(NEW.created_at, now());
        NEW.updated_at := coalesce(NEW.updated_at, NEW.created_at);
    ELSE
        NEW.created_at := OLD.created_at;
        IF NOT (NEW OPERATOR(pg_catalog.*=) OLD) AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV) THEN
            NEW.updated_at := now();
        END IF;
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.update_timestamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.updated_at := coalesce(NEW.updated_at, now());
    ELSIF NOT (NEW OPERATOR(pg_catalog.*=) OLD) AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV) THEN
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END
$$;

-- Columns without a time zone hold UTC, whatever the session's time zone is.
CREATE OR REPLACE FUNCTION public.timestamps_in_utc() RETURNS trigger LANGUAGE plpgsql SET TimeZone = 'UTC' AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.created_at := coalesce(NEW.created_at, now());
        NEW.updated_at := coalesce(NEW.updated_at, NEW.created_at);
    ELSE
        NEW.created_at := OLD.created_at;
        IF NOT (NEW OPERATOR(pg_catalog.*=) OLD) AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV) THEN
            NEW.updated_at := now();
        END IF;
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.update_timestamp_in_utc() RETURNS trigger LANGUAGE plpgsql SET TimeZone = 'UTC' AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.updated_at := coalesce(NEW.updated_at, now());
    ELSIF NOT (NEW OPERATOR(pg_catalog.*=) OLD) AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV) THEN
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END
$$;
