"""The answer of /v1/usage."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class UsageEntry(BaseModel):
    """Ended jobs and their tokens. What the answer is not grouped by is ``null``.

    ``key`` is the key's name, or its id if it was removed; "" without keys. ``num_jobs`` includes
    those that failed or were cancelled.
    """

    object: Literal["usage"] = "usage"
    day: str | None = None
    key: str | None = None
    model: str | None = None
    num_jobs: int
    num_failed: int
    num_cancelled: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int


class KeyFacts(BaseModel):
    """What a key may use: see docs/keys.md. ``null``: no limit of its own."""

    name: str
    is_manager: bool
    weight: float
    classes: list[str]
    models: list[str]
    max_jobs: int | None
    max_running: int | None
    rpm: int | None
    tpm: int | None


class UsageList(BaseModel):
    """The use in a time. ``first`` and ``last`` are its days, in UTC.

    ``keys``: those whose use the caller may see, also if they have none, by name.
    """

    object: Literal["list"] = "list"
    first: str
    last: str
    group_by: list[str]
    data: list[UsageEntry]
    keys: list[KeyFacts] = []
