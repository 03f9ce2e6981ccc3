"""Accepts harmless deviations of clients: HEAD requests, trailing slashes, wrong Content-Types."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_JSON = b"application/json"


class Tolerance:
    """ASGI middleware: answers HEAD as GET without a body, removes a trailing slash of the path,
    and treats a body as JSON whatever its Content-Type is (except multipart forms)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = scope["path"]
        if len(path) > 1 and path.endswith("/"):
            scope = {**scope, "path": path.rstrip("/") or "/"}
        if scope["method"] in _WITH_BODY:
            scope = {**scope, "headers": _with_json(scope["headers"])}
        if scope["method"] == "HEAD":
            return await self._app({**scope, "method": "GET"}, _gone, _head_only(send))
        await self._app(scope, receive, send)


def _with_json(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    given = next((value for name, value in headers if name == b"content-type"), b"").lower()
    if b"json" in given or given.startswith(b"multipart/"):
        return headers
    kept = [(name, value) for name, value in headers if name != b"content-type"]
    return [*kept, (b"content-type", _JSON)]


async def _gone() -> Message:
    """A disconnect at once: no body, and the end of a stream without end."""
    return {"type": "http.disconnect"}


def _head_only(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head
