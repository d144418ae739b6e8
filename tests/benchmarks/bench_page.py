"""The page of 2,000 tables in Debian's Chromium: its size, the first search, and a table with its neighbours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from .bench_inspect import TABLES, fill
from .harness import Figure, bench, medians

READY = """
    const done = arguments[arguments.length - 1];
    const look = () => document.documentElement.dataset.ready ? done(true) : setTimeout(look, 5);
    look();
"""
SEARCH = """
    const started = performance.now(), input = document.getElementById('search');
    input.value = 'patient';
    input.dispatchEvent(new Event('input'));
    document.getElementById('found').getBoundingClientRect();
    return (performance.now() - started) / 1000;
"""
NEIGHBOURS = """
    const done = arguments[arguments.length - 1], started = performance.now();
    location.hash = '#/table/hospitals/' + arguments[0];
    addEventListener('hashchange', () => {
        document.querySelector('.drawing').getBoundingClientRect();
        done((performance.now() - started) / 1000);
    }, { once: true });
"""


def bench_page() -> list[Figure]:
    """Each search in a page that has just been opened; neighbours one and three steps away, in turns."""
    with bench() as project:
        fill(project)
        project.invoke("db.page", "--output=page.html")
        path = project.root / "page.html"
        browser = _browser()
        try:
            searched = medians(lambda: _first_search(browser, path), rounds=7)[0]
            _open(browser, path)
            near, far = medians(
                lambda: float(browser.execute_async_script(NEIGHBOURS, 1)),
                lambda: float(browser.execute_async_script(NEIGHBOURS, 3)),
                rounds=7,
            )
        finally:
            browser.quit()
        size = path.stat().st_size / 1e6
    name = f"page of {TABLES:,} tables"
    return [
        Figure(f"{name}, size", size, "3 MB", 3, 1, "MB"),
        Figure(f"{name}, first search", searched, "a fixed second", 1, 1),
        Figure(f"{name}, neighbours of one with most", near, "a fixed half second", 0.5, 1),
        Figure(f"{name}, three steps", far, "a fixed half second", 0.5, 1),
    ]


def _browser() -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def _open(browser: Any, path: Path) -> None:
    browser.get("about:blank")
    browser.get(path.as_uri())
    browser.execute_async_script(READY)


def _first_search(browser: Any, path: Path) -> float:
    _open(browser, path)
    return float(browser.execute_script(SEARCH))
