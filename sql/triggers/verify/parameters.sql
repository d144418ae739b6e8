-- Proves what sql/triggers/parameters.sql says. Runs in a transaction that is always rolled back.
SET LOCAL search_path = pg_catalog, pg_temp;
DO $$
DECLARE
    value text;
BEGIN
    PERFORM pg_temp.expect(public.integer_parameter('PROOF', 7, 1, 10) = 7, 'a missing parameter is its default');
    PERFORM pg_temp.parameter('PROOF', ' 9 ');
    PERFORM pg_temp.expect(public.integer_parameter('PROOF', 7, 1, 10) = 9, 'a good one counts');
    FOREACH value IN ARRAY ARRAY['', 'many', '-3', '0', '11', '1e3', '99999999999999999999', U&'\00A05', NULL] LOOP
        PERFORM pg_temp.parameter('PROOF', value);
        PERFORM pg_temp.expect(public.integer_parameter('PROOF', 7, 1, 10) = 7, format('nonsense (%s) is the default', value));
    END LOOP;
END
$$;
