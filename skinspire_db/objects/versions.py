"""The SQL files that a project installs, and their versions: sql.lock has the text of each, archive/ the earlier ones."""

from __future__ import annotations

import codecs
import hashlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skinspire_db.config import content, tenancy
from skinspire_db.config.project import Project, write_atomically
from skinspire_db.config.tenancy import Roles
from skinspire_db.errors import InvalidSetting, SqlFileInvalid, UsageError
from skinspire_db.lifecycle import tool_schema
from skinspire_db.objects import files as reading
from skinspire_db.objects import function_schema
from skinspire_db.objects.files import SqlFile, read_file
from skinspire_db.objects.kinds import KINDS, MASK, POLICY, TRIGGER, Kind

LOCK = "sql.lock"
LOCK_HEADER = (
    "# kind and name, version, sha256, of every version: an edit without a new version is refused; invoke sql.bump makes one"
)
RESTORE = "restore the file from version control"


@dataclass(frozen=True)
class Bumped:
    """What `bump` did: the file's version now, and the earlier one's path in archive/ if it was frozen."""

    name: str
    version: int
    frozen: Path | None
    edited: bool

    def told(self, dry: bool) -> str:
        """What was done, or would be, in a sentence."""
        frozen = f"; version {self.version - 1} is in archive/{self.frozen.name}" if self.frozen else ""
        then = "" if self.edited else "; edit it, and run this again to lock what you wrote"
        return f"{self.name} {'would be' if dry else 'is'} version {self.version}{frozen}{then}"


def folders(project: Project) -> list[Path]:
    """The folders of SQL files, the package's first; of two files with one name the one of a later folder counts.

    Raises:
        InvalidSetting: `sql` in pyproject.toml names what is no folder.
    """
    given = project.config.get("sql")
    named = [given] if isinstance(given, str) else ["sql"] if given is None else given
    wrong = InvalidSetting(
        f"sql = {given!r} in pyproject.toml is no list of folders",
        remedy='write it as sql = ["sql"], from the project\'s folder',
    )
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise wrong
    if given is not None and (missing := [each for each in named if not (project.root / each).is_dir()]):
        raise InvalidSetting(
            f"sql in pyproject.toml names {missing[0]}, which is no folder of the project",
            remedy=f"make the folder {missing[0]}, or correct sql in pyproject.toml",
        )
    found = [tool_schema.sql_folder()]
    for each in (project.root / name for name in named):
        if each.is_dir() and each.resolve() not in [other.resolve() for other in found]:
            found.append(each)
    return found


def own_folder(project: Project) -> Path:
    """The last of the project's own folders of SQL files, where a new file goes; it need not exist yet."""
    found = folders(project)
    return found[-1] if len(found) > 1 or project.root in found[0].parents else project.root / "sql"


def paths(project: Project, kinds: Sequence[Kind] = KINDS) -> dict[str, tuple[Kind, Path]]:
    """name -> kind and path of each SQL file that counts, not yet read.

    Raises:
        SqlFileInvalid: for two files of the project's own with one name.
    """
    found: dict[str, tuple[Kind, Path]] = {}
    for folder in folders(project):
        for kind in kinds:
            for path in reading.paths(folder / kind.folder, kind.suffix):
                name = kind.name_of(path.stem)
                if name in found and not found[name][1].is_relative_to(tool_schema.sql_folder()):
                    raise SqlFileInvalid(
                        f"{path}:1: {found[name][1]} has the same name, and one of the two would not be installed",
                        remedy=f"rename {path.name} or remove it",
                    )
                found[name] = kind, path
    return found


def current(
    project: Project, kinds: Sequence[Kind] = KINDS, *, roles: Roles | None = None, every: bool = False
) -> list[SqlFile]:
    """The SQL files that this project installs: trigger files in firing order, but for those that its pyproject.toml leaves
    out, then the others.

    Args:
        project: The project.
        kinds: Only files of these kinds.
        roles: Those of the database that is meant, where tenancy is on.
        every: Also policy files where tenancy is off; they are not applicable then.

    Raises:
        SqlFileInvalid: one cannot be used, or was edited without a new version; with file and line.
        InvalidSetting: pyproject.toml leaves out what does not exist.
    """
    files = reading.in_order(read_file(path, kind=kind) for kind, path in paths(project, kinds).values())
    reading.refuse_same_order(files)
    check(files)
    files = [
        replace(file, proved_by=_proof(project, file), roles=roles)
        for file in files
        if file.kind is not POLICY or every or tenancy.is_on(project)
    ]
    if TRIGGER not in kinds:
        return files
    disabled, required = listed(project, "disabled_triggers", files), listed(project, "required_triggers", files)
    if both := set(disabled).intersection(required):
        raise InvalidSetting(
            f"disabled_triggers and required_triggers in pyproject.toml both name {min(both)}",
            remedy="take it off one of the two",
        )
    core = content.CORE_METADATA in content.metadata(project)
    schema = function_schema.declared(project, [file for file in files if file.kind is TRIGGER])
    chosen = [
        replace(file, required=file.name in required, core=core and file.root == tool_schema.sql_folder())
        for file in files
        if file.name not in disabled
    ]
    return [schema.place(file) if file.kind is TRIGGER else file for file in chosen]


def _proof(project: Project, file: SqlFile) -> Path | None:
    """The proof in the last folder that has one, from the file's own on: a project's replaces the package's by name."""
    roots = folders(project)
    later = roots[roots.index(file.root) + 1 :] if file.root in roots else []
    proofs = [root / file.kind.folder / "verify" / f"{file.stem}.sql" for root in later]
    return next((path for path in reversed(proofs) if path.exists()), None)


def listed(project: Project, key: str, files: list[SqlFile]) -> list[str]:
    """The names of trigger files that a key of pyproject.toml lists.

    Args:
        project: The project.
        key: `disabled_triggers` or `required_triggers`.
        files: All its SQL files.

    Returns:
        The names; none where the key is not set.

    Raises:
        InvalidSetting: The key is no list, or names what is no trigger file.
    """
    names = project.config.get(key, [])
    known = [file.name for file in files if file.kind is TRIGGER]
    if not isinstance(names, list) or [name for name in names if name not in known]:
        raise InvalidSetting(
            f"{key} = {names!r} in pyproject.toml is no list of trigger files",
            remedy=f"choose from {', '.join(sorted(known))}",
        )
    return names


def check(files: list[SqlFile]) -> None:
    """Make sure that each file is the text that sql.lock has for its version, and that no earlier version is missing."""
    locks = {root: read_lock(root) for root in {file.root for file in files}}
    for file in files:
        versions = locks[file.root].get(_locked_name(file), {0: ""})
        version = max(versions)
        where = f"{file.path}:{file.line('version')}"
        if file.version > version + 1:
            after = f"after version {version}" if version else "for a new file"
            raise SqlFileInvalid(f"{where}: version {file.version} {after} leaves a gap", remedy=f"write {version + 1}")
        if file.version < version:
            raise SqlFileInvalid(f"{where}: version {file.version}, but {version} is locked", remedy=f"write {version}")
        if file.version > version:
            raise SqlFileInvalid(f"{where}: version {file.version} is not in {LOCK}", remedy=file.bump)
        if file.sha256 != versions[version]:
            raise SqlFileInvalid(f"{where}: edited since version {version} was locked", remedy=file.bump)
        for earlier in range(1, version):
            _check_archived(file, version, earlier, versions.get(earlier))
        if file.attachments and not file.proof.exists():
            raise SqlFileInvalid(
                f"{file.path}:{file.line('attach')}: there is no verify/{file.stem}.sql, and only running proves it",
                remedy="write a proof, as the other files have one",
            )


def _check_archived(file: SqlFile, version: int, earlier: int, sha256: str | None) -> None:
    where, path = f"{file.path}:{file.line('version')}", archived(file, earlier)
    remedy = "restore it from version control"
    if sha256 is None or not path.exists():
        raise SqlFileInvalid(f"{where}: version {version}, but archive/{path.name} is missing: a gap", remedy=remedy)
    if hashlib.sha256(path.read_bytes().removeprefix(codecs.BOM_UTF8)).hexdigest() != sha256:
        raise SqlFileInvalid(f"{path}:1: edited since it was frozen", remedy=remedy)


def at(file: SqlFile, version: str) -> SqlFile:
    """The file as it was in an earlier version, or as it is.

    Raises:
        UsageError: for a version that does not exist.
    """
    newest = max(read_lock(file.root).get(_locked_name(file), {0: ""}))
    if not re.fullmatch(r"[1-9][0-9]*", version) or int(version) > newest:
        raise UsageError(
            f"{file.name} has no version {version}; it has 1 to {newest}",
            remedy=f"invoke {file.kind.collection}.install --name={file.name}",
        )
    if int(version) == newest:
        return file
    earlier = read_file(archived(file, int(version)), file.stem, file.kind)
    functions = file.functions.functions.union(function_schema.made_in_public(earlier))
    return replace(file.functions, functions=functions).place(earlier)


def pick(files: list[SqlFile], name: str) -> SqlFile:
    """The file that --name means: its name, or the last part of one, where only one file has that.

    Raises:
        UsageError: there is none, or there are several.
    """
    return next(file for file in files if file.name == named([each.name for each in files], name, _what(files)))


def named(names: Sequence[str], name: str, what: str = "SQL file") -> str:
    """Which of the names --name means.

    Raises:
        UsageError: none or several.
    """
    chosen = [name] if name in names else [each for each in names if each.rpartition("/")[2] == name]
    if len(chosen) > 1:
        raise UsageError(f"{name} is the name of {len(chosen)} SQL files", remedy=f"choose from {', '.join(chosen)}")
    if not chosen:
        raise UsageError(
            f"this project has no {what} {name}", remedy=f"choose from {', '.join(sorted(names))}" if names else "write one"
        )
    return chosen[0]


def _what(files: list[SqlFile]) -> str:
    return "trigger file" if {file.kind for file in files} == {TRIGGER} else "SQL file"


def bump(project: Project, name: str | None, kinds: Sequence[Kind] = (*KINDS, MASK), *, dry: bool = False) -> Bumped:
    """Give an edited file its next version: its former text goes to archive/, its new one into sql.lock.

    A version that was never committed to git is known here only: it is locked anew under its number. A file that was not
    edited gets the next version too, ready to be edited, once: one whose text is still the former version's keeps its number.

    Raises:
        UsageError: for an unknown name.
        SqlFileInvalid: the former text can be found neither in the file nor in git's history; then nothing was written.
    """
    known = paths(project, kinds)
    collection, what = ("triggers", "trigger file") if list(kinds) == [TRIGGER] else ("sql", "SQL file")
    if not name:
        raise UsageError(
            f"{collection}.bump needs the name of {'a' if collection == 'triggers' else 'an'} {what}",
            remedy=f"choose from {', '.join(sorted(known))}",
        )
    kind, path = known[named(list(known), name, what)]
    file = read_file(path, kind=kind)
    versions = read_lock(file.root).get(_locked_name(file), {0: ""})
    version = max(versions)
    edited = file.sha256 != versions[version]
    former = None
    if version and (edited or not _is_the_former_text(file, version)):
        former = _former(file, version, versions[version]) if edited else file.text
    now = version if version and former is None else version + 1
    frozen = archived(file, version) if former is not None else None
    text = _numbered(file.text, now)
    if not re.search(rf"^\s*version\s*=\s*{now}\s*(#|$)", text, re.MULTILINE):
        raise SqlFileInvalid(f"{file.path}:{file.line('version')}: the version is no plain number", remedy=f"write {now}")
    if not dry:
        write(file, text, now, frozen, former)
    return Bumped(file.name, now, frozen, edited)


def _numbered(text: str, version: int) -> str:
    """The text with this version in its header."""
    return re.sub(r"^(\s*version\s*=\s*)\d+", rf"\g<1>{version}", text, count=1, flags=re.MULTILINE)


def _is_the_former_text(file: SqlFile, version: int) -> bool:
    """Whether the version is one that was made ready to be edited, and was not."""
    path = archived(file, version - 1)
    return path.exists() and _numbered(read_file(path, file.stem, file.kind).text, version) == file.text


def _former(file: SqlFile, version: int, sha256: str) -> str | None:
    """The text that was locked, from git's history; None when it was never committed, so that it is known here only, or is
    the version's before, made ready to be edited.
    """
    path = file.path
    if (text := _committed(path, sha256)) is not None:
        return text
    before = archived(file, version - 1)
    if before.exists() and _sha256(_numbered(read_file(before, file.stem, file.kind).text, version)) == sha256:
        return None
    whole = _git(path, "rev-parse", "--is-shallow-repository") == "false\n"
    if whole and not _git(file.root / LOCK, "log", "--all", "--format=%H", f"-S{sha256}", "--", LOCK):
        return None
    raise SqlFileInvalid(
        f"{path}:1: the text of version {version} is neither here nor in git's history",
        remedy=f"put version {version} back, run this, and edit it then",
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def archived(file: SqlFile, version: int) -> Path:
    """Where an earlier version of a file is kept."""
    return file.path.parent / "archive" / f"{file.stem}.{version}{file.kind.suffix}"


def read_lock(root: Path) -> dict[str, dict[int, str]]:
    """kind/name -> version -> sha256 of every version, as sql.lock in a folder of SQL files has them.

    Raises:
        SqlFileInvalid: a line is damaged; with file and line.
    """
    locked: dict[str, dict[int, str]] = {}
    path = root / LOCK
    if not path.exists() and root != tool_schema.sql_folder():  # a project's first files have none yet
        return locked
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise SqlFileInvalid(f"{path}:1: cannot be read", remedy=RESTORE) from None
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-z]+/[a-z_][a-z0-9_]*) ([1-9][0-9]*) ([0-9a-f]{64})", line)
            if match is None:
                raise SqlFileInvalid(f"{path}:{number}: not name, version and sha256", remedy=RESTORE)
            locked.setdefault(match[1], {})[int(match[2])] = match[3]
    return locked


def _locked_name(file: SqlFile) -> str:
    return f"{file.kind.folder}/{file.stem}"


def write(file: SqlFile, text: str, version: int, frozen: Path | None = None, former: str | None = None) -> None:
    """Write a version of a file, with its line in sql.lock.

    Archive first, lock last: whatever stops it between, the next bump finds what it needs.
    """
    if frozen is not None and former is not None:
        write_atomically(frozen, former)
    write_atomically(file.path, text)
    locked = {name: versions for name, versions in read_lock(file.root).items() if _exists(file.root, name)}
    locked.setdefault(_locked_name(file), {})[version] = hashlib.sha256(text.encode()).hexdigest()
    lines = [f"{name} {number} {sha256}" for name in sorted(locked) for number, sha256 in sorted(locked[name].items())]
    write_atomically(file.root / LOCK, "\n".join([LOCK_HEADER, *lines]) + "\n")


def _exists(root: Path, name: str) -> bool:
    return any((root / f"{name}{suffix}").exists() for suffix in {kind.suffix for kind in (*KINDS, MASK)})


def is_packaged(file: SqlFile) -> bool:
    """Whether a file is one of the package's own."""
    return file.root == tool_schema.sql_folder()


def write_unlocked(file: SqlFile, text: str) -> None:
    """Write a new file that is yet to be edited and to be given its version."""
    write_atomically(file.path, text)


def _committed(path: Path, sha256: str) -> str | None:
    for commit in _git(path, "log", "--all", "--format=%H", "--", path.name).split():
        text = _git(path, "show", f"{commit}:./{path.name}").removeprefix("\ufeff")
        if hashlib.sha256(text.encode()).hexdigest() == sha256:
            return text
    return None


def _git(path: Path, *arguments: str) -> str:
    """What git answers in the file's folder; empty where it cannot answer."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
