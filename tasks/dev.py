"""For people who work on this project: tests, lint, benchmarks."""

from __future__ import annotations

from invoke.context import Context

from ._help import JSON, task


@task(help=JSON | {"env": "only this environment (default: dev and test)"})
def onboard(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """The first morning: make the databases of dev and test, verify them, and say what to type next; loses nothing."""
    from skinspire_db.terminal import console

    console.onboard(ctx, env, json=json)


@task(help={"all": "the slow tests too, as CI runs them"})
def test(ctx: Context, all: bool = False) -> None:
    """Run the tests."""
    _run(ctx, "-m", "pytest", *(["-m", "slow or not slow"] if all else []))


@task()
def lint(ctx: Context) -> None:
    """Run ruff, mypy and the rules for imports."""
    _run(ctx, "-m", "ruff", "check", ".")
    _run(ctx, "-m", "ruff", "format", "--check", ".")
    _run(ctx, "-m", "mypy")
    _run(ctx, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")


@task(help={"name": "only benchmarks with this in their name"})
def bench(ctx: Context, name: str = "") -> None:
    """Run the benchmarks and show each figure beside its peer's."""
    _run(ctx, "-m", "tests.benchmarks", *([name] if name else []))


def _run(ctx: Context, *arguments: str) -> None:
    """Run one of Python's tools from the checkout's root; its exit code becomes ours."""
    import shlex
    import subprocess
    import sys
    from pathlib import Path

    from invoke.exceptions import Exit

    command = [sys.executable, *arguments]
    if ctx.config.run.dry:
        print("would run", shlex.join(["python", *arguments]))
        return
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, check=False)
    if done.returncode != 0:
        raise Exit(code=1)
