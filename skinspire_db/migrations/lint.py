"""Lint of revisions: squawk's rules over their SQL, with remedies in Alembic's terms, losses, and files changed after use."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting, StepFailed
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.migrations import concurrent, losses, online, position, revisions, running
from skinspire_db.postgres import sql_text

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

    from skinspire_db.postgres.connections import Connection

TRANSACTION = "a revision is one transaction, with BEGIN and COMMIT around it, and leaves nothing behind when it fails"
TIMEOUTS = "every operation sets lock_timeout, and a revision may take its time"
TYPES = "the models choose the types"
OFF = {
    "transaction-nesting": TRANSACTION, "ban-uncommitted-transaction": TRANSACTION, "prefer-robust-stmts": TRANSACTION,
    "require-lock-timeout": TIMEOUTS, "require-statement-timeout": TIMEOUTS, "require-timeout-settings": TIMEOUTS,
    "ban-char-field": TYPES, "prefer-bigint-over-int": TYPES, "prefer-bigint-over-smallint": TYPES, "prefer-identity": TYPES,
    "require-enum-value-ordering": TYPES, "prefer-text-field": TYPES, "prefer-timestamptz": TYPES,
    "prefer-timestamp-tz": TYPES,
    "syntax-error": "PostgreSQL parses the revision when migrate.new tries it",
}  # fmt: skip
NOT_VALID = (
    "op.create_foreign_key or op.create_check_constraint with postgresql_not_valid=True, and in the next revision"
    " op.execute('ALTER TABLE ... VALIDATE CONSTRAINT ...')"
)
ONLINE = "in a revision of its own with concurrently = True, as invoke migrate.new --online writes it: {}"
FIRST = "deploy code that does not use the old name first"
WITHOUT = "deploy code that works without it first"  # for what is dropped
REMEDIES = {
    "require-concurrent-index-creation": ONLINE.format("op.create_index(..., postgresql_concurrently=True)"),
    "require-concurrent-index-deletion": ONLINE.format("op.drop_index(..., postgresql_concurrently=True)"),
    "ban-concurrent-index-creation-in-transaction": "write concurrently = True into the revision",
    "constraint-missing-not-valid": NOT_VALID,
    "adding-foreign-key-constraint": NOT_VALID,
    "adding-not-nullable-field": "first op.create_check_constraint(..., 'c IS NOT NULL', postgresql_not_valid=True) and its"
    " VALIDATE, then op.alter_column(..., nullable=False) in the next revision",
    "adding-required-field": "op.add_column with server_default, or nullable, filled by op.execute before it is NOT NULL",
    "adding-field-with-default": "op.add_column without the default, op.alter_column(..., server_default=...), then fill it",
    "changing-column-type": "op.add_column of the new type, filled by op.execute; op.drop_column of the old one in a later"
    " revision; none of it for a small table",
    "disallowed-unique-constraint": "a unique index made CONCURRENTLY in the revision before, and op.execute('ALTER TABLE"
    " ... ADD CONSTRAINT ... UNIQUE USING INDEX ...')",
    "renaming-column": f"op.add_column beside the old one, and op.drop_column in a later revision; or {FIRST}",
    "renaming-table": FIRST,
    "ban-drop-not-null": "deploy code that takes NULL first",
    "ban-drop-database": "a revision is about its own database: take it out",
    "require-concurrent-reindex": "run it CONCURRENTLY by hand",
}  # fmt: skip
# What is no risk where an earlier revision, or the database, has a validated CHECK for it.
PROVED = ("adding-not-nullable-field", "ban-drop-constraint")
# The file of each revision as it was applied last.
APPLIED = """
    SELECT DISTINCT ON (1) split_part(step -> 'summary' ->> 'applied', ' ', 1), step ->> 'file_sha256'
    FROM skinspire_tools.journal CROSS JOIN LATERAL jsonb_array_elements(steps) AS step
    WHERE step ? 'file_sha256' ORDER BY 1, started_at DESC
"""


@dataclass(frozen=True)
class Finding:
    """What is risky about a revision.

    Attributes:
        file: the revision's, and the line in it.
        rule: squawk's name of the rule; "loss", "unknown" or "changed" for what squawk does not look at.
        says: what is risky.
        remedy: what to write instead.
    """

    file: str
    rule: str
    says: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.rule}: {self.says}" + (f" -> {self.remedy}" if self.remedy else "")


def program() -> str | None:
    """Where squawk is: beside this Python, or on PATH; None where it is not installed."""
    return shutil.which("squawk", path=sysconfig.get_path("scripts")) or shutil.which("squawk")


def require() -> None:
    """Make sure that squawk is there.

    Raises:
        InvalidSetting: it is not installed.
    """
    if program() is None:
        raise InvalidSetting("squawk is not installed", remedy="pip install 'skinspire-db[lint]'")


def look(connection: Connection, project: Project, files: ScriptDirectory) -> Summary:
    """The findings of the pending revisions, and of applied ones whose files have changed.

    Raises:
        MigrationInvalid: as `position.pending`.
        StepFailed: squawk fails.
    """
    pending = position.pending(connection, project, files, None)
    found = changed(connection, project, position.applied(connection, project, files)) + of(
        connection, project, files, pending
    )
    summary = Summary({"pending": len(pending), "findings": len(found)}, lines=[str(each) for each in found])
    summary.data = {"findings": [vars(each) for each in found]}
    if found:
        summary.drift = f"{counted(len(found), 'finding')}: {found[0].file}: {found[0].rule}"
        summary.remedy = "correct the revision, or leave the rule out: excluded_rules in .squawk.toml"
    return summary


def of_new(connection: Connection, project: Project, names: list[str]) -> list[Finding]:
    """The findings of revisions that were just written, but losses; none where squawk is not installed."""
    if program() is None:
        return []
    files = revisions.directory(project)
    scripts = [revisions.named(files, name) for name in names]
    return [each for each in of(connection, project, files, scripts) if each.rule != "loss"]


def of(connection: Connection, project: Project, files: ScriptDirectory, scripts: Iterable[Script]) -> list[Finding]:
    """What is risky about revisions that are not applied yet; squawk has to be there.

    Args:
        connection: the database, whose rows tell what would be lost.
        project: whose revisions.
        files: these, as Alembic sees them.
        scripts: those to look at.

    Raises:
        StepFailed: squawk fails.
    """
    found, earlier = [], ""
    for script in scripts:
        file, buffer = revisions.path(script, project), _Traced(script.path)
        text = running.statements(project, files, script, buffer)
        if text is None:
            found.append(Finding(file, "unknown", "it reads the database: its SQL is not known beforehand", ""))
            continue
        found += [Finding(file, "loss", each, "") for each in losses.of(connection, text) if ": 0 of " not in each]
        earlier += text
        version, apart = connection.info.server_version // 10_000, concurrent.is_concurrent(script)
        for each in _squawk(project, text, version, in_transaction=not apart):
            rule, says = each["rule_name"], each["message"]
            if rule in PROVED and online.is_proved(connection, earlier, _statement(text, each["line"], each["column"])):
                continue
            if rule == "changing-column-type":
                says = _rewrites(connection, text, each["line"], each["column"])
            if rule not in OFF and says:
                remedy = REMEDIES.get(rule) or each["help"] or (FIRST if rule.startswith("renaming") else WITHOUT)
                found.append(Finding(f"{file}:{buffer.lines.get(each['line'], 1)}", rule, says, remedy))
    return list(dict.fromkeys(found))


def _rewrites(connection: Connection, text: str, line: int, column: int) -> str:
    """What a change of a column's type means: squawk does not know the former type; "" where no row is touched."""
    changes = losses.retypes(connection, _statement(text, line, column))
    anew = [each for each in changes if each.using or losses.rewrites(each.old, each.new)]
    says = [f"{each.table}.{each.column}: {each.old} becomes {each.new}" for each in anew]
    return (
        f"{', '.join(says)}: the whole table is written anew, and no session reads it meanwhile"
        if says
        else ("" if changes else "the table may be written anew, and no session reads it meanwhile")
    )


def _statement(text: str, line: int, column: int) -> str:
    """The statement at a place, without comments; "" where the text ends before it."""
    place = sum(len(each) for each in text.encode().splitlines(keepends=True)[:line]) + column
    end = 0
    for statement in sql_text.split(text, ";"):
        end += len(statement.encode()) + 1
        if end > place:
            return sql_text.without_comments(statement)
    return ""


class _Traced(io.StringIO):
    """The SQL of a revision as it is written; `lines` tells from which line of the file each line of it comes."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.lines = path, dict[int, int]()

    def write(self, text: str) -> int:
        """Write the SQL, and note where the revision says so."""
        frame: Any = sys._getframe()
        while frame is not None and frame.f_code.co_filename != self.path:
            frame = frame.f_back
        first = self.getvalue().count("\n")
        if frame is not None:
            self.lines |= dict.fromkeys(range(first, first + text.count("\n") + 1), frame.f_lineno)
        return super().write(text)


def _squawk(project: Project, text: str, version: int, *, in_transaction: bool) -> list[dict[str, Any]]:
    """What squawk finds, by its rules and those of the project's .squawk.toml."""
    command = [program() or "squawk", "--reporter=json", f"--pg-version={version}"]
    command += ["--assume-in-transaction"] if in_transaction else []
    done = subprocess.run(
        [*command, "--stdin-filepath=revision.sql"], input=text.encode(), capture_output=True, timeout=60, cwd=project.root
    )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    except ValueError:
        found = []
    if done.returncode not in (0, 1) or (done.returncode and not found):
        says = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
        raise StepFailed(
            f"squawk ended with {done.returncode}: {says[:200]}", remedy="correct .squawk.toml, or update squawk"
        )
    return found


def changed(connection: Connection, project: Project, applied: Iterable[Script]) -> list[Finding]:
    """The revisions whose files are not those that were applied, as far as the journal knows."""
    if connection.execute("SELECT to_regclass('skinspire_tools.journal')").fetchone() == (None,):
        return []
    known = dict(connection.execute(APPLIED).fetchall())
    return [
        Finding(
            revisions.path(each, project),
            "changed",
            "its file is not the one that was applied",
            "restore it, and write a new revision",
        )
        for each in applied
        if known.get(each.revision, running.digest(each)) != running.digest(each)
    ]
