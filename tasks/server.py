"""The embedded PostgreSQL server of this checkout."""

from tasks._help import JSON, task

ENV = {"env": "an environment that is on this server; all of a checkout share it"}


@task(help=ENV | JSON)
def start(ctx, env=None, json=False):
    """Start the server; it is made first when there is none."""
    from tasks import _console

    server = _server(env)
    if ctx.config.run.dry:
        _console.show_result("server.start", json=json, text=f"would start the server in {server.home}", dry=True)
        return
    address = server.start()
    text = f"the server runs on {address.host}:{address.port}"
    _console.show_result("server.start", json=json, text=text, **server.status().as_dict())


@task(help=ENV | JSON)
def stop(ctx, env=None, json=False):
    """Stop the server, and that of the tests; the databases stay."""
    from tasks import _console

    server, tests = _server(env), _tests()
    if ctx.config.run.dry:
        _console.show_result("server.stop", json=json, text=f"would stop the server in {server.home}", dry=True)
        return
    stopped, tests_stopped = server.stop(), tests.stop()
    text = "the server has stopped" if stopped else "the server was not running"
    text += "; that of the tests has stopped too" if tests_stopped else ""
    _console.show_result("server.stop", json=json, text=text, **server.status().as_dict())


@task(help=ENV | JSON)
def status(ctx, env=None, json=False):
    """Show whether the server runs, where, and which version it is; for root also those whose checkouts are gone."""
    from skinspire_db.checkouts import abandoned
    from tasks import _console

    known, tests = _server(env).status().as_dict(), _tests().status().as_dict()
    orphans = [
        {"home": str(each.home), "checkout": each.checkout, "state": each.state, "bytes": each.size} for each in abandoned()
    ]
    if json:
        _console.show_result("server.status", json=True, text="", **known, tests=tests, orphans=orphans)
    else:
        rows = [(name, *("-" if each[name] is None else each[name] for each in (known, tests))) for name in known]
        _console.table(rows, ("server", "of dev and test", "of the tests"))
        if orphans:
            _console.say_wrapped(
                "servers without a checkout; invoke server.destroy --orphans deletes those whose checkout is gone:"
            )
            shown = [(each["home"], each["checkout"] or "-", each["state"], f"{each['bytes'] / 1e6:.1f}") for each in orphans]
            _console.table(shown, ("folder", "checkout", "which is", "MB"))


DESTROY = {
    "confirm": "the name of the server's folder, as the refusal shows it; with --orphans the names, with commas between",
    "orphans": "in place of this checkout's, those whose checkouts are gone",
}


@task(help=ENV | JSON | DESTROY)
def destroy(ctx, env=None, confirm=None, orphans=False, json=False):
    """Delete the server with every database it holds, and that of the tests."""
    from skinspire_db import server as library
    from tasks import _console

    if orphans:
        dry = {"dry": True} if ctx.config.run.dry else {}
        homes = [str(each.home) for each in (library.orphans if dry else library.destroy_orphans)(confirm)]
        text = f"would delete {', '.join(homes)}" if dry else f"deleted: {', '.join(homes)}"
        _console.show_result("server.destroy", json=json, text=text, homes=homes, **dry)
        return
    server, tests = _server(env), _tests()
    deleted = library.destroy(server, tests, confirm=confirm, dry=bool(ctx.config.run.dry))
    if ctx.config.run.dry:
        homes = [str(each.home) for each in deleted]
        text = f"would delete {' and '.join(homes)}, with every database there"
        _console.show_result("server.destroy", json=json, text=text, dry=True, homes=homes)
        return
    _console.show_result("server.destroy", json=json, text=f"{server.home} is gone", home=str(server.home))


def _tests():
    from skinspire_db import server, settings

    return server.throw_away_server(settings.project())


def _server(env):
    from skinspire_db import environment, server, settings

    if env is None:
        return server.project_server(settings.project())
    return server.server_of(environment.resolve(env))
