"""The trigger files of sql/triggers: install them, and see their state."""

from invoke import task

from tasks._help import ENV, JSON


@task(help=ENV | JSON | {"verify": "prove what they do before it is committed"})
def install(ctx, env=None, verify=False, json=False):
    """Install the trigger files; what is right already is not touched."""
    from skinspire_db import pipeline
    from tasks import _console

    _console.operate(ctx, env, lambda chosen, _: pipeline.install_triggers(chosen, verify=verify), json=json)


@task(help=ENV | JSON | {"verbose": "say for every proof what it proves"})
def verify(ctx, env=None, verbose=False, json=False):
    """Prove what the triggers do, in a transaction that is rolled back."""
    from skinspire_db import pipeline
    from tasks import _console

    _console.operate(ctx, env, lambda chosen, _: pipeline.prove_triggers(chosen), json=json, verbose=verbose)
