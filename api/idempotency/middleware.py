"""ASGI middleware for ``Idempotency-Key``.

A key names what the first request with it has made. An equal request that makes a job gets the
job's id, so it follows the same job from its first event, while it runs and afterwards. Of the
others the answer is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Final

from redis.exceptions import RedisError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dialects.error_answers import problem_response
from api.idempotency.claim import Claim
from api.idempotency.claims import LEASE_S, Claims, Found, Stored
from api.idempotency.prints import BodyPrint
from api.web.errors import INVALID, Problem, problem_of
from jobs import asyncio_tasks

KEY_HEADER: Final = "idempotency-key"
_MAX_KEY_CHARS = 255
_MAX_STORED_BYTES = 64 * 1024
_WAIT_S = 20.0  # for an equal request at work
_POLL_S = 0.2
_DRAIN_S = 600.0
_MAX_DRAIN_BYTES = 1 << 30  # more than any route takes
_REPLAYED = (b"idempotency-replayed", b"true")

_MAKES_JOBS = frozenset(
    """
    /v1/chat/completions /chat/completions /v1/completions /completions /v1/responses /responses
    /v1/messages /v1/embeddings /embeddings /v1/rerank /v1/reranking /rerank /reranking
    /completion /infill
    """.split()
)
_MAKES_OBJECTS = re.compile(
    r"/v1/(files|uploads|uploads/[^/]+/(parts|complete)|batches|batches/[^/]+/retry"
    r"|messages/batches|jobs/[^/]+/retry|internal/model/(load|pull)|webhook_endpoints"
    r"|webhook_endpoints/[^/]+/(rotate_secret|deliveries/[^/]+/resend))"
)


class Idempotency:
    """Applies to POST requests that make something; others may have the header in vain."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keys = _keys_of(scope)
        path = scope["path"].rstrip("/") if keys else ""
        makes_job = path in _MAKES_JOBS
        if not keys or not (makes_job or _MAKES_OBJECTS.fullmatch(path)):
            await self._app(scope, receive, send)
            return
        problem = _problem_of_key(keys)
        if problem is None:
            request = _Request(self._app, scope, receive, send, keys[0], path)
            try:
                await (request.run_job() if makes_job else request.run_object())
                return
            except RedisError as error:
                if request.has_begun:
                    raise
                problem = problem_of(error)
        await problem_response(problem, scope)(scope, receive, send)


def _keys_of(scope: Scope) -> list[str]:
    if scope["type"] != "http" or scope["method"] != "POST":
        return []
    return Headers(scope=scope).getlist(KEY_HEADER)


def _problem_of_key(keys: list[str]) -> Problem | None:
    key = keys[0]
    is_valid = 1 <= len(key) <= _MAX_KEY_CHARS and key.isascii() and key.isprintable()
    if len(keys) == 1 and is_valid and key.strip():
        return None
    message = f"Idempotency-Key: one key of 1 to {_MAX_KEY_CHARS} printable ASCII characters"
    return Problem(400, INVALID, "invalid_idempotency_key", message, "Idempotency-Key")


def _reused() -> Problem:
    message = "Idempotency-Key: the key was used with another path or body: use a new one"
    return Problem(422, INVALID, "idempotency_key_reused", message, "Idempotency-Key")


def _in_use() -> Problem:
    message = "Idempotency-Key: a request with this key is being answered: send it again later"
    headers = {"Retry-After": "1"}
    return Problem(
        409, "conflict_error", "idempotency_key_in_use", message, "Idempotency-Key", headers
    )


def _too_long() -> Problem:
    message = "the body did not end in time"
    headers = {"Connection": "close"}
    return Problem(408, INVALID, "body_timeout", message, None, headers)


class _Request:
    """One request with a key."""

    def __init__(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, key: str, path: str
    ) -> None:
        services = scope["app"].state.services
        headers = Headers(scope=scope)
        self.has_begun = False
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._key = key
        # What beside path and body decides what is made.
        self._path = "\n".join([path, *map(headers.get, ("x-model-id", "prefer"), ("", ""))])
        self._print = BodyPrint(headers.get("content-type", "").encode())
        caller = scope.get("state", {}).get("caller", "")
        self._claims = Claims(services.redis, services.settings, caller)
        self._status = 0
        self._type = self._location = b""
        self._body: list[bytes] = []

    async def run_job(self) -> None:
        """Follow the job of the key, which this request or an equal one submits."""
        body = await self._whole_body()
        if body is None:
            return  # the client has gone
        self._print.feed(body)
        found = await self._claims.claim(self._key, self._path, self._print.hexdigest())
        if found.claim is None:
            await self._refuse(_reused())
            return
        claim = found.claim
        self._scope.setdefault("state", {})["claim"] = claim
        send = self._marked(self._send) if claim.is_existing else self._send
        self.has_begun = True
        try:
            await self._app(self._scope, _replaying(body, self._receive), send)
        finally:
            await self._close(claim)

    async def run_object(self) -> None:
        """Make the object, or repeat the answer of the request that has made it."""
        found = await self._claims.claim(self._key, self._path, "")
        if found.kind != "new" or found.claim is None:
            await self._repeat(found)
            return
        claim = found.claim
        self.has_begun = True
        renewal = asyncio_tasks.start(lambda: self._renew(claim), "idempotency key")
        try:
            await self._app(self._scope, self._hashing, self._keeping)
        finally:
            renewal.cancel()
            await self._close(claim)

    async def _repeat(self, found: Found) -> None:
        """The body decides whether this is the same request: it is read to its end."""
        try:
            async with asyncio.timeout(_DRAIN_S):
                if not await self._drain():
                    return
        except TimeoutError:
            await self._refuse(_too_long())
            return
        waited_s = 0.0
        while found.kind == "open" and waited_s < _WAIT_S:
            await asyncio.sleep(_POLL_S)
            waited_s += _POLL_S
            found = await self._claims.look(self._key, self._path)
        stored = found.stored
        if found.kind == "differs" or (stored and stored.print != self._print.hexdigest()):
            await self._refuse(_reused())
        elif stored is None:  # still at work, or it has made nothing: this body is spent
            await self._refuse(_in_use())
        else:
            await self._answer(stored)

    async def _answer(self, stored: Stored) -> None:
        headers = [(b"content-type", stored.content_type), _REPLAYED]
        headers += [(b"location", stored.location)] if stored.location else []
        headers.append((b"content-length", str(len(stored.body)).encode()))
        start = {"type": "http.response.start", "status": stored.status, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": stored.body})

    async def _refuse(self, problem: Problem) -> None:
        await problem_response(problem, self._scope)(self._scope, self._receive, self._send)

    async def _close(self, claim: Claim) -> None:
        """Without Redis the claim runs out by itself."""
        body = b"".join(self._body)
        stored = None
        if 200 <= self._status <= 299 and len(body) <= _MAX_STORED_BYTES:
            stored = Stored("", self._status, self._type, self._location, body)
        with contextlib.suppress(RedisError):
            await self._claims.close(claim, self._print.hexdigest(), stored)

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with contextlib.suppress(RedisError):
                await self._claims.renew(claim)

    # The body, and the answer.

    async def _whole_body(self) -> bytes | None:
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _drain(self) -> bool:
        """Read the whole body for its print; False if the client goes before its end."""
        num_bytes = 0
        while True:
            message = await self._hashing()
            num_bytes += len(message.get("body", b""))
            if num_bytes > _MAX_DRAIN_BYTES:
                raise TimeoutError
            if message["type"] == "http.disconnect":
                return False
            if not message.get("more_body", False):
                return True

    async def _hashing(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._print.feed(message.get("body", b""))
        return message

    async def _keeping(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = Headers(raw=message["headers"])
            self._type = headers.get("content-type", "").encode()
            self._location = headers.get("location", "").encode()
        elif sum(map(len, self._body)) <= _MAX_STORED_BYTES:
            self._body.append(message.get("body", b""))
        await self._send(message)

    @staticmethod
    def _marked(send: Send) -> Send:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], _REPLAYED]}
            await send(message)

        return send_marked


def _replaying(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that returns the body first, then the connection's messages."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
