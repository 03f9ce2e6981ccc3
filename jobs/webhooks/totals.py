"""Numbers of deliveries of all webhook endpoints, for ``/metrics``.

The scripts that settle deliveries count them, so all senders and API processes tell the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.storage import object_names
from jobs.storage.connection import SyncRedis

ENDS = ("delivered", "failed", "dropped")
"""How a delivery ends. ``dropped``: too many were pending."""


@dataclass(frozen=True, slots=True)
class DeliveryTotals:
    """``ended``: how -> number; ``num_retries``: failed attempts after which another follows."""

    ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    num_retries: int = 0
    num_pending: int = 0


def read_delivery_totals(redis: SyncRedis) -> DeliveryTotals:
    """Read them; they go back to the creation of Redis' data."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall(object_names.HOOKS_TOTALS)
        pipe.zrange(object_names.HOOKS_DUE, 0, -1)
        fields, hooks = pipe.execute()
        for hook in hooks:
            pipe.zcard(object_names.hook_due_key(hook.decode()))
        num_pending = sum(pipe.execute())
    return DeliveryTotals(
        {end: _number(fields, end) for end in ENDS}, _number(fields, "retried"), num_pending
    )


def _number(fields: Mapping[bytes, bytes], name: str) -> int:
    """0 for a field that is missing, or that somebody else has written."""
    value = fields.get(name.encode(), b"")
    return int(value) if value.isdigit() else 0
