"""Code that a project brings into a pipeline: it stays in the pipeline's transaction, and only a normal return counts."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from skinspire_db.config import project_code
from skinspire_db.config.project import Project
from skinspire_db.errors import SkinspireError, StepFailed
from skinspire_db.lifecycle.failures import AS_IT_WAS
from skinspire_db.lifecycle.result import Summary
from skinspire_db.postgres import search_path
from skinspire_db.postgres.error_text import sentence

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# The classes of SQLSTATE that are the code's own fault: values, constraints, names and syntax; not locks or the server.
OF_THE_CODE = ("22", "23", "42")


@contextlib.contextmanager
def in_one_transaction(connection: Connection, name: str) -> Iterator[None]:
    """Notice when the block ends the transaction that it was in.

    Raises:
        StepFailed: It did. What it had done before is committed, or lost.
    """
    import psycopg

    connection.execute(b"SAVEPOINT own_code")
    ended = StepFailed(f"{name} has ended the transaction that it was in, and may have left a trace", remedy="take that out")
    try:
        yield
        connection.execute(b"RELEASE SAVEPOINT own_code")
    except psycopg.errors.InvalidSavepointSpecification:
        raise ended from None
    except Exception:
        with contextlib.suppress(psycopg.errors.OperationalError, psycopg.InterfaceError):
            try:
                connection.execute(b"ROLLBACK TO SAVEPOINT own_code")
            except psycopg.errors.InvalidSavepointSpecification:
                raise ended from None
            except psycopg.errors.NoActiveSqlTransaction:
                raise ended from None
        raise


def run(function: Callable[[Connection], Summary | None], name: str, project: Project, connection: Connection) -> Summary:
    """Run a function of the project.

    Returns:
        What it answers; for None, nothing.

    Raises:
        StepFailed: It raised, answers something else, is async or a generator, or has ended the transaction.
    """
    import psycopg

    try:
        with in_one_transaction(connection, name), search_path.application(connection), project_code.running(project):
            done = function(connection)
    except SkinspireError:
        raise
    except Exception as error:
        cause = getattr(error, "orig", None) or error  # SQLAlchemy's own text holds the values of rows
        said = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        if isinstance(cause, psycopg.Error):
            ours = name.startswith("skinspire_db.")  # the data is in its way then: the code needs no correction
            if ours or (cause.sqlstate or "")[:2] not in OF_THE_CODE or cause.sqlstate == "42501":
                raise cause from None
            said = sentence(cause)
        raise StepFailed(f"{name}: {said}; {AS_IT_WAS}", remedy=f"correct {name}; invoke -d shows where") from error
    if inspect.iscoroutine(done):
        done.close()
    if done is not None and not isinstance(done, Summary):
        raise StepFailed(
            f"{name} answers a {type(done).__name__}, not a Summary or None; {AS_IT_WAS}",
            remedy=f"return a Summary or None from {name}",
        )
    return done or Summary()
