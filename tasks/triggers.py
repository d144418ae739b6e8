"""The trigger files of sql/triggers: install them, and see their state."""

from invoke import task

from tasks._help import ENV, JSON


@task(help=ENV | JSON)
def install(ctx, env=None, json=False):
    """Install the trigger files; what is right already is not touched."""
    from skinspire_db import pipeline
    from tasks import _console

    _console.operate(ctx, env, lambda chosen, _: pipeline.install_triggers(chosen), json=json)
