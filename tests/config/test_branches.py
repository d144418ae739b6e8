"""Which branch a checkout is on, what its database is called, and where it came from: by git itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

from skinspire_db.config import branches


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_branch_of_a_checkout_in_each_of_its_states(tmp_path: Path) -> None:
    root = tmp_path / "a checkout"
    root.mkdir()
    assert branches.current(root) is None and branches.origins(root, "x") == [] and branches.merged(root) == {}
    git(root, "init", "-q")
    assert branches.current(root) == "main", "before the first commit"
    git(root, "commit", "-q", "--allow-empty", "-m", "1")
    git(root, "switch", "-q", "-c", "feature/Zürich;x")
    below = root / "app" / "deep"
    below.mkdir(parents=True)
    assert branches.current(below) == "feature/Zürich;x"
    assert branches.origins(root, "feature/Zürich;x") == ["main", "master"]
    git(root, "commit", "-q", "--allow-empty", "-m", "2")
    git(root, "switch", "-q", "-c", "from-feature")
    assert branches.origins(root, "from-feature")[0] == "feature/Zürich;x"
    git(root, "branch", "named", "main")
    git(root, "switch", "-q", "named")
    assert branches.origins(root, "named") == ["main", "from-feature", "master"], (
        "what its log says, then where the checkout was"
    )
    assert branches.merged(root) == {"feature/Zürich;x": False, "from-feature": False, "main": False, "named": True}
    worktree = tmp_path / "worktree"
    git(root, "worktree", "add", "-q", "-b", "beside", str(worktree), "from-feature")
    assert branches.current(worktree) == "beside" and branches.current(root) == "named"
    assert branches.origins(worktree, "beside")[0] == "from-feature"
    commit = git(root, "rev-parse", "HEAD")
    git(root, "switch", "-q", "--detach")
    assert branches.current(root) == f"commit-{commit[:12]}"
    git(root, "switch", "-q", "-c", "of-a-commit")
    assert branches.origins(root, "of-a-commit")[0] == f"commit-{commit[:12]}"
    (root / "f").write_text("1")
    git(root, "add", "f")
    git(root, "commit", "-q", "-m", "3")
    git(root, "switch", "-q", "main")
    (root / "f").write_text("2")
    git(root, "add", "f")
    git(root, "commit", "-q", "-m", "4")
    git(root, "switch", "-q", "of-a-commit")
    assert subprocess.run(["git", "rebase", "-q", "main"], cwd=root, capture_output=True).returncode, "a conflict"
    assert branches.current(root) == "of-a-commit", "in a rebase, whose head is detached"
    git(root, "rebase", "--abort")
    git(root, "bisect", "start", "HEAD", "HEAD~1")
    assert branches.current(root) == "of-a-commit"


def test_names_of_databases_are_distinct_and_no_other_kind_of_name() -> None:
    assert branches.database("skinspire_dev", "fix_login-2") == "skinspire_dev__fix_login-2"
    odd = ["a/b", "a_b", "A_b", "a.b", "a b", "a_b_c0ffee", "x_former_abcdef", "x_scratch_0123456789ab", "日本", "", "x" * 70, "x" * 71,
           "\udcff", "x'; --", 'x"', "main"]  # fmt: skip
    for plain in ("skinspire_dev", "d" * 63, "é" * 31):
        names = [branches.database(plain, each) for each in odd]
        assert len(set(names)) == len(odd) and max(len(name.encode()) for name in names) <= 63
        assert names == [branches.database(plain, each) for each in odd]
