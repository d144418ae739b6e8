"""The operation of db.page: what the other commands answer, gathered and written into one HTML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from skinspire_db.config.environment import Environment
from skinspire_db.copies import retention
from skinspire_db.doctor import chain
from skinspire_db.errors import ChecksFailed, SkinspireError
from skinspire_db.inspection import activity
from skinspire_db.lifecycle.operation import Job, Operation, Running
from skinspire_db.lifecycle.result import counted
from skinspire_db.operations import db, mask, migrate, sql
from skinspire_db.page import contents, document
from skinspire_db.page.contents import Contents
from skinspire_db.postgres.target import target_of
from skinspire_db.steps import Context


def page(context: Context, output: Path | None = None, beside: Environment | None = None, *, opens: bool = False) -> Job:
    """Write one HTML file that shows the database: its schema, its checks, its migrations, SQL files, backups and journal.

    What cannot be looked at is named on the page as unknown, and the exit code is 3.

    Args:
        context: the environment, and the report.
        output: the file; by default DATABASE.html in the project's folder.
        beside: another environment, whose differences are marked.
        opens: a browser shows it.

    Raises:
        UsageError: the file is something else than a page, or cannot be written.
    """
    names = [context.environment, *([beside] if beside else [])]
    default = "-".join(target_of(each, start=False).database for each in names) + ".html"
    path = (context.project.root / (output or default)).absolute()
    document.check_output(path)

    def work(running: Running) -> None:
        with running.step("page") as summary:
            every = [_contents(Context(each)) for each in names]
            text = document.text(every)
            document.write(path, text)
            tables = len(every[0].parts.get("schema", {}).get("tables", ()))
            summary.numbers = {"tables_and_views": tables, "kB": len(text.encode()) // 1024}
            summary.data = {"file": str(path)}
            unknown = [(each.environment, part, why) for each in every for part, why in each.unknown.items()]
            if unknown:
                [(name, part, why), *_] = unknown
                summary.drift = f"{counted(len(unknown), 'part')} of the page not known, among them {part} of {name}: {why}"
                summary.remedy = f"invoke db.doctor --env={name}"
            if opens and not document.opened(path):
                running.note(f"no browser could be started: open {path} yourself")

    return Job(
        "db.page", context.environment, work, ("page",), keeps=False, writes=True, done=f"in {path}", needs_server=False
    )


def _contents(context: Context) -> Contents:
    """What the page shows of an environment: what each command answers with --json."""
    environment, project = context.environment, context.project
    found = Contents(environment.name, target_of(environment, start=False).database)

    def answer(part: str, make: Callable[[], Operation]) -> Any:
        try:
            return make().run().as_dict()[part]
        except SkinspireError as error:
            if part in error.result:  # it has looked, and found something
                return error.result[part]
            raise

    def diagnosis() -> Any:
        try:
            return [check.as_dict() for check in chain.diagnose(environment.name, chain.Listener()).checks]
        except ChecksFailed as error:
            return error.result["checks"]

    found.gather("schema", lambda: contents.schema(environment))
    found.gather("verify", lambda: answer("checks", lambda: db.verify(context)))
    found.gather("doctor", diagnosis)
    found.gather("drift", lambda: answer("drift", lambda: db.drift(context)))
    found.gather("advice", lambda: answer("findings", lambda: db.advise(context, "warning")))
    found.gather("sql_files", lambda: answer("objects", lambda: sql.status(environment)))
    found.gather("masks", lambda: answer("columns", lambda: mask.check(environment)))
    found.gather("backups", lambda: answer("backups", lambda: retention.listing(environment)))
    found.gather("journal", lambda: activity.history(environment, "500").sections["journal"])
    journal = found.parts.get("journal", [])
    found.gather(
        "migrations", lambda: contents.dated(project, answer("revisions", lambda: migrate.status(environment)), journal)
    )
    return found
