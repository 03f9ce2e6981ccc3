"""/ui: the page's index and assets, without a key; /v1/whoami: what the caller's key may do."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from api.execution.services import ServicesDep
from api.page.files import PageFile, read_page
from api.web.auth import CallerDep
from api.web.error_schema import ERRORS
from api.web.errors import Problem, ProblemError
from jobs.settings import is_loopback

router = APIRouter()

# The one policy of Trusted Types admits the address of the shared worker and nothing else: a
# browser that knows Trusted Types refuses a plain text there.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types mgs-worker"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
}
_FOR_EVER = "public, max-age=31536000, immutable"


class CallerAnswer(BaseModel):
    """What the caller may do. ``is_key_required``: the server has API keys. ``key``: its name."""

    object: Literal["caller"] = "caller"
    is_key_required: bool
    may_manage: bool
    key: str
    version: str
    build: str


@router.get("/v1/whoami", tags=["management"], responses=ERRORS)
async def whoami(caller: CallerDep, services: ServicesDep) -> CallerAnswer:
    """Whether the server has keys, and whether the caller's may load and unload models."""
    page = await services.runner.in_thread(read_page)
    return CallerAnswer(
        is_key_required=services.settings.has_keys,
        may_manage=caller.may_manage,
        key=caller.name,
        version=version("mlx-gguf-server"),
        build=page.build,
    )


@router.get("/", include_in_schema=False)
async def root() -> Response:
    """To the page; relative, so that a proxy's prefix stays."""
    return RedirectResponse("ui/", 307)


@router.get("/ui", include_in_schema=False)
async def index(request: Request, services: ServicesDep) -> Response:
    """The page's one document. It is asked for again each time, and names this version's assets."""
    page = await services.runner.in_thread(read_page)
    return _answer(request, page.index, "no-cache")


@router.get("/ui/-/{build}/{name:path}", include_in_schema=False)
async def asset(build: str, name: str, request: Request, services: ServicesDep) -> Response:
    """A file of this version; 404 for those of another, upon which the page offers a reload."""
    page = await services.runner.in_thread(read_page)
    found = page.assets.get(name) if build == page.build else None
    if found is None:
        message = "this version of the page has no such file: reload the page"
        raise ProblemError(Problem(404, "not_found_error", "file_not_found", message))
    return _answer(request, found, _FOR_EVER)


def _answer(request: Request, file: PageFile, cache_control: str) -> Response:
    headers = {**_HEADERS, "Cache-Control": cache_control, "ETag": file.etag}
    if request.url.scheme == "https" or is_loopback(request.url.hostname or ""):
        # Elsewhere browsers ignore it, with a warning in their console.
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        packed = {**headers, "Content-Encoding": "gzip"}
        return Response(file.packed, 200, packed, media_type=file.media_type)
    return Response(file.body, 200, headers, media_type=file.media_type)
