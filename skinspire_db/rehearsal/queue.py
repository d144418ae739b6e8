"""The queue behind a table's lock: a reader in a long transaction, the revision behind it, and a session behind both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target
from skinspire_db.rehearsal.measure import ROWS, STOPS, Lock, Statement, listen, strongest

if TYPE_CHECKING:
    import sqlalchemy

    from skinspire_db.postgres.connections import Connection

BRIEF = 300  # milliseconds of lock_timeout while it is tried; the policy's own would only take longer
GRACE = 3000  # milliseconds more, after which the session behind gives up, and the revision is ended
WAITS = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = %s AND NOT granted)"
TIMEOUT = "SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'lock_timeout'"  # in milliseconds
READS, WRITES = "SELECT FROM {} LIMIT 0", "LOCK TABLE {} IN ROW EXCLUSIVE MODE"


@dataclass
class Wait:
    """What became of a revision that met a long transaction.

    Attributes:
        table: whose lock it waited for.
        sql: the statement.
        gave_up: it ended with lock_timeout, and let the others pass.
        waited: seconds that the session behind it waited meanwhile.
        says: what went wrong; "" for nothing.
    """

    table: str
    sql: str
    gave_up: bool = False
    waited: float = 0.0
    says: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return vars(self) | {"waited": round(self.waited, 3)}


class Queue:
    """Tries each statement that takes a lock behind a long transaction first, in a savepoint, and then lets it run.

    Args:
        connection: what the revision runs on.
        target: where that is, for two sessions more.
        expected: the statements as they were measured.
        longest: milliseconds of lock_timeout that the policy allows a revision.
    """

    def __init__(self, connection: Connection, target: Target, expected: list[Statement], longest: int) -> None:
        self.connection, self.longest = connection, longest
        self.waits: list[Wait] = []
        self._stopped: dict[str, str] = {}
        self._expected = list(expected)
        self._reader, self._behind = (connections.connect(target, "migrate.rehearse") for _ in range(2))
        connections.autocommit(self._behind)

    def close(self) -> None:
        """Close the two sessions."""
        self._reader.close()
        self._behind.close()

    def __call__(self, alchemist: sqlalchemy.Connection, _lost: list[str]) -> None:
        """Listen to the statements of a revision."""
        listen(alchemist, self.meet, lambda _sql: None)

    def meet(self, sql: str, attempt: Callable[[], object]) -> None:
        """Try what a statement, or a step, does behind a long transaction on each table whose lock it takes.

        Args:
            sql: its text as it was measured.
            attempt: does it.
        """
        number = next((number for number, each in enumerate(self._expected) if each.sql == sql), None)
        if number is not None:
            statement = self._expected.pop(number)
            locks = [each for each in strongest(statement.locks) if each.mode != ROWS]
            # What the transaction stops already, no other session can hold.
            new = [each for each in locks if self._stopped.get(each.table) not in (each.stops, STOPS["AccessExclusiveLock"])]
            self._stopped |= {each.table: each.stops for each in new}
            for lock in new:
                wait = self._try(lock, sql, attempt, BRIEF)
                if wait and wait.gave_up and not wait.waited:  # on a busy machine the session behind it can come too late
                    wait = self._try(lock, sql, attempt, 5 * BRIEF)
                self.waits += [wait] if wait else []

    def _try(self, lock: Lock, sql: str, attempt: Callable[[], object], brief: int) -> Wait | None:
        import psycopg

        wait = Wait(lock.table, sql)
        row = self.connection.execute(TIMEOUT.encode()).fetchone()
        if not 0 < (row[0] if row else 0) <= self.longest:
            wait.says = "the revision sets lock_timeout: it waits longer than the policy allows, and others behind it"
            return wait
        query = (READS if lock.mode == "AccessExclusiveLock" else WRITES).format(lock.table).encode()
        try:
            self._reader.execute(f"SET LOCAL search_path = public, pg_temp; SET LOCAL lock_timeout = {GRACE}".encode())
            self._reader.execute(query)
        except psycopg.errors.WrongObjectType:  # a sequence, for one: no session holds it in a transaction of this kind
            self._reader.rollback()
            return None
        except psycopg.Error as error:
            self._reader.rollback()
            wait.says = f"no session could hold {lock.table} before it: {type(error).__name__}"
            return wait
        self.connection.execute(f"SAVEPOINT queue; SET LOCAL lock_timeout = {brief}".encode())
        ended = threading.Event()
        behind = threading.Thread(target=self._stand_behind, args=(query, ended, wait), daemon=True)
        behind.start()
        try:
            attempt()
            wait.gave_up = True  # it did not need the lock this time
        except Exception as error:
            cause = getattr(error, "orig", error)
            wait.gave_up = isinstance(cause, psycopg.errors.LockNotAvailable) or "lock timeout" in str(error)
            wait.says = wait.says or ("" if wait.gave_up else f"it ended otherwise: {type(cause).__name__}")
        finally:
            self.connection.execute(b"ROLLBACK TO SAVEPOINT queue; RELEASE SAVEPOINT queue")
            self._reader.rollback()
            ended.set()
            behind.join(timeout=2 * GRACE / 1000)
        return wait

    def _stand_behind(self, query: bytes, ended: threading.Event, wait: Wait) -> None:
        """Be the session that comes after the revision, and end the revision where it makes it wait too long."""
        import psycopg

        pid = self.connection.info.backend_pid
        try:
            while not ended.is_set():
                if self._behind.execute(WAITS.encode(), (pid,)).fetchone() == (True,):
                    started = time.perf_counter()
                    try:
                        with self._behind.transaction():
                            most = f"SET LOCAL search_path = public, pg_temp; SET LOCAL lock_timeout = {BRIEF + GRACE}"
                            self._behind.execute(most.encode())
                            self._behind.execute(query)
                    except psycopg.errors.LockNotAvailable:
                        wait.says = "it does not give up: sessions behind it wait without end"
                        self._behind.execute("SELECT pg_catalog.pg_cancel_backend(%s)", (pid,))
                    wait.waited = time.perf_counter() - started
                    return
                time.sleep(0.01)
        except psycopg.Error as error:
            wait.says = f"the session behind it failed: {type(error).__name__}"
