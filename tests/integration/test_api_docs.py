"""/docs and /redoc: pages that need nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.integration.api_rig import Rig, running_api

PAGES = ("/docs", "/redoc")


def sources(page: httpx.Response) -> list[str]:
    """What the page loads and links to."""
    return re.findall(r"""(?:src|href|spec-url)=["']([^"']+)|url: '([^']+)'""", page.text)


@pytest.mark.parametrize("path", PAGES)
def test_all_that_a_page_loads_comes_from_this_server(rig: Rig, path: str) -> None:
    page = rig.http.get(path)
    assert page.headers["content-type"].startswith("text/html")
    found = {url for pair in sources(page) for url in pair if url} - {"data:,"}
    assert "/openapi.json" in found
    assert any(url.endswith(".js") for url in found)
    for url in found:
        assert url.startswith("/")
        assert rig.http.get(url).status_code == 200, url


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_load_nothing_from_elsewhere(rig: Rig, path: str) -> None:
    policy = rig.http.get(path).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "*" not in policy


def test_a_description_is_not_sent_to_a_validator(rig: Rig) -> None:
    assert '"validatorUrl": null' in rig.http.get("/docs").text


def test_redocs_picture_is_where_it_looks_for_it(rig: Rig) -> None:
    assert rig.http.get("/redoc/logo-mini.svg").status_code == 200


@pytest.mark.parametrize("path", ["/docs/none.js", "/docs/%2e%2e/redoc/logo-mini.svg"])
def test_nothing_else_is_served(rig: Rig, path: str) -> None:
    assert rig.http.get(path).status_code == 404


def test_the_pages_are_behind_the_key_as_their_description_is(
    tmp_path: Path, redis_url: str
) -> None:
    with running_api(tmp_path, redis_url, api_key="secret") as rig:
        for path in (*PAGES, "/docs/swagger-ui.css"):
            assert rig.http.get(path).status_code == 401
            key = {"Authorization": "Bearer secret"}
            assert rig.http.get(path, headers=key).status_code == 200
