"""The embedded Redis' data: never silently left unread, and nobody else's to read."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.embedded_redis.binary import RedisBinary
from jobs.embedded_redis.password import embedded_password
from jobs.embedded_redis.process import (
    RedisProcessError,
    check_data_format,
    check_sockets,
    make_private,
)

_REDIS_6 = RedisBinary(Path("/opt/redis-server"), (6, 2, 14))
_REDIS_7 = RedisBinary(Path("/opt/redis-server"), (7, 0, 15))


def test_data_of_a_newer_server_is_not_left_unread(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    check_data_format(tmp_path, _REDIS_7)
    with pytest.raises(RedisProcessError, match=r"6\.2\.14.*install a newer one"):
        check_data_format(tmp_path, _REDIS_6)


def test_data_of_an_older_server_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").touch()
    check_data_format(tmp_path, _REDIS_6)
    check_data_format(tmp_path, _REDIS_7)


def test_an_open_folder_becomes_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    folder.mkdir(parents=True, mode=0o777)
    make_private(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_disk_without_sockets_is_named_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OfExFat(socket.socket):
        def bind(self, address: str) -> None:  # type: ignore[override]
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    check_sockets(tmp_path)
    monkeypatch.setattr(socket, "socket", OfExFat)
    with pytest.raises(RedisProcessError, match=r"without unix sockets.*set MGS_STATE_DIR"):
        check_sockets(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_launcher_left_does_not_look_like_a_disk_without_sockets(
    tmp_path: Path,
) -> None:
    (tmp_path / "try.sock").touch()
    check_sockets(tmp_path)


def test_all_processes_agree_on_a_password_without_hard_links(tmp_path: Path) -> None:
    """An external disk with exFAT has none."""
    code = "import os, sys; from pathlib import Path; del os.link; "
    code += "from jobs.embedded_redis.password import embedded_password; "
    code += "sys.stdin.read(1); print(embedded_password(Path(sys.argv[1])))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "state")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for one in processes:
        one.stdin.close()
    said = {one.stdout.read().decode().strip() for one in processes}
    assert [one.wait() for one in processes] == [0] * 4
    for one in processes:
        one.stdout.close()
    assert said == {embedded_password(tmp_path / "state")}
    assert stat.S_IMODE((tmp_path / "state" / "redis.password").stat().st_mode) == 0o600


def test_where_a_file_lies_no_data_can(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(RedisProcessError, match="cannot be used"):
        make_private(tmp_path / "state")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("is_link", [False, True], ids=["folder", "link to one of ours"])
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, is_link: bool) -> None:
    """Who owns it, or a link in its place, could read the prompts or put others there."""
    folder = tmp_path / "state"
    if is_link:
        (tmp_path / "ours").mkdir()
        folder.symlink_to(tmp_path / "ours")
    else:
        folder.mkdir()
    os.chown(folder, 12345, -1, follow_symlinks=False)
    with pytest.raises(RedisProcessError, match="belongs to another user"):
        make_private(folder)
