"""What we write as root where another account may write too: no link of its leads elsewhere, and no umask opens a folder."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from skinspire_db.config import project as settings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="file modes and symbolic links of POSIX")


def test_a_link_that_lies_in_the_way_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("root's")
    place = tmp_path / "home"
    place.mkdir()
    (place / f"server.json.{os.getpid()}.new").symlink_to(precious)
    (place / "server.json").symlink_to(precious)
    settings.write_atomically(place / "server.json", "ours")
    assert precious.read_text() == "root's"
    assert not (place / "server.json").is_symlink() and (place / "server.json").read_text() == "ours"


def test_a_file_of_ours_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("root's")
    (tmp_path / "password").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), settings.opened_new(tmp_path / "password", 0o600):
        pass
    with pytest.raises(OSError):
        settings.append(tmp_path / "password", "more")
    assert (tmp_path / "precious").read_text() == "root's"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_are_ours_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    former = os.umask(umask)
    try:
        settings.write_atomically(tmp_path / ".skinspire" / "deep" / "file", "text")
        settings.write_atomically(tmp_path / ".skinspire" / "secret", "text", mode=0o600)
    finally:
        os.umask(former)
    modes = [
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (".skinspire", ".skinspire/deep", ".skinspire/deep/file")
    ]
    assert modes == [0o755, 0o755, 0o644]
    assert stat.S_IMODE((tmp_path / ".skinspire" / "secret").stat().st_mode) == 0o600


def test_a_file_keeps_the_mode_that_people_gave_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o664)
    settings.write_atomically(tmp_path / "file", "new")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o664
