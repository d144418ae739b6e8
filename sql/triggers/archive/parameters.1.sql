/*
version = 1
summary = "what the other functions read from parameter_settings"
order   = 90
*/
CREATE OR REPLACE FUNCTION integer_parameter(code text, fallback integer, lowest integer, highest integer)
RETURNS integer LANGUAGE plpgsql STABLE AS $$
DECLARE
    written text := (SELECT param_value FROM parameter_settings WHERE param_code = code);
BEGIN
    -- A missing or nonsensical value must not stop anybody from signing in.
    IF written ~ '^\s*[0-9]{1,9}\s*$' AND written::integer BETWEEN lowest AND highest THEN
        RETURN written::integer;
    END IF;
    RETURN fallback;
END
$$;
