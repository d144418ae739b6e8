"""Lines of a step and of a check, in the width of the terminal."""

from __future__ import annotations

import shutil

from skinspire_db.terminal.rendering import INDENT, folded, padded, width_of

NARROWEST, WIDEST = 80, 106  # columns of a step's line


def step_lines(name: str, text: str, seconds: float) -> list[str]:
    """A step's line in the terminal's width: what is too long goes on under itself, the seconds stay in their column.

    Args:
        name: the step's name.
        text: what it did, in numbers.
        seconds: its wall time.
    """
    width = max(NARROWEST, min(shutil.get_terminal_size((NARROWEST, 24)).columns, WIDEST)) - len("  1234.00 s")
    first, *more = wrapped(f"  {name:<10} ", text, width)
    return [f"{padded(first, width)}  {seconds:>7.2f} s", *more]


def wrapped(head: str, text: str, width: int | None = None) -> list[str]:
    """Head and text as lines that end before the width, the text under itself; a long word stays whole.

    Where a word is too long for the place beside the head, the text begins on the next line.

    Args:
        head: what the first line begins with.
        text: what goes on.
        width: the number of columns; None for the terminal's.
    """
    width = width or max(NARROWEST, shutil.get_terminal_size((NARROWEST, 24)).columns)
    under = " " * width_of(head)
    if head and max(map(width_of, text.split()), default=0) > max(20, width - len(under)):
        under = INDENT * 3
    lines = folded(text, max(20, width - len(under)))
    beside = lines.pop(0) if lines and len(under) == width_of(head) else ""
    return [f"{head}{beside}" if beside else head.rstrip(), *(f"{under}{line}" for line in lines)]
