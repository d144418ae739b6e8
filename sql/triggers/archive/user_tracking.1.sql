/*
version = 1
summary = "created_by and updated_by say who: app.current_user, else what was written, else the database role"
order   = 110
attach  = { columns = ["created_by", "updated_by"] }
when    = "BEFORE INSERT OR UPDATE"
*/
CREATE OR REPLACE FUNCTION user_tracking() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    -- '' once it was set and its transaction ended. The columns hold 50 characters.
    actor varchar := left(nullif(current_setting('app.current_user', true), ''), 50);
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.created_by := coalesce(actor, NEW.created_by, left(session_user, 50));
        NEW.updated_by := coalesce(actor, NEW.updated_by, NEW.created_by);
    ELSE
        NEW.created_by := OLD.created_by;
        IF NOT (NEW *= OLD) THEN
            -- A value that was not changed was not written by the application.
            NEW.updated_by := coalesce(actor, nullif(NEW.updated_by, OLD.updated_by), left(session_user, 50));
        END IF;
    END IF;
    RETURN NEW;
END
$$;
