"""Every error a user can meet: one class, one sentence, one exit code, one remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SkinspireError(Exception):
    """Something a user can cause or can mend; shown as one line, never as a traceback.

    `message` is a sentence without secrets; `remedy` is what to do next, if possible a command that exists. `exit_code`
    is 1 (failed; the database is as it was), 2 (refused) or 3 (a check found something).
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.result: dict[str, Any] = {}  # how far an operation came, for --json

    def __str__(self) -> str:
        return f"{self.message} -> {self.remedy}" if self.remedy else self.message

    def as_dict(self) -> dict[str, str | None]:
        """The error as `--json` shows it: type, message, remedy."""
        return {"type": type(self).__name__, "message": self.message, "remedy": self.remedy}


class Refused(SkinspireError):
    """Not carried out, and nothing was tried."""

    exit_code = 2


class UsageError(Refused):
    """A parameter of a task has a value that means nothing."""


class UnknownEnvironment(Refused):
    """An environment name that neither the tools nor the project declare."""


class InvalidSetting(Refused):
    """A setting of .env, the process environment or pyproject.toml is missing or makes no sense."""


class GuardRefused(Refused):
    """The stamp, the policy or a missing confirmation forbids the operation."""


class NotOurs(Refused):
    """Objects that others made are where ours should be; they were not touched. `names` are theirs."""

    names: Sequence[str] = ()


class OperationLocked(Refused):
    """Another operation is at work on this database."""


class ConnectionFailed(SkinspireError):
    """No connection to the server could be had, or it was lost."""


class DatabaseMissing(SkinspireError):
    """The server answers, but the database does not exist."""


class PermissionMissing(SkinspireError):
    """The role lacks a right that only an administrator can grant."""


class BackupInvalid(SkinspireError):
    """A backup is not complete, was altered, or cannot be read or written."""


class ToolMissing(SkinspireError):
    """PostgreSQL's client programs are not there, or older than the server."""


class ServerFailed(SkinspireError):
    """The embedded PostgreSQL server could not be made, started or stopped."""


class StepFailed(SkinspireError):
    """A step of an operation failed and everything it did was rolled back."""


class TableLocked(SkinspireError):
    """An open transaction of another session holds a table that the operation needs."""


class SqlFileInvalid(SkinspireError):
    """An SQL file cannot be read or has no version, or PostgreSQL refuses it."""


class NotApplicable(SkinspireError):
    """An SQL file that is demanded needs what the database has not got."""


class MigrationInvalid(Refused):
    """The revision files and the database do not fit together, or a file cannot be used."""


class MigrationFailed(SkinspireError):
    """PostgreSQL refused a statement of a revision; those before it stay, this one left no trace."""


class ModelsInvalid(Refused):
    """The models named in pyproject.toml cannot be loaded, or do not fit together."""


class ProjectCodeEnded(SkinspireError):
    """Code of the project, a model or a revision, ended in another way than by returning, by sys.exit() for one."""


class ChecksFailed(SkinspireError):
    """A verification found something that is not as it should be, or could not look."""


class Drifted(SkinspireError):
    """A look found something that is pending, or not as the files and models say; nothing was to be changed."""

    exit_code = 3


class OutcomeUnknown(SkinspireError):
    """The connection was lost while PostgreSQL committed, and the server could not be asked what came of it."""


class SessionSpoiled(SkinspireError):
    """The work of a get_db_session block cannot be kept, or undone, as one: a block inside it failed, and the outer one went
    on as if it had not; or something else ended its transaction.
    """


class HospitalRefused(Refused):
    """The hospital of a block is no UUID, does not exist, is not active, or is not the one of the block around it."""


class HospitalNotSet(HospitalRefused):
    """Tenancy is on, and a block names no hospital."""


class NotCopied(SkinspireError):
    """Something was asked of a detached copy that was not copied."""


class OutputLost(SkinspireError):
    """What a task had to say could not be written; what it did stays."""


class Interrupted(SkinspireError):
    """Ctrl-C or a termination signal; everything was rolled back."""
