"""Every example of docs/parameters.md is answered by a server with the fake engine."""

from __future__ import annotations

import pytest

from tests.helpers.parameters_document import BODIES, ROUTES, rows
from tests.helpers.server import Server

pytestmark = pytest.mark.timeout(180)
ELSEWHERE = ("adapter_name", "adapters", "tools", "tool_choice", "parallel_tool_calls")
"""Need an adapter, or a template that knows tools; they have tests of their own."""


@pytest.mark.parametrize("route", [*ROUTES, "templated"])
def test_what_the_document_shows_is_answered(server: Server, route: str) -> None:
    server.load("fake", max_tokens=20)
    path, body = BODIES[route]
    for row in rows():
        if row.route == route and row.example is not None and row.field not in ELSEWHERE:
            answer = server.post(path, {**body, **row.example})
            assert answer.status_code == 200, (row, answer.text)
