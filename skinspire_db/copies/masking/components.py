"""Which columns hold the same values: foreign keys, partitions, and what rules declare; one mask serves all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from skinspire_db.copies.masking.catalogue import Catalogue, Key, Place


def components(catalogue: Catalogue, more: Iterable[tuple[Place, Place]] = ()) -> list[list[Place]]:
    """The columns in groups of the same values, each of at least one.

    Args:
        catalogue: has the foreign keys, and which table is a part of which.
        more: pairs that rules declare.
    """
    leader: dict[Place, Place] = {}

    def find(place: Place) -> Place:
        while (up := leader.get(place, place)) != place:
            leader[place] = leader.get(up, up)
            place = up
        return place

    pairs = [pair for _, each in catalogue.references for pair in each]
    for one, other in [*pairs, *catalogue.parents, *more]:
        leader[find(one)] = find(other)
    groups: dict[Place, list[Place]] = defaultdict(list)
    for place in catalogue.columns:
        groups[find(place)].append(place)
    return list(groups.values())


def minimal_keys(catalogue: Catalogue, table: int) -> list[Key]:
    """The unique keys of a table that no other one implies: a key over more columns than a primary key holds by itself."""
    keys = catalogue.keys.get(table, [])

    def implies(one: Key, other: Key) -> bool:
        never_null = all((column := catalogue.columns.get((table, n))) and column.not_null for n in one.columns)
        whole = not one.predicate and not one.has_expressions and never_null
        return whole and set(one.columns) < set(other.columns)

    return [key for key in keys if not any(implies(other, key) for other in keys if other is not key)]
