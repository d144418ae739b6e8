"""The page in Debian's Chromium: search, neighbours, keyboard, axe, hostile names, and 2,000 tables."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from test_page import HOSTILE

DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DRIVER is None, reason="Chromium and its driver are not installed: apt-get install chromium-driver"),
]
SCREENSHOTS = os.environ.get("PAGE_SCREENSHOTS")  # a folder: each view is kept there as a picture
READY = """
    const done = arguments[arguments.length - 1];
    const look = () => document.documentElement.dataset.ready ? requestAnimationFrame(() => done(true)) : setTimeout(look, 10);
    look();
"""
MANY = """
    DO $$ BEGIN FOR i IN 1..2000 LOOP
        EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, parent_id int %s, name varchar(100) NOT NULL, amount numeric(10,2),
            created_at timestamptz DEFAULT now(), status text CHECK (status IN (''new'', ''done'')), note text, code text, extra jsonb,
            hospital_id uuid, is_active boolean DEFAULT true, updated_at timestamptz)',
            'group' || i % 8 || '_item_' || i, CASE WHEN i > 8 THEN format('REFERENCES %I', 'group' || (i - 8) % 8 || '_item_' || i - 8) END);
        IF i % 250 = 0 THEN COMMIT; END IF;
    END LOOP; END $$
"""


class Page:
    """A page in the browser; whatever the browser complains about is in `complaints`."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver, self.path = driver, path

    def open(self, view: str = "#/", width: int = 1440, height: int = 1000) -> None:
        """Show a view, in a window of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.driver.get(self.path.as_uri() + view)
        self.driver.execute_async_script(READY)
        if SCREENSHOTS:
            name = view.strip("#/").replace("/", "-") or "database"
            self.driver.save_screenshot(str(Path(SCREENSHOTS) / f"{self.path.stem}-{name}-{width}.png"))

    def run(self, script: str) -> Any:
        """What a script answers."""
        return self.driver.execute_script(f"return {script}")

    def type(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    @property
    def complaints(self) -> list[str]:
        """What the browser complained about since it was last asked: errors, and what the policy of the page forbade."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(DRIVER))
    started.set_script_timeout(60)
    started.set_page_load_timeout(60)
    yield started
    started.quit()


@pytest.fixture
def page(clinic: Project, driver: Any) -> Page:
    clinic.execute(HOSTILE)
    outcome = clinic.invoke("db.page", "--output=clinic.html")
    assert outcome.code == 0, outcome.err
    return Page(driver, clinic.root / "clinic.html")


def test_views_without_findings_of_axe_or_complaints_and_names_that_are_only_text(page: Page) -> None:
    from axe_core_python.selenium import Axe

    for width in (1440, 390):
        for view in (
            "#/",
            "#/map",
            "#/tables",
            "#/table/patients",
            "#/table/patients/3",
            "#/function/timestamps()",
            "#/table/gone",
        ):
            page.open(view, width)
            found = Axe().run(page.driver)
            assert not found["violations"], [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]]
            assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), (view, width)
    page.open("#/table/" + "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    assert page.run("document.querySelector('h1').textContent") == "<img src=x onerror=alert(1)>"
    assert page.run("document.querySelectorAll('main img, main script').length") == 0
    assert page.complaints == []


def test_keyboard_alone_finds_a_column_opens_its_table_and_goes_to_a_neighbour(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open("#/")
    page.type("/")
    page.type("branch_id pat")
    assert page.run("document.activeElement.id") == "search"
    assert "branch_id in patients" in page.run("document.getElementById('found').textContent")
    page.type(Keys.ARROW_DOWN)
    page.type(Keys.ENTER)
    assert page.run("document.querySelector('h1').textContent") == "patients"
    names = page.run("[...document.querySelectorAll('.drawing a')].map(each => each.getAttribute('aria-label'))")
    assert set(names) == {"table patients", "table hospitals", "table branches"}
    for _ in range(60):
        page.type(Keys.TAB)
        if page.run("document.activeElement.getAttribute('aria-label')") == "table hospitals":
            break
    page.type(Keys.ENTER)
    assert page.run("location.hash") == "#/table/hospitals"
    before = page.run("document.querySelectorAll('.drawing a').length")
    page.run("document.querySelector('input[name=steps][value=\"2\"]').click()")
    page.driver.execute_async_script(READY)
    assert page.run("document.querySelectorAll('.drawing a').length") > before
    page.driver.back()
    assert page.complaints == []


def test_what_differs_between_two_environments_is_marked(clinic: Project, template: str, driver: Any) -> None:
    test = clinic.env["TEST_DATABASE_URL"].rpartition("/")[2]
    clinic.execute(f'CREATE DATABASE "{test}" TEMPLATE {template} STRATEGY FILE_COPY', "postgres")
    clinic.execute("UPDATE skinspire_tools.stamp SET environment = 'test'", test)
    clinic.execute("ALTER TABLE patients ADD nickname text; CREATE TABLE only_in_dev (id int)")
    clinic.invoke("db.page", "--compare=test", "--output=both.html")
    page = Page(driver, clinic.root / "both.html")
    page.open("#/tables")
    marked = page.run("[...document.querySelectorAll('tr.differs')].map(row => row.textContent)")
    assert len(marked) == 2 and "only in dev" in marked[0] and "columns: nickname" in marked[1]
    page.open("#/table/patients")
    [row] = page.run("[...document.querySelectorAll('tr.differs')].map(row => row.textContent)")
    assert "nickname" in row and "not there" in row and page.complaints == []


def test_two_thousand_tables_are_one_small_file_that_is_searched_at_once(project: Project, driver: Any) -> None:
    """The figures of speed are a benchmark's; here it has to be small, and to answer."""
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute(MANY)
    outcome = project.invoke("db.page", "--output=many.html")
    assert outcome.code in (0, 3), outcome.err
    path = project.root / "many.html"
    assert path.stat().st_size < 3_000_000
    page = Page(driver, path)
    page.open("#/")
    page.type("/")
    page.type("group3_item_1003")
    assert "group3_item_1003" in page.run("document.getElementById('found').textContent")
    page.open("#/table/group3_item_1003/3")
    assert page.run("document.querySelectorAll('.drawing a').length") == 7
    page.open("#/map")
    assert page.run("document.querySelectorAll('.drawing a').length") == 8
    assert page.complaints == []
