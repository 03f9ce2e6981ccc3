"""JSON schema keywords that no grammar can enforce: named in a header, or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from api.execution.services import Services
from jobs.contract.errors import InvalidRequestError
from jobs.contract.grammars import GrammarKind
from jobs.contract.requests import GenerateRequest, Request
from jobs.contract.schemas import loosen

HEADER = "X-Schema-Loosened"


def check_schemas(services: Services, request: GenerateRequest) -> None:
    """With ``MGS_STRICT_SCHEMAS``, refuse schemas with keywords that would be left out."""
    if not services.settings.strict_schemas:
        return
    for field, keywords in _left_out(request):
        listed = ", ".join(keywords)
        raise InvalidRequestError(f"{field}: no grammar can enforce {listed}", field)


def loosened_header(request: Request) -> dict[str, str]:
    """The header with the keywords that are left out; empty without any."""
    if not isinstance(request, GenerateRequest):
        return {}
    found = {keyword for _, keywords in _left_out(request) for keyword in keywords}
    return {HEADER: ", ".join(sorted(found))} if found else {}


def _left_out(request: GenerateRequest) -> Iterator[tuple[str, list[str]]]:
    """For each field, the keywords that are left out of its schema."""
    for field, schema in _schemas(request):
        keywords = loosen(schema).keywords
        if keywords:
            yield field, keywords


def _schemas(request: GenerateRequest) -> Iterator[tuple[str, Any]]:
    grammar, use = request.grammar, request.tool_use
    if grammar is not None and grammar.kind is GrammarKind.JSON_SCHEMA:
        yield grammar.param, json.loads(grammar.text)
    if use is None:
        return
    for index, tool in enumerate(request.prompts[0].tools or ()):
        function = tool["function"]
        if not function.get("strict") and use.name in (None, function["name"]):
            yield f"tools[{index}].function.parameters", function.get("parameters")
