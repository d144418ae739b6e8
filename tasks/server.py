"""The embedded PostgreSQL server of this checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context

from ._help import JSON, task

if TYPE_CHECKING:
    from skinspire_db.postgres.embedded_server import EmbeddedServer

ENV = {"env": "an environment that is on this server; all of a checkout share it"}


@task(help=ENV | JSON)
def start(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Start the server; it is made first when there is none."""
    from skinspire_db.terminal import console

    server = _server(env)
    if ctx.config.run.dry:
        console.show_result("server.start", json=json, text=f"would start the server in {server.home}", dry=True)
        return
    address = server.start()
    text = f"the server runs on {address.host}:{address.port}"
    console.show_result("server.start", json=json, text=text, **server.status().as_dict())


@task(help=ENV | {"all_": "all of this account, of every checkout, that no session uses"} | JSON)
def stop(ctx: Context, env: str | None = None, all_: bool = False, json: bool = False) -> None:
    """Stop the server, and that of the tests; the databases stay."""
    from skinspire_db.postgres import embedded_server
    from skinspire_db.terminal import console

    if all_:
        dry = {"dry": True} if ctx.config.run.dry else {}
        servers, left = embedded_server.stop_unused(dry=bool(dry))
        homes = [str(each.home) for each in servers]
        text = f"{'would stop' if dry else 'stopped'}: {', '.join(homes) or 'none'}"
        text += "".join(f"\nleft as it is, {home}: {why}" for home, why in left.items())
        console.show_result("server.stop", json=json, text=text, homes=homes, left=left, **dry)
        return
    server, tests = _server(env), _tests()
    if ctx.config.run.dry:
        console.show_result("server.stop", json=json, text=f"would stop the server in {server.home}", dry=True)
        return
    stopped, tests_stopped = server.stop(), tests.stop()
    text = "the server has stopped" if stopped else "the server was not running"
    text += "; that of the tests has stopped too" if tests_stopped else ""
    console.show_result("server.stop", json=json, text=text, **server.status().as_dict())


@task(help=ENV | {"all_": "all of this account, of every checkout"} | JSON)
def status(ctx: Context, env: str | None = None, all_: bool = False, json: bool = False) -> None:
    """Show whether the server runs, where, and which version it is; for root also those whose checkouts are gone."""
    from skinspire_db.postgres import embedded_server
    from skinspire_db.postgres.data_folders import abandoned
    from skinspire_db.terminal import console

    if all_:
        found = [each.status().as_dict() for each in embedded_server.every_server()]
        if json:
            console.show_result("server.status", json=True, text="", servers=found)
        else:
            listed = [tuple("-" if value is None else value for value in each.values()) for each in found]
            console.table(listed, ("home", "running", "pid", "port", "version"))
        return
    known, tests = _server(env).status().as_dict(), _tests().status().as_dict()
    folders = abandoned()
    orphans = [
        {"home": str(folder.home), "checkout": folder.checkout, "state": folder.state, "bytes": folder.size}
        for folder in folders
    ]
    if json:
        console.show_result("server.status", json=True, text="", **known, tests=tests, orphans=orphans)
    else:
        rows = [(name, *("-" if each[name] is None else each[name] for each in (known, tests))) for name in known]
        console.table(rows, ("server", "of dev and test", "of the tests"))
        if orphans:
            console.say_wrapped(
                "servers without a checkout; invoke server.destroy --orphans deletes those whose checkout is gone:"
            )
            shown = [
                (str(folder.home), folder.checkout or "-", folder.state, f"{folder.size / 1e6:.1f}") for folder in folders
            ]
            console.table(shown, ("folder", "checkout", "which is", "MB"))


DESTROY = {
    "confirm": "the name of the server's folder, as the refusal shows it; with --orphans the names, with commas between",
    "orphans": "in place of this checkout's, those whose checkouts are gone",
}


@task(help=ENV | JSON | DESTROY)
def destroy(
    ctx: Context, env: str | None = None, confirm: str | None = None, orphans: bool = False, json: bool = False
) -> None:
    """Delete the server with every database it holds, and that of the tests."""
    from skinspire_db.postgres import embedded_server, orphaned_servers
    from skinspire_db.terminal import console

    if orphans:
        dry = {"dry": True} if ctx.config.run.dry else {}
        homes = [str(each.home) for each in (orphaned_servers.orphans if dry else orphaned_servers.destroy)(confirm)]
        text = f"would delete {', '.join(homes)}" if dry else f"deleted: {', '.join(homes)}"
        console.show_result("server.destroy", json=json, text=text, homes=homes, **dry)
        return
    server, tests = _server(env), _tests()
    deleted = embedded_server.destroy(server, tests, confirm=confirm, dry=bool(ctx.config.run.dry))
    if ctx.config.run.dry:
        homes = [str(each.home) for each in deleted]
        text = f"would delete {' and '.join(homes)}, with every database there"
        console.show_result("server.destroy", json=json, text=text, dry=True, homes=homes)
        return
    console.show_result("server.destroy", json=json, text=f"{server.home} is gone", home=str(server.home))


def _tests() -> EmbeddedServer:
    from skinspire_db.config import project
    from skinspire_db.postgres import embedded_server

    return embedded_server.throw_away_server(project.current_project())


def _server(env: str | None) -> EmbeddedServer:
    from skinspire_db.config import environment, project
    from skinspire_db.postgres import embedded_server

    if env is None:
        return embedded_server.project_server(project.current_project())
    return embedded_server.server_of(environment.resolve(env))
