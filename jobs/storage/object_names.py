"""Names of keys in Redis about what is no job: files, batches, webhooks, use of API keys.

The others are in ``names``.
"""

from __future__ import annotations

USAGE = "mgs:usage"
"""Hash: what keys have used since ever; with ``:<day>`` (since 1970) on that day, by model."""
FILES = "mgs:files"
"""Sorted set: ids of all files, all with the score 0: they are in order of creation."""

BATCHES = "mgs:batches"
"""Sorted set: the ids of all batches; ``batches_key`` has those of one caller."""

ACTIVE_BATCHES = "mgs:batches-active"
"""Set: the ids of the batches that have not ended."""

BATCH_WAKEUP = "mgs:wakeup:batches"
"""Channel: there is a new batch, or one is to be cancelled."""


HOOKS_DUE = "mgs:hooks:due"
"""Sorted set: ids of webhook endpoints, scored by when their next delivery is due."""

HOOKS_WAKE = "mgs:hooks:wake"
"""List of one entry at most: a delivery was queued. A sender waits for it."""

HOOKS_TOTALS = "mgs:hooks:totals"
"""Hash: numbers of deliveries that were delivered, failed, retried or dropped."""


def rate_key(caller: str) -> str:
    """Hashes with expiry, ``<this>:<minute>`` (since 1970): the caller's requests and tokens."""
    return f"mgs:rate:{caller}"


def usage_key(day: int) -> str:
    """``USAGE`` of one day (since 1970). Scripts build this name and those of ``rate_key`` too."""
    return f"{USAGE}:{day}"


def file_key(file_id: str) -> str:
    """Hash: the ``FileRecord`` of a file, and the uid of the folder in which it lies."""
    return f"mgs:file:{file_id}"


def files_key(caller: str) -> str:
    """Sorted set: the ids in ``FILES`` of one caller."""
    return f"{FILES}:{caller}"


def file_home_key(uid: str) -> str:
    """String with expiry: name of the machine with that folder; the index has its files."""
    return f"mgs:file-home:{uid}"


def file_expiry_key(uid: str) -> str:
    """Sorted set: ids of the files in that folder that expire, scored by then (epoch seconds)."""
    return f"mgs:file-expiry:{uid}"


def batches_key(caller: str) -> str:
    """Sorted set: the ids of one caller's batches. Scripts build this name too."""
    return f"{BATCHES}:{caller}"


def batch_key(batch_id: str) -> str:
    """Hash: a batch. Fields: ``status``, ``record``, ``epoch`` (how often it was taken over)."""
    return f"mgs:batch:{batch_id}"


def batch_lease_key(batch_id: str) -> str:
    """String with expiry: the process that works on a batch, ``<machine>|<process>|<epoch>``."""
    return f"mgs:batch:{batch_id}:lease"


def batch_runs_key(batch_id: str) -> str:
    """Hash with expiry: how often lines of a batch were run again, by number."""
    return f"mgs:batch:{batch_id}:runs"


def batch_home_key(home: str) -> str:
    """String: set once the batches of the folder with the uid ``home`` are in Redis."""
    return f"mgs:batch-home:{home}"


def hooks_key(caller: str) -> str:
    """Sorted set: ids of the caller's webhook endpoints, scored by creation. Scripts build it."""
    return f"mgs:hooks:of:{caller}"


def hook_key(endpoint_id: str) -> str:
    """Hash: a webhook endpoint. Scripts build this name too, and the three that follow."""
    return f"mgs:hook:{endpoint_id}"


def hook_log_key(endpoint_id: str) -> str:
    """Sorted set: ids of the endpoint's latest events, scored by when they were queued."""
    return f"{hook_key(endpoint_id)}:log"


def hook_due_key(endpoint_id: str) -> str:
    """Sorted set: ids of the endpoint's pending events, scored by when they are due."""
    return f"{hook_key(endpoint_id)}:due"


def hook_event_key(endpoint_id: str, event_id: str) -> str:
    """Hash with expiry: the delivery of one event to one endpoint."""
    return f"{hook_key(endpoint_id)}:event:{event_id}"


def idempotency_key(caller: str, key_hash: str) -> str:
    """Hash with expiry: what a request with that ``Idempotency-Key`` has made."""
    return f"mgs:idem:{caller}:{key_hash}"


def readers_key(job_id: str) -> str:
    """Set with expiry: who waits for a job of an idempotency key, ``<API process>|<number>``."""
    return f"mgs:readers:{job_id}"
