"""Functions that read side by side on one connection: what they ask at the same time goes in one message.

A far server is waited for once for each message. Each function has a thread, of which one runs at a time; when all of them
wait for an answer, their statements are sent together, and each gets its own. Where anything fails, they are run again one
after the other, so that what an error says, and what the others find, is as if each had been run alone.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from skinspire_db.postgres.sql_text import split

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

T = TypeVar("T")
NUMBERS = itertools.count()
STUCK_SECONDS = 30.0  # after which a function that neither asks nor ends is taken for one that waits for another


class _Ended(BaseException):
    """Ends a thread whose answer does not come."""


class _Stuck(Exception):
    """A function does not come back: it may wait for what another one holds, which waits for its turn."""


@dataclass
class Answer:
    """The results of one function's statements, with what functions use of a cursor."""

    results: list[tuple[str, int, list[tuple[Any, ...]] | None]]  # what the server says, how many rows, and the rows
    at: int = 0
    read: int = 0

    @property
    def description(self) -> object:
        """Something where the statement has rows, None where it has not."""
        return self.results[self.at][2]

    @property
    def statusmessage(self) -> str:
        """What the server says of the statement, such as "SELECT 1"."""
        return self.results[self.at][0]

    @property
    def rowcount(self) -> int:
        """How many rows the statement was about."""
        return self.results[self.at][1]

    def nextset(self) -> bool | None:
        """Go on to the next statement's result."""
        if self.at + 1 == len(self.results):
            return None
        self.at, self.read = self.at + 1, 0
        return True

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that are left."""
        rows = (self.results[self.at][2] or [])[self.read :]
        self.read += len(rows)
        return rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row."""
        rows = self.results[self.at][2] or []
        self.read += 1
        return rows[self.read - 1] if self.read <= len(rows) else None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchall())


@dataclass
class Reader:
    """The connection as one of the functions has it. Whatever is no plain statement goes to the connection itself.

    Attributes:
        alone: Within how many blocks the function changes the session's state: what it asks then is sent at once.
    """

    _connection: Connection
    _work: Callable[[Connection], Any]
    alone: int = 0
    asked: str = ""
    answer: Answer | None = None
    result: Any = None
    failed: BaseException | None = None
    started: bool = False
    running: bool = False
    done: bool = False
    _turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _back: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: Any, parameters: Any = None, **options: Any) -> Any:
        """As the connection's own; the answer comes with those of the others."""
        import psycopg
        from psycopg.sql import Composable

        if self.alone or options:
            return self._connection.execute(query, parameters, **options)
        if isinstance(query, Composable):
            query = query.as_bytes(self._connection)
        if parameters is not None:
            query = psycopg.ClientCursor(self._connection).mogrify(query, parameters)
        self.asked, self.answer = query.decode() if isinstance(query, bytes) else query, None
        self._back.release()
        self._turn.acquire()
        if self.answer is None:
            raise _Ended
        return self.answer

    @contextlib.contextmanager
    def transaction(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        """As the connection's own, alone."""
        with alone(self), self._connection.transaction(*arguments, **options) as transaction:
            yield transaction

    def start(self) -> None:
        """Run the function until it asks something, or ends."""
        self.started = True
        threading.Thread(target=self._run, daemon=True).start()
        self.go_on()

    def go_on(self, *, patient: bool = False) -> None:
        """Let it run on, with its answer or, where there is none, to its end.

        Args:
            patient: wait for it without end.

        Raises:
            _Stuck: it runs for long, and not in the server.
        """
        import psycopg

        self.running = True
        self._turn.release()
        while not self._back.acquire(timeout=None if patient else STUCK_SECONDS):
            if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
                raise _Stuck
        self.running = False

    def end(self) -> None:
        """End the function where it still waits for an answer."""
        while self.started and not self.done:
            self.answer = None
            self.go_on(patient=True)

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self.result = self._work(cast("Connection", self))
        except BaseException as error:  # of any kind: all is run again
            self.failed = error
        self.done = True
        self._back.release()


@contextlib.contextmanager
def alone(connection: object) -> Iterator[None]:
    """What is asked in the block of a function that runs beside others is sent at once: it changes the session's state."""
    if not isinstance(connection, Reader):
        yield
        return
    connection.alone += 1
    try:
        yield
    finally:
        connection.alone -= 1


def is_beside(connection: object) -> bool:
    """Whether it is what a function that runs beside others has in place of a connection: it is run again where one fails."""
    return isinstance(connection, Reader)


def whole(connection: Connection) -> Connection:
    """The connection itself, for code that is not ours: what it asks is sent at once."""
    while isinstance(within := cast("object", connection), Reader):
        connection = within._connection
    return connection


def run(connection: Connection, *work: Callable[[Connection], T], savepoint: str = "") -> list[T]:
    """The results of functions that only read, in their order. What such a function runs so goes in the same messages.

    Args:
        connection: In a transaction.
        work: The functions; each gets what it is to ask in place of the connection.
        savepoint: The name of one that is set already, and stays; "" sets one.

    Raises:
        Exception: What the first of them raises that fails when it is run alone.
    """
    import psycopg

    readers = [Reader(connection, each) for each in work]
    within = cast("object", connection)
    inside = isinstance(within, Reader)
    idle = connection.autocommit and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    piped = connection.pgconn.pipeline_status  # in a pipeline nothing is waited for anyway
    if len(readers) < 2 or idle or piped or (isinstance(within, Reader) and within.alone):
        return [each(connection) for each in work]
    own = f"side_by_side_{next(NUMBERS)}"  # no other one's, to which an error would go back
    first = "" if inside or savepoint else f"SAVEPOINT {own}"
    try:
        for reader in readers:
            reader.start()
        while waiting := [reader for reader in readers if not reader.done]:
            _ask(connection, waiting, first)
            first = ""
            for reader in waiting:
                reader.go_on()
        failed = next((reader.failed for reader in readers if reader.failed), None)
    except (psycopg.Error, _Stuck) as error:
        if connection.closed or inside:
            raise
        failed = error
    except KeyboardInterrupt:
        connection.cancel_safe(timeout=5)  # a function may wait for an answer in its own thread
        raise
    finally:
        for reader in sorted(readers, key=lambda each: each.running):  # what they hold, one that is stuck may wait for
            reader.end()
    if failed is None:
        return [reader.result for reader in readers]
    if inside:
        raise failed
    if connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
        try:
            connection.execute(f"ROLLBACK TO SAVEPOINT {savepoint or own}".encode())
        except psycopg.errors.InvalidSavepointSpecification:  # no statement of the message was run: one is no SQL
            raise failed from None
    return [each(connection) for each in work]


def _ask(connection: Connection, waiting: Sequence[Reader], first: str) -> None:
    """Send what they ask in one message, after `first`, and give each its results: one for each of its statements."""
    counts = [sum(bool(each.strip()) for each in split(reader.asked, ";")) for reader in waiting]
    texts = [text for text in (first, *(reader.asked.rstrip(" \n;") for reader in waiting)) if text]
    cursor = connection.execute("\n; ".join(texts).encode())
    if first:
        cursor.nextset()
    for reader, count in zip(waiting, counts, strict=True):
        results = []
        for _ in range(count):
            rows = cursor.fetchall() if cursor.description is not None else None
            results.append((cursor.statusmessage or "", cursor.rowcount, rows))
            cursor.nextset()
        reader.answer = Answer(results)
