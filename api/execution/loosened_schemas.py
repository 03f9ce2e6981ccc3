"""JSON schema keywords that no grammar can enforce: named in a header, or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from api.execution.services import Services
from jobs.contract.errors import InvalidRequestError
from jobs.contract.grammars import GrammarKind
from jobs.contract.requests import GenerateRequest, Request
from jobs.contract.schemas import loosen

HEADER = "X-Schema-Loosened"
_MAX_LENGTH = 1000  # characters; servers and proxies limit heads to some thousands
_MAX_PLACE = 200


def check_schemas(services: Services, request: GenerateRequest) -> None:
    """With ``MGS_STRICT_SCHEMAS``, refuse schemas with keywords that would be left out."""
    if not services.settings.strict_schemas:
        return
    for field, places in _left_out(request):
        listed = _listed([_shortened(place) for place in places])
        raise InvalidRequestError(f"{field}: no grammar can enforce {listed}", field)


def loosened_header(request: Request) -> dict[str, str]:
    """The header with the keywords that are left out and their places; empty without any.

    Places are ``FIELD#POINTER``, the pointer as a URI's fragment (RFC 6901, section 6), so that no
    name of a property can break the header.
    """
    if not isinstance(request, GenerateRequest):
        return {}
    found = [
        f"{field}#{quote(_shortened(place), safe='/~$.', errors='replace')}"
        for field, places in _left_out(request)
        for place in places
    ]
    return {HEADER: _listed(found)} if found else {}


def _left_out(request: GenerateRequest) -> Iterator[tuple[str, list[str]]]:
    """For each field, the places of the keywords that are left out of its schema."""
    for field, schema in _schemas(request):
        places = loosen(schema).places
        if places:
            yield field, places


def _shortened(place: str) -> str:
    """The place without its middle if it is long; the keyword at its end stays."""
    if len(place) <= _MAX_PLACE:
        return place
    return f"{place[: _MAX_PLACE // 2]}.../{place.rpartition('/')[2]}"


def _listed(places: list[str]) -> str:
    """As many of the places as have room, and the number of the others."""
    text = places[0]
    for number, place in enumerate(places[1:], 1):
        if len(text) + len(place) > _MAX_LENGTH:
            return f"{text}, and {len(places) - number} more"
        text += f", {place}"
    return text


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
