"""The README's first commands, as they stand, in a fresh clone: in a closed home, with a space in the path, twice in a row."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import CHECKOUT

pytestmark = pytest.mark.slow


def run(command: str, clone: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SKINSPIRE_", "VIRTUAL_ENV"))}
    return subprocess.run(["bash", "-c", command], cwd=clone, env=env, capture_output=True, text=True)


def test_the_first_morning(tmp_path: Path) -> None:
    home = tmp_path / "closed home"
    home.mkdir(mode=0o700)
    clone = home / "my clinic"
    subprocess.run(["git", "clone", "-q", str(CHECKOUT), str(clone)], check=True)
    setup, tests = re.findall(r"^python3.*$", (clone / "README.md").read_text(), re.MULTILINE)[:2]
    try:
        for _ in range(2):
            done = run(setup, clone)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "db.setup: committed and read back" in done.stdout
        found = run(".venv/bin/invoke db.verify --json", clone)
        assert '"ok": true' in found.stdout, "the next command finds the server that was left running"
        done = run(tests + " -q tests/config/test_environment.py", clone)
        assert done.returncode == 0, done.stdout + done.stderr
        offline = run(
            "unshare -n true 2>/dev/null && unshare -n bash -c 'ip link set lo up; .venv/bin/invoke server.stop && .venv/bin/invoke db.setup'",
            clone,
        )
        assert offline.returncode == 0 or not shutil.which("unshare") or "Operation not permitted" in offline.stderr, (
            offline.stderr
        )
    finally:
        refusal = run(".venv/bin/invoke server.destroy", clone).stderr
        assert run(f".venv/bin/{refusal.partition('-> ')[2]}", clone).returncode == 0
