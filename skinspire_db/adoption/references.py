"""The part of the report that looks at what no constraint keeps: soft references, sequences, password hashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skinspire_db.adoption.subject import Subject, listed, quoted
from skinspire_db.catalog import objects
from skinspire_db.lifecycle.result import Summary, counted

SAMPLE = 1000  # values of a column that are looked for in each key of its type
# Columns named ..._id that are part of no foreign key and no key by themselves.
SOFT = f"""
    SELECT format('%I.%I', n.nspname, c.relname), a.attname, format_type(a.atttypid, NULL)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attname ~ '._id$' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND {objects.RELATION}
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND a.attnum = ANY (k.conkey)
                      AND (k.contype = 'f' OR k.contype IN ('p', 'u') AND cardinality(k.conkey) = 1))
    ORDER BY 1, 2
"""
# Keys of one column.
KEYS = f"""
    SELECT format('%I.%I', n.nspname, c.relname), a.attname, format_type(a.atttypid, NULL), c.relname
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
    WHERE k.contype = 'p' AND cardinality(k.conkey) = 1 AND k.conparentid = 0 AND {objects.RELATION} ORDER BY 1
"""
# A sequence with the column that it numbers: by ownership, by the column's default, or by its name.
SEQUENCES = f"""
    WITH s AS (
        SELECT c.oid, n.nspname, c.relname, q.seqincrement > 0 AS ascending FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {objects.RELATION}
    ), columns AS (
        SELECT a.attrelid, a.attnum, a.attname, n.nspname, c.relname, a.attidentity <> '' AS identity
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND {objects.RELATION}
          AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
    )
    SELECT format('%I.%I', s.nspname, s.relname), quote_ident(k.nspname) || '.' || quote_ident(k.relname), quote_ident(k.attname), s.ascending,
           k.identity OR k.used
    FROM s LEFT JOIN LATERAL (
        SELECT columns.*, used.used FROM columns CROSS JOIN LATERAL (
            SELECT EXISTS (SELECT FROM pg_attrdef d JOIN pg_depend u ON (u.classid, u.objid) = ('pg_attrdef'::regclass, d.oid)
                           WHERE (d.adrelid, d.adnum) = (columns.attrelid, columns.attnum)
                             AND (u.refclassid, u.refobjid) = ('pg_class'::regclass, s.oid)) AS used,
                   EXISTS (SELECT FROM pg_depend o WHERE (o.classid, o.objid) = ('pg_class'::regclass, s.oid) AND o.deptype IN ('a', 'i')
                           AND (o.refclassid, o.refobjid, o.refobjsubid) = ('pg_class'::regclass, columns.attrelid, columns.attnum)) AS owned
        ) AS used
        WHERE used.used OR used.owned OR (columns.nspname = s.nspname AND s.relname = columns.relname || '_' || columns.attname || '_seq')
        ORDER BY used.used DESC, used.owned DESC LIMIT 1
    ) AS k ON true ORDER BY 1
"""
PASSWORDS = f"""
    SELECT format('%I.%I', n.nspname, c.relname), quote_ident(a.attname)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attname ~* '(password|passwd|pwd)(_?(hash|digest))?$'
      AND a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) AND c.relkind IN ('r', 'p') AND {objects.RELATION}
    ORDER BY 1, 2
"""
# The formats of password hashes, by how they begin; what begins with none of these is taken for plain.
FORMATS = {
    "scrypt": r"^(scrypt:|\$scrypt|\$7\$)", "pbkdf2": r"^(pbkdf2|\$pbkdf2)", "bcrypt": r"^(\$2[abxy]?\$|bcrypt)", "argon2": r"^(argon2)?\$argon2",
    "crypt": r"^\$[156y]\$", "salted sha256": r"^\{?s?sha-?256\}?\$", "salted sha512": r"^\{?s?sha-?512\}?\$",
    "salted sha1": r"^\{?s?sha-?1?\}?\$", "salted md5": r"^s?md5\$", "hexadecimal digest": r"^([0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})$",
}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """A table's key of one column."""

    table: str
    column: str
    type: str
    name: str

    def suits(self, column: str) -> bool:
        """Whether a column is named after this key, or after its table where the key is only called id."""
        return column == self.column or (
            self.column == "id" and column.removesuffix("_id") in (self.name, self.name.removesuffix("s"))
        )


def soft_references(subject: Subject) -> Summary:
    """Columns that refer to rows of another table, which no foreign key says, and values that refer to nothing."""
    keys = [Key(*row) for row in subject.rows(KEYS)]
    found: list[dict[str, Any]] = []
    for table, column, kind in subject.rows(SOFT):
        others = [key for key in keys if _same_type(key.type, kind)]
        named = [key for key in others if key.suits(column) and key.table != table]
        # A small number is found in every table: only other types tell by their values where they refer to.
        at = named or ([] if "int" in kind else _hit(subject, table, column, others))
        if not at:
            continue
        name = quoted(column)
        missing = " AND ".join(
            f"NOT EXISTS (SELECT FROM {key.table} AS p WHERE p.{quoted(key.column)} = f.{name})" for key in at
        )
        number = subject.count(f"SELECT count(*) FROM {table} AS f WHERE f.{name} IS NOT NULL AND {missing}")
        found.append({"column": f"{table}.{column}", "tables": [key.table for key in at], "orphans": number})
    loose = [each for each in found if each["orphans"]]
    lines = [f"{each['column']}: {each['orphans']} refer to no row of {' or '.join(each['tables'])}" for each in loose]
    lines += ["adopting leaves them; whether a foreign key is wanted there is the owner's decision"] if found else []
    numbers: dict[str, int | str] = {"soft_references": len(found), "with_orphans": len(loose)}
    return Summary(numbers, lines, data={"soft_references": found})


def _same_type(one: str, other: str) -> bool:
    text = ("text", "character varying", "character")
    numbers = ("smallint", "integer", "bigint")
    return one == other or any({one, other} <= set(kinds) for kinds in (text, numbers))


def _hit(subject: Subject, table: str, column: str, keys: list[Key]) -> list[Key]:
    """The keys in which values of the column are found."""
    name = quoted(column)
    sample = f"(SELECT DISTINCT {name} AS value FROM {table} WHERE {name} IS NOT NULL LIMIT {SAMPLE}) AS s"
    return [
        key
        for key in keys
        if subject.count(
            f"SELECT count(*) FROM {sample} WHERE EXISTS"
            f" (SELECT FROM {key.table} AS p WHERE p.{quoted(key.column)} = s.value)"
        )
    ]


def sequences(subject: Subject) -> Summary:
    """Sequences that no column uses, and those behind the largest value of their column."""
    lonely, without = [], []
    behind: list[dict[str, Any]] = []
    for sequence, table, column, ascending, used in subject.rows(SEQUENCES):
        if column is None:
            lonely.append(sequence)
            continue
        if not used:
            without.append(f"{sequence} of {table}.{column}")
        most = subject.count(f"SELECT {'max' if ascending else 'min'}({column}) FROM {table}")
        last = subject.count(f"SELECT CASE WHEN is_called THEN last_value END FROM {sequence}")
        if most is not None and last is not None and ((most > last) if ascending else (most < last)):
            behind.append({"sequence": sequence, "column": f"{table}.{column}", "by": abs(most - last)})
    lines = [f"{each['sequence']} is behind {each['column']} by {each['by']}" for each in behind]
    lines += listed("their column has no default that uses them", without) + listed("of no column", lonely)
    lines += ["adopting sets no sequence: SELECT setval(...) is the owner's to run"] if behind else []
    data = {"sequences": {"behind": behind, "without_default": without, "of_no_column": lonely}}
    return Summary({"behind": len(behind), "without_default": len(without), "of_no_column": len(lonely)}, lines, data=data)


def passwords(subject: Subject) -> Summary:
    """Password hashes by format, in numbers; never a value."""
    found: dict[str, dict[str, int]] = {}
    for table, column in subject.rows(PASSWORDS):
        cases = " ".join(f"WHEN {column} ~* '{pattern}' THEN '{name}'" for name, pattern in FORMATS.items())
        query = f"""
            SELECT CASE WHEN {column} IS NULL THEN 'NULL' WHEN {column} = '' THEN 'empty' {cases} ELSE 'plain' END, count(*)
            FROM {table} GROUP BY 1 ORDER BY 2 DESC, 1
        """
        found[f"{table}.{column}"] = dict(subject.connection.execute(query.encode()).fetchall())
    lines = [f"{name}: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}" for name, kinds in found.items()]
    plain = sum(kinds.get("plain", 0) for kinds in found.values())
    lines += [f"{counted(plain, 'password', 'are', 'is')} plain text: the owner has to replace them"] if plain else []
    return Summary({"password_columns": len(found), "plain": plain}, lines, data={"passwords": found})
