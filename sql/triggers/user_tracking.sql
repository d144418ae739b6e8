/*
version = 5
summary = "created_by and updated_by say who: app.current_user, else what was written, else the database role"
order   = 110

[[attach]]
columns = ["created_by", "updated_by"]
types = ["character varying", "text"]
length = 50
when = "BEFORE INSERT OR UPDATE"

[[attach]]
columns = ["created_by"]
types = ["character varying", "text"]
length = 50
without = ["updated_by"]
function = "creator_tracking"
when = "BEFORE INSERT OR UPDATE"

[[attach]]
columns = ["updated_by"]
types = ["character varying", "text"]
length = 50
without = ["created_by"]
function = "updater_tracking"
when = "BEFORE INSERT OR UPDATE"
*/
-- About the comparison see timestamps.sql. app.current_user is '' once it was set and its transaction has ended. The columns
-- hold 50 characters, and the cast cuts what is longer. The expression stands in each function anew: a call, or a variable,
-- costs a tenth of the whole update, and so does a search_path of its own: each operator here is pg_catalog's own for exactly
-- these types, or named with its schema, so that no other one is taken.
CREATE OR REPLACE FUNCTION public.user_tracking() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.created_by := coalesce(
            nullif(current_setting('app.current_user', true), '')::varchar(50), NEW.created_by, session_user::varchar(50));
        NEW.updated_by := coalesce(
            nullif(current_setting('app.current_user', true), '')::varchar(50), NEW.updated_by, NEW.created_by);
    ELSE
        NEW.created_by := OLD.created_by;
        IF NOT (NEW OPERATOR(pg_catalog.*=) OLD) AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV) THEN
            -- A value that is the same as before cannot be told from one that was not written.
            NEW.updated_by := coalesce(nullif(current_setting('app.current_user', true), '')::varchar(50),
                                       nullif(NEW.updated_by::text, OLD.updated_by::text), session_user::varchar(50));
        END IF;
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.creator_tracking() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.created_by := CASE TG_OP WHEN 'UPDATE' THEN OLD.created_by ELSE coalesce(
        nullif(current_setting('app.current_user', true), '')::varchar(50), NEW.created_by, session_user::varchar(50)) END;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.updater_tracking() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.updated_by := coalesce(
            nullif(current_setting('app.current_user', true), '')::varchar(50), NEW.updated_by, session_user::varchar(50));
    ELSIF NOT (NEW OPERATOR(pg_catalog.*=) OLD) AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV) THEN
        NEW.updated_by := coalesce(nullif(current_setting('app.current_user', true), '')::varchar(50),
                                   nullif(NEW.updated_by::text, OLD.updated_by::text), session_user::varchar(50));
    END IF;
    RETURN NEW;
END
$$;
