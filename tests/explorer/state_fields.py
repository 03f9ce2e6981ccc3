"""Which Redis keys are part of a state. All others read as constants, and ignore writes.

Leaving them out removes no order of steps: the product reads RQ's records but does not rely on
them, and heartbeats and wake-ups only make steps happen earlier.
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
from tests.explorer.rules import Rules

SLUG = "0"
LOAD = LoadRequest(model_name="fake", backend="fake")
PERMANENT = DesiredModel(
    model_id="0", uid="u", load=LOAD, load_job="load", created_at=1.0, was_ready=True
)
"""The desired model of worlds without loads and unloads."""
QUEUE = names.generation_queue(SLUG)
BATCH = names.batch_queue(SLUG)
CONTROL = names.control_queue(SLUG)
QUEUES = {"gen": QUEUE, "batch": BATCH, "ctl": CONTROL}
"""The queue of each consumer of a worker."""

_RQ_JOB = b"rq:job:"
_MANY_KEYS = (b"MGET", b"DEL", b"EXISTS", b"SUNION", b"UNLINK")
_ALWAYS_ABSENT = (
    b"mgs:wake:",
    b"mgs:worker:",
    b"mgs:node",
    b"mgs:apis",
    b"mgs:api:",
    b"mgs:hook",
    b"mgs:usage",
    b"mgs:rate:",
)


class StateFields:
    """Which keys are part of a state, and the constants that the others read as. ``hash_of``: RQ's
    hash of a job, by its id."""

    def __init__(self, hash_of: Callable[[str], Hash], rules: Rules) -> None:
        self._hash_of = functools.cache(hash_of)
        self._constant: dict[bytes, Value] = {names.STORAGE_MARK.encode(): b"mark"}
        queues = [QUEUES[lane] for lane in rules.lanes]
        self._lists = {key.encode() for name in queues for key in list_keys(name)}
        unused = QUEUES.keys() - set(rules.lanes)
        self._absent = _ALWAYS_ABSENT + tuple(f"mgs:take:{SLUG}.{u}.".encode() for u in unused)
        self._absent += () if rules.holds else (names.hold_key(SLUG).encode(),)
        self._absent += () if rules.callers else (names.fair_key(SLUG).encode(),)
        if not rules.has_loads:
            self._constant[names.DESIRED_MODELS.encode()] = Hash({b"0": encode_record(PERMANENT)})

    def constant_of(self, key: bytes) -> Value | bool | None:
        """The constant that a key outside the state reads as; False for a key of the state."""
        if key.startswith(_RQ_JOB):
            job_id = key.removeprefix(_RQ_JOB)
            return None if b":" in job_id else self._hash_of(job_id.decode())
        if key.startswith(b"rq:"):
            return False if key in self._lists else None
        if key.startswith(self._absent):
            return None
        return self._constant.get(key, False)

    def is_outside_state(self, request: Request) -> bool:
        """True for a request that only uses keys outside the state."""
        return all(self._is_outside_state(words) for words in request.commands)

    def _is_outside_state(self, words: Words) -> bool:
        if words[0] in (b"TIME", b"PING"):
            return True
        keys = keys_of(words)
        return bool(keys) and all(self.constant_of(key) is not False for key in keys)


def keys_of(words: Words) -> Words:
    """The keys of a command; a channel counts as a key of the state."""
    if words[0] == b"EVALSHA":
        return words[3 : 3 + int(words[2])]
    if words[0] == b"BLPOP":
        return words[1:-1]
    return words[1:] if words[0] in _MANY_KEYS else words[1:2]


def list_keys(queue: str) -> tuple[str, str]:
    """The keys of a queue and of RQ's intermediate list of it."""
    return f"rq:queue:{queue}", f"rq:queue:{queue}:intermediate"


def rq_hash(job: Job) -> Hash:
    """RQ's hash of a job as the product stores it."""
    return Hash({str(k).encode(): _word(v) for k, v in job.to_dict().items()})


def _word(value: object) -> bytes:
    if isinstance(value, str):  # an enum's value, too
        return value.encode()
    return value if isinstance(value, bytes) else str(value).encode()
