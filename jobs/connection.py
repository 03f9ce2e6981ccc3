"""Redis clients, made in one place with the settings that measured safe.

``protocol=2``: with RESP3 redis-py skips its check for stale replies. asyncio clients have no
socket timeout: on Python 3.11 redis-py's own timeout swallows task cancellation. Commands that
are not idempotent are sent through clients without retries.
"""

from __future__ import annotations

import time
from typing import TypeAlias

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from jobs.errors import NotReadyError
from jobs.one_command import OneCommandRedis

MIN_VERSION = (6, 2)
_SOCKET_TIMEOUT_S = 30.0
_MAX_AT_ONCE = 128  # commands of an API process; more wait
_POOL_WAIT_S = 20.0
_DISCONNECTS = (RedisConnectionError, RedisTimeoutError)

SyncRedis: TypeAlias = redis.Redis
AsyncRedis: TypeAlias = redis.asyncio.Redis


def connect(url: str, *, retries: int = 3) -> SyncRedis:
    """A client for threads. ``retries`` 0 for who retries by itself, idempotently."""
    backoff = ExponentialBackoff(cap=0.5, base=0.05) if retries else NoBackoff()
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=_SOCKET_TIMEOUT_S,
        socket_connect_timeout=5,
        retry=Retry(backoff, retries, supported_errors=_DISCONNECTS),
        health_check_interval=0,
    )


def connect_bookkeeping(url: str) -> SyncRedis:
    """For RQ's own bookkeeping: no retries, and transactions are one command each."""
    return OneCommandRedis.from_url(
        url,
        protocol=2,
        socket_timeout=_SOCKET_TIMEOUT_S,
        socket_connect_timeout=5,
        retry=Retry(NoBackoff(), 0, supported_errors=_DISCONNECTS),
        health_check_interval=0,
    )


def connect_async(url: str, *, retries: int = 3) -> AsyncRedis:
    """A client for asyncio; cancellation of the calling task is safe.

    Its pool makes callers wait; redis-py's own would refuse the hundred-and-first at once.
    """
    backoff = ExponentialBackoff(cap=0.5, base=0.05) if retries else NoBackoff()
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=_MAX_AT_ONCE,
        timeout=_POOL_WAIT_S,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=5,
        retry=AsyncRetry(backoff, retries, supported_errors=_DISCONNECTS),
        health_check_interval=0,
    )
    return redis.asyncio.Redis.from_pool(pool)


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
