"""The search of a masked copy for values of the source: it looks at all columns of the copy, and knows of no mask.

Only hashes leave the source's server, under a seed that is made for each search.
"""

from __future__ import annotations

import contextlib
import secrets
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.copies.copied_tables import Table
from skinspire_db.copies.masking import expressions, named, types
from skinspire_db.copies.masking.catalogue import Column, Place
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
BY_CHANCE = r"^([\d\s:.,+\-/()]|[Ii]nfinity|NaN)*$"
DIGITS = 10
SHORT = {"bool", "int2", "date"}  # types whose values are shorter, or have less digits
BITS = 256  # of the filter, for each value: of rows of twenty cells, nine in ten are then left alone
MOST_BITS = 27  # of the filter's size
TOGETHER = 20  # tables that one query looks at
STRINGS = '$.** ? (@.type() == "string")'  # the path to all strings in a document
WORD = r"[[:alpha:]]{8}"  # what holds a word of eight letters is met by no chance; of others, a few may be


@dataclass
class Search:
    """What is looked for, and what was found.

    Attributes:
        seed: of the hashes.
        columns: the columns whose values are looked for.
        hashes: of each of them, those of the values of which a single one found is a leak, and those of the others.
        keys_dropped: how many keys of JSON documents, at their top, have no rule and are not in the copy.
        candidates: hash -> the columns of the copy with a value that may be one of these.
    """

    plan: Plan
    seed: int = field(default_factory=lambda: secrets.randbits(63))
    columns: list[Column] = field(default_factory=list)
    hashes: list[tuple[array[int], array[int]]] = field(default_factory=list)
    candidates: dict[int, set[Place]] = field(default_factory=dict)
    keys_dropped: int = 0

    @property
    def looked_for(self) -> int:
        """How many values are looked for."""
        return sum(len(certain) + len(others) for certain, others in self.hashes)

    def gather(self, connection: Connection, wanted: Iterable[Table]) -> None:
        """Hash values of the source, in the transaction of this connection.

        Args:
            connection: the source.
            wanted: the tables that are copied.
        """
        sought = self.plan.sought
        for table, columns in self._of(wanted):
            for column in columns:
                if column.place in sought:
                    self._gather(connection, table, column)

    def _gather(self, connection: Connection, table: Table, column: Column) -> None:
        # OFFSET 0: the condition is of each value once, and of no more values than are wanted.
        other = f"{self._text(column)} <> rtrim(format('%s', {table.reading.expressions[column.name]}))"  # than the constant itself
        where = f" WHERE {other}" if self.plan.masks[column.place].name == "constant" else ""
        texts = f"SELECT DISTINCT {self._text(column)} AS x FROM {self._first(table, column)}{where} OFFSET 0"
        self._add(connection, column, texts, self._hash("x"))
        if self._is_json(column):
            self.keys_dropped += self._dropped(connection, table, column)
            strings = f"SELECT DISTINCT x FROM {self._strings(table, column)} OFFSET 0"
            self._add(connection, column, strings, self._hash_in(column))

    def _add(self, connection: Connection, column: Column, texts: str, hashed: str) -> None:
        """Hash what a query finds as `x`, but for what is met by chance."""
        digits = r"length(x) - length(translate(x, '0123456789', '')) - CASE WHEN x ~ '\.0+$' THEN length(substring(x, '0+$')) ELSE 0 END"
        by_chance = f"x ~ '{BY_CHANCE}' AND ({digits} < {DIGITS} OR x ~ '^\\d+-01-01')"
        usable = f"length(x) >= {SHORTEST} AND NOT ({by_chance})"
        query = f"SELECT {hashed}, x ~ '{WORD}' FROM ({texts}) AS s WHERE {usable} LIMIT {MOST}"
        hashes: tuple[array[int], array[int]] = (array("q"), array("q"))
        for each, certain in connection.execute(query.encode()).fetchall():
            hashes[0 if certain else 1].append(each)
        self.columns.append(column)
        self.hashes.append(hashes)

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
            for column, hashes in zip(self.columns, self.hashes, strict=True)
            for values in hashes
            for value in filter(hashed.__contains__, values)
        }

    def _dropped(self, connection: Connection, table: Table, column: Column) -> int:
        """How many keys, at the top of a column's documents, are left out of the copy."""
        declared = {path.partition(".")[0] for path in self._paths(column)}
        document = expressions.document(column.quoted, self._resolved(column))
        object_ = f"CASE WHEN jsonb_typeof({document}) = 'object' THEN {document} ELSE '{{}}' END"
        keys = f"SELECT DISTINCT k FROM {self._first(table, column)}, jsonb_object_keys({object_}) AS k"
        query = f"SELECT count(*) FROM ({keys.replace('%', '%%')}) AS s WHERE k <> ALL (%s)"
        row = connection.execute(query.encode(), (list(declared),)).fetchone()
        return row[0] if row else 0

    def look(self, aside: Target, operation: str, wanted: Iterable[Table], watched: set[Any] | None = None) -> None:
        """Look for them in tables of the copy.

        A row is left alone when of none of its cells the hash has its bit set in a filter; the few others are looked at again.

        Args:
            aside: the copy.
            operation: for whom, as the session's application_name says.
            wanted: the tables.
            watched: holds the connection meanwhile, so that it can be cancelled.
        """
        size = 1 << min(max(self.looked_for * BITS, 8).bit_length(), MOST_BITS)
        filter_ = self._filter(size)
        with session(aside, operation, watched) as connection:
            looks = [look for table, columns in self._of(wanted) for look in self._looks(table, columns, size - 1)]
            for start in range(0, len(looks), TOGETHER):
                some = " UNION ALL ".join(looks[start : start + TOGETHER]).replace("%", "%%")
                query = f"WITH f AS MATERIALIZED (SELECT %b::bytea AS bits) {some}"
                for *place, each in connection.execute(query.encode(), (filter_,)).fetchall():
                    self.candidates.setdefault(each, set()).add(tuple(place))

    def _looks(self, table: Table, columns: list[Column], most: int) -> Iterator[str]:
        """The queries of the cells of a table, and of the strings in its documents, as table, column and hash, whose hashes
        have their bits set.
        """

        def bit(hashed: str) -> str:
            return f"get_bit(f.bits, {hashed} & {most}) = 1"

        shown = {c.place[1]: self._hash(self._text(c)) for c in columns if self._resolved(c) not in SHORT}
        of_table = f"SELECT DISTINCT {columns[0].place[0]}::int8, c.* FROM f CROSS JOIN LATERAL"
        for column in filter(self._is_json, columns):
            strings = (
                f"SELECT {column.place[1]} AS number, {self._hash_in(column)} AS hash FROM {self._strings(table, column)}"
            )
            yield f"{of_table} (SELECT * FROM ({strings} OFFSET 0) AS v WHERE {bit('v.hash')} OFFSET 0) AS c"
        if not shown:
            return
        cells = ", ".join(f"({number}, {hashed})" for number, hashed in shown.items())
        # LATERAL: the filter is read once, and not for each row of a table beside it.
        rows = f"SELECT t.* FROM ONLY {table.quoted} AS t WHERE {' OR '.join(map(bit, shown.values()))} OFFSET 0"
        found = f"SELECT v.number, v.hash FROM ({rows}) AS t CROSS JOIN LATERAL (VALUES {cells}) AS v (number, hash) WHERE {bit('v.hash')}"
        yield f"{of_table} ({found} OFFSET 0) AS c"

    def _filter(self, size: int) -> bytes:
        """So many bits, of which those that the hashes end in are set."""
        bits = bytearray(size // 8)
        for each in (each for hashes in self.hashes for some in hashes for each in some):
            bits[(each & size - 1) >> 3] |= 1 << (each & 7)
        return bytes(bits)

    def judge(self, summary: Any) -> None:
        """Say how many values were looked for and found.

        Args:
            summary: of the step.

        Raises:
            StepFailed: some were found.
        """
        leaks = [each for each in self._found() if each[3] or each[2] > 2 + sum(map(len, self.hashes[each[0]])) / 50]
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

    def _found(self) -> Iterator[tuple[int, Column, int, int]]:
        """By column that was looked for and column of the copy, how many values were found there, and how many for certain."""
        for number, (certain, others) in enumerate(self.hashes):
            counts: Counter[Place] = Counter()
            sure: Counter[Place] = Counter()
            for each in filter(self.candidates.__contains__, certain):
                sure.update(self.candidates[each])
            for each in filter(self.candidates.__contains__, others):
                counts.update(self.candidates[each])
            counts.update(sure)
            yield from ((number, self.plan.catalogue.columns[place], some, sure[place]) for place, some in counts.items())

    def _of(self, wanted: Iterable[Table]) -> Iterable[tuple[Table, list[Column]]]:
        """The tables with their columns; the tools' own hold what the project's files say."""
        for table in wanted:
            mine = self.plan.catalogue.named(table.schema, table.name)
            if mine and not mine[0].tools and mine[0].table_name not in self.plan.dropped:
                yield table, mine

    def _first(self, table: Table, column: Column) -> str:
        """The first rows of a table that have a value in the column, as `t`, and nothing but the column."""
        rows = f"(SELECT {objects.quoted_name(column.name)} FROM ONLY {table.quoted} LIMIT {SCANNED}) AS t"
        return f"(SELECT t.* FROM {rows} WHERE {column.quoted} IS DISTINCT FROM NULL LIMIT {ROWS}) AS t"

    def _strings(self, table: Table, column: Column) -> str:
        """The strings in the documents of the first rows, as `x`, but for those at paths that rules keep."""
        document = expressions.document(column.quoted, self._resolved(column))
        kept = [path.split(".") for path, mask in self._paths(column).items() if mask == "keep"]
        parts = [document, *(f"({document}) #> ARRAY[{', '.join(map(named.literal, each))}]" for each in kept)]
        some = " EXCEPT ".join(f"SELECT jsonb_path_query({part}, '{STRINGS}') #>> '{{}}'" for part in parts)
        return f"{self._first(table, column)} CROSS JOIN LATERAL ({some}) AS s (x)"

    def _paths(self, column: Column) -> dict[str, str]:
        rule = self.plan.rules.columns.get((column.table_name, column.name))
        return (rule.options.get("paths") if rule else None) or {}

    def _hash_in(self, column: Column) -> str:
        """The hash of a string in a column's documents: what one column's hold can stand in another one's by chance."""
        return self._hash(f"'{column.place}' || x")

    def _is_json(self, column: Column) -> bool:
        return self._resolved(column) in ("json", "jsonb")

    def _resolved(self, column: Column) -> str:
        return types.resolved(self.plan.catalogue, column.type).known

    def _text(self, column: Column) -> str:
        """The value as text; concat() calls no cast that an owner has made, and texts' own none of theirs can replace."""
        return f"{column.quoted}::text" if self._resolved(column) in types.TEXTS else f"concat({column.quoted})"

    def _hash(self, text: str) -> str:
        """The hash of a text without the spaces at its end, which a column of fixed length has."""
        return f'hashbpcharextended(({text})::bpchar COLLATE "C", {self.seed})'


@contextlib.contextmanager
def session(target: Target, operation: str, watched: set[Any] | None, **begun: Any) -> Iterator[Connection]:
    """A transaction that looks something up, for an operation; its connection is in `watched` meanwhile."""
    sessions: set[Any] = set() if watched is None else watched
    with contextlib.closing(connections.connect(target, operation)) as connection, contextlib.ExitStack() as stack:
        sessions.add(connection)
        stack.callback(sessions.discard, connection)
        connections.begin(connection, target.policy, brief=True, **begun)
        yield connection
        connection.rollback()
