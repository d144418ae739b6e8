-- What the tools remember in the database itself, in a schema of its own that no reset touches. Its name must be no role's:
-- the search_path begins with "$user", and that role's own tables would land here.
-- Runs again and again: every statement leaves what exists alone.

CREATE SCHEMA IF NOT EXISTS skinspire_tools;

-- Which environment this database is. One row.
CREATE TABLE IF NOT EXISTS skinspire_tools.stamp (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    environment text NOT NULL,
    identity    uuid NOT NULL DEFAULT gen_random_uuid(),
    stamped_at  timestamptz NOT NULL DEFAULT now(),
    stamped_by  text NOT NULL DEFAULT session_user
);

-- Of a masked copy: which environment it was copied from, when, and the files of rules with their versions. Of version 0.3.
ALTER TABLE skinspire_tools.stamp ADD COLUMN IF NOT EXISTS masked_from text;
ALTER TABLE skinspire_tools.stamp ADD COLUMN IF NOT EXISTS masked_at timestamptz;
ALTER TABLE skinspire_tools.stamp ADD COLUMN IF NOT EXISTS masked_rules text;

-- Every operation that changed the database, written in the operation's own transaction.
CREATE TABLE IF NOT EXISTS skinspire_tools.journal (
    entry_id       uuid PRIMARY KEY,
    operation      text NOT NULL,
    environment    text NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT now(),
    seconds        double precision NOT NULL,
    db_role        text NOT NULL DEFAULT session_user,
    os_user        text NOT NULL,
    host           text NOT NULL,
    tool_version   text NOT NULL,
    server_version text NOT NULL DEFAULT current_setting('server_version'),
    steps          jsonb NOT NULL
);

-- Which trigger files are installed. `functions` (signature -> fingerprint) and `triggers` (table -> name and definition)
-- are what the file made, as it was then: only that is ever dropped, and an edit by hand shows.
CREATE TABLE IF NOT EXISTS skinspire_tools.ledger (
    name         text PRIMARY KEY,
    version      integer NOT NULL,
    sha256       text NOT NULL,
    functions    jsonb NOT NULL,
    triggers     jsonb NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now(),
    installed_by text NOT NULL DEFAULT session_user
);

-- Whose wish it is that the file's triggers be off, and since when. Of version 0.1, later than the table.
ALTER TABLE skinspire_tools.ledger ADD COLUMN IF NOT EXISTS disabled_by text;
ALTER TABLE skinspire_tools.ledger ADD COLUMN IF NOT EXISTS disabled_at timestamptz;

-- The reference rows as they were last applied from the file: what differs from that was edited by people, and stays.
CREATE TABLE IF NOT EXISTS skinspire_tools.reference (
    table_name text NOT NULL,
    row_key    text NOT NULL,
    applied    jsonb NOT NULL,
    PRIMARY KEY (table_name, row_key)
);
