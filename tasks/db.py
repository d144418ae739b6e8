"""The database: set up, reset, create, seed, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from ._help import CONFIRM, ENV, JSON, task

if TYPE_CHECKING:
    from skinspire_db.steps import ReusableStep

SEED = {
    "patients": "how many patients to invent (default: seed.patients in invoke.yaml)",
    "doctors": "how many doctors to invent (default: seed.doctors in invoke.yaml)",
    "random-seed": "the same number gives the same people (default: seed.random_seed in invoke.yaml)",
    "reference-only": "reference data only, no invented people",
}


@task(help=ENV | SEED | CONFIRM | JSON)
def setup(
    ctx: Context,
    env: str | None = None,
    patients: str | None = None,
    doctors: str | None = None,
    random_seed: str | None = None,
    reference_only: bool = False,
    confirm: str | None = None,
    json: bool = False,
) -> None:
    """Make the database anew: reset, create, triggers, seed and verify, in one transaction."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    seed = _seed(patients, doctors, random_seed, reference_only)
    console.operate(ctx, env, lambda context: db.setup(context, seed), json=json, confirm=confirm)


@task(help=ENV | SEED | CONFIRM | JSON)
def prepare(
    ctx: Context,
    env: str | None = None,
    patients: str | None = None,
    doctors: str | None = None,
    random_seed: str | None = None,
    reference_only: bool = False,
    confirm: str | None = None,
    json: bool = False,
) -> None:
    """After every pull: make the database if there is none, else bring it up to date; never resets, never loses a row."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    seed = _seed(patients, doctors, random_seed, reference_only)
    console.operate(ctx, env, lambda context: db.prepare(context, seed), json=json, confirm=confirm)


@task(
    help=ENV
    | JSON
    | {
        "confirm": "the database's name: adopt it; without, only report",
        "reason": "why the differences are accepted, for the file of accepted differences",
    }
)
def adopt(
    ctx: Context, env: str | None = None, confirm: str | None = None, reason: str | None = None, json: bool = False
) -> None:
    """Report on a database that was there before the tools, and with --confirm take it under them, unchanged."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: db.adopt(context, confirm=confirm, reason=reason), json=json, confirm=confirm)


@task(help=ENV | CONFIRM | JSON)
def reset(ctx: Context, env: str | None = None, confirm: str | None = None, json: bool = False) -> None:
    """Drop everything that the application owns; the stamp and the database itself stay."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    console.operate(ctx, env, db.reset, json=json, confirm=confirm)


@task(help=ENV | JSON | {"update-only": "add the tables, columns, constraints and indexes that are missing"})
def create(ctx: Context, env: str | None = None, update_only: bool = False, json: bool = False) -> None:
    """Make the tables, or with --update-only add what is missing and leave every row alone."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    console.operate(ctx, env, db.create_missing if update_only else db.create, json=json)


@task(help=ENV | CONFIRM | JSON | {"pipeline": "one that pyproject.toml declares, in [tool.skinspire_db.pipelines]"})
def run(
    ctx: Context, env: str | None = None, pipeline: str | None = None, confirm: str | None = None, json: bool = False
) -> None:
    """Run a pipeline that the project declares, in one transaction and under the same guard."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: db.run(context, pipeline), json=json, confirm=confirm)


COPY = {
    "source": "the environment to copy; a protected one with --masked only (default: test)",
    "target": "the environment whose database is replaced (default: the active one; of db.copy alone, dev)",
    "method": "template or stream (default: the quicker one that can be had)",
    "schema-only": "all definitions, no rows",
    "tables": "rows of these tables only, with commas between, and of what they need through foreign keys",
    "hospital": "rows of this hospital only, by its id, and of the whole system",
    "jobs": "how many tables at once (default: copy.jobs in invoke.yaml)",
    "masked": "mask every value that no rule in sql/masks declares safe",
    "secret-env": "the variable with the secret that keeps pseudonyms the same from copy to copy (default: a new secret)",
    "confirm": "the source database's name: needed for a masked copy of a protected environment",
}


@task(help=COPY | JSON)
def copy(
    ctx: Context,
    source: str | None = None,
    target: str | None = None,
    method: str | None = None,
    schema_only: bool = False,
    tables: str | None = None,
    hospital: str | None = None,
    jobs: str | None = None,
    masked: bool = False,
    secret_env: str | None = None,
    confirm: str | None = None,
    json: bool = False,
) -> None:
    """Make one environment's database an exact copy of another's, or a masked one, built aside, compared, and swapped in."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    if source is None and target is None:  # whichever environment is active: what copy_test_to_dev did
        target = "dev"
    source = source or "test"

    options = {"method": method, "schema_only": schema_only, "tables": tables, "hospital": hospital}
    options |= {"jobs": jobs or ctx.config.copy.jobs, "masked": masked, "secret_env": secret_env}
    console.operate(
        ctx, target, lambda context: db.copy(context, source, **options), json=json, confirm=confirm, given_by="--target"
    )


@task(help=ENV | CONFIRM | JSON)
def undo(ctx: Context, env: str | None = None, confirm: str | None = None, json: bool = False) -> None:
    """Bring back the database that the last copy or restore replaced; the present one is kept for another undo."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    console.operate(ctx, env, db.undo, json=json, confirm=confirm)


@task(
    help=ENV | SEED | JSON | {"scenario": "test data by name: busy-clinic, new-hospital, edge-cases or one of the project's"}
)
def seed(
    ctx: Context,
    env: str | None = None,
    patients: str | None = None,
    doctors: str | None = None,
    random_seed: str | None = None,
    reference_only: bool = False,
    scenario: str | None = None,
    json: bool = False,
) -> None:
    """Apply the reference data, and invent people where test data is allowed."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    chosen = _seed(patients, doctors, random_seed, reference_only)(scenario=scenario)
    console.operate(ctx, env, lambda context: db.seed(context, chosen), json=json)


@task(help=ENV | JSON | {"verbose": "say for every check what was looked at"})
def verify(ctx: Context, env: str | None = None, verbose: bool = False, json: bool = False) -> None:
    """Check the database and change nothing; anything but pass is exit code 1."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    console.operate(ctx, env, db.verify, json=json, verbose=verbose)


@task(help=ENV | JSON | {"fail-on": "the level from which a finding is exit code 3: error, warning or info (default: error)"})
def advise(ctx: Context, env: str | None = None, fail_on: str = "error", json: bool = False) -> None:
    """Look for what will trouble the database: indexes, keys, policies, rights, settings; changes nothing."""
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: db.advise(context, fail_on), json=json)


@task(
    help=ENV
    | JSON
    | {
        "accept": "write the differences that are there into the file of accepted ones; nothing in the database changes",
        "forget": "drop the lines of that file whose difference this database has not got",
        "name": "with these: only of what is called so, a pattern with * and ?",
        "reason": "why they are accepted",
    }
)
def drift(
    ctx: Context,
    env: str | None = None,
    accept: bool = False,
    forget: bool = False,
    name: str | None = None,
    reason: str | None = None,
    json: bool = False,
) -> None:
    """Compare the models and trigger files with the database, everything; exit code 3 when anything differs."""
    from skinspire_db.migrations.acceptance import Acceptance
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    asked = Acceptance.parse(accept, forget, name, reason)
    console.operate(ctx, env, lambda context: db.drift(context, asked), json=json)


@task(
    help=ENV
    | JSON
    | {
        "table": "everything about one table or view, as NAME or SCHEMA.NAME",
        "schema": "only what is in this schema",
        "section": "only: tables, views, functions, triggers, sequences, extensions, roles, grants or activity",
        "format": "table, json, markdown or mermaid (default: table)",
        "exact": "count the rows, in place of PostgreSQL's estimates",
    }
)
def inspect(
    ctx: Context,
    env: str | None = None,
    table: str | None = None,
    schema: str | None = None,
    section: str | None = None,
    format: str | None = None,
    exact: bool = False,
    json: bool = False,
) -> None:
    """Show what the database holds; PostgreSQL itself keeps this read only."""
    from skinspire_db.config import environment
    from skinspire_db.inspection import overview
    from skinspire_db.terminal import console

    wanted = overview.Wanted.parse(table, schema, section, format, exact, json)
    console.show_inspection(overview.inspect(environment.resolve(env), wanted), wanted.format)


@task(
    help=ENV
    | JSON
    | {
        "output": "the file (default: DATABASE.html in the project's folder)",
        "compare": "another environment, to mark what differs",
        "open": "show it in a browser",
    }
)
def page(
    ctx: Context,
    env: str | None = None,
    output: str | None = None,
    compare: str | None = None,
    open: bool = False,
    json: bool = False,
) -> None:
    """Write one HTML file that shows the schema, its checks and its history; it needs no server and no network."""
    from pathlib import Path

    from skinspire_db.config import environment
    from skinspire_db.operations import page
    from skinspire_db.terminal import console

    beside = environment.resolve(compare, "--compare") if compare is not None else None
    path = Path(output) if output is not None else None
    console.operate(ctx, env, lambda context: page.page(context, path, beside, opens=open), json=json)


@task(help=ENV | JSON)
def doctor(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Find out why it does not work: link by link up to the first that is broken, and its remedy; starts nothing."""
    from skinspire_db.terminal import console

    console.diagnose(env, json=json, backups=Path(ctx.config.backup.folder))


@task(
    help=ENV
    | {"end": "end the session with this pid, and its transaction", "confirm": "the database's name: needed with --end"}
    | JSON
)
def activity(
    ctx: Context, env: str | None = None, end: str | None = None, confirm: str | None = None, json: bool = False
) -> None:
    """Show who is connected, what runs, and who blocks whom; with --end, end a session that others wait for."""
    from skinspire_db.config import environment
    from skinspire_db.inspection import activity
    from skinspire_db.operations import db
    from skinspire_db.terminal import console

    if end is not None:
        console.operate(ctx, env, lambda context: db.end_session(context, end), json=json, confirm=confirm)
        return
    console.show_inspection(activity.activity(environment.resolve(env)), "json" if json else "table")


@task(
    help=ENV | JSON | {"limit": "how many operations, the newest first", "operation": "the id of one, which is shown whole"}
)
def history(
    ctx: Context, env: str | None = None, limit: str = "20", operation: str | None = None, json: bool = False
) -> None:
    """Show which operations changed the database: who, when, how long, and what they did."""
    from skinspire_db.config import environment
    from skinspire_db.inspection import activity
    from skinspire_db.terminal import console

    console.show_inspection(activity.history(environment.resolve(env), limit, operation), "json" if json else "table")


@task(help=ENV | JSON | {"reveal": "with its password, on a terminal only"})
def url(ctx: Context, env: str | None = None, reveal: bool = False, json: bool = False) -> None:
    """Show the database's URL, its password hidden."""
    import sys

    from skinspire_db.config import environment
    from skinspire_db.terminal import console, psql

    chosen = environment.resolve(env)
    text = psql.url(chosen, reveal=reveal, terminal=sys.stdout.isatty())
    console.show_result("db.url", json=json, text=text, environment=chosen.name, url=text)


@task(help=ENV)
def shell(ctx: Context, env: str | None = None) -> None:
    """Open psql in the database; its prompt says which environment it is, in red for a protected one."""
    from skinspire_db.config import environment
    from skinspire_db.postgres.target import target_of
    from skinspire_db.terminal import console, psql

    chosen = environment.resolve(env)
    if ctx.config.run.dry:
        psql.prepare(chosen, terminal=False)
        console.say(f"would open psql in {target_of(chosen, start=False)}")
        return
    psql.shell(chosen)


def _seed(patients: str | None, doctors: str | None, random_seed: str | None, reference_only: bool) -> ReusableStep:
    """The step with what was typed; the rest are invoke.yaml's. A protected environment gets reference data unless people
    are asked for.
    """
    from skinspire_db import steps

    numbers = {"patients": patients, "doctors": doctors, "random_seed": random_seed}
    return steps.seed(**numbers, reference_only=reference_only or None)
