"""Regular expressions that are compiled when they are first used."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest

import skinspire_db
from skinspire_db import patterns


def test_it_is_compiled_at_its_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compile_ = re.compile

    def counted(text: str, flags: int) -> re.Pattern[str]:
        compiled.append(text)
        return compile_(text, flags)

    monkeypatch.setattr(re, "compile", counted)
    word = patterns.lazy_regex(r"[a-z]+", re.IGNORECASE)
    assert compiled == [] and word.pattern == "[a-z]+"
    assert word.fullmatch("Ab") and not word.fullmatch("1") and word.sub("x", "a1") == "x1"
    assert word.fullmatch("Ab") and len(compiled) == 2, "once for each method"


@pytest.mark.slow
def test_each_of_the_library_compiles() -> None:
    def found() -> Iterator[str]:
        for module in pkgutil.walk_packages(skinspire_db.__path__, "skinspire_db."):
            if not module.name.startswith(("skinspire_db.tasks", "skinspire_db.clinic.migrations")):
                for name, value in vars(importlib.import_module(module.name)).items():
                    for each in value.values() if isinstance(value, dict) else [value]:
                        if isinstance(each, patterns._LazyPattern):
                            yield f"{name} {each.flags}"

    assert len(list(found())) > 150
