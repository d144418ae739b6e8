"""Environments: which one is meant, what it allows, and where each setting came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project

from skinspire_db import environment, settings
from skinspire_db.errors import InvalidSetting, UnknownEnvironment


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, entered; nothing is set."""
    (tmp_path / "pyproject.toml").write_text("[tool.skinspire_db]\n")
    monkeypatch.chdir(tmp_path)
    for name in ("DEV_DATABASE_URL", "TEST_DATABASE_URL", "PROD_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def declare(here: Path, text: str) -> None:
    (here / "pyproject.toml").write_text(f"[tool.skinspire_db]\n{text}")
    settings._tool_table.cache_clear()


def dotenv(here: Path, text: str) -> None:
    (here / ".env").write_text(text)
    settings._dotenv.cache_clear()


@pytest.fixture(autouse=True)
def fresh() -> None:
    settings._tool_table.cache_clear()
    settings._dotenv.cache_clear()


def active() -> tuple[str | None, str]:
    found = environment.active(settings.project())
    return found.value, found.source


def test_which_environment_is_active(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--env, SKINSPIRE_ENV, env.switch, FLASK_ENV, dev: each beats the next."""
    assert active() == ("dev", "default")
    monkeypatch.setenv("FLASK_ENV", "production")
    assert active() == ("prod", "FLASK_ENV, process environment")
    environment.switch("testing")
    assert active() == ("test", "invoke env.switch")
    dotenv(here, "SKINSPIRE_ENV=development\n")
    assert active() == ("dev", "SKINSPIRE_ENV, .env")
    monkeypatch.setenv("SKINSPIRE_ENV", "test")
    assert active() == ("test", "SKINSPIRE_ENV, process environment")
    assert environment.resolve("dev").name == "dev"


@pytest.mark.parametrize(("old", "new"), [("development", "dev"), ("testing", "test"), ("Dev", "dev"), (" TEST ", "test")])
def test_old_names(here: Path, old: str, new: str) -> None:
    assert environment.resolve(old).name == new


@pytest.mark.parametrize("name", ["prd", "devel", "dev;", "", "../dev"])
def test_an_unknown_name_is_never_mapped_to_dev(here: Path, name: str) -> None:
    with pytest.raises(UnknownEnvironment, match="unknown environment"):
        environment.resolve(name)


def test_process_environment_beats_dotenv(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv(here, "PROD_DATABASE_URL=postgresql://a@h/from_file\n")
    assert environment.resolve("prod").url.value == "postgresql://a@h/from_file"
    monkeypatch.setenv("PROD_DATABASE_URL", "postgresql://a@h/from_process")
    assert environment.resolve("production").url.source == "process environment"


def test_prod_without_a_url_is_refused(here: Path) -> None:
    with pytest.raises(InvalidSetting, match="PROD_DATABASE_URL is not set"):
        environment.resolve("prod")


def test_declared_environments_inherit(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(here, '[tool.skinspire_db.environments.staging]\nextends = "prod"\nlock_timeout = 7\n'
                  '[tool.skinspire_db.environments.eu-staging]\nextends = "staging"\n')  # fmt: skip
    monkeypatch.setenv("EU_STAGING_DATABASE_URL", "postgresql://a@h/x")
    policy = environment.resolve("eu-staging").policy
    assert (policy.protected, policy.test_data, policy.lock_timeout) == (True, False, 7)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("environments = 3", "one table per environment"),
        ('[tool.skinspire_db.environments.x]\nextends = "y"', "unknown environment 'y'"),
        ("[tool.skinspire_db.environments.x]\nprotected = true", "extends nothing"),
        ('[tool.skinspire_db.environments.x]\nextends = "x"', "extends itself"),
        (
            '[tool.skinspire_db.environments.x]\nextends = "y"\n[tool.skinspire_db.environments.y]\nextends = "x"',
            "extends itself",
        ),
        ('[tool.skinspire_db.environments.x]\nextends = "dev"\nprotectd = true', "protectd = True is not understood"),
        ('[tool.skinspire_db.environments.x]\nextends = "dev"\nlock_timeout = "5s"', "lock_timeout = '5s' is not understood"),
        ("[tool.skinspire_db.environments.prod]\nprotected = false", "makes prod unprotected"),
        ("[tool.skinspire_db.environments.prod]\ntest_data = true", "protected and allows test data"),
        ('[tool.skinspire_db.environments.x]\nextends = "dev"\nprotected = true', "protected and allows test data"),
        ('[tool.skinspire_db.environments.x]\nextends = "dev"\noperation_wait = 0', "operation_wait = 0 is not understood"),
        ('[tool.skinspire_db.environments."A B"]\nextends = "dev"', "not usable"),
    ],
)
def test_nonsense_in_pyproject(here: Path, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str) -> None:
    declare(here, text)
    monkeypatch.setenv("PROD_DATABASE_URL", "postgresql://a@h/x")
    with pytest.raises((InvalidSetting, UnknownEnvironment), match=complaint):
        environment.resolve("prod" if "prod" in text else "x")


def test_the_project_is_found_from_a_subfolder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = here / "a" / "b"
    deep.mkdir(parents=True)
    (here / "a" / "pyproject.toml").write_text("[project]\nname = 'other'\n")  # without our table: not the one
    monkeypatch.chdir(deep)
    assert settings.project().root == here


def test_the_env_tasks(make_project: Callable[..., Project]) -> None:
    project = make_project(PROD_DATABASE_URL="postgresql://admin:s3cr%40t@db.example/clinic?sslmode=require")
    assert project.invoke("env.switch").code == 2
    assert project.invoke("env.switch", "--env=nope").code == 2
    assert project.invoke("--dry", "env.switch", "--env=test").code == 0
    assert project.invoke("env.status", "--json").json["environment"] == "dev"
    assert project.invoke("env.switch", "--env=testing").out == "active environment: test (invoke env.switch)\n"
    answer = project.invoke("env.status", "--json")
    shown = {each["name"]: (each["value"], each["source"]) for each in answer.json["settings"]}
    assert shown["environment"] == ("test", "invoke env.switch")
    assert shown["PROD_DATABASE_URL"] == ("postgresql://admin:***@db.example/clinic?sslmode=require", "process environment")
    text = project.invoke("env.status").out
    assert "s3cr" not in text + answer.out and "db.example" in text


def test_switch_says_when_something_stronger_is_set(make_project: Callable[..., Project]) -> None:
    project = make_project(SKINSPIRE_ENV="dev")
    assert "dev (SKINSPIRE_ENV" in project.invoke("env.switch", "--env=test").out
