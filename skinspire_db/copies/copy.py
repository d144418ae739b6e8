"""Copying one environment's database over another's: aside, compared, swapped in; the source is only read."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import fingerprint
from skinspire_db.catalog.fingerprint import Fingerprint
from skinspire_db.config import content, environment
from skinspire_db.config.environment import Environment
from skinspire_db.content import files
from skinspire_db.copies import copied_tables, own_roles, streaming, template
from skinspire_db.copies.masking import definitions, masking
from skinspire_db.copies.masking.masking import MaskedStream, Masking
from skinspire_db.copies.one_hospital import OneHospital
from skinspire_db.errors import DatabaseMissing, GuardRefused, StepFailed, UsageError
from skinspire_db.lifecycle import guard, stamp
from skinspire_db.lifecycle.operation import Running
from skinspire_db.lifecycle.read_only import present
from skinspire_db.lifecycle.replacement import Replacement
from skinspire_db.postgres import connections, database_settings
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

METHODS = ("template", "stream")
# What a masked copy leaves out, and a copy of one hospital the first of, with the query for whether the source has any.
LEFT_OUT = (
    ("large objects, as nothing says whose they are", "SELECT EXISTS (SELECT FROM pg_largeobject_metadata)"),
    ("user mappings, as they hold passwords", "SELECT EXISTS (SELECT FROM pg_user_mappings)"),
    (
        "subscriptions, as they bring rows that are not masked",
        "SELECT count(*) > 0 FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE datname = current_database()",
    ),
)


@dataclass(frozen=True)
class Choice:
    """What was asked for; `method` is None where the tool chooses, `masking` for rows as they are, the others for all."""

    method: str | None
    schema_only: bool
    tables: tuple[str, ...]
    jobs: int
    hospital: str | None
    masking: Masking | None = None

    @property
    def whole(self) -> bool:
        """Whether all rows are copied."""
        return not self.schema_only and not self.tables and self.hospital is None

    @property
    def exact(self) -> bool:
        """Whether everything is copied as it is."""
        return self.whole and not self.masking


def copy(
    source_name: str | None,
    target: Environment,
    *,
    method: str | None = None,
    schema_only: bool = False,
    tables: str | None = None,
    jobs: str | int = 2,
    hospital: str | None = None,
    masked: bool = False,
    secret_env: str | None = None,
) -> Replacement:
    """Make the target's database an exact copy of the source's, or one of it in which every value that is not declared safe
    is masked.

    Args:
        source_name: the environment that is copied; it is only read.
        target: the environment whose database is replaced.
        method: "template" (one server, no other session in the source) or "stream"; by default the faster possible one.
        schema_only: copy no rows.
        tables: names with commas between: copy only rows of these tables, and of those that they need through foreign keys.
        jobs: how many tables are copied at once.
        hospital: the id of a hospital: copy only its rows, those of the whole system, and those that these need.
        masked: mask the rows; then the source may be protected, and its database must be confirmed.
        secret_env: the variable with the secret that keeps pseudonyms the same from copy to copy; None for a new secret.

    Returns:
        The operation, to be run.

    Raises:
        UsageError: the arguments do not go together, or name what does not exist.
        GuardRefused: the target is protected, or the source and the rows are not masked: they are patients' data.
    """
    if source_name is None:
        raise UsageError("db.copy needs a source", remedy=f"invoke db.copy --source=test --target={target.name}")
    source = environment.resolve(source_name, "--source")
    if method is not None and method not in METHODS:
        raise UsageError(f"there is no method {method}", remedy=f"--method={' or --method='.join(METHODS)}")
    if source.name == target.name:
        raise UsageError(f"source and target are both {source.name}", remedy="name two environments")
    if target.policy.protected:
        raise GuardRefused(
            f"{target.name} is protected: nothing is copied over it",
            remedy=f"invoke backup.list --env={target.name} shows what can be restored to it",
        )
    if source.policy.protected and not masked:
        raise GuardRefused(
            f"{source.name} is protected: what it holds is patients' data, and never copied to another environment as it is",
            remedy=f"invoke db.copy --source={source.name} --target={target.name} --masked",
        )
    if schema_only and tables:
        raise UsageError("--schema-only copies no rows, --tables those of some tables", remedy="give one of the two")
    if schema_only and hospital is not None:
        raise UsageError("--schema-only copies no rows, --hospital those of a hospital", remedy="give one of the two")
    named = tuple(each.strip() for each in (tables or "").split(",") if each.strip())
    if tables is not None and not named:
        raise UsageError("--tables names no table", remedy="name some, as --tables=patients,staff, or leave it out")
    if secret_env is not None and not masked:
        raise UsageError("--secret-env is for a masked copy", remedy="add --masked, or leave --secret-env out")
    mask = Masking.of(source.project, secret_env) if masked else None
    choice = Choice(method, schema_only, named, number_of_jobs(jobs), hospital, mask)
    if method == "template" and not choice.exact:
        raise UsageError("a template is copied whole and as it is", remedy="--method=stream, or leave --method out")
    look = partial(_source, source, choice)
    work = partial(own_roles.settled, target, partial(_build, source, choice))
    return Replacement("db.copy", target, work, ("source", "copy", "compare"), look=look)


def number_of_jobs(jobs: str | int) -> int:
    """The number of jobs that a user gave.

    Raises:
        UsageError: it is no number from 1 to 64.
    """
    if not str(jobs).isdecimal() or not 1 <= int(jobs) <= 64:
        raise UsageError(f"--jobs={jobs} is no number from 1 to 64", remedy="leave --jobs out")
    return int(jobs)


def _build(source: Environment, choice: Choice, running: Running) -> Target:
    start, connection, size, method = _source(source, choice, running)
    if method == "template":
        connection.close()
        return template.made(running, start, size, choice.jobs)[0]
    return stream(running, source, start, connection, choice)[0]


def _source(source: Environment, choice: Choice, running: Running) -> tuple[Target, Connection, int, str]:
    """Where the source is, a connection to it, its size in bytes, and the method; nothing is changed."""
    searched: dict[str, int] = {}
    with running.step("source") as summary:
        try:
            start = present(source)
            connection = running.stack.enter_context(contextlib.closing(connections.connect(start, running.operation)))
        except DatabaseMissing as error:
            error.remedy = f"invoke db.setup --env={source.name}"
            raise
        connections.require_direct(start, running.operation, writes=False)
        connections.begin(connection, start.policy, brief=True)
        stamp.identify(connection, start)
        if choice.masking:
            guard.require_source(running.operation, start, running.target, running.confirm)
            searched = {"columns_searched_for": len(choice.masking.plan(connection, start).sought)}
        near = _same_server(connection, running.target)
        size = _look(connection, start, running, near)
        why = template.why_not(connection, near) if choice.exact else "not all of it is copied as it is"
        method = choice.method or ("stream" if why else "template")
        if choice.method == "template" and why:
            raise UsageError(f"{start} cannot be a template: {why}", remedy="--method=stream, or leave --method out")
        summary.numbers = {"database": start.database, "MB": round(size / 1e6), "method": method}
        summary.numbers |= searched
        if choice.hospital is not None:
            _one_hospital(connection, choice.hospital, source).refuse_crossings(connection)
            summary.numbers["hospital"] = choice.hospital
        connection.rollback()
    return start, connection, size, method


def beside(running: Running, source: Environment, start: Target) -> tuple[Target, fingerprint.Fingerprint]:
    """An exact copy of a database of the target's server, the target's own too: by template, or where sessions use it as a
    stream, which lets them work.

    Args:
        running: the operation.
        source: whose database it is.
        start: where it is.

    Returns:
        Where the copy is, a scratch database; and its fingerprint.

    Raises:
        DatabaseMissing: there is no such database.
        GuardRefused: it is another environment's.
        StepFailed: the disk has no room, or the copy is another one than the source.
    """
    connection = running.stack.enter_context(contextlib.closing(connections.connect(start, running.operation)))
    with running.step("source") as summary:
        connections.require_direct(start, running.operation)
        connections.begin(connection, start.policy, brief=True)
        stamp.identify(connection, start)
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row
        template.need_room(running.target, int(row[0]))
        why = template.why_not(connection, True)
        summary.numbers = {"database": start.database, "MB": round(row[0] / 1e6), "method": "stream" if why else "template"}
        connection.rollback()
    if why:
        running.note(f"copied as a stream, which is slower than a template: {why}")
        return stream(running, source, start, connection, Choice(None, False, (), 2, None))
    connection.close()
    return template.made(running, start, int(row[0]))


def _look(connection: Connection, start: Target, running: Running, near: bool) -> int:
    """The source's size in bytes; `near` is whether it is on the target's server. Raises UsageError when it is the target
    itself, StepFailed when it would not fit.
    """
    row = connection.execute("SELECT pg_database_size(current_database()), current_database()").fetchone()
    assert row
    if near and row[1] == running.target.database:
        raise UsageError(f"source and target are both {start}", remedy="correct one of the two URLs")
    template.need_room(running.target, int(row[0]))
    return int(row[0])


def _same_server(connection: Connection, target: Target) -> bool:
    """Whether the target is on the server of this connection: the same cluster, started at the same moment."""
    query = "SELECT extract(epoch FROM pg_postmaster_start_time())::text, inet_server_port()"
    with contextlib.closing(connections.maintenance(target, "lookup")) as other:
        return connection.execute(query).fetchone() == other.execute(query).fetchone()


def stream(
    running: Running, source: Environment, start: Target, connection: Connection, choice: Choice
) -> tuple[Target, fingerprint.Fingerprint]:
    """Copy as a stream into a scratch database of the running operation's target, which is returned with its fingerprint;
    `start` is where the source is, and `connection` is connected to it.
    """
    sessions: fingerprint.Sessions = set()
    looks = running.stack.enter_context(fingerprint.meanwhile(sessions, workers=2))
    options: dict[str, Any] = {"operation": running.operation, "jobs": max(1, choice.jobs // 2), "watched": (sessions,)}
    masked, read_from = None, start
    searched: dict[str, Future[None]] = {}
    with running.step("copy") as summary:
        snapshot = copied_tables.hold(connection, start)
        wanted = copied_tables.tables(connection)
        if choice.schema_only or choice.tables:
            wanted = copied_tables.chosen(connection, wanted, choice.tables)
        alone = choice.hospital and _one_hospital(connection, choice.hospital, source)
        if alone:
            wanted = alone.reading(connection, wanted)
            if names := alone.untied:
                running.note(f"copied whole, as no foreign key ties them to a hospital: {', '.join(names)}")
        _note_left_out(connection, choice, running)
        if choice.masking:
            masked = MaskedStream.of(choice.masking, connection, start, wanted)
            wanted = copied_tables.redivided_by(connection, masked.wanted)
            read_from = choice.masking.read_through(start)
            gathered = looks.submit(masked.gather, start, snapshot, running.operation, sessions)
        # A row whose columns were read through expressions has another hash.
        options["counted"] = frozenset(table.quoted for table in wanted if table.reading.expressions)
        only = None if choice.exact else {table.quoted for table in wanted}
        where = {table.quoted: table.reading.where for table in wanted if table.reading.where}
        whole: dict[str, Any] = {
            "together": {table.quoted: table.root for table in wanted if table.root},
            "comments": not masked,
        }
        before = looks.submit(fingerprint.take, start, at=snapshot, only=only, where=where, **options, **whole)
        aside = running.scratch(locale=database_settings.locale(connection))
        patient = streaming.with_options(aside, "-c idle_session_timeout=0")
        witness = running.stack.enter_context(contextlib.closing(connections.connect(patient, running.operation)))
        present = _roles(connection, witness)
        # A look at a table can begin while its key is being made, which takes as long as it takes.
        patiently = replace(aside, policy=replace(aside.policy, lock_timeout=0))
        looked: list[Future[fingerprint.Rows]] = []

        def examine(dumped: str) -> None:
            assert masked
            gathered.result()
            definitions.refuse(connection, source.project, masked.search, dumped)

        stream = streaming.Stream(
            read_from, connection, snapshot, aside, witness.info.server_version, frozenset(present), choice.jobs,
            examine if masked else None,
        )  # fmt: skip

        def filled(names: set[str]) -> None:
            looked.append(looks.submit(fingerprint.rows, patiently, only=names, **options))
            if masked:
                tables = [table for table in wanted if table.quoted in names]
                share = looks.submit(masked.search.look, aside, running.operation, tables, sessions)
                searched.update(dict.fromkeys(names, share))

        sequences, notes = stream.run(wanted, running.report.transfer, filled, large_objects=choice.exact)
        for note in notes:
            running.note(note)
        if masked:
            sequences |= masking.follow_sequences(aside, masked.plan)
        template.copy_properties(start, aside, running, masked=masked is not None)
        summary.numbers = {"method": "stream", "tables": len(wanted), "jobs": choice.jobs}
        summary.numbers |= {"masked_columns": masked.columns} if masked else {}
    with running.step("compare") as summary:
        known = {name: row for each in looked for name, row in each.result().items()}
        after = fingerprint.take(aside, running.operation, only=only, counted=options["counted"], known=known, **whole)
        # Where roles were mapped or left out, owners and grants cannot be the same.
        of = ("tables", "sequences", "unowned") if notes else ("tables", "sequences", "definitions")
        expected = replace(before.result(), sequences=sequences)
        if masked:
            expected, after = (_without_subscriptions(each) for each in (expected, after))
        template.compare(expected, after, summary, of)
        if alone and not masked:  # masked keys of hospitals are other ones: there the number of rows is what is compared
            _refuse_strangers(alone, aside, running)
        # Rows were looked at before they were on disk. Neither server has died since, or this raises; now they are there.
        connection.rollback()
        connections.settle(witness)
        witness.close()
    if masked:
        with running.step("search") as summary:
            for share in searched.values():
                share.result()
            masked.settle(aside, start.environment, running.operation, set(searched), summary)
    return aside, after


def _without_subscriptions(taken: Fingerprint) -> Fingerprint:
    kept = {name: text for name, text in taken.definitions.items() if not name.startswith("object subscription ")}
    return replace(taken, definitions=kept)


def _one_hospital(connection: Connection, hospital: str, source: Environment) -> OneHospital:
    project, policy = source.project, source.policy
    declared = files.read(project, content.reference(project, core=False))
    return OneHospital.of(connection, hospital, {table.place for file in declared for table in file.tables(policy)})


def _refuse_strangers(alone: OneHospital, aside: Target, running: Running) -> None:
    with contextlib.closing(connections.connect(aside, running.operation)) as connection:
        connections.begin(connection, aside.policy, brief=True)
        if strangers := alone.strangers(connection):
            raise StepFailed(
                f"the copy holds rows of other hospitals: {', '.join(strangers)}", remedy="this is a fault of the tools"
            )


def _note_left_out(connection: Connection, choice: Choice, running: Running) -> None:
    if choice.masking or choice.hospital is not None:
        for what, there in LEFT_OUT if choice.masking else LEFT_OUT[:1]:
            if connection.execute(there.encode()).fetchone() == (True,):
                running.note(f"left out: {what}")


def _roles(connection: Connection, other: Connection) -> set[str]:
    """The roles of the target's server. Raises UsageError when it is older than the source's."""
    project, there = connection.info.server_version // 10_000, other.info.server_version // 10_000
    other.execute("SET statement_timeout = 0")  # whatever the role's own is; the connection stays for a look at the end
    present = {role for (role,) in other.execute("SELECT rolname FROM pg_roles").fetchall()}
    other.commit()
    if there < project:
        raise UsageError(
            f"the source is PostgreSQL {project}, the target {there}", remedy="copy to a server that is not older"
        )
    return present
