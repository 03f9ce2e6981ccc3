"""One POST to a receiver, on a connection to an address that was checked.

HTTP/1.1 by hand: a library would follow redirects, obey proxies of the environment, and resolve the
name again. Of the answer only status and ``Retry-After`` are read: its body is never shown to
anybody, or an endpoint could be used to read what only this server can reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import socket
import ssl
import threading
import time
from functools import cache
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from api.webhooks.addresses import Reach, reach_of

TIMEOUT_S = 15.0
_MAX_HEAD_BYTES = 64 * 1024
_MAX_ADDRESSES = 4
_PORTS = {"http": 80, "https": 443}
_MAX_RETRY_AFTER_S = 72 * 3600.0


class UnreachableError(Exception):
    """There was no answer; the text says why."""


class Answer(NamedTuple):
    """What a receiver answered. ``retry_after_s`` is when it wants the next attempt."""

    status: int
    retry_after_s: float | None = None

    @property
    def is_success(self) -> bool:
        """Only 2xx is: a redirect would hide that the URL is wrong."""
        return 200 <= self.status <= 299


class Target(NamedTuple):
    """A URL in the parts that a connection needs. ``host`` is without brackets."""

    is_tls: bool
    host: str
    port: int
    path: str
    host_header: str


def target_of(url: str) -> Target:
    """Take a URL apart. Raises ``ValueError`` with the reason for one that cannot be called."""
    if not url.isascii() or any(c <= " " or c == "\x7f" or c in '\\"<>^`{|}' for c in url):
        raise ValueError("has characters that a URL must escape")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("must begin with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or password")
    port = parts.port  # raises ValueError for a bad one
    host = _checked_host(parts)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(
        is_tls=parts.scheme == "https",
        host=host,
        port=_PORTS[parts.scheme] if port is None else port,
        path=path,
        host_header=parts.netloc,
    )


def _checked_host(parts: SplitResult) -> str:
    host = parts.hostname
    if not host or "%" in host or len(host) > 253 or parts.port == 0:
        raise ValueError("has no valid host")
    return host


async def post(
    url: str,
    headers: dict[str, str],
    body: bytes,
    *,
    is_private_allowed: bool,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """POST ``body`` as JSON. Raises ``UnreachableError`` without an answer within ``timeout_s``."""
    try:
        target = target_of(url)
    except ValueError as error:
        raise UnreachableError(f"the URL {error}") from None
    try:
        async with asyncio.timeout(timeout_s):
            return await _post(target, headers, body, is_private_allowed)
    except TimeoutError:
        raise UnreachableError(f"no answer within {timeout_s:g} s") from None
    except ssl.SSLError as error:
        raise UnreachableError(f"TLS: {error.reason or error}") from None
    except (OSError, EOFError) as error:
        raise UnreachableError(f"the connection failed: {error}") from None


async def _post(
    target: Target, headers: dict[str, str], body: bytes, is_private_allowed: bool
) -> Answer:
    addresses = await _addresses(target, is_private_allowed)
    reader, writer = await _connect(target, addresses)
    try:
        writer.write(_head(target, headers, len(body)) + body)
        await writer.drain()
        return await _read_answer(reader)
    finally:
        # Closed without a goodbye: a receiver that does not read must not hold this task.
        writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


async def _addresses(target: Target, is_private_allowed: bool) -> list[str]:
    """The addresses that may be called, of the one resolution of this attempt."""
    try:
        found = await _resolved(target.host)
    except (OSError, UnicodeError) as error:
        raise UnreachableError(f"the name does not resolve: {error}") from None
    allowed = {Reach.PUBLIC, Reach.PRIVATE} if is_private_allowed else {Reach.PUBLIC}
    addresses = [address for address in found if reach_of(address) in allowed]
    if not addresses:
        raise UnreachableError("the URL leads to a private or reserved address")
    return list(dict.fromkeys(addresses))[:_MAX_ADDRESSES]


async def _resolved(host: str) -> list[str]:
    """``getaddrinfo`` in a thread of its own: a dead name server must not hold those of others."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str] | None, error: Exception | None) -> None:
        if found.done():  # given up
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(addresses or [])

    def resolve() -> None:
        addresses: list[str] | None = None
        problem: Exception | None = None
        try:
            rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = [str(row[4][0]) for row in rows]
        except (OSError, UnicodeError) as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, addresses, problem)

    threading.Thread(target=resolve, name="resolve", daemon=True).start()
    return await found


async def _connect(
    target: Target, addresses: list[str]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address that takes one."""
    context = await asyncio.to_thread(_tls_context) if target.is_tls else None
    name = target.host if target.is_tls else None
    problem: OSError | None = None
    for address in addresses:
        try:
            return await asyncio.open_connection(
                address, target.port, ssl=context, server_hostname=name, limit=_MAX_HEAD_BYTES
            )
        except ssl.SSLError:
            raise
        except OSError as error:
            problem = error
    assert problem is not None
    raise problem


@cache
def _tls_context() -> ssl.SSLContext:
    """Made at the first ``https`` URL: it reads all certificates of the system."""
    return ssl.create_default_context()


def _head(target: Target, headers: dict[str, str], num_bytes: int) -> bytes:
    lines = {
        "Host": target.host_header,
        "User-Agent": "mlx-gguf-server",
        "Accept": "*/*",
        "Content-Type": "application/json",
        "Content-Length": str(num_bytes),
        "Connection": "close",
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {target.path} HTTP/1.1\r\n{head}\r\n".encode()


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    """The first answer that is not an interim one (1xx)."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise UnreachableError("the head of the answer is too large") from None
        except asyncio.IncompleteReadError:
            raise UnreachableError("the receiver closed the connection") from None
        status, fields = _parsed(head)
        if status >= 200:
            return Answer(status, retry_after_of(fields.get("retry-after"), time.time()))


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit() or len(rest[:3]) != 3:
        raise UnreachableError("the answer is not HTTP/1.1")
    pairs = (line.partition(":") for line in lines if line)
    return int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def retry_after_of(value: str | None, now: float) -> float | None:
    """Seconds of a ``Retry-After``, which is a number or a date. ``None`` without a valid one."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        seconds = float(value[:10])
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)
