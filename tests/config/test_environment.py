"""Environments: which one is meant, what it allows, and where each setting came from."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project

from skinspire_db.config import environment, urls
from skinspire_db.config import project as settings
from skinspire_db.errors import InvalidSetting, UnknownEnvironment
from skinspire_db.postgres.target import target_of


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
    (here / ".env").write_text(text, encoding="utf-8")
    settings._dotenv.cache_clear()


@pytest.fixture(autouse=True)
def fresh() -> None:
    settings._tool_table.cache_clear()
    settings._dotenv.cache_clear()


def active() -> tuple[str | None, str]:
    found = environment.active(settings.current_project())
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


URL = "postgresql://a:p%41%42w@h/clinic"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (f"export PROD_DATABASE_URL={URL}", URL),
        (f"export\t PROD_DATABASE_URL = '{URL}'", URL),
        (f"PROD_DATABASE_URL={URL} # mine", URL),
        (f'PROD_DATABASE_URL={URL}\t# it\'s "mine" = ${{ours}}', URL),
        (f"PROD_DATABASE_URL='{URL}' # mine", URL),
        (f'PROD_DATABASE_URL="{URL}"  # mine', URL),
        (f"PROD_DATABASE_URL \t= \t{URL}  ", URL),
        (f"\ufeffPROD_DATABASE_URL={URL}", URL),
        (f"# first\r\nPROD_DATABASE_URL={URL}\r\n", URL),
        (f"OTHER=1\rPROD_DATABASE_URL={URL}\rLAST=2", URL),
        (f"PROD_DATABASE_URL={URL}\nexport PROD_DATABASE_URL='{URL}'", URL),
        ("PROD_DATABASE_URL=postgresql://a:x#y$et@h/c", "postgresql://a:x#y$et@h/c"),
        ("X=1\nPROD_DATABASE_URL='postgresql://a:${X}@h/c'", "postgresql://a:${X}@h/c"),
        ("PROD_DATABASE_URL='postgresql://a:p@h/the clinic # 2'", "postgresql://a:p@h/the clinic # 2"),
        (f"#PROD_DATABASE_URL=old\nPROD_DATABASE_URL={URL}\n # PROD_DATABASE_URL=older", URL),
        (
            f"DATABASE_URL=x # y\nSKINSPIRE_MAIL=a b\nANALYTICS_DATABASE_URL=${{X}}\nsource other\nDEV_DATABASE_NAME='x\n"
            f"HELP=see PROD_DATABASE_URL\nFLASK_APP=a\nPROD_DATABASE_URL={URL}",
            URL,
        ),
    ],
)
def test_a_line_of_dotenv_is_taken_as_it_is_meant(here: Path, text: str, meant: str) -> None:
    (here / ".env").write_bytes(text.encode())
    assert environment.resolve("prod").url == settings.Setting("PROD_DATABASE_URL", meant, ".env")


@pytest.mark.parametrize(
    "text", ["PROD_DATABASE_URL=", "PROD_DATABASE_URL= # none yet", "export PROD_DATABASE_URL='' # none"]
)
def test_an_empty_line_of_dotenv_means_none(here: Path, text: str) -> None:
    dotenv(here, text)
    with pytest.raises(InvalidSetting, match="PROD_DATABASE_URL is not set"):
        environment.resolve("prod")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("set SKINSPIRE_ENV=test", "SKINSPIRE_ENV is not written as NAME=VALUE"),
        ('$env:SKINSPIRE_ENV = "test"', "SKINSPIRE_ENV is not written as NAME=VALUE"),
        ("export SKINSPIRE_ENV", "SKINSPIRE_ENV is not written as NAME=VALUE"),
        ("SKINSPIRE_ENV: test", "SKINSPIRE_ENV is not written as NAME=VALUE"),
        ("SKINSPIRE_ENV", "SKINSPIRE_ENV is not written as NAME=VALUE"),
        ('"SKINSPIRE_ENV"="test"', "SKINSPIRE_ENV is not written as NAME=VALUE"),
        ("; SKINSPIRE_ENV=test", "SKINSPIRE_ENV is not written as NAME=VALUE"),
        ("\u200bSKINSPIRE_ENV=test", "SKINSPIRE_ENV is not written as NAME=VALUE"),
        ("EU-STAGING_DATABASE_URL=s3cret", "EU_STAGING_DATABASE_URL is not written as NAME=VALUE"),
        ("DEV_DATABASE_URL: postgresql://a:s3cret@h/c?sslmode=require", "DEV_DATABASE_URL is not written as"),
        ("skinspire_env=test", "skinspire_env is no setting .* write SKINSPIRE_ENV"),
        ("dev_database_url=s3cret", "dev_database_url is no setting .* write DEV_DATABASE_URL"),
        ("DVE_DATABASE_URL=s3cret", "write DEV_DATABASE_URL"),
        ("DEV_DATABSE_URL=s3cret", "write DEV_DATABASE_URL"),
        ("DEV_DATABASE_URI=s3cret", "write DEV_DATABASE_URL"),
        ("EU_STAGNG_REPLICA_URL=s3cret", "write EU_STAGING_REPLICA_URL"),
        ("PRODUCTION_DATABASE_URL=s3cret", "write PROD_DATABASE_URL"),
        ("SKINSPIRE_ENVIRONMENT=test", "write SKINSPIRE_ENV"),
        ("SKNSPIRE_ENV=test", "write SKINSPIRE_ENV"),
        ("SKINSPIRE_PROJECT=/x", "process environment only"),
        ("DEV_DATABASE_URL='postgresql://a:s3cret@h/c", "does not end where its quotes do"),
        ("DEV_DATABASE_URL='postgresql://a:s3cret@h/c'x", "does not end where its quotes do"),
        ("DEV_DATABASE_URL=“postgresql://a:s3cret@h/c”", "typographic quotes"),
        ("DEV_DATABASE_URL=postgresql://a:s3cret@h/c mine", "more behind its URL"),
        ("DEV_DATABASE_URL=postgresql://a:s3cret@h/c;", "more behind its URL"),
        ("DEV_DATABASE_URL=postgresql://a:s3cret@h/c\\", "more behind its URL"),
        ("export SKINSPIRE_PG_HOME=/x; export DEV_DATABASE_URL=s3cret", "SKINSPIRE_PG_HOME has a second setting behind it"),
        ("DEV_DATABASE_URL=postgresql://a:${PASSWORD}@h/s3cret", "refers to a variable"),
        ("DEV_DATABASE_URL=postgresql://a:$OTHER@h/s3cret", "refers to a variable"),
        ("SKINSPIRE_PG_HOME=$HOME/s3cret", "refers to a variable"),
        ("SKINSPIRE_PG_HOME=%LOCALAPPDATA%\\s3cret", "refers to a variable"),
        ('DEV_DATABASE_URL="$(s3cret)"', "refers to a variable"),
        ("DEV_DATABASE_URL=postgresql://a:s3cret@h/c\u200b", "invisible character"),
    ],
)
def test_a_line_of_dotenv_that_means_ours_is_never_passed_over(here: Path, line: str, complaint: str) -> None:
    """Otherwise db.setup resets dev in place of test, or makes a database of another name."""
    declare(here, '[tool.skinspire_db.environments.eu-staging]\nextends = "dev"\n')
    dotenv(here, f"# mine\nOTHER=1\n{line}\n")
    with pytest.raises(InvalidSetting, match=rf"\.env, line 3: .*{complaint}") as caught:
        environment.resolve()
    assert "s3cret" not in str(caught.value)


def test_two_lines_of_dotenv_that_say_different_things(here: Path) -> None:
    dotenv(here, "SKINSPIRE_ENV=dev\n\nexport SKINSPIRE_ENV=test\n")
    with pytest.raises(InvalidSetting, match="line 3: SKINSPIRE_ENV and line 1 set it to different values"):
        environment.resolve()


def test_a_dotenv_that_is_no_utf8(here: Path) -> None:
    """As PowerShell's > writes it."""
    (here / ".env").write_bytes("SKINSPIRE_ENV=test\n".encode("utf-16"))
    with pytest.raises(InvalidSetting, match="save it as UTF-8"):
        environment.resolve()


def test_the_tools_have_a_url_of_their_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROD_DATABASE_URL", "postgresql://app:s3cret@pooler:6432/clinic")
    dotenv(here, "PROD_ADMIN_URL=postgresql://owner:s3cret@db:5432/clinic_prod\n")
    prod = environment.resolve("prod")
    tools, service = (target_of(prod, application=each) for each in (False, True))
    assert (str(tools), tools.setting) == ("clinic_prod on db:5432", "PROD_ADMIN_URL")
    assert (str(service), service.setting) == ("clinic on pooler:6432", "PROD_DATABASE_URL")
    shown = {each.name: each.value for each in environment.describe("prod")}
    assert shown["PROD_ADMIN_URL"] == "postgresql://owner:***@db:5432/clinic_prod"
    monkeypatch.setenv("DEV_ADMIN_URL", "postgresql://owner@db/clinic")
    with pytest.raises(InvalidSetting, match="DEV_ADMIN_URL is set and DEV_DATABASE_URL is not"):
        environment.resolve("dev")


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
    assert settings.current_project().root == here


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


def test_a_plain_url_is_what_sqlalchemy_makes_of_it() -> None:
    """libpq reads it, so that SQLAlchemy need not be loaded: both must read each that counts as plain alike."""
    draw = random.Random(1)
    words = [
        "a",
        "Bob",
        "x_1",
        "a.b",
        "-x",
        "!",
        "$x",
        "*",
        "+",
        "=;",
        "%41",
        "%40",
        "%2F",
        "%3Ab",
        "%7e",
        "%20",
        "%25",
        "%25%34",
        "%3f%23",
    ]

    def word() -> str:
        return "".join(draw.choices(words, k=draw.randint(1, 3)))

    for _ in range(200):
        given = draw.choice(["postgres", "postgresql", "postgresql+psycopg"]) + "://"
        given += draw.choice(["", f"{word()}@", f"{word()}:{word()}@"]) + draw.choice(["h", "127.0.0.1", "DB.example"])
        given += draw.choice(["", ":5432", ":1", ":99999"]) + draw.choice(["/db", "/a.b", "/x-y", "/_"])
        given += draw.choice(["", "?sslmode=require", "?sslrootcert=/a/b.pem", "?connect_timeout=3"])
        plain = urls._plain(given)
        assert plain and plain == urls._by_sqlalchemy(given, "URL", ""), given
        assert type(plain.get("port", 1)) is int


@pytest.mark.parametrize(
    "given", ["u:p@h:0/d", "u:@h/d", "u:%C3%A4@h/d", "u:a@b@h/d", "h1,h2/d", "h/d?a=1&b=2", "h/d?service=x", "/d", "h/%64"]
)
def test_a_url_that_the_two_may_read_differently_is_not_plain(given: str) -> None:
    assert urls._plain(f"postgresql://{given}") == {}
