"""One self-contained HTML file: template, style, script, the layout library, and the data."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from skinspire_db.errors import UsageError
from skinspire_db.page.contents import Contents

MARK = "<!-- a page of skinspire-db -->"
ASSETS = Path(__file__).with_name("assets")


def text(contents: Sequence[Contents]) -> str:
    """The page.

    The browser may load nothing, and may run only the two scripts whose hashes stand in the page. The data is compressed and
    in base64, so no name in it can be markup.

    Args:
        contents: the environment's; a second one is compared with it.
    """
    data = json.dumps([each.as_dict() for each in contents], default=str, ensure_ascii=False, separators=(",", ":"))
    packed = base64.b64encode(gzip.compress(data.encode("utf-8", "replace"), mtime=0)).decode()
    style, library, script = (_asset(name) for name in ("page.css", "dagre.min.js", "page.js"))
    sources = " ".join(_source(each) for each in (library, script))
    allowed = f"style-src {_source(style)}; script-src {sources}"
    values = {
        "MARK": MARK,
        "TITLE": html.escape(" and ".join(f"{each.database or 'unknown'} ({each.environment})" for each in contents)),
        "POLICY": f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'",
        "STYLE": style,
        "LICENSE": _asset("dagre.LICENSE.txt").partition("/*")[0],
        "LIBRARY": library,
        "SCRIPT": script,
        "DATA": packed,
    }
    page = _asset("page.html")
    parts = page.split("@@")
    return "".join(part if number % 2 == 0 else values[part] for number, part in enumerate(parts))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _source(inline: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"


def check_output(path: Path) -> None:
    """Refuse a file that is something else than a page, and a place where no file can be.

    Args:
        path: where the page is to be.

    Raises:
        UsageError: it would replace what is no page, or cannot be written.
    """
    another = "give another file: --output=schema.html"
    if path.is_dir():
        raise UsageError(f"{path} is a folder", remedy=f"give a file in it: --output={path / 'schema.html'}")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", remedy=another)
    if path.exists():
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                is_page = MARK in file.read(200)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}", remedy=another) from None
        if not is_page:
            raise UsageError(f"{path} is there, and is no page of db.page", remedy=another)


def write(path: Path, page: str) -> None:
    """Write the page; a former one stays whole until the new one is.

    Args:
        path: where.
        page: its text.

    Raises:
        UsageError: it cannot be written; nothing is left behind.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", remedy="give a file elsewhere: --output=FILE"
        ) from None


def opened(path: Path) -> bool:
    """Show the page in a browser; False where there is no screen or no browser.

    Args:
        path: the page.
    """
    has_screen = sys.platform in ("win32", "darwin") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return has_screen and webbrowser.open(path.as_uri())
