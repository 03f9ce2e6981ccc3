"""Redis clients with safe settings.

``protocol=2``: with RESP3 redis-py skips its check for stale replies. Commands that are not
idempotent go through clients without retries.

A dead peer is detected within six seconds: by socket options, and in threads by a time-out too.
asyncio clients have no socket time-out, because redis-py's swallows task cancellation on Python
3.11. Their commands have a deadline instead, in case Redis is frozen. ``within`` sets a shorter
deadline.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
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
from jobs.platform.tcp_keepalive import keepalive_options

MIN_VERSION = (6, 2)
_TIMEOUT_S = 5.0  # per attempt to connect or to get a reply. No command blocks for longer than 1 s.
_MAX_AT_ONCE = 128  # connections of an API process; further commands wait
_RETRY_S = 3.0  # no retry begins later than this after the first try
_POOL_WAIT_S = 20.0
_CANCEL_S = 1.0  # to wait for a cancelled command to drop its connection
_ANSWER_S = 10.0  # for asyncio clients, including retries and the wait for a connection
_DISCONNECTS = (RedisConnectionError, RedisTimeoutError)

_OPTIONS = keepalive_options(idle_s=2, interval_s=1, count=3, unacknowledged_s=4.5)

# Error codes of Redis for which the same command may succeed later.
_TRANSIENT = frozenset(
    "BUSY CLUSTERDOWN LOADING MASTERDOWN MISCONF NOAUTH NOREPLICAS OOM READONLY TRYAGAIN".split()
)
_IN_SCRIPT = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")  # Redis 6.2 puts the code later

SyncRedis: TypeAlias = redis.Redis
AsyncRedis: TypeAlias = redis.asyncio.Redis
T = TypeVar("T")


def connect(url: str, *, retries: int = 3, timeout_s: float | None = None) -> SyncRedis:
    """A client for threads. Pass ``retries`` 0 when the caller retries or must not repeat.

    ``timeout_s`` shortens the time-out, for callers that must report an unreachable Redis soon.
    """
    options = _thread_options(url, retries)
    if timeout_s is not None:
        options.update(socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    return redis.Redis.from_url(url, **options)


def connect_async(url: str, *, retries: int = 3) -> AsyncRedis:
    """A client for asyncio. The calling task may be cancelled safely.

    Callers wait when all connections of the pool are in use. redis-py's default pool raises an
    error instead.
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
    """Commands have a deadline and then raise ``redis.TimeoutError``. Pipelines have none."""

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
    if url.startswith("unix:"):  # the other end of a unix socket cannot vanish unnoticed
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
    """TCP options that detect a dead peer after five seconds, also on an idle connection.

    Options that the system rejects are left out. Without them detection takes hours.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        wanted = _OPTIONS
        return {option: value for option, value in wanted.items() if _takes(tried, option, value)}


def _takes(tried: socket.socket, option: int, value: int) -> bool:
    try:
        tried.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        return False
    return True


class _ShortRetry(Retry):  # type: ignore[misc]
    """No retry begins late. Otherwise a dead peer would cost one time-out per retry."""

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
    """``_ShortRetry`` for asyncio."""

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
    """The reply to an asyncio command. Raises ``redis.TimeoutError`` after ``seconds``.

    The command is then cancelled, and redis-py drops its connection, so a late reply cannot be
    taken for the reply to the next command. Redis may still have executed the command. The calling
    task may be cancelled safely.
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
        task.cancel()  # no effect on a finished task
    return task.result()


def _retrieve_error(task: asyncio.Future[Any]) -> None:
    """Retrieve the error of an abandoned command, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


def is_transient(error: BaseException) -> bool:
    """Whether the same command may succeed later: Redis is unreachable, starting, full or busy.

    Other errors are permanent: a key of another type, a forbidden command, an error in a script. A
    wrong password counts as transient, because it affects all commands alike and no single job is
    at fault.
    """
    if isinstance(error, _DISCONNECTS):  # including AuthenticationError and BusyLoadingError
        return True
    return isinstance(error, RedisError) and not _TRANSIENT.isdisjoint(_codes(error))


def _codes(error: RedisError) -> list[str]:
    text = str(error)
    return [error.status_code or text.partition(" ")[0], *_IN_SCRIPT.findall(text)]


def wait_for_redis(client: SyncRedis, timeout_s: float = 10.0) -> None:
    """Wait until Redis answers. Raises ``NotReadyError`` if it does not or is too old."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            version = str(client.info("server")["redis_version"])
            break
        except (AuthenticationError, AuthorizationError) as error:  # ConnectionErrors too
            raise NotReadyError(f"Redis refuses: {error}") from error
        except _DISCONNECTS as error:
            if time.monotonic() >= deadline:
                raise NotReadyError(f"Redis does not answer: {error}") from error
            time.sleep(0.02)
        except RedisError as error:
            raise NotReadyError(f"Redis refuses: {error}") from error
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
        raise NotReadyError(f"Redis {version} is too old: 6.2 or newer is needed")
