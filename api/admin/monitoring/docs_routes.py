"""/docs (Swagger UI) and /redoc: the API's description for people, with nothing from elsewhere.

Scripts, styles and pictures come from the package ``fastapi-standalone-docs``, which holds the
builds of both projects. The pages' policy forbids any other source, so that they work offline and
tell nobody who reads them.
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
    """Serve the pages' files below them, where ReDoc looks for its picture by itself."""
    static = files("fastapi_standalone_docs") / "static"
    app.mount(_DOCS, StaticFiles(directory=str(static / "swagger")))
    app.mount(_REDOC, StaticFiles(directory=str(static / "redoc")))


@router.get(_DOCS)
async def swagger_ui() -> HTMLResponse:
    """The description as Swagger UI shows it; each route can be tried."""
    page = get_swagger_ui_html(
        openapi_url=_OPENAPI_PATH,
        title=_TITLE,
        swagger_js_url=f"{_DOCS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_DOCS}/swagger-ui.css",
        swagger_favicon_url=_NO_ICON,
        # By default the description of a server with a name is sent to a validator elsewhere.
        swagger_ui_parameters={"validatorUrl": None},
    )
    return _guarded(page)


@router.get(_REDOC)
async def redoc() -> HTMLResponse:
    """The description as ReDoc shows it."""
    page = get_redoc_html(
        openapi_url=_OPENAPI_PATH,
        title=_TITLE,
        redoc_js_url=f"{_REDOC}/redoc.standalone.js",
        redoc_favicon_url=_NO_ICON,
        with_google_fonts=False,
    )
    return _guarded(page)


def _guarded(page: HTMLResponse) -> HTMLResponse:
    page.headers["Content-Security-Policy"] = _POLICY
    return page
