"""What only a terminal gets: the colours of states, and the line of a step that runs."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TextIO

from skinspire_db.patterns import lazy_regex

GREEN, YELLOW, RED, PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
COLOURS = {
    GREEN: ("pass", "INSTALLED", "distributed"),
    YELLOW: ("unknown", "warning", "OUTDATED", "DISABLED", "UNATTACHED", "NOT APPLICABLE"),
    RED: ("fail", "failed", "error", "DRIFTED", "MISSING", "ORPHANED", "NOT POSSIBLE"),
}
OF_STATE = {state: colour for colour, states in COLOURS.items() for state in states}
# A state stands alone in its column; within a sentence a word is a word.
STATE = lazy_regex(rf"(?<=  )({'|'.join(OF_STATE)})(?=  |:|\n|$)")
FRAMES = "|/-\\"
DELAY, EVERY = 0.5, 0.2  # seconds: a step that ends sooner is not shown as it runs


def is_lively(stream: TextIO) -> bool:
    """Whether lines may be overwritten there: on a terminal that is not dumb."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def is_coloured(stream: TextIO) -> bool:
    """Whether states are coloured there: https://no-color.org, and old consoles of Windows show the codes themselves."""
    able = sys.platform != "win32" or bool({"WT_SESSION", "ANSICON", "TERM"} & os.environ.keys())
    return is_lively(stream) and able and not os.environ.get("NO_COLOR")


def coloured(text: str) -> str:
    """The text with its states coloured.

    Args:
        text: lines for a terminal, harmless already.
    """
    return STATE.sub(lambda found: f"{OF_STATE[found[0]]}{found[0]}{PLAIN}", text)


class Activity:
    """The line of a step that runs: its name, and for how long. It stands on stderr, and is gone when the step ends."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name, self._stream, self._width = name, stream, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def _show(self) -> None:
        started, number = time.monotonic(), 0
        wait = DELAY
        with contextlib.suppress(OSError, ValueError):  # the terminal has gone away
            while not self._over.wait(wait):
                line = f"  {self._name:<10} {FRAMES[number % len(FRAMES)]} {time.monotonic() - started:.0f} s"
                self._width = len(line)
                self._stream.write(f"\r{line}")
                self._stream.flush()
                number, wait = number + 1, EVERY

    def end(self) -> None:
        """Take the line away."""
        self._over.set()
        self._thread.join()
        if self._width:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write("\r" + " " * self._width + "\r")
                self._stream.flush()
