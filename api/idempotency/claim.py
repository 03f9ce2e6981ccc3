"""What a request with an ``Idempotency-Key`` must not choose anew."""

from __future__ import annotations

from typing import NamedTuple


class Claim(NamedTuple):
    """Equal requests with one key get equal claims, so they name one job and give one answer.

    ``suffix``: the random part of ids. ``created``: epoch seconds, as answers show them.
    ``is_existing``: the job was submitted before; this request only follows it.
    """

    redis_key: str
    suffix: str
    created: int
    ttl_s: int
    is_existing: bool = False
