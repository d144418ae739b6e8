"""Processes of the operating system: whether a pid is a server's, and how PostgreSQL's programs are started."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CLOCK_SECONDS = 2  # a process is older than the time that it writes into its pid file, which has whole seconds


def serves(pid: int, data: Path, started: float | None) -> bool:
    """Whether the process `pid` may be the server of the cluster in `data`. What the system does not say is not "no": a
    server that is taken for dead would be deleted under its users.

    Args:
        pid: the number in the cluster's postmaster.pid.
        data: the cluster's folder.
        started: when that file's server started, in seconds since 1970; a younger process got its number later.
    """
    if sys.platform == "linux":
        return _has_folder(pid, data)
    if sys.platform == "win32":
        return _is_postgres(*_ask_windows(pid), started)
    return _is_postgres(*ask_ps(pid), started)


def _has_folder(pid: int, data: Path) -> bool:
    """A server's working directory is its data directory."""
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(data.resolve())  # noqa: PTH115
    except PermissionError:  # in a container even root may not look there; the command line is everybody's to read
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return str(data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        pass
    return False


def _is_postgres(alive: bool, program: str | None, created: float | None, started: float | None) -> bool:
    """`program` and `created` are None where the system does not tell."""
    if not alive or (program is not None and "postgres" not in program.lower()):
        return False
    return created is None or started is None or created <= started + CLOCK_SECONDS


def ask_ps(pid: int) -> tuple[bool, str | None, float | None]:
    """Whether the process lives, its program, and when it began, in seconds since 1970."""
    command = ["ps", "-o", "lstart=,comm=", "-p", str(pid)]
    try:
        answer = subprocess.run(command, capture_output=True, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"}, check=False)
    except OSError:
        return True, None, None
    words = answer.stdout.decode(errors="replace").split(maxsplit=5)  # Wed Nov 25 23:12:30 2026 /usr/bin/postgres
    if len(words) < 6:
        return bool(answer.stderr.strip()), None, None  # of a pid that no process has it says nothing
    try:
        created = datetime.strptime(" ".join(words[1:5]), "%b %d %H:%M:%S %Y").replace(tzinfo=UTC).timestamp()
    except ValueError:
        created = None
    return True, words[5], created


def _ask_windows(pid: int) -> tuple[bool, str | None, float | None]:
    """As ask_ps(), by OpenProcess, GetExitCodeProcess, QueryFullProcessImageName and GetProcessTimes."""
    if sys.platform != "win32":
        return True, None, None
    import ctypes
    from ctypes import wintypes

    limited_information, invalid_parameter, still_active = 0x1000, 87, 259
    system = ctypes.WinDLL("kernel32", use_last_error=True)
    system.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
    system.OpenProcess.restype = wintypes.HANDLE
    system.CloseHandle.argtypes = [wintypes.HANDLE]
    system.GetExitCodeProcess.argtypes = [wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD)]
    system.QueryFullProcessImageNameW.argtypes = [
        wintypes.HANDLE, wintypes.DWORD, wintypes.LPWSTR, ctypes.POINTER(wintypes.DWORD),
    ]  # fmt: skip
    system.GetProcessTimes.argtypes = [wintypes.HANDLE, *[ctypes.POINTER(wintypes.FILETIME)] * 4]
    handle = system.OpenProcess(limited_information, False, pid)
    if not handle:  # only this error says that there is no such process; a refusal says that there is one
        return ctypes.get_last_error() != invalid_parameter, None, None
    try:
        code, length = wintypes.DWORD(), wintypes.DWORD(32768)
        if system.GetExitCodeProcess(handle, ctypes.byref(code)) and code.value != still_active:
            return False, None, None
        name = ctypes.create_unicode_buffer(length.value)
        named = system.QueryFullProcessImageNameW(handle, 0, name, ctypes.byref(length))
        times = [wintypes.FILETIME() for _ in range(4)]
        timed = system.GetProcessTimes(handle, *(ctypes.byref(each) for each in times))
        ticks = (times[0].dwHighDateTime << 32) + times[0].dwLowDateTime  # of 100 ns since 1601
        program = name.value.replace("\\", "/").rpartition("/")[2] if named else None
        return True, program, ticks / 1e7 - 11_644_473_600 if timed else None
    finally:
        system.CloseHandle(handle)


def options(*, stays: bool = False) -> dict[str, Any]:
    """What subprocess needs on Windows, so that a program opens no window; one that `stays` is in a group of its own, where a
    Ctrl-C that is meant for us does not reach it.
    """
    if sys.platform != "win32":
        return {}
    flags = subprocess.CREATE_NO_WINDOW | (subprocess.CREATE_NEW_PROCESS_GROUP if stays else 0)
    return {"creationflags": flags}


def missing_library(code: int) -> bool:
    """Whether a program ended with Windows' STATUS_DLL_NOT_FOUND, which has no text."""
    return code & 0xFFFFFFFF == 0xC0000135
