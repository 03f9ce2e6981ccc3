"""What is no part of states: keys that seem to hold the same for ever, and take no writes.

RQ's records are read by the product and never believed, heartbeats and wake-ups only make things
happen sooner, so that leaving them out leaves out no order of things.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from rq.job import Job

from jobs.contract.records import DesiredModel, encode_record
from jobs.contract.requests import LoadRequest
from jobs.storage import names
from tests.explorer.client import Request, Words
from tests.explorer.memory import Hash, Value

SLUG = "0"
LOAD = LoadRequest(model_name="fake", backend="fake")
STANDING = DesiredModel(
    model_id="0", uid="u", load=LOAD, load_job="load", created_at=1.0, was_ready=True
)
"""What is wanted for ever in worlds in which nothing is loaded and unloaded."""
QUEUE = names.generation_queue(SLUG)
CONTROL = names.control_queue(SLUG)

_RQ_JOB = b"rq:job:"
_MANY_KEYS = (b"MGET", b"DEL", b"EXISTS", b"SUNION", b"UNLINK")
_NEVER_SEEN = (b"mgs:wake:", b"mgs:worker:", b"mgs:node", b"mgs:apis", b"mgs:api:")


class Sights:
    """Which keys states have, and what the others seem to hold. ``has_loads``: desired models come
    and go. ``hash_of``: RQ's hash of a job, by its id."""

    def __init__(self, hash_of: Callable[[str], Hash], *, has_loads: bool) -> None:
        self._hash_of = functools.cache(hash_of)
        self._constant: dict[bytes, Value] = {names.STORAGE_MARK.encode(): b"mark"}
        queues = [QUEUE, CONTROL] if has_loads else [QUEUE]
        self._lists = {key.encode() for name in queues for key in list_keys(name)}
        self._unseen: tuple[bytes, ...] = _NEVER_SEEN
        if not has_loads:
            self._unseen += (f"mgs:take:{SLUG}.ctl.".encode(),)
            self._constant[names.DESIRED_MODELS.encode()] = Hash({b"0": encode_record(STANDING)})

    def seen(self, key: bytes) -> Value | bool | None:
        """What a key that is left out of states seems to hold; False for those that are kept."""
        if key.startswith(_RQ_JOB):
            job_id = key.removeprefix(_RQ_JOB)
            return None if b":" in job_id else self._hash_of(job_id.decode())
        if key.startswith(b"rq:"):
            return False if key in self._lists else None
        if key.startswith(self._unseen):
            return None
        return self._constant.get(key, False)

    def is_private(self, request: Request) -> bool:
        """True for a request that touches only keys that are left out of states."""
        return all(self._is_private(words) for words in request.commands)

    def _is_private(self, words: Words) -> bool:
        if words[0] in (b"TIME", b"PING"):
            return True
        keys = keys_of(words)
        return bool(keys) and all(self.seen(key) is not False for key in keys)


def keys_of(words: Words) -> Words:
    """The keys that a command names; a channel counts as one that is kept."""
    if words[0] == b"EVALSHA":
        return words[3 : 3 + int(words[2])]
    if words[0] == b"BLPOP":
        return words[1:-1]
    return words[1:] if words[0] in _MANY_KEYS else words[1:2]


def list_keys(queue: str) -> tuple[str, str]:
    """The queue, and RQ's intermediate list of it."""
    return f"rq:queue:{queue}", f"rq:queue:{queue}:intermediate"


def rq_hash(job: Job) -> Hash:
    """RQ's hash of a job as the product stores it."""
    return Hash({str(k).encode(): _word(v) for k, v in job.to_dict().items()})


def _word(value: object) -> bytes:
    if isinstance(value, str):  # an enum's value, too
        return value.encode()
    return value if isinstance(value, bytes) else str(value).encode()
