"""The statements of a dump without roles that do not exist on its new server, and without options of the old one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass
from typing import Literal

from skinspire_db.copies.dump_statements import NAME
from skinspire_db.lifecycle.result import counted
from skinspire_db.patterns import lazy_regex

MAPPED = "roles that do not exist here"  # how a note on that begins
OWNER = lazy_regex(rf"ALTER .* OWNER TO ({NAME});", re.DOTALL)
SESSION = lazy_regex(rf"SET SESSION AUTHORIZATION ({NAME});")
GRANTEE = lazy_regex(rf"(?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) .* (?:TO|FROM) ({NAME})(?: WITH GRANT OPTION)?;", re.DOTALL)
FOR_ROLE = lazy_regex(rf"ALTER DEFAULT PRIVILEGES FOR ROLE ({NAME}) ")
POLICY = lazy_regex(  # The whole text up to the roles is matched, because an expression or a name can hold anything.
    rf"(CREATE POLICY ({NAME} ON {NAME}(?:\.{NAME})?)(?: AS \w+)?(?: FOR \w+)? TO )({NAME}(?:, {NAME})*)(.*)", re.DOTALL
)
# Debian's PostgreSQL 15.20 keeps this number with a column, and pg_dump writes it; other releases refuse it.
INTERNAL = lazy_regex(
    rf"(ALTER (?:FOREIGN )?TABLE (?:ONLY )?(?:{NAME}\.)?{NAME} ALTER COLUMN {NAME} SET \()([^()]*\bpg_attver=[^()]*)\);"
)


@dataclass(frozen=True)
class Note:
    """What a statement lost: `roles` as owners, in grants or in policies; `policy`, as NAME ON TABLE, is left out entirely.

    Of `kept` are roles that do exist, and whose objects could not be given back to them.
    """

    kind: Literal["owner", "grant", "policy", "kept"]
    roles: frozenset[str]
    policy: str = ""


def rewritten(statement: str, present: Set[str]) -> tuple[str | None, Note | None]:
    """A statement as its new server can take it.

    A policy for other roles than its own could open rows that were closed to them, so absent roles are taken out of it, and a
    policy for absent roles alone is left out: without it, the rows stay closed.

    Args:
        statement: one statement as pg_dump writes it, without the comments before it.
        present: the roles of the new server.

    Returns:
        The statement to run, or None when it is left out; and what is to be said about it, or None. An option that the old
        server kept for itself is taken out without a note: it is no difference.
    """
    if (owner := owner_of(statement)) and owner not in present:
        return None, Note("owner", frozenset({owner}))
    if absent := _grantees(statement) - present:
        return None, Note("grant", frozenset(absent))
    if policy := POLICY.fullmatch(statement):
        roles = {role: unquoted(role) for role in re.findall(NAME, policy[3])}
        if absent := set(roles.values()) - present:
            rest = ", ".join(role for role, name in roles.items() if name in present)
            kept = f"{policy[1]}{rest}{policy[4]}" if rest else None
            return kept, Note("policy", frozenset(absent), "" if rest else policy[2])
    if option := INTERNAL.fullmatch(statement):
        rest = ", ".join(each for each in option[2].split(", ") if not each.startswith("pg_attver="))
        return (f"{option[1]}{rest});" if rest else None), None
    return statement, None


def has_internal_option(statement: str) -> bool:
    """Whether a statement sets an option that only the server which wrote it takes."""
    return INTERNAL.fullmatch(statement) is not None


def is_about(statement: str, notes: Iterable[Note]) -> bool:
    """Whether a statement is the comment on a policy that was left out."""
    return statement.startswith("COMMENT ON POLICY ") and any(
        note.policy and statement.startswith(f"COMMENT ON POLICY {note.policy} IS ") for note in notes
    )


def owner_of(statement: str) -> str | None:
    """The role that a statement makes an owner, or None when it makes none."""
    match = OWNER.fullmatch(statement) or SESSION.fullmatch(statement)
    return unquoted(match[1]) if match and match[1] != "DEFAULT" else None


def unquoted(name: str) -> str:
    """A role's name as pg_roles has it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def sentences(notes: Collection[Note], user: str) -> list[str]:
    """A sentence for each kind of note.

    Args:
        notes: what `rewritten` returned for the statements of one dump.
        user: the role that restores, to which falls what absent roles owned.
    """
    roles = {kind: _shown(notes, kind) for kind in ("owner", "grant", "kept", "policy")}
    grants = counted(sum(note.kind == "grant" for note in notes), "grant", "were", "was")
    said = {
        "owner": f"{MAPPED}, {roles['owner']}: what was theirs is {user}'s now",
        "grant": f"{MAPPED}, {roles['grant']}: {grants} left out",
        "kept": f"{user} is no superuser, and what was {roles['kept']}'s is {user}'s now too",
        "policy": f"{MAPPED}, {roles['policy']}: policies are not for them, those for them alone left out",
    }
    return [sentence for kind, sentence in said.items() if roles[kind]]


def _grantees(statement: str) -> set[str]:
    """The roles that a statement grants to, takes from, or speaks for."""
    matches = GRANTEE.fullmatch(statement), FOR_ROLE.match(statement)
    return {unquoted(match[1]) for match in matches if match} - {"PUBLIC"}


def _shown(notes: Collection[Note], kind: str) -> str:
    """The roles with commas between; bytes that are no UTF-8 are shown as question marks."""
    names = set[str]().union(*(note.roles for note in notes if note.kind == kind))
    return ", ".join(sorted(names)).encode(errors="surrogateescape").decode(errors="replace")
