"""Running SQL files: which functions and views each of them makes, in an order in which each finds what it needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skinspire_db.errors import NotOurs, SkinspireError, SqlFileInvalid
from skinspire_db.objects import dependents, function_schema, live, making_at_once
from skinspire_db.objects.dependents import Saved
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import POLICY, TRIGGER, VIEW
from skinspire_db.objects.ledger import Entry
from skinspire_db.objects.refusals import circle, missing_name, not_ours, refusal, together, two_makers
from skinspire_db.postgres import search_path
from skinspire_db.postgres.sql_text import split

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.postgres.connections import Connection

# SQLSTATE of what a file says that runs too early: a table or view, function, column, or other object does not exist yet.
TOO_EARLY = ("42P01", "42883", "42703", "42704", "3F000")
# Of what stands in the way of the file: other columns of a view, a materialized view, another return type, another kind of
# object, a dependent object, or CREATE without OR REPLACE.
IN_THE_WAY = ("42P16", "42P07", "42P13", "42723", "42809", "42710", "2BP01")


class _Waits(Exception):
    """A file has to run after another one; `because` is what PostgreSQL says."""

    def __init__(self, because: psycopg.Error) -> None:
        super().__init__(str(because))
        self.because = because


@dataclass
class Making:
    """The run of some files in the caller's transaction.

    Attributes:
        connection: Where.
        entries: What the ledger has.
        keeps_going: A file that cannot be used is noted in `refused`, and the others are made.
        made: The objects of each file that is made or was right already: their names and what the ledger is to keep.
        former: The fingerprints of the ledger's objects before.
        saved: What had to be dropped for a moment.
        refused: What is wrong with each file that cannot be used.
        definers: The views that read with their owner's rights.
        taken_over: The objects that were there before, made by no file, and are what a file says. They stay as they are.
    """

    connection: Connection
    entries: dict[str, Entry]
    keeps_going: bool = False
    made: dict[str, dict[str, str]] = field(default_factory=dict)
    former: dict[str, str] = field(default_factory=dict)
    saved: list[Saved] = field(default_factory=list)
    refused: dict[str, Exception] = field(default_factory=dict)
    taken_over: set[str] = field(default_factory=set)
    rows: live.Rows = field(default_factory=dict, repr=False)
    definers: set[str] = field(default_factory=set)

    def make(self, files: list[SqlFile]) -> None:
        """Run the files whose objects are not what they say. One that needs what another makes runs after it.

        Raises:
            SqlFileInvalid: PostgreSQL refuses a file, with the line; files need each other in a circle; two make one object.
            NotOurs: An object of that name exists that no file made and that is another, or something else depends on one
                that would have to be dropped.
        """
        function_schema.make(self.connection, files)
        ledger = {key for entry in self.entries.values() for key in entry.functions}
        self.former = live.fingerprints(self.connection, ledger)
        if any(file.kind is VIEW for file in files):
            self.definers = live.definers(self.connection)
        waiting = [file for file in files if not self._is_right(file)]
        if not self.keeps_going and making_at_once.make(self, waiting):
            return
        clashes: list[NotOurs] = []
        rounds = 2 * len(files) + 2  # each round makes one file at least, and a file is dropped again once at most
        while waiting and rounds:
            rounds -= 1
            waits: dict[str, psycopg.Error] = {}
            for file in waiting:
                try:
                    self._make(file)
                except _Waits as too_early:
                    waits[file.name] = too_early.because
                except SkinspireError as refused:
                    if isinstance(refused, NotOurs):
                        clashes.append(refused)
                    elif not self.keeps_going:
                        raise
                    self.refused[file.name] = refused
            again = [file for file in files if file.name not in self.made | waits | self.refused]
            if len(waits) == len(waiting) and not again and (self.keeps_going or not clashes):
                self._refuse_early(waiting, waits)
            waiting = [file for file in waiting if file.name in waits and file.name not in self.refused] + again
        if clashes and not self.keeps_going:
            raise together(clashes)

    def count(self, kind: str) -> int:
        """How many objects of a kind, function or view, are not what they were before."""
        return sum(
            not live.same({key: fingerprint}, {key: self.former.get(key, "")})
            for objects in self.made.values()
            for key, fingerprint in objects.items()
            if live.split(key)[0].endswith(kind) and key not in self.taken_over
        )

    def _is_right(self, file: SqlFile) -> bool:
        if file.kind is POLICY:  # made table by table, when all else is there
            self.made[file.name] = {}
            return True
        entry = self.entries.get(file.name)
        if entry is None or entry.sha256 != file.sha256 or self._is_secured_wrongly(file, entry):
            return False
        now = {key: self.former[key] for key in entry.functions if key in self.former}
        if not live.same(entry.functions, now):
            return False
        self.made[file.name] = entry.functions
        return True

    def _is_secured_wrongly(self, file: SqlFile, entry: Entry) -> bool:
        """Whether a view reads with its owner's rights under tenancy, or with its reader's after that was turned off."""
        if file.secures_views:
            return bool(self.definers & entry.functions.keys())
        views = {key for key in entry.functions if key.startswith("view ")} if file.kind is VIEW else set()
        return bool(views - self.definers) and "security_invoker" not in file.text.lower()

    def _make(self, file: SqlFile) -> None:
        """Run one file; first as it stands, then with what is in its way dropped."""
        import psycopg

        existing = self.existing(file)
        # A materialized view has no OR REPLACE, and IF NOT EXISTS leaves one as it is; DROP loses grants and comments.
        anew = any(key.startswith("materialized view ") for key in existing) or (bool(existing) and file.drops)
        if not anew:
            former_rows = dict(self.rows)
            self.connection.execute(b"SAVEPOINT file")
            try:
                foreign = self._run(file, existing)
                if file.kind is not TRIGGER and foreign.keys() == self.made[file.name].keys():
                    self.connection.execute(b"ROLLBACK TO SAVEPOINT file")
                    self.rows = former_rows
                    self._take_over(file, foreign)
                elif file.kind is not TRIGGER:
                    self.taken_over |= foreign.keys()
                self.connection.execute(b"RELEASE SAVEPOINT file")
                return
            except psycopg.Error as error:
                if self.connection.closed:
                    raise
                self.connection.execute(b"ROLLBACK TO SAVEPOINT file; RELEASE SAVEPOINT file")
                if error.sqlstate in TOO_EARLY:
                    raise _Waits(error) from None
                if error.sqlstate in IN_THE_WAY and (namesakes := self._clashes(file)):
                    raise not_ours(file, namesakes) from None
                if error.sqlstate not in IN_THE_WAY or not existing:
                    raise refusal(file, error) from None
            except SkinspireError:
                self.connection.execute(b"ROLLBACK TO SAVEPOINT file; RELEASE SAVEPOINT file")
                raise
        self._replace(file, existing)

    def existing(self, file: SqlFile) -> list[str]:
        """The objects that the file made before, and the views that its statements name, where they exist."""
        entry = self.entries.get(file.name)
        relations = [name for kind, name, _ in file.creates() if kind == "view"]
        query = f"""
            SELECT {live.WORD} || ' ' || c.oid::regclass
            FROM unnest(%s::text[]) AS name JOIN pg_class c ON c.oid = to_regclass(name) WHERE c.relkind IN ('v', 'm')
        """  # noqa: S608
        found = [key for (key,) in search_path.rows(self.connection, query, (relations,))] if relations else []
        return list(dict.fromkeys([*live.fingerprints(self.connection, entry.functions if entry else ()), *found]))

    def namesakes(self, file: SqlFile) -> list[str]:
        """The functions that exist with a name that the file's statements have, whatever their arguments."""
        names = [name.rpartition(".")[2] for kind, name, _ in file.creates() if kind == "function"]
        wanted = [name.strip('"') if name.startswith('"') else name.lower() for name in names]
        query = """
            SELECT oid::regprocedure::text FROM pg_proc
            WHERE proname = ANY (%s) AND pronamespace <> 'pg_catalog'::regnamespace
        """
        return [key for (key,) in search_path.rows(self.connection, query, (wanted,))] if wanted else []

    def are_own(self, signatures: list[str]) -> bool:
        """Whether these functions of triggers are the role's own, and find nothing of their callers'."""
        return not any(others or unsafe for _, others, unsafe in _owners(self.connection, signatures))

    def _clashes(self, file: SqlFile) -> list[str]:
        """The functions that no file made and that a trigger file would replace, found by its statements one by one."""
        import psycopg

        if file.kind is not TRIGGER:
            return []
        query = """
            SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname = %s AND p.proname = ANY (%s)
        """
        names = [name.rpartition(".")[2].strip('"') for _, name, _ in file.creates()]
        there = search_path.rows(self.connection, query, (file.functions.name, names))
        before = live.recorded(self.connection, {key for (key,) in there} - self.ours())
        found: set[str] = set()
        self.connection.execute(b"SAVEPOINT clashes")
        for statement in split(file.text, ";"):
            try:
                with self.connection.transaction(), search_path.application(self.connection, file.functions.name):
                    self.connection.execute(statement.encode())
            except psycopg.Error as error:
                if self.connection.closed:
                    raise
                said = f"{error.diag.message_primary} {error.diag.message_detail} {error.diag.message_hint}"
                exact = {key for key in before if key in said}
                found |= exact or {key for key in before if key.partition("(")[0] in said}
        after = live.recorded(self.connection, before)
        self.connection.execute(b"ROLLBACK TO SAVEPOINT clashes; RELEASE SAVEPOINT clashes")
        return sorted(found | {key for key in before if not live.is_alike(before[key], after.get(key, ""))})

    def _replace(self, file: SqlFile, existing: list[str]) -> None:
        """Drop what is in the file's way, and all that depends on it, and run it; other files' objects are made again."""
        import psycopg

        ours = self.ours()
        for name, objects in self.made.items():
            if name != file.name and (twice := [key for key in existing if key in objects]):
                raise two_makers(file, twice[0], name)
        if foreign := [key for key in existing if key not in ours]:
            self._compare_and_take_over(file, existing, foreign)
            return
        self.connection.execute(b"SAVEPOINT replacement")
        try:
            start = dependents.addresses(self.connection, existing)
            saved = dependents.take_down(self.connection, start, ours, f"{file.path}:1: it has to be made anew")
            self.rows.clear()
            self._run(file, [])
        except psycopg.Error as error:
            if self.connection.closed:
                raise
            self.connection.execute(b"ROLLBACK TO SAVEPOINT replacement; RELEASE SAVEPOINT replacement")
            if error.sqlstate in TOO_EARLY:
                raise _Waits(error) from None
            raise refusal(file, error) from None
        except SkinspireError:
            self.connection.execute(b"ROLLBACK TO SAVEPOINT replacement; RELEASE SAVEPOINT replacement")
            raise
        self.connection.execute(b"RELEASE SAVEPOINT replacement")
        self.saved += [each for each in saved if each.key not in {other.key for other in self.saved}]
        for name, objects in list(self.made.items()):
            if name != file.name and objects.keys() & {each.key for each in saved}:
                del self.made[name]

    def _compare_and_take_over(self, file: SqlFile, existing: list[str], foreign: list[str]) -> None:
        """Take objects that no file made for the file's own where they are the same; else refuse. They stay as they are."""
        import psycopg

        every = [part for key in existing for part in dependents.parts(self.connection, key)]
        parts = [part for part in every if part.kind == "index"]
        before = live.recorded(self.connection, [*existing, *(part.about for part in parts)])
        former_rows = dict(self.rows)
        self.connection.execute(b"SAVEPOINT adoption")
        try:
            start = dependents.addresses(self.connection, existing)
            saved = dependents.take_down(self.connection, start, None, "")
            self.rows.clear()
            self._run(file, [])
            now = [part for key in existing for part in dependents.parts(self.connection, key)]
            for owner in (part for part in every if part.kind == "owner" and part not in now):
                with search_path.application(self.connection):  # the owner is compared, too, and stays who it is
                    self.connection.execute(owner.statement.encode())
            made = live.recorded(self.connection, self.made.pop(file.name))
            compared = [*foreign, *(part.about for part in parts if part.about in made)]
            if others := [key for key in compared if not live.is_alike(before.get(key, ""), made.get(key, ""))]:
                raise not_ours(file, others)
        except (psycopg.Error, SkinspireError) as error:
            if self.connection.closed:
                raise
            self.connection.execute(b"ROLLBACK TO SAVEPOINT adoption; RELEASE SAVEPOINT adoption")
            if isinstance(error, SkinspireError):
                raise
            if error.sqlstate in TOO_EARLY:
                raise _Waits(error) from None
            raise refusal(file, error) from None
        if made.keys() <= before.keys():
            self.connection.execute(b"ROLLBACK TO SAVEPOINT adoption")
            self.rows = former_rows
            self._take_over(file, {key: before[key] for key in made})
        else:  # the others are missing, and CREATE without OR REPLACE makes all or none
            self.made[file.name] = made
            self.saved += saved
        self.connection.execute(b"RELEASE SAVEPOINT adoption")

    def _take_over(self, file: SqlFile, objects: dict[str, str]) -> None:
        """Note objects that are there already as the file's, and leave them as they are."""
        self.made[file.name] = objects
        self.taken_over |= objects.keys()

    def ours(self) -> set[str]:
        """What files have made, before or now."""
        return dependents.of_entries(self.entries.values()) | {key for objects in self.made.values() for key in objects}

    def _run(self, file: SqlFile, existing: Iterable[str]) -> dict[str, str]:
        """Run the file, and note what it made.

        Returns:
            Those of the objects that were there before, made by no file and the same, with what the ledger is to keep.

        Raises:
            psycopg.Error: PostgreSQL refuses the file.
            SkinspireError: It has run, and made what it must not.
        """
        ours = self.ours()
        foreign = live.recorded(self.connection, {*existing, *self.namesakes(file)} - ours)
        transaction = _transaction(self.connection)
        before = dict(self.rows) or live.rows(self.connection)
        with search_path.application(self.connection, file.functions.name):
            self.connection.execute(file.text.encode())
        after = live.rows(self.connection)
        if _transaction(self.connection) != transaction:
            raise SqlFileInvalid(
                f"{file.path}:1: the file has ended the transaction, and what it did before stays",
                remedy=f"correct {file.path.name}",
            )
        written = [row.key for at, row in after.items() if at not in before or before[at].place != row.place]
        if file.secures_views and (views := sorted(live.definers(self.connection).intersection(written))):
            with search_path.application(self.connection):
                for key in views:
                    self.connection.execute(f"ALTER VIEW {live.split(key)[1]} SET (security_invoker = true)".encode())
            after = live.rows(self.connection)
        replaced: set[str] = set()
        for at, row in after.items():
            if at in before and before[at].text != row.text and live.is_function(row.key) and row.key not in ours:
                replaced.add(row.key)
        if file.kind is TRIGGER:
            if _own(self.connection, file, [key for key in written if live.is_function(key)]):
                after = live.rows(self.connection)
        elif not any(live.is_function(key) != (file.kind is VIEW) for key in written):
            raise SqlFileInvalid(f"{file.path}:1: it makes no {file.kind.word}", remedy=f"correct {file.path.name}")
        made = live.recorded(self.connection, written)
        same_names = sorted(replaced | {key for key in foreign.keys() & made.keys() if not live.is_function(key)})
        if others := [key for key in same_names if not live.is_alike(foreign.get(key, ""), made.get(key, ""))]:
            raise not_ours(file, others)
        self.rows.clear()
        self.rows.update(after)
        self.made[file.name] = made
        return {key: foreign[key] for key in made if key in foreign}

    def _refuse_early(self, waiting: list[SqlFile], waits: dict[str, psycopg.Error]) -> None:
        """Say what no file makes, or which files need each other."""
        makers = {name.rpartition(".")[2].strip('"'): file for file in waiting for _, name, _ in file.creates()}
        needs = {file.name: makers.get(missing_name(file, waits[file.name])) for file in waiting}
        for file in waiting:
            if needs[file.name] in (None, file) or self.keeps_going:
                error = refusal(file, waits[file.name])
                if not self.keeps_going:
                    raise error
                self.refused[file.name] = error
        if not self.keeps_going:
            raise circle(waiting[0], needs, waits)


def _transaction(connection: Connection) -> object:
    return connection.execute("SELECT pg_current_xact_id()::text").fetchone()


def _owners(connection: Connection, signatures: list[str]) -> list[tuple[str, bool, bool]]:
    """Each function: whether it is another role's, and whether it has its owner's rights and its caller's search path."""
    return search_path.rows(
        connection,
        """
        SELECT signature, pg_get_userbyid(p.proowner) <> current_user,
               p.prosecdef AND coalesce(p.proconfig, '{}')::text !~ 'search_path='
        FROM unnest(%s::text[]) AS signature JOIN pg_proc p ON p.oid = to_regprocedure(signature)
        """,
        (signatures,),
    )


def _own(connection: Connection, file: SqlFile, signatures: list[str]) -> bool:
    """Make sure that the functions of triggers are ours, and that one with its owner's rights finds nothing of its caller's.

    Returns:
        Whether one had another owner.
    """
    rows = _owners(connection, signatures)
    for signature, others, unsafe in rows:
        if unsafe:
            raise SqlFileInvalid(
                f"{file.path}:1: {signature} is SECURITY DEFINER without a search_path of its own",
                remedy="add SET search_path FROM CURRENT",
            )
        if others:
            with search_path.application(connection):
                connection.execute(f"ALTER ROUTINE {signature} OWNER TO CURRENT_USER".encode())  # regprocedure's own quoting
    return any(others for _, others, _ in rows)
