"""Redis clients, made in one place with the settings that measured safe.

``protocol=2``: with RESP3 redis-py skips its check for stale replies. Commands that are not
idempotent are sent through clients without retries.

A peer that is gone without a word is noticed within six seconds: by the sockets' own options, and
in threads by a time-out too. asyncio clients have no time-out: on Python 3.11 redis-py's own
swallows task cancellation. Their commands have a deadline instead, for a Redis that is frozen;
whoever must not wait so long uses ``within``.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from jobs.contract.errors import NotReadyError

MIN_VERSION = (6, 2)
_TIMEOUT_S = 5.0  # of one try: to connect, or for an answer. No command blocks for longer than 1 s.
_MAX_AT_ONCE = 128  # commands of an API process; more wait
_RETRY_S = 3.0  # after the first try no further one begins
_POOL_WAIT_S = 20.0
_CANCEL_S = 1.0  # to drop a connection
_ANSWER_S = 10.0  # to an asyncio client, its tries and its wait for a connection included
_DISCONNECTS = (RedisConnectionError, RedisTimeoutError)

_OPTIONS = {  # of TCP; the numbers, as Python does not know all of them on each system
    # TCP_KEEPIDLE, TCP_KEEPINTVL (s), TCP_KEEPCNT, TCP_USER_TIMEOUT (ms)
    "linux": {4: 2, 5: 1, 6: 3, 18: 4500},
    # TCP_KEEPALIVE, TCP_KEEPINTVL (s), TCP_KEEPCNT, TCP_RXT_CONNDROPTIME (s)
    "darwin": {0x10: 2, 0x101: 1, 0x102: 3, 0x80: 5},
}

# What Redis says first when it cannot do now what it could do later.
_TRANSIENT = frozenset(
    "BUSY CLUSTERDOWN LOADING MASTERDOWN MISCONF NOAUTH NOREPLICAS OOM READONLY TRYAGAIN".split()
)
_IN_SCRIPT = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")  # Redis 6.2 puts other words first

SyncRedis: TypeAlias = redis.Redis
AsyncRedis: TypeAlias = redis.asyncio.Redis
T = TypeVar("T")


def connect(url: str, *, retries: int = 3, timeout_s: float | None = None) -> SyncRedis:
    """A client for threads. ``retries`` 0 for who retries by itself, idempotently.

    ``timeout_s``: for who must say soon that Redis is away.
    """
    options = _thread_options(url, retries)
    if timeout_s is not None:
        options.update(socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    return redis.Redis.from_url(url, **options)


def connect_async(url: str, *, retries: int = 3) -> AsyncRedis:
    """A client for asyncio; cancellation of the calling task is safe.

    Its pool makes callers wait; redis-py's own would refuse the hundred-and-first at once.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=_MAX_AT_ONCE,
        timeout=_POOL_WAIT_S,
        socket_timeout=None,
        retry=_AsyncShortRetry(_backoff(retries), retries, supported_errors=_DISCONNECTS),
        **_common_options(url),
    )
    return _DeadlineRedis.from_pool(pool)


class _DeadlineRedis(redis.asyncio.Redis):  # type: ignore[misc]
    """Each command is answered in time, or raises ``redis.TimeoutError``; pipelines are not."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        return await within(_ANSWER_S, super().execute_command(*args, **options))


def _thread_options(url: str, retries: int) -> dict[str, Any]:
    retry = _ShortRetry(_backoff(retries), retries, supported_errors=_DISCONNECTS)
    return {"socket_timeout": _TIMEOUT_S, "retry": retry, **_common_options(url)}


def _common_options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_connect_timeout": _TIMEOUT_S,
        "health_check_interval": 0,
    }
    if url.startswith("unix:"):  # whose other end cannot be lost without a word
        return options
    return {
        **options,
        "socket_keepalive": True,
        "socket_keepalive_options": _peer_options(),
    }


def _backoff(retries: int) -> ExponentialBackoff | NoBackoff:
    return ExponentialBackoff(cap=0.5, base=0.05) if retries else NoBackoff()


@functools.cache
def _peer_options() -> dict[int, int]:
    """Options of TCP with which a dead peer is noticed after five seconds, idle or not.

    Those that the system does not take are left out: without them it is a matter of hours.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        wanted = _OPTIONS.get(sys.platform, {})
        return {option: value for option, value in wanted.items() if _takes(tried, option, value)}


def _takes(tried: socket.socket, option: int, value: int) -> bool:
    try:
        tried.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        return False
    return True


class _ShortRetry(Retry):  # type: ignore[misc]
    """No try begins late: else a dead peer would cost a time-out per try."""

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        end = time.monotonic() + _RETRY_S

        def give_up_late(error: Exception, failures: int) -> None:
            fail(error, failures) if with_failure_count else fail(error)
            if time.monotonic() >= end:
                raise error

        found: T = super().call_with_retry(do, give_up_late, is_retryable, with_failure_count=True)
        return found


class _AsyncShortRetry(AsyncRetry):  # type: ignore[misc]
    """The same for asyncio."""

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[T]],
        fail: Callable[..., Awaitable[Any]],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        end = time.monotonic() + _RETRY_S

        async def give_up_late(error: Exception, failures: int) -> None:
            await (fail(error, failures) if with_failure_count else fail(error))
            if time.monotonic() >= end:
                raise error

        found: T = await super().call_with_retry(
            do, give_up_late, is_retryable, with_failure_count=True
        )
        return found


async def within(seconds: float, asked: Awaitable[T]) -> T:
    """The answer to a command of asyncio; ``redis.TimeoutError`` when it has not come in time.

    The command is cancelled then, whereupon redis-py drops its connection: no late answer can be
    taken for that to the next command. It may have been done all the same. Cancellation of the
    calling task is safe.
    """
    task = asyncio.ensure_future(asked)
    task.add_done_callback(_retrieve_error)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_S)
            raise RedisTimeoutError(f"Redis has not answered within {seconds} s")
    finally:
        task.cancel()  # of no effect on what is done
    return task.result()


def _retrieve_error(task: asyncio.Future[Any]) -> None:
    """Else asyncio complains about the error of a command that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def is_transient(error: BaseException) -> bool:
    """Whether the same command may succeed later: Redis is away, starting, full, busy or locked.

    Everything else is for good: another type under the key, a command that this user may not send,
    an error of a script. What is not welcome without the right password waits for it, as all that
    is sent is refused alike, and no one job is at fault.
    """
    if isinstance(error, _DISCONNECTS):  # AuthenticationError and BusyLoadingError are such too
        return True
    return isinstance(error, RedisError) and not _TRANSIENT.isdisjoint(_codes(error))


def _codes(error: RedisError) -> list[str]:
    text = str(error)
    return [error.status_code or text.partition(" ")[0], *_IN_SCRIPT.findall(text)]


def wait_for_redis(client: SyncRedis, timeout_s: float = 10.0) -> None:
    """Return when Redis answers and is new enough; ``NotReadyError`` says what is wrong."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            version = str(client.info("server")["redis_version"])
            break
        except (AuthenticationError, AuthorizationError) as error:  # to redis-py a lost connection
            raise NotReadyError(f"Redis refuses: {error}") from error
        except _DISCONNECTS as error:
            if time.monotonic() >= deadline:
                raise NotReadyError(f"Redis does not answer: {error}") from error
            time.sleep(0.02)
        except RedisError as error:
            raise NotReadyError(f"Redis refuses: {error}") from error
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
        raise NotReadyError(f"Redis {version} is too old: 6.2 or newer is needed")
