"""Pages of a response's input items. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from api.dialects.responses.items import Item
from api.dialects.responses.schema import ItemList
from jobs.contract.errors import InvalidRequestError


def page_of(
    items: Sequence[Item], *, limit: int, is_newest_first: bool, after: str | None
) -> ItemList:
    """At most ``limit`` items, those after the one with the id ``after``."""
    ordered = list(reversed(items)) if is_newest_first else list(items)
    start = 0 if after is None else _place_of(ordered, after) + 1
    page = ordered[start : start + limit]
    return ItemList(
        data=page,
        first_id=page[0]["id"] if page else "",
        last_id=page[-1]["id"] if page else "",
        has_more=start + limit < len(ordered),
    )


def _place_of(items: Sequence[Item], item_id: str) -> int:
    for place, item in enumerate(items):
        if item["id"] == item_id:
            return place
    raise InvalidRequestError(f"after: there is no item {item_id[:80]!r}", "after")
