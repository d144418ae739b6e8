"""The part of the report that says what is there: server, owners, extensions, tables, differences, triggers."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from skinspire_db.adoption.subject import Subject, listed
from skinspire_db.catalog import objects
from skinspire_db.catalog.definitions import plain, split
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.migrations import drift
from skinspire_db.objects import ledger, needs
from skinspire_db.objects.counting import twice
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.status import status

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SERVER = """
    SELECT current_setting('server_version'), pg_size_pretty(pg_database_size(current_database())),
           pg_encoding_to_char(encoding), pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()
"""
OWNERS = f"""
    SELECT pg_get_userbyid(c.relowner), count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND {objects.RELATION} GROUP BY 1 ORDER BY 2 DESC, 1
"""
SCHEMAS = f"""
    SELECT n.nspname, count(c.oid) FILTER (WHERE c.relkind IN ('r', 'p', 'f')) FROM pg_namespace n
    LEFT JOIN pg_class c ON c.relnamespace = n.oid WHERE {objects.APPLICATION_SCHEMA} GROUP BY 1 ORDER BY 1
"""
# An extension is used where an object outside it depends on one of its members, or a function's text names one of its
# functions: PostgreSQL keeps no dependency for a text.
EXTENSIONS = f"""
    SELECT e.extname, EXISTS (
        SELECT FROM pg_depend member JOIN pg_depend use ON (use.refclassid, use.refobjid) = (member.classid, member.objid)
        WHERE (member.refclassid, member.refobjid, member.deptype) = ('pg_extension'::regclass, e.oid, 'e') AND use.deptype IN ('n', 'a')
          AND NOT EXISTS (SELECT FROM pg_depend own WHERE (own.classid, own.objid, own.refclassid, own.refobjid, own.deptype)
                          = (use.classid, use.objid, 'pg_extension'::regclass, e.oid, 'e'))
    ) OR EXISTS (
        SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_depend member ON (member.refclassid, member.refobjid, member.classid, member.deptype)
             = ('pg_extension'::regclass, e.oid, 'pg_proc'::regclass, 'e')
        JOIN pg_proc f ON f.oid = member.objid WHERE {objects.FUNCTION} AND p.prosrc ~ ('\\m' || f.proname || '\\s*\\(')
    ) FROM pg_extension e WHERE e.extname <> 'plpgsql' ORDER BY 1
"""
TRIGGERS = f"""
    SELECT format('%I on %I.%I', t.tgname, n.nspname, c.relname), p.oid::regprocedure::text, p.prosrc, t.tgenabled = 'D', c.oid::regclass::text
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND {objects.RELATION} ORDER BY 1
"""
# What a trigger function writes that one of our files writes too: a pattern of its text, and what that is.
ALIKE = {
    r"updated_at|modified_at|last_modified|changed_at": "timestamps",
    r"(created|updated|modified)_by": "user_tracking",
    r"password": "password_hashing",
    r"last_login|failed_login": "login_tracking",
    r"hospital_id|tenant_id": "tenancy",
}


def server(subject: Subject) -> Summary:
    """Server, size, schemas, owners, extensions and which of them nothing uses."""
    [(version, size, encoding, owner)] = subject.rows(SERVER)
    schemas, owners, extensions = (subject.rows(query) for query in (SCHEMAS, OWNERS, EXTENSIONS))
    unused = [name for name, used in extensions if not used]
    lines = [f"PostgreSQL {version}, {size}, {encoding}, owner {owner}"]
    lines += listed("schemas", (f"{name} ({counted(count, 'table')})" for name, count in schemas))
    lines += listed("owners", (f"{name} ({counted(count, 'relation')})" for name, count in owners))
    lines += listed("extensions", (name for name, _ in extensions)) + listed("extensions that nothing uses", unused)
    lines.append("adopting adds the schema skinspire_tools, and changes no owner, right or extension")
    data = {
        "server": {"version": version, "size": size, "encoding": encoding, "owner": owner}, "schemas": dict(schemas),
        "owners": dict(owners), "extensions": [name for name, _ in extensions], "unused_extensions": unused,
    }  # fmt: skip
    return Summary({"schemas": len(schemas), "owners": len(owners), "extensions": len(extensions)}, lines, data=data)


def tables(subject: Subject) -> Summary:
    """Which tables and views the models have, the database has, or both."""
    modelled = set(subject.wanted.columns)
    there = {plain(key.removeprefix("table ")) for key in subject.live if key.startswith("table ")}
    there |= {f"{schema}.{name}" for schema, name in objects.version_tables(subject.connection)}
    both, models, database = sorted(modelled & there), sorted(modelled - there), sorted(there - modelled)
    views = {plain(key.removeprefix("view ")) for key in subject.live if key.startswith("view ")}
    lacking = sorted(set(subject.wanted.views) - views - there)
    lines = listed("only in the models", models) + listed("only in the database", database)
    lines += listed("views of the models that are missing", lacking)
    lines += listed("views that no model is mapped to", sorted(views - set(subject.wanted.views)))
    lines.append("adopting makes and drops no table; a table that no model has stays the owner's")
    data = {"tables": {"both": both, "models": models, "database": database, "missing_views": lacking}}
    numbers: dict[str, int | str] = {"in_both": len(both), "in_models_only": len(models), "in_database_only": len(database)}
    return Summary(numbers, lines, data=data)


def differences(subject: Subject) -> Summary:
    """What models, files and database differ in, by kind and by table."""
    found = subject.differences
    kinds = Counter(f"{each.kind} {each.state}" for each in found)
    places = Counter(_table_of(each) for each in found)
    lines = listed("by kind", (f"{count} {kind}" for kind, count in kinds.most_common()))
    lines += listed("by table", (f"{table} {count}" for table, count in places.most_common() if table))
    refused = [each.title.removesuffix(" is refused") for each in found if each.state == "refused"]
    lines += listed("faults of the models, which PostgreSQL refuses and the comparison leaves out", refused)
    lines.append("adopting writes each into the file of accepted differences; invoke db.drift names them one by one")
    data = {"differences": [each.as_dict() for each in found], "kinds": dict(kinds), "places": dict(places)}
    return Summary({"differences": len(found)}, lines, data=data)


def _table_of(difference: drift.Difference) -> str:
    if difference.kind in ("table", "view"):
        return difference.name
    if difference.kind == "column":
        return split(difference.name)[0]
    return difference.name.rpartition(" on ")[2] if " on " in difference.name else ""


def triggers(subject: Subject) -> Summary:
    """Triggers and functions of the owner that do what ours do, and names that clash."""
    rows = subject.rows(TRIGGERS)
    ours = {file.name for file in subject.files}
    alike = {}
    for name, function, text, _off, _table in rows:
        what = sorted({file for pattern, file in ALIKE.items() if file in ours and _matches(pattern, text)})
        if what:
            alike[name] = {"function": function, "like": what}
    functions = {key.removeprefix("function ") for key in subject.live if key.startswith("function ")}
    clashes = _clashes(subject, functions)
    counted_already = twice(subject.connection, subject.files)
    states = [each for each in status(subject.connection, subject.files) if each.state != "INSTALLED"]
    by_function = Counter(f"{each['function']} like {' and '.join(each['like'])}" for each in alike.values())
    lines = listed("do what ours do", (f"{what} ({counted(count, 'trigger')})" for what, count in by_function.most_common()))
    lines += listed("have a name of ours", clashes)
    lines += [f"write what {name} counts too: {', '.join(others)}" for name, others in counted_already.items()]
    lines += listed("switched off", (name for name, _, _, off, _ in rows if off))
    lines += listed("our files", sorted({f"{each.file} {each.state}" for each in states}))
    lines.append(
        "adopting leaves the owner's as they are and installs none of ours: invoke triggers.install does, when asked"
    )
    lines += policies_left(subject.connection, subject.files, subject.target.environment)
    data = {
        "triggers": {"count": len(rows), "alike": alike, "disabled": [row[0] for row in rows if row[3]]},
        "clashes": clashes, "counted_already": counted_already, "files": [each.as_dict() for each in states],
    }  # fmt: skip
    numbers: dict[str, int | str] = {
        "triggers": len(rows),
        "functions": len(functions),
        "alike": len(alike),
        "clashing_names": len(clashes),
    }
    return Summary(numbers, lines, data=data)


def policies_left(connection: Connection, files: list[SqlFile], environment: str) -> list[str]:
    """What to say of the policies that tenancy asks for: adopting changes nothing, so it makes none of them.

    Args:
        connection: the database.
        files: the project's SQL files.
        environment: its name, for the command.
    """
    asked = [file for file in files if file.policies and file.roles]
    lacks = needs.lacks(connection, asked)
    return [
        f"careful: tenancy is on, and adopting makes no policies; the command that does: invoke sql.install"
        f" --env={environment} --name={file.name}"
        for file in asked
        if file.name not in lacks
    ]


def _matches(pattern: str, text: str) -> bool:

    return re.search(rf"\bNEW\s*\.\s*\"?({pattern})|'({pattern})", text, re.IGNORECASE) is not None


def _clashes(subject: Subject, functions: set[str]) -> list[str]:
    """The functions and triggers of the database that have a name of ours where ours would be made."""
    made = {
        _place(name, file.functions.name) for file in subject.files for kind, name, _ in file.creates() if kind == "function"
    }
    among, there = ledger.tables(subject.connection), ledger.live_triggers(subject.connection)
    wanted = {(each.table, each.attachment.trigger) for file in subject.files for each in ledger.wanted(among, file).values()}
    found = [f"function {each}" for each in sorted(functions) if _place(each, "public") in made]
    return found + [f"trigger {trigger} on {table}" for table, trigger in sorted(wanted & there.keys())]


def _place(name: str, schema: str) -> tuple[str, str]:
    """A function's schema, and its name without arguments; `schema` where none is written."""
    written, _, bare = name.partition("(")[0].rpartition(".")
    return written.strip('" ').lower() or schema, bare.strip('" ').lower()
