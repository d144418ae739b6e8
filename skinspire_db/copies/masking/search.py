"""The search of a masked copy for values of the source: it looks at all columns of the copy, and knows of no mask.

Only hashes leave the source's server, under a seed that is made for each search.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.copies.copied_tables import Table
from skinspire_db.copies.masking import types
from skinspire_db.copies.masking.catalogue import Column
from skinspire_db.copies.masking.plan import Plan
from skinspire_db.errors import StepFailed
from skinspire_db.lifecycle.result import counted
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

MOST = 5000  # values of each column
ROWS = 20000  # rows of each column that they are taken from
SCANNED = 100000  # rows that are looked through for them: a column of NULLs in a large table would be read to its end
SHORTEST = 6  # characters
# A date, a time of day, or a number of less than ten digits is met by chance: one masked value is another one's own.
BY_CHANCE = r"^[\d\s:.,+\-/()]*$"
DIGITS = 10
WORD = r"[[:alpha:]]{8}"  # what holds a word of eight letters is met by no chance; of others, a few may be


@dataclass
class Search:
    """What is looked for, and what was found.

    Attributes:
        seed: of the hashes.
        columns: the columns whose values are looked for.
        hashes: of each of them, hash -> whether a single one found is a leak.
        keys_dropped: how many keys of JSON documents, at their top, have no rule and are not in the copy.
        found: by column that was looked for and column of the copy, how many values were found there.
    """

    plan: Plan
    seed: int = field(default_factory=lambda: secrets.randbits(63))
    columns: list[Column] = field(default_factory=list)
    hashes: list[dict[int, bool]] = field(default_factory=list)
    found: list[tuple[int, Column, int, int]] = field(default_factory=list)
    keys_dropped: int = 0

    @property
    def looked_for(self) -> int:
        """How many values are looked for."""
        return sum(map(len, self.hashes))

    def gather(self, connection: Connection, wanted: Iterable[Table]) -> None:
        """Hash values of the source, in the transaction of this connection.

        Args:
            connection: the source.
            wanted: the tables that are copied.
        """
        for table, columns in self._of(wanted):
            masked = [
                c
                for c in columns
                if self.plan.masks[c.place].changes and self.plan.masks[c.place].name not in ("choice", "constant")
            ]
            for column in masked:
                if self._resolved(column) in ("json", "jsonb"):
                    self.keys_dropped += self._dropped(connection, table, column)
                usable = f"length(x) >= {SHORTEST} AND NOT (x ~ '{BY_CHANCE}' AND (length(regexp_replace(x, '\\.0+$|\\D', '', 'g')) < {DIGITS} OR x ~ '^\\d+-01-01'))"
                texts = f"SELECT {self._text(column)} AS x FROM {self._first(table, column)} AS t WHERE {column.quoted} IS NOT NULL LIMIT {ROWS}"
                query = f"SELECT DISTINCT {self._hash('x')}, x ~ '{WORD}' FROM ({texts}) AS s WHERE {usable} LIMIT {MOST}"
                self.columns.append(column)
                self.hashes.append(dict(connection.execute(query.encode()).fetchall()))

    def held(self, connection: Connection, texts: list[str]) -> dict[str, Column]:
        """Those of the texts that are values which are looked for, each with a column that holds it.

        Args:
            connection: the source.
            texts: what could be values.
        """
        query = f"SELECT x, {self._hash('x')} FROM unnest(%s::text[]) AS x"
        hashed = {value: text for text, value in connection.execute(query.encode(), (texts,)).fetchall()}
        return {
            hashed[value]: column
            for column, values in zip(self.columns, self.hashes, strict=True)
            for value in values.keys() & hashed.keys()
        }

    def _dropped(self, connection: Connection, table: Table, column: Column) -> int:
        """How many keys, at the top of a column's documents, are left out of the copy."""
        rule = self.plan.rules.columns.get((column.table_name, column.name))
        declared = {path.partition(".")[0] for path in (rule.options.get("paths") if rule else None) or {}}
        document = f"to_jsonb({column.quoted})"
        object_ = f"CASE WHEN jsonb_typeof({document}) = 'object' THEN {document} ELSE '{{}}' END"
        rows = f"SELECT {object_} AS d FROM {self._first(table, column)} AS t WHERE {column.quoted} IS NOT NULL LIMIT {ROWS}"
        query = f"SELECT count(DISTINCT k) FROM ({rows}) AS s, jsonb_object_keys(s.d) AS k WHERE k <> ALL (%s)"
        row = connection.execute(query.encode(), (list(declared),)).fetchone()
        return row[0] if row else 0

    def look(self, aside: Target, operation: str, wanted: Iterable[Table], watched: set[Any] | None = None) -> None:
        """Look for them in tables of the copy.

        Args:
            aside: the copy.
            operation: for whom, as the session's application_name says.
            wanted: the tables.
            watched: holds the connection meanwhile, so that it can be cancelled.
        """
        sessions: set[Any] = set() if watched is None else watched
        with contextlib.closing(connections.connect(aside, operation)) as connection, contextlib.ExitStack() as stack:
            sessions.add(connection)
            stack.callback(sessions.discard, connection)
            connections.begin(connection, aside.policy, brief=True)
            connection.execute("SET TRANSACTION READ WRITE")
            connection.execute("CREATE TEMP TABLE looked_for (hash int8, number int4, certain bool) ON COMMIT DROP")
            with connection.cursor().copy("COPY looked_for FROM STDIN") as copy:
                for number, hashes in enumerate(self.hashes):
                    for each, certain in hashes.items():
                        copy.write_row((each, number, certain))
            connection.execute("ANALYZE looked_for")
            for table, columns in self._of(wanted):
                if shown := [(number, column) for number, column in enumerate(columns) if self._resolved(column) != "bool"]:
                    cells = ", ".join(f"({number}, {self._hash(self._text(column))})" for number, column in shown)
                    query = (
                        "SELECT v.number, l.number, count(DISTINCT l.hash), count(DISTINCT l.hash) FILTER (WHERE l.certain)"
                        f" FROM {table.quoted} AS t CROSS JOIN LATERAL (VALUES {cells}) AS v (number, hash)"
                        " JOIN pg_temp.looked_for AS l ON l.hash = v.hash GROUP BY 1, 2"
                    )
                    for number, looked_for, some, certain in connection.execute(query.encode()).fetchall():
                        self.found.append((looked_for, columns[number], some, certain))
            connection.rollback()

    def judge(self, summary: Any) -> None:
        """Say how many values were looked for and found.

        Args:
            summary: of the step.

        Raises:
            StepFailed: some were found.
        """
        leaks = [each for each in self.found if each[3] or each[2] > 2 + len(self.hashes[each[0]]) / 50]
        summary.numbers |= {"values_looked_for": self.looked_for, "values_found": sum(each[3] or each[2] for each in leaks)}
        summary.numbers |= {"json_keys_dropped": self.keys_dropped}
        summary.lines += [] if leaks else ["none of them is in the copy"]
        if leaks:
            number, column, some, certain = max(leaks, key=lambda each: each[2])
            of = self.columns[number].full
            raise StepFailed(
                f"the copy holds {counted(certain or some, 'value')} of {of}, in {column.full}: nothing is swapped in",
                remedy=f"mask {column.full} in sql/masks, or declare {of} as safe: keep",
            )

    def _of(self, wanted: Iterable[Table]) -> Iterable[tuple[Table, list[Column]]]:
        """The tables with their columns; the tools' own hold what the project's files say."""
        for table in wanted:
            mine = self.plan.catalogue.named(table.schema, table.name)
            if mine and not mine[0].tools and mine[0].table_name not in self.plan.dropped:
                yield table, mine

    def _first(self, table: Table, column: Column) -> str:
        return f"(SELECT {objects.quoted_name(column.name)} FROM ONLY {table.quoted} LIMIT {SCANNED})"

    def _resolved(self, column: Column) -> str:
        return types.resolved(self.plan.catalogue, column.type).known

    def _text(self, column: Column) -> str:
        """The value as text; format() calls no cast that an owner has made."""
        return f"rtrim(format('%s', {column.quoted}))"

    def _hash(self, text: str) -> str:
        return f'hashtextextended(({text}) COLLATE "C", {self.seed})'
