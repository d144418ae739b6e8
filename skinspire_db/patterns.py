"""Regular expressions that are compiled when they are first used: a command uses a tenth of those that its modules define."""

from __future__ import annotations

import re
from typing import Any, AnyStr, Generic, cast


class _LazyPattern(Generic[AnyStr]):
    """Compiles itself at the first use of a method, and keeps the method, so that later uses cost what a Pattern's cost."""

    def __init__(self, pattern: AnyStr, flags: int) -> None:
        self.pattern: AnyStr = pattern
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        value = getattr(re.compile(self.pattern, self._flags), name)
        setattr(self, name, value)
        return value


def lazy_regex(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """What re.compile() gives, compiled when it is first used; an error in it is raised then.

    Args:
        pattern: the regular expression.
        flags: as re.compile() has them.
    """
    return cast("re.Pattern[AnyStr]", _LazyPattern(pattern, flags))
