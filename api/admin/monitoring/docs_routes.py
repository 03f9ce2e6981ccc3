"""/docs (Swagger UI) and /redoc: the API's documentation, without external resources.

Scripts, styles and images come from the package ``fastapi-standalone-docs``, which contains the
builds of both projects. A Content-Security-Policy forbids other sources, so that the pages work
offline and no other server sees the visit.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

_DOCS, _REDOC = "/docs", "/redoc"
_OPENAPI_PATH = "/openapi.json"
_NO_ICON = "data:,"
_TITLE = "mlx-gguf-server"
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:"
)


def mount_assets(app: FastAPI) -> None:
    """Serve the pages' files below their paths, where ReDoc expects its image."""
    static = files("fastapi_standalone_docs") / "static"
    app.mount(_DOCS, StaticFiles(directory=str(static / "swagger")))
    app.mount(_REDOC, StaticFiles(directory=str(static / "redoc")))


@router.get(_DOCS)
async def swagger_ui() -> HTMLResponse:
    """The documentation in Swagger UI, where each route can be tried."""
    page = get_swagger_ui_html(
        openapi_url=_OPENAPI_PATH,
        title=_TITLE,
        swagger_js_url=f"{_DOCS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_DOCS}/swagger-ui.css",
        swagger_favicon_url=_NO_ICON,
        # By default the OpenAPI document of a server with a host name is sent to a validator.
        swagger_ui_parameters={"validatorUrl": None},
    )
    return _with_policy(page)


@router.get(_REDOC)
async def redoc() -> HTMLResponse:
    """The documentation in ReDoc."""
    page = get_redoc_html(
        openapi_url=_OPENAPI_PATH,
        title=_TITLE,
        redoc_js_url=f"{_REDOC}/redoc.standalone.js",
        redoc_favicon_url=_NO_ICON,
        with_google_fonts=False,
    )
    return _with_policy(page)


def _with_policy(page: HTMLResponse) -> HTMLResponse:
    page.headers["Content-Security-Policy"] = _POLICY
    return page
