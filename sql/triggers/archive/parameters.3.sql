/*
version = 3
summary = "what the other functions read from parameter_settings"
order   = 90
*/
CREATE OR REPLACE FUNCTION public.integer_parameter(code text, fallback integer, lowest integer, highest integer)
RETURNS integer LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    written text := (SELECT param_value FROM public.parameter_settings WHERE param_code = code);
BEGIN
    -- A missing or nonsensical value must not stop anybody from signing in.
    -- Not \s, which matches spaces that the cast does not know.
    IF written ~ '^[ \t\r\n]*[0-9]{1,9}[ \t\r\n]*$' AND written::integer BETWEEN lowest AND highest THEN
        RETURN written::integer;
    END IF;
    RETURN fallback;
END
$$;
