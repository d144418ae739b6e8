"""The trigger files of sql/triggers: install them, see and prove what is installed, and give them versions."""

from ._help import CONFIRM, ENV, JSON, task

NAME = {"name": "one trigger file, without .sql (see triggers.status)"}
VIEWS = {
    "functions": "only: is every function there, as its file made it",
    "critical": "only: are the triggers that guard accounts there, and enabled",
    "counts": "only: how many triggers each table has, and should have",
    "proofs": "only: do the triggers do what they should",
}


@task(
    help=ENV
    | NAME
    | JSON
    | {
        "at-version": "with --name: the version to install, from sql/triggers/archive if it is an earlier one",
        "verify": "prove every file before it is committed, not only what was installed anew",
    }
)
def install(ctx, env=None, name=None, at_version=None, verify=False, json=False):
    """Install the trigger files; what is right already is not touched."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    def make(context):
        return triggers.install(context.environment, name=name, at_version=at_version, verify=verify)

    console.operate(ctx, env, make, json=json)


@task(help=ENV | VIEWS | JSON | {"verbose": "show every check, not only what did not pass"})
def verify(ctx, env=None, functions=False, critical=False, counts=False, proofs=False, verbose=False, json=False):
    """Look whether the triggers are there and prove what they do, in a transaction that is rolled back."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    asked = {"functions": functions, "critical": critical, "counts": counts, "proofs": proofs}
    views = [view for view, wanted in asked.items() if wanted]

    def make(context):
        return triggers.verify(context.environment, views)

    console.operate(ctx, env, make, json=json, verbose=verbose or bool(views))


@task(help=ENV | JSON)
def status(ctx, env=None, json=False):
    """Show the state of every function and trigger; exit code 3 when one is not INSTALLED."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: triggers.status(context.environment), json=json)


@task(help=ENV | NAME | JSON)
def diff(ctx, env=None, name=None, json=False):
    """Show what an install would change: - is the database, + the file; exit code 3 when there is anything."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: triggers.diff(context.environment, name), json=json)


@task(help=ENV | NAME | CONFIRM | JSON)
def disable(ctx, env=None, name=None, confirm=None, json=False):
    """Switch a file's triggers off, and record that this is wished: an install leaves them off."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    def make(context):
        return triggers.switch(context.environment, name, enabled=False)

    console.operate(ctx, env, make, json=json, confirm=confirm)


@task(help=ENV | NAME | JSON)
def enable(ctx, env=None, name=None, json=False):
    """Switch a file's triggers on again."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: triggers.switch(context.environment, name, enabled=True), json=json)


@task(help=NAME | JSON)
def bump(ctx, name=None, json=False):
    """Give an edited trigger file its next version; the former one is frozen in sql/triggers/archive."""
    from skinspire_db.objects import versions
    from skinspire_db.terminal import console

    dry = bool(ctx.config.run.dry)
    done = versions.bump(name, dry=dry)
    frozen = f"; version {done.version - 1} is in archive/{done.frozen.name}" if done.frozen else ""
    then = "" if done.edited else "; edit it, and run this again to lock what you wrote"
    text = f"{done.name} {'would be' if dry else 'is'} version {done.version}{frozen}{then}"
    console.show_result("triggers.bump", json=json, text=text, name=done.name, version=done.version, dry=dry)
