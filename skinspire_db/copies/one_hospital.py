"""Which rows a copy of one hospital takes: conditions that the source's server evaluates, in the snapshot of the copy.

A row is named by its table's oid and its ctid, which all sessions of one snapshot see: so keys of several columns,
partitions and tables without a key are all alike, and nothing is written in the source or kept here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects, row_links
from skinspire_db.catalog.objects import TOOLS_SCHEMA
from skinspire_db.catalog.row_links import Link, Relation, Tenant
from skinspire_db.catalog.tenant_tables import TENANT
from skinspire_db.copies.copied_tables import Table
from skinspire_db.errors import StepFailed, UsageError
from skinspire_db.lifecycle.remedies import shortened
from skinspire_db.lifecycle.result import counted

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# The rows that others lead to, step by step; `w`, because PostgreSQL lets a recursive query name itself only once.
RECURSION = "WITH RECURSIVE k (rel, tid) AS (({first}) UNION (WITH w AS (SELECT * FROM k) {more})) SELECT rel, tid FROM k"
LISTED = 5  # foreign keys that an error names
NONE = "SELECT NULL::oid AS rel, NULL::tid AS tid WHERE false"
Condition = Callable[[int, str], str | None]  # a table and its name in the query -> SQL; None where no row meets it


@dataclasses.dataclass(frozen=True)
class OneHospital:
    """The rows of one hospital, and of the whole system, in the database that these relations and links were read from.

    Attributes:
        hospital: its id, as it was given.
        literal: that as an SQL literal.
        relations: all tables, by oid.
        links: their foreign keys.
        tenants: the tables whose rows say whose they are: those of the hospital and those of none are taken.
        owned: tables without such a column that refer to tenants, directly or through one another.
        shared: tables that others refer to, and that refer to no tenant: the rows that are referred to are taken.
        whole: tables that are taken whole because they hold reference data.
    """

    hospital: str
    literal: str
    relations: dict[int, Relation]
    links: list[Link]
    tenants: dict[int, Tenant]
    owned: frozenset[int]
    shared: frozenset[int]
    whole: frozenset[int]

    @classmethod
    def of(cls, connection: Connection, hospital: str, reference: Collection[tuple[str, str]] = ()) -> OneHospital:
        """What a copy of one hospital takes.

        Args:
            connection: the source.
            hospital: the hospital's id, as a user typed it.
            reference: schema and name of the tables of the project's reference data.

        Raises:
            UsageError: the database knows no hospitals, or not this one.
        """
        relations = row_links.relations(connection)
        links = row_links.links(connection, relations)
        tenants = row_links.tenants(connection, relations, links)
        if not tenants:
            raise UsageError(f"no table of the source has a column {TENANT}", remedy="leave --hospital out")
        literal = _literal(connection, hospital, relations, tenants)
        up, down = [(link.source, link.target) for link in links], [(link.target, link.source) for link in links]
        owned = _reached(tenants, down) - tenants.keys()
        whole = {each.oid for each in relations.values() if (each.schema, each.name) in reference} - tenants.keys() - owned
        shared = _reached(tenants.keys() | owned | whole, up) - tenants.keys() - owned - whole
        sets = frozenset(owned), frozenset(shared), frozenset(whole)
        found = cls(hospital, literal, relations, links, tenants, *sets)
        found._refuse_unknown(connection)
        return found

    def reading(self, connection: Connection, tables: Iterable[Table]) -> list[Table]:
        """The tables, read for this hospital alone; their size is what the planner expects of its rows."""
        oids = {(each.schema, each.name): each for each in self.relations.values()}
        chosen = []
        for table in tables:
            where, size = self._where(oids[table.schema, table.name]), table.size
            if where:
                query = f"EXPLAIN (FORMAT JSON) SELECT * FROM ONLY {table.quoted} AS t WHERE {where}"  # noqa: S608
                ((explained,),) = connection.execute(query.encode()).fetchall()
                size = min(size, explained[0]["Plan"]["Plan Rows"] * explained[0]["Plan"]["Plan Width"])
            chosen.append(dataclasses.replace(table, size=size, reading=dataclasses.replace(table.reading, where=where)))
        return chosen

    def refuse_crossings(self, connection: Connection) -> None:
        """Look for foreign keys by which rows that are taken need rows of other hospitals.

        Raises:
            StepFailed: there is one, with the foreign key's name.
        """
        found = []
        for link in self.links:
            query = self._crossing(link)
            row = connection.execute(query.encode()).fetchone() if query else None
            if row and row[0]:
                source, target = (
                    f"{self.relations[oid].schema}.{self.relations[oid].name}" for oid in (link.source, link.target)
                )
                found.append(f"{link.name} ({counted(row[0], 'row')} of {source} to {target})")
        if found:
            raise StepFailed(
                f"hospital {self.hospital} cannot be copied alone: other hospitals' rows would be needed by "
                + counted(len(found), "foreign key")
                + f": {', '.join(found[:LISTED])}{', ...' if found[LISTED:] else ''}",
                remedy="correct these rows, or copy all hospitals: leave --hospital out",
            )

    def strangers(self, connection: Connection) -> list[str]:
        """The tables of a copy that hold rows of other hospitals, from the copy itself."""
        found = []
        for oid, tenant in self.tenants.items():
            query = f"SELECT EXISTS (SELECT FROM {self._rows(oid)} AS t WHERE NOT {tenant.equals('t', self.literal)})"  # noqa: S608
            if connection.execute(query.encode()).fetchone() != (False,):
                found.append(f"{self.relations[oid].schema}.{self.relations[oid].name}")
        return found

    @property
    def untied(self) -> list[str]:
        """The names of tables that are copied whole because no foreign key ties their rows to a hospital."""
        own = {(TOOLS_SCHEMA, each.name) for each in self.relations.values()} | {("public", "alembic_version")}
        rest = [each for each in self.relations.values() if each.oid == each.root and (each.schema, each.name) not in own]
        untied = [each for each in rest if each.oid not in self.whole and not self._where(each)]
        return sorted(f"{each.schema}.{each.name}" for each in untied)

    def _refuse_unknown(self, connection: Connection) -> None:
        first = {oid: each for oid, each in self.tenants.items() if each.alone} or self.tenants
        looks = [f"EXISTS (SELECT FROM {self._rows(oid)} AS t WHERE {self._own(oid, 't')})" for oid in first]
        if connection.execute(f"SELECT {' OR '.join(looks)}".encode()).fetchone() == (True,):
            return
        oid, column = next((oid, objects.quoted_name(tenant.column)) for oid, tenant in first.items())
        some = f"SELECT DISTINCT t.{column}::text FROM {self._rows(oid)} AS t WHERE t.{column} IS NOT NULL LIMIT 3"  # noqa: S608
        known = [str(each) for (each,) in connection.execute(some.encode()).fetchall()]
        remedy = f"--hospital={known[0]}" + (f", or {' or '.join(known[1:])}" if known[1:] else "") if known else None
        raise UsageError(f"the source has no hospital {self.hospital}", remedy=remedy or "leave --hospital out")

    def _rows(self, oid: int) -> str:
        return self.relations[oid].rows

    def _where(self, table: Relation) -> str:
        """The condition of the rows `t` of a table or partition that are taken; empty for all."""
        if table.root in self.tenants:
            return self._taken(table.root, "t") or ""
        rows = self._taken_rows(table)
        return f"t.ctid IN (SELECT s.tid FROM ({rows}) AS s (rel, tid) WHERE s.rel = {table.oid})" if rows else ""  # noqa: S608

    def _taken(self, oid: int, row: str) -> str | None:
        """The condition that a row is taken."""
        if tenant := self.tenants.get(oid):
            own = tenant.equals(row, self.literal)
            return own if tenant.required else f"({own} OR {row}.{objects.quoted_name(tenant.column)} IS NULL)"
        rows = self._taken_rows(self.relations[oid])
        return _among(row, rows) if rows else "true"

    def _taken_rows(self, table: Relation) -> str:
        """The rows that are taken of a table that is no tenant; empty for all."""
        if table.root in self.whole:
            return ""
        if table.root in self.shared:
            takers = self.tenants.keys() | self.owned | self.whole
            return self._led_to(
                table, self.shared, lambda oid, row: self._taken(oid, row) if oid in takers else None, up=True
            )
        if table.root in self.owned:
            own = self._led_to(table, self.owned, self._own)
            if table.root not in self._of_the_system:
                return own
            return f"({own}) UNION ALL ({_others(table, self._led_to(table, self.owned, self._foreign))})"
        members = self.relations.keys() - self.tenants.keys() - self.owned - self.shared - self.whole
        left_out = self._led_to(table, members, self._left_out)
        return "" if left_out == NONE else _others(table, left_out)

    def _own(self, oid: int, row: str) -> str | None:
        tenant = self.tenants.get(oid)
        return tenant.equals(row, self.literal) if tenant else None

    def _foreign(self, oid: int, row: str) -> str | None:
        own = self._own(oid, row)
        return f"NOT {own}" if own else None

    def _left_out(self, oid: int, row: str) -> str | None:
        return f"NOT {_among(row, self._taken_rows(self.relations[oid]))}" if oid in self.shared else None

    @cached_property
    def _of_the_system(self) -> set[int]:
        """The owned tables that can have rows which refer to no hospital's row."""
        found = set(self.owned)
        while True:
            systems = found | {oid for oid, tenant in self.tenants.items() if not tenant.required}
            ours = [link for link in self.links if link.target in self.owned or link.target in self.tenants]
            if not (tied := {link.source for link in ours if link.required and link.target not in systems} & found):
                return found
            found -= tied

    @cached_property
    def _ties(self) -> Counter[int]:
        """By how many keys the rows of a table refer to rows that are some hospital's."""
        return Counter(link.source for link in self.links if link.target in self.owned or link.target in self.tenants)

    def _led_to(self, table: Relation, members: Collection[int], condition: Condition, *, up: bool = False) -> str:
        """The rows of a table that foreign keys lead to, from rows of other tables that meet a condition, and through rows of
        the members: down to rows that refer, or up to rows that are referred to.
        """
        edges = [(link.target, link.source) if up else (link.source, link.target) for link in self.links]
        inside = _reached({table.root}, [edge for edge in edges if edge[1] in members])
        leads_on = any(start == table.root for at, start in edges if at in inside)
        first, more = [], []
        for link, (at, start) in zip(self.links, edges, strict=True):
            into, out = (link.target_rows, link.source_rows) if up else (link.source_rows, link.target_rows)
            if at == table.root and into == self._rows(at) and not leads_on:
                into = table.rows  # of a partition no other rows are read
            row, other = ("r", "t") if up else ("t", "r")
            rows = f"SELECT {row}.tableoid AS rel, {row}.ctid AS tid FROM {into} AS {row} JOIN {out} AS {other}"  # noqa: S608
            if at not in inside:
                continue
            if start in inside:
                more.append(f"{rows} ON {link.condition} JOIN w ON w.rel = {other}.tableoid AND w.tid = {other}.ctid")
            elif met := condition(start, other):
                first.append(f"{rows} ON {link.condition} WHERE {met}")
        if not first:
            return NONE
        return RECURSION.format(first=" UNION ".join(first), more=" UNION ALL ".join(more)) if more else " UNION ".join(first)

    def _crossing(self, link: Link) -> str:
        """The query that counts the rows that are taken, and refer by this key to a row that is not; empty where none can."""
        source, target = self.tenants.get(link.source), self.tenants.get(link.target)
        if not {link.source, link.target} <= self.tenants.keys() | self.owned:
            return ""
        if source and target and (source.column, target.column) in link.columns:
            return ""
        if not source and self._ties[link.source] == 1:
            return ""  # by this key alone it is known whose the row is
        return (
            f"SELECT count(*) FROM {link.source_rows} AS t JOIN {link.target_rows} AS r ON {link.condition}"  # noqa: S608
            f" WHERE {self._taken(link.source, 't')} AND NOT {self._taken(link.target, 'r')}"
        )


def _among(row: str, rows: str) -> str:
    """The condition that a row is one of these; as EXISTS, so that NOT of it is an anti join."""
    return f"EXISTS (SELECT FROM ({rows}) AS s (rel, tid) WHERE s.rel = {row}.tableoid AND s.tid = {row}.ctid)"


def _others(table: Relation, rows: str) -> str:
    """The rows of a table that are not among these."""
    return f"SELECT x.tableoid AS rel, x.ctid AS tid FROM {table.rows} AS x WHERE NOT {_among('x', rows)}"  # noqa: S608


def _reached(starts: Iterable[int], edges: list[tuple[int, int]]) -> set[int]:
    """These and all that the edges lead to."""
    found = set(starts)
    while more := {end for start, end in edges if start in found} - found:
        found |= more
    return found


def _literal(connection: Connection, hospital: str, relations: dict[int, Relation], tenants: dict[int, Tenant]) -> str:
    """The hospital's id as an SQL literal that each table's column takes."""
    import psycopg
    from psycopg import sql

    shown = shortened("".join(each if each.isprintable() else "?" for each in hospital), 60)
    if not hospital.strip():
        raise UsageError("--hospital names no hospital", remedy="leave --hospital out, or give a hospital's id")
    # Of the tables with the same type, the one that holds the hospitals is named.
    ordered = sorted(tenants.items(), key=lambda each: each[1].alone)
    for type_, oid in {tenant.type: oid for oid, tenant in ordered}.items():
        try:
            literal = sql.Literal(hospital).as_string(connection)
            with connection.transaction():
                connection.execute(f"SELECT {literal}::{type_}".encode())
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError, UnicodeError):
            column = f"{relations[oid].schema}.{relations[oid].name}.{tenants[oid].column}"
            raise UsageError(
                f"--hospital={shown} is no {type_}, which {column} is", remedy="leave --hospital out, or give a hospital's id"
            ) from None
    return literal
