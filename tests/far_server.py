"""A proxy before a PostgreSQL that makes it as slow to reach as a far one, and counts round trips."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

DELAY = 0.025  # seconds in each direction: a round trip of 50 ms


class FarServer:
    """Takes connections on a port of its own, and hands everything on after a delay.

    Args:
        host: Where PostgreSQL is.
        port: Its port.
        delay: Seconds for which each direction holds what passes; 0 where only the count matters.

    Attributes:
        port: The proxy's own.
        connections: How many were opened.
        turns: What the client sent first in each round trip, connections of all commands in their order. A round trip begins
            with what is sent after an answer: statements that go together are one.
        moments: When each of them arrived, by time.monotonic().
    """

    def __init__(self, host: str, port: int, delay: float = DELAY) -> None:
        self._behind, self._delay = (host, port), delay
        self.port, self.connections = 0, 0
        self.turns: list[bytes] = []
        self.moments: list[float] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> FarServer:
        self._thread.start()
        self.port = self._wait_for(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._wait_for(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def statements(self) -> list[str]:
        """The turns as text, for a person who asks which statement a round trip was spent on."""
        return [" ".join(turn.decode("ascii", "replace").replace("\0", " ").split()) for turn in self.turns]

    def _wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        server, to_server = await asyncio.open_connection(*self._behind)
        answered = asyncio.Event()  # since the client last sent something
        answered.set()
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # the proxy may end before its connections
                await asyncio.gather(
                    self._pass(client, to_server, answered, True), self._pass(server, to_client, answered, False)
                )
        finally:
            to_client.close()
            to_server.close()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answered: asyncio.Event, asks: bool
    ) -> None:
        """Hand on what arrives, each piece after the delay, however many are under way."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, piece = await under_way.get()
                if (early := due - self._loop.time()) > 0:
                    await asyncio.sleep(early)
                if not piece:
                    break
                if not asks:
                    answered.set()
                sink.write(piece)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()

        delivery = asyncio.create_task(deliver())
        try:
            while piece := await source.read(1 << 16):
                if asks and answered.is_set() and not piece.startswith(b"X\0\0\0\4"):  # the farewell has no answer
                    answered.clear()
                    self.turns.append(piece)
                    self.moments.append(self._loop.time())
                under_way.put_nowait((self._loop.time() + self._delay, piece))
            under_way.put_nowait((self._loop.time() + self._delay, b""))
            await delivery
        finally:
            delivery.cancel()
