"""Lints of a database: each is one SQL file with a header, in sql/advice of the package or of the project."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from skinspire_db.catalog import objects
from skinspire_db.config.environment import Environment
from skinspire_db.config.project import Project
from skinspire_db.config.waivers import Waiver
from skinspire_db.errors import InvalidSetting, SqlFileInvalid, UsageError
from skinspire_db.lifecycle.remedies import in_shell
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.objects import files, tenant_roles, versions
from skinspire_db.postgres import search_path
from skinspire_db.postgres.error_text import sentence
from skinspire_db.postgres.target import target_of

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

Level = Literal["error", "warning", "info"]
LEVELS = get_args(Level)  # the worst first
FOLDER = "advice"
SHOWN = 10  # findings of a lint on a terminal
TEXTS = ("title", "why", "remedy", "manual")
# What a lint can read beside pg_catalog: the application's objects, by the one definition of what they are.
PROVIDED = f"""
    WITH relations AS (SELECT c.*, n.nspname AS schema FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                       WHERE {objects.RELATION} AND {objects.NOT_ALEMBICS}),
    functions AS (SELECT p.*, n.nspname AS schema FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                  WHERE {objects.FUNCTION}),
    schemas AS (SELECT n.* FROM pg_namespace n WHERE {objects.application("n.oid", "pg_namespace")})
    SELECT to_jsonb(lint) FROM (
{{}}
    ) AS lint
"""  # noqa: S608


@dataclass(frozen=True)
class Lint:
    """One lint. `needs` is an extension without which it is not applicable; `query` answers object, detail and remedy."""

    name: str
    path: Path
    level: Level
    title: str
    why: str
    remedy: str
    manual: str
    query: str = field(repr=False)
    needs: str = ""


@dataclass(frozen=True)
class Finding:
    """What a lint has found: an object, what is wrong with it, and the statement that mends it, where there is one."""

    lint: str
    level: Level
    object: str
    detail: str
    remedy: str | None = None
    waived: str = ""

    def as_dict(self) -> dict[str, str | None]:
        """The finding as `--json` shows it."""
        shown = {"lint": self.lint, "level": self.level, "object": self.object, "detail": self.detail, "remedy": self.remedy}
        return shown | ({"waived": self.waived} if self.waived else {})


@dataclass
class Answer:
    """What a lint answers: findings, or why it could not look, or why it is not applicable."""

    lint: Lint
    findings: list[Finding] = field(default_factory=list)
    unknown: str = ""
    idle: str = ""

    @property
    def open(self) -> list[Finding]:
        """The findings that no waiver covers."""
        return [each for each in self.findings if not each.waived]

    @property
    def status(self) -> str:
        """As checks have it; a lint that is not applicable has none."""
        return "unknown" if self.unknown else "fail" if self.open else "pass"


def level_of(typed: str) -> Level:
    """A level, as it was typed.

    Raises:
        UsageError: it is none.
    """
    for level in LEVELS:
        if typed == level:
            return level  # type: ignore[no-any-return]
    raise UsageError(f"--fail-on={typed} is none of {', '.join(LEVELS)}", remedy="invoke db.advise --fail-on=warning")


def lints(project: Project) -> list[Lint]:
    """The lints: the package's, then the project's, of which one with the same name counts in place of ours.

    Raises:
        SqlFileInvalid: a file is no lint; with file and line.
    """
    paths = {path.stem: path for folder in versions.folders(project) for path in files.paths(folder / FOLDER)}
    return sorted(map(_read, paths.values()), key=lambda lint: (LEVELS.index(lint.level), lint.name))


def _read(path: Path) -> Lint:
    text = files.read_text(path)
    given = files.header(path, text)
    for key, value in given.items():
        wanted = int if key == "limit" else str
        if key not in (*TEXTS, "level", "needs", "limit") or type(value) is not wanted:
            raise SqlFileInvalid(
                f"{path}:1: the header has {key} = {value!r}",
                remedy="its keys are level, title, why, remedy, manual, needs, limit",
            )
    if missing := [key for key in ("level", *TEXTS) if not given.get(key)]:
        raise SqlFileInvalid(f"{path}:1: the header needs {missing[0]}", remedy="correct the header")
    if given["level"] not in LEVELS:
        raise SqlFileInvalid(f"{path}:1: level is none of {', '.join(LEVELS)}", remedy="correct the header")
    files.refuse_transaction_control(path, text)
    query = files.HEADER.sub("", text, count=1).strip().removesuffix(";")
    query = query.replace("@limit@", str(given.pop("limit", 0)))
    return Lint(path.stem, path, query=query, **given)


def look(connection: Connection, environment: Environment, every: list[Lint]) -> list[Answer]:
    """Run every lint, back to a savepoint after each, so that one that breaks spoils no other.

    Args:
        connection: the database, in a transaction that only reads.
        environment: whose it is.
        every: the lints.

    Raises:
        psycopg.Error: the connection broke.
    """
    installed = dict(connection.execute(EXTENSIONS).fetchall())
    protected = "yes" if environment.policy.protected else "no"
    connection.execute(CONFIGURE, (_login(connection, environment), protected))
    return [_ask(connection, lint, installed) for lint in every]


EXTENSIONS = "SELECT extname, quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace"
CONFIGURE = "SELECT set_config('skinspire.login', %s, true), set_config('skinspire.protected', %s, true)"


def _login(connection: Connection, environment: Environment) -> str:
    """As which role the application works: with an admin URL the tools' connection is another role's."""
    roles = tenant_roles.of(environment)
    if roles and environment.embedded:  # the login is the tools' own role there, and each block takes the application's
        return roles.application
    return target_of(environment, start=False, application=True).user or str(connection.info.user)


def _ask(connection: Connection, lint: Lint, installed: dict[str, str]) -> Answer:
    import psycopg

    if lint.needs and lint.needs not in installed:
        return Answer(lint, idle=f"there is no extension {lint.needs}")
    query = PROVIDED.format(lint.query.replace("@extschema@", installed.get(lint.needs, "public")))
    connection.execute("SAVEPOINT advice")
    try:
        answered = [row for (row,) in search_path.rows(connection, query)]
        found = [
            Finding(lint.name, lint.level, str(each["object"]), str(each["detail"]), each.get("remedy")) for each in answered
        ]
        return Answer(lint, sorted(found, key=lambda each: each.object))
    except psycopg.Error as error:
        if connection.closed:
            raise  # there is no server left to ask
        return Answer(lint, unknown=f"could not look: {sentence(error)}")
    except KeyError as error:
        return Answer(lint, unknown=f"could not look: {lint.path.name} answers no column {error.args[0]}")
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK TO SAVEPOINT advice")


def waive(answers: list[Answer], waived: Iterable[Waiver], today: date) -> list[str]:
    """Mark the findings that waivers cover.

    Args:
        answers: what the lints have answered; it is changed.
        waived: the project's waivers.
        today: the day.

    Returns:
        Sentences about the waivers that count for nothing, or that nothing was found for.
    """
    says = []
    for waiver in waived:
        met = next(answer for answer in answers if answer.lint.name == waiver.lint)
        covered = [each for each in met.findings if waiver.covers(each.lint, each.object)]
        if fault := waiver.fault(today):
            says.append(fault)
        elif covered:
            reason = f"{waiver.reason} (until {waiver.until})"
            met.findings = [replace(each, waived=reason) if each in covered else each for each in met.findings]
        elif not met.unknown:
            says.append(f"{waiver} is not needed here: there is no such finding")
    return says


def require_lints(waived: Iterable[Waiver], every: list[Lint]) -> None:
    """Make sure that each waiver is for a lint that exists.

    Raises:
        InvalidSetting: one is not.
    """
    names = [lint.name for lint in every]
    for waiver in waived:
        if waiver.lint not in names:
            near = get_close_matches(waiver.lint, names, 1)
            raise InvalidSetting(
                f"{waiver} is for no lint: there is none of that name",
                remedy=f"write {near[0]}" if near else f"choose from {', '.join(sorted(names))}",
            )


def summary(answers: list[Answer], says: list[str], fail_on: Level) -> Summary:
    """What the lints have answered, for a reader and for `--json`.

    Args:
        answers: one of each lint, the waivers marked.
        says: sentences about the waivers.
        fail_on: a finding of this level, or a worse one, and a lint that could not look, are drift.
    """
    run = [each for each in answers if not each.idle]
    found = [finding for each in run for finding in each.open]
    waived = [finding for each in run for finding in each.findings if finding.waived]
    unknown = [each for each in run if each.unknown]
    numbers = {"lints": len(run), "findings": len(found), "waived": len(waived), "unknown": len(unknown)}
    checks = [{"name": each.lint.name, "status": each.status, "detail": _detail(each)} for each in run]
    data = {"checks": checks, "findings": [each.as_dict() for each in found], "waived": [each.as_dict() for each in waived]}
    lines = [
        f"{'unknown' if each.unknown else each.lint.level}: {each.lint.name}: {_detail(each)}"
        for each in run
        if each.status != "pass"
    ]
    lines += [f"note: {each.lint.name} is not applicable: {each.idle}" for each in answers if each.idle]
    rows: list[dict[str, object]] = [
        {"level": each.level, "object": each.object, "finding": f"{answer.lint.title}: {each.detail}"}
        for answer in run
        for each in answer.open[:SHOWN]
    ]
    done = Summary(dict(numbers), lines + [f"note: {each}" for each in says], rows=rows, data=data)
    worst = [each for each in found if LEVELS.index(each.level) <= LEVELS.index(fail_on)]
    if worst:
        lint = next(each.lint for each in run if each.lint.name == worst[0].lint)
        done.drift = f"{counted(len(worst), 'finding')}: {worst[0].object}: {lint.title}, {worst[0].detail}"
        done.remedy = in_shell(worst[0].remedy) if worst[0].remedy else lint.remedy
    elif unknown:
        done.drift = f"{counted(len(unknown), 'lint')} could not look: {unknown[0].lint.name}: {unknown[0].unknown}"
        done.remedy = "invoke db.doctor --env={env}"
    return done


def _detail(answer: Answer) -> str:
    lint, count = answer.lint, len(answer.open)
    if answer.unknown:
        return answer.unknown
    if not count:
        return f"none: {lint.title}"
    more = f" ({SHOWN} of them shown, --json has all)" if count > SHOWN else ""
    return f"{counted(count, 'finding')}{more}: {lint.why}; {lint.remedy}; see PostgreSQL's manual, {lint.manual}"
