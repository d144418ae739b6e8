"""Which branch a checkout is on, what its database is called, and which branch it came from.

Git's own files are read where that will do: a service asks at every block, and a process would cost it milliseconds.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from skinspire_db.patterns import lazy_regex

LONGEST = 63  # bytes of a database's name
# A name that is used as it is. An ending as those of scratch databases and of changed names would be taken for one.
PLAIN = lazy_regex(r"(?!.*_[0-9a-f]{6,12}$)[a-z0-9_-]+")
HEADS = "refs/heads/"
DEFAULTS = ("main", "master")  # where the remote does not say
MOVED = lazy_regex(r"> (\d+) [+-]\d{4}\tcheckout: moving from (\S+) to (\S+)$", re.MULTILINE)
CREATED = lazy_regex(r"> (\d+) [+-]\d{4}\tbranch: Created from (\S+)$", re.MULTILINE)


def current(root: Path) -> str | None:
    """The branch that a folder's checkout is on: in a rebase or bisection the one that it began on, and for a detached head
    `commit-` with the commit's first digits.

    Args:
        root: a folder of the checkout.

    Returns:
        None where no checkout can be read.
    """
    if (git := _folder(root)) is None or not (head := _text(git / "HEAD")):
        return None
    if head == f"ref: {HEADS}.invalid":  # branches are kept in a table (reftable), which git alone reads
        return _asked(root, "symbolic-ref", "--short", "HEAD") or _detached(_asked(root, "rev-parse", "HEAD"))
    if head.startswith("ref: "):
        return head.removeprefix("ref: ").removeprefix(HEADS)
    for file in ("rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"):
        began = _text(git / file)
        if began.startswith(HEADS) or (file == "BISECT_START" and began and not re.fullmatch("[0-9a-f]{40,}", began)):
            return began.removeprefix(HEADS)
    return _detached(head)


def _detached(commit: str) -> str | None:
    return f"commit-{commit[:12]}" if commit else None


def database(plain: str, branch: str) -> str:
    """What the database of a branch is called: PLAIN__BRANCH; where that will not do, what can be used of the branch's name,
    and six digits that stand for all of it.

    Args:
        plain: the database's name without branches.
        branch: the branch's name.
    """
    name = f"{plain}__{branch}"
    if PLAIN.fullmatch(branch) and len(name.encode()) <= LONGEST:
        return name
    slug = re.sub(r"[^a-z0-9-]+", "_", branch.lower()).strip("_")[:24]
    ending = f"__{slug}_{hashlib.sha256(f'{plain} {branch}'.encode(errors='surrogateescape')).hexdigest()[:6]}"
    return plain.encode()[: LONGEST - len(ending)].decode(errors="ignore") + ending


def origins(root: Path, branch: str) -> list[str]:
    """The branches that a branch can have come from, the likeliest first: as its log says, where the checkout was before, and
    the default branch.
    """
    if (git := _folder(root)) is None:
        return []
    common = _common(git)
    found: list[str] = []
    created = CREATED.search(_text(common / "logs" / HEADS / branch))
    if created:
        found += [created[2].removeprefix(HEADS), created[2].removeprefix("refs/remotes/").partition("/")[2]]
    since = int(created[1]) if created else 0
    moves = (move for move in MOVED.finditer(_text(git / "logs" / "HEAD")) if move[3] == branch and int(move[1]) >= since)
    found += [move[2] if not re.fullmatch("[0-9a-f]{40,}", move[2]) else str(_detached(move[2])) for move in moves][:1]
    found += [_text(common / "refs/remotes/origin/HEAD").partition("refs/remotes/origin/")[2], *DEFAULTS]
    return [name for name in dict.fromkeys(found) if name not in ("", "HEAD", branch)]


def merged(root: Path) -> dict[str, bool]:
    """The branches of a checkout, and whether each is merged into the default branch, or where there is none into the present
    commit. Empty where git cannot be asked.
    """
    every = _asked(root, "for-each-ref", "--format=%(refname:lstrip=2)", HEADS).splitlines()
    git = _folder(root)
    default = _text(_common(git) / "refs/remotes/origin/HEAD").partition("refs/remotes/origin/")[2] if git else ""
    into = next((name for name in (default, *DEFAULTS) if name in every), "")
    merged_into = HEADS + into if into else "HEAD"
    done = _asked(root, "for-each-ref", "--format=%(refname:lstrip=2)", f"--merged={merged_into}", HEADS).splitlines()
    return {name: name in done and name != into for name in every}


def having(root: Path, pattern: str) -> list[str]:
    """The branches, also of remotes, on which a Python file has such a line, the newest first; [] where git cannot be asked.

    Args:
        root: a folder of the checkout; files below it are searched.
        pattern: an extended regular expression.
    """
    newest = "--sort=-committerdate", "--count=500", "--format=%(refname)"  # more would not fit into a command
    references = _asked(root, "for-each-ref", *newest, HEADS, "refs/remotes").splitlines()
    found = _asked(root, "grep", "-lE", "-e", pattern, *references, "--", "*.py") if references else ""
    names = dict.fromkeys(line.partition(":")[0] for line in found.splitlines())
    return [name.removeprefix(HEADS).removeprefix("refs/remotes/") for name in names]


def _asked(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True, text=True, errors="surrogateescape", timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _folder(root: Path) -> Path | None:
    """Git's folder of a checkout: .git, or the one that a file of that name leads to, as in a worktree or a submodule."""
    for git in _upwards(root):
        if git.is_dir():
            return git
        if pointed := _text(git).removeprefix("gitdir:").strip():
            return git.parent / pointed
    return None


def _upwards(root: Path) -> Iterator[Path]:
    for folder in (root, *root.parents):
        yield folder / ".git"


def _common(git: Path) -> Path:
    """Git's folder that all worktrees share."""
    return (git / (_text(git / "commondir") or ".")).resolve()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except (OSError, ValueError):
        return ""
