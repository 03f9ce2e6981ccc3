"""Access control: allowed Host and Origin headers, and API keys where they are set."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dialects.anthropic.errors import is_anthropic
from api.dialects.error_answers import problem_response
from api.web.errors import Problem, ProblemError
from api.web.rate_headers import with_rate_headers
from jobs.keys.caller import Caller
from jobs.keys.key_ring import KeyRing
from jobs.keys.limits import RateReport, check_class
from jobs.settings import Settings, is_loopback

_OPEN_PATHS = frozenset({"/health", "/", "/ui"})
_OPEN_PREFIX = "/ui/"  # the page's files, which hold no data
_MAX_SEEN = 64
_WILDCARDS = frozenset({"0.0.0.0", "::"})


class HostGuard:
    """ASGI middleware: refuses unknown Host (DNS rebinding) and Origin (cross-site requests).

    Allowed are loopback names, ``MGS_HOST`` and ``MGS_ALLOWED_HOSTS``. When the server listens on
    all addresses, IP addresses are allowed, too: DNS rebinding needs a name. As Origin,
    ``MGS_CORS_ORIGINS`` are allowed, too.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        extra = {name.strip().lower() for name in settings.allowed_hosts.split(",")} - {""}
        self._names = extra | {settings.host.lower()}
        self._is_open = "*" in extra
        self._has_addresses = settings.host in _WILDCARDS
        self._origins = settings.known_origins
        self._seen: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if not self._is_known(headers.get("host", "")):
            problem = Problem(
                421,
                "permission_error",
                "host_not_allowed",
                "the Host header is not a name of this server: see MGS_ALLOWED_HOSTS",
            )
        elif origin is not None and not self._may_call(origin):
            problem = Problem(
                403,
                "permission_error",
                "origin_not_allowed",
                "requests from pages of other sites are refused: see MGS_CORS_ORIGINS",
            )
        else:
            await self._app(scope, receive, send)
            return
        is_page = "text/html" in headers.get("accept", "") and _is_open(scope["path"])
        refusal = _as_page(problem) if is_page else problem_response(problem, scope)
        await refusal(scope, receive, send)

    def _may_call(self, origin: str) -> bool:
        is_listed = origin in self._origins or "*" in self._origins
        return is_listed or self._is_known(urlsplit(origin).netloc)

    def _is_known(self, netloc: str) -> bool:
        if netloc in self._seen:
            return True
        is_known = self._check(netloc)
        if is_known and len(self._seen) < _MAX_SEEN:
            self._seen.add(netloc)
        return is_known

    def _check(self, netloc: str) -> bool:
        name = _host_name(netloc)
        if name is None:
            return False
        if name in self._names or name == "localhost":
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return self._has_addresses or is_loopback(str(address))


def _as_page(problem: Problem) -> Response:
    """The same for a person who opens the page under such a name."""
    text = (
        "<!doctype html><meta charset=utf-8><title>Not a name of this server</title>"
        f"<h1>{problem.status}</h1><p>{problem.message}</p>"
        "<p>Set <code>MGS_ALLOWED_HOSTS</code> to the name in the address bar and start the server "
        "again, or open its page under <code>localhost</code> or the server's address.</p>"
    )
    headers = {"Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store"}
    return HTMLResponse(text, problem.status, headers)


def _host_name(netloc: str) -> str | None:
    """``[::1]:4000`` as ``::1``, ``Localhost.:4000`` as ``localhost``; ``None`` if malformed."""
    try:
        name = urlsplit(f"//{netloc}").hostname
    except ValueError:
        return None
    return name.removesuffix(".") if name else None


class KeyGuard:
    """ASGI middleware: checks the API key, where one is set.

    ``scope["state"]`` gets ``caller_info``, the ``Caller``, and ``caller``, its id; for a key with
    limits per minute ``rates``, from which its answers get their headers. Routes for the management
    key depend on ``ForManagers``.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._keys = KeyRing(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_free = scope["type"] != "http" or _is_open(scope["path"])
        problem = None if is_free else self._check(scope)
        if problem is None:
            rates = scope.get("state", {}).get("rates")
            if rates is not None:
                send = with_rate_headers(send, rates, is_anthropic=is_anthropic(scope["path"]))
            await self._app(scope, receive, send)
        else:
            await problem_response(problem, scope)(scope, receive, send)

    def _check(self, scope: Scope) -> Problem | None:
        caller = self._keys.find(_given_key(Headers(scope=scope)))
        if caller is None and self._keys.is_required:
            return _unauthorized()
        state = scope.setdefault("state", {})
        state["is_known"] = caller is not None
        state["caller_info"] = caller = caller or self._keys.anonymous(is_local=_is_local(scope))
        state["caller"] = caller.id
        if caller.has_rates:
            state["rates"] = RateReport()
        return None


def _is_local(scope: Scope) -> bool:
    """Whether the client is on this machine, as far as the proxy in front, if any, tells."""
    client = scope.get("client")
    return client is None or is_loopback(client[0])


def get_caller(request: Request) -> Caller:
    """FastAPI dependency: who calls. Without keys, everybody is the caller with the id ""."""
    caller: Caller = request.scope["state"]["caller_info"]
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]


async def require_management(request: Request) -> None:
    """FastAPI dependency: requires the management key, where one is set."""
    state = request.scope["state"]
    if not state["caller_info"].may_manage:
        raise ProblemError(_forbidden() if state["is_known"] else _unauthorized())


ForManagers = Depends(require_management)


async def require_batch_class(caller: CallerDep) -> None:
    """FastAPI dependency: requires a key for jobs of the class ``batch``."""
    check_class(caller, "batch")


ForBatches = Depends(require_batch_class)


def _is_open(path: str) -> bool:
    return path in _OPEN_PATHS or path.startswith(_OPEN_PREFIX)


def _given_key(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return headers.get("x-api-key", "")


def _unauthorized() -> Problem:
    message = "a key is required: send it as 'Authorization: Bearer <key>' or 'X-Api-Key: <key>'"
    headers = {"WWW-Authenticate": "Bearer"}
    return Problem(401, "authentication_error", "invalid_api_key", message, None, headers)


def _forbidden() -> Problem:
    message = "this route needs the management key"
    return Problem(403, "permission_error", "management_key_required", message)
