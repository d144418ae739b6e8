"""What one object of a database is, as fields: its text as PostgreSQL writes it, and the properties beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar


def _labelled(label: str, default: Any = None) -> Any:
    """A field whose line in the definition begins with the label."""
    return field(default=default, metadata={"label": label})


@dataclass(frozen=True)
class Definition:
    """The definition of an object: the first field says what it is, the others are its properties in the text's order."""

    @property
    def head(self) -> str:
        """What the object is, without its properties."""
        return str(getattr(self, fields(self)[0].name))

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for each in fields(self):
            label, value = each.metadata.get("label", ""), getattr(self, each.name)
            if isinstance(value, tuple):
                yield from (" ".join((label, *part)) for part in value if label)
            elif value is True:
                yield label
            elif value:
                yield f"{label} {value}" if label else value

    def mapped(self, change: Callable[[str], str]) -> Definition:
        """The definition with the function applied to every text in it."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if isinstance(value, str)})


Snapshot = dict[str, Definition]  # "kind name" -> definition


@dataclass(frozen=True)
class Other(Definition):
    """A constraint, an index, a trigger, or an object of another kind that has no class of its own.

    Attributes:
        text: its definition.
        state: lines on what the text does not say, such as "disabled" or an owner.
        comment: its comment, as an SQL literal.
    """

    text: str
    state: str | None = None
    comment: str | None = _labelled("comment")


@dataclass(frozen=True)
class Table(Definition):
    """A table, a partitioned or a foreign one.

    Attributes:
        text: "table", "unlogged table" or "foreign table".
        partitioned_by: the partition key.
        inherits: the tables that it inherits from, with commas.
        bound: its bound as a partition.
        options: its storage parameters, "name=value, ...".
        row_security: whether it has row security, and for its owner too (`row_security_forced`).
        replica_identity: one that is not the usual one, as pg_class has it.
        owner: one that does not own most tables.
        comment: its comment, as an SQL literal.
    """

    text: str
    partitioned_by: str | None = _labelled("partitioned by")
    inherits: str | None = _labelled("inherits")
    bound: str | None = None
    options: str | None = _labelled("with")
    row_security: bool = _labelled("row security", False)
    row_security_forced: bool = _labelled("row security forced", False)
    replica_identity: str | None = _labelled("replica identity")
    owner: str | None = _labelled("owner")
    comment: str | None = _labelled("comment")


@dataclass(frozen=True)
class Column(Definition):
    """A column of a table.

    Attributes:
        type: its type, with its length.
        collation: one that is not its type's.
        not_null: whether it takes no NULL.
        identity: "ALWAYS" or "BY DEFAULT".
        generated: the expression of a generated column.
        default: the expression of a default.
        storage: one that is not its type's, as pg_attribute has it.
        statistics: the statistics target.
        options: "name=value, ...".
        compression: as pg_attribute has it.
        comment: its comment, as an SQL literal.
    """

    type: str
    collation: str | None = _labelled("collate")
    not_null: bool = _labelled("not null", False)
    identity: str | None = _labelled("identity")
    generated: str | None = _labelled("generated")
    default: str | None = _labelled("default")
    storage: str | None = _labelled("storage")
    statistics: str | None = _labelled("statistics")
    options: str | None = _labelled("with")
    compression: str | None = _labelled("compression")
    comment: str | None = _labelled("comment")


@dataclass(frozen=True)
class Sequence(Definition):
    """A sequence.

    Attributes:
        text: its options, as CREATE SEQUENCE has them.
        identity_of: the identity column that it numbers, in full.
        owned_by: another column that it belongs to, in full.
        unlogged: whether it is empty after a crash.
        comment: its comment, as an SQL literal.
    """

    text: str
    identity_of: str | None = _labelled("identity of")
    owned_by: str | None = _labelled("owned by")
    unlogged: bool = _labelled("unlogged", False)
    comment: str | None = _labelled("comment")


@dataclass(frozen=True)
class Type(Definition):
    """An enum, a domain, a composite or a range type.

    Attributes:
        text: its kind, and what it is made of.
        collation: a domain's, where it is not that of the type under it.
        default: a domain's default.
        not_null: whether a domain takes no NULL.
        constraints: the name and definition of each check of a domain.
        labels: those of an enum, as SQL literals.
    """

    text: str
    collation: str | None = _labelled("collate")
    default: str | None = _labelled("default")
    not_null: bool = _labelled("not null", False)
    constraints: tuple[tuple[str, str], ...] = _labelled("constraint", ())
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """ "enum", "domain", "composite" or "range"."""
        return self.text.partition(" ")[0]


CLASSES: dict[str, type[Definition]] = {"table": Table, "column": Column, "sequence": Sequence, "type": Type}
Of = TypeVar("Of", bound=Definition)


def definition(key: str, values: Iterable[Any]) -> Definition:
    """An object's definition from its fields, as JSON or a query has them.

    Args:
        key: its key in a snapshot.
        values: the values of its fields, in their order.
    """
    return CLASSES.get(key.partition(" ")[0], Other)(*[_frozen(each) if type(each) is list else each for each in values])


def _frozen(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_frozen(each) if isinstance(each, list) else each for each in values)


def head(of: Definition | None) -> str:
    """What an object is, without its properties; "" for none."""
    return of.head if of else ""


def each(side: Snapshot, kind: type[Of]) -> Iterator[tuple[str, Of]]:
    """The names and definitions of a snapshot's tables, columns, sequences or types."""
    word = next(name for name, of in CLASSES.items() if of is kind)
    for key, found in side.items():
        if isinstance(found, kind):
            yield key.removeprefix(f"{word} "), found


def table(side: Snapshot, name: str) -> Table:
    """A snapshot's table by its name, as the snapshot has it."""
    found = side[f"table {name}"]
    assert isinstance(found, Table)
    return found


def column(side: Snapshot, name: str) -> Column:
    """A snapshot's column by its full name, as the snapshot has it."""
    found = side[f"column {name}"]
    assert isinstance(found, Column)
    return found
