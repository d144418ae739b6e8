"""Python environments for tests that install packages."""

import subprocess
import sys
from pathlib import Path


def new_environment(home: Path, *packages: str, compiled: bool = True) -> Path:
    """Make an environment with these packages from the package index; this environment's pip installs them.

    Returns:
        The folder of its programs.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    scripts = home / ("Scripts" if sys.platform == "win32" else "bin")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(scripts / "python"),
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    done = subprocess.run(
        [*command, *([] if compiled else ["--no-compile"]), *packages], capture_output=True, text=True, timeout=540
    )
    assert done.returncode == 0, f"{packages} cannot be installed from the package index: {done.stderr[-2000:]}"
    return scripts
