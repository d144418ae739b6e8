"""What the tests of db.inspect share."""

from __future__ import annotations

import re
from typing import Any

from conftest import Outcome, Project

FORMATS = ("table", "json", "markdown", "mermaid")


def inspect(project: Project, *arguments: str) -> Any:
    outcome = project.invoke("db.inspect", "--json", *arguments)
    assert outcome.code == 0, outcome.out + outcome.err
    return outcome.json


def harmless(outcome: Outcome) -> Outcome:
    """Nothing in it acts on a terminal."""
    found = re.findall(
        r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069]", outcome.out + outcome.err
    )
    assert not found, found
    return outcome
