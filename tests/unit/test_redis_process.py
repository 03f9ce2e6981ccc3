"""The embedded Redis' data: never silently left unread."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.embedded_redis.binary import RedisBinary
from jobs.embedded_redis.process import RedisProcessError, check_data_format

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
