"""Classes of a model that are held: their jobs wait. A drained one refuses new jobs.

The state is in Redis (``names.hold_key``), so that it outlives every process. ``TAKE`` and
``SUBMIT`` read it in the same step as the queue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from jobs.contract.errors import ModelNotFoundError
from jobs.contract.records import JobClass
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import order_scripts

HoldState = Literal["open", "hold", "drain"]
_STATES: dict[str | None, HoldState] = {"hold": "hold", "drain": "drain"}
CLASSES: tuple[JobClass, ...] = get_args(JobClass)


@dataclass(frozen=True, slots=True)
class Hold:
    """The state of one class: ``hold``, ``drain`` or ``open``. Times are epoch seconds of Redis."""

    state: HoldState = "open"
    by: str = ""
    at: float | None = None
    resumed_at: float | None = None


class Holds:
    """Sets and reads the holds of models, by slug. Synchronous; calls may be repeated."""

    def __init__(self, redis: SyncRedis) -> None:
        self._redis = redis
        self._hold = redis.register_script(order_scripts.HOLD)
        self._resume = redis.register_script(order_scripts.RESUME)

    def hold(
        self, slug: str, state: Literal["hold", "drain"], classes: Sequence[JobClass], by: str
    ) -> None:
        """Hold or drain the classes. ``ModelNotFoundError`` if the model is not desired."""
        keys = [names.hold_key(slug), names.DESIRED_MODELS, names.SLUGS]
        if not self._hold(keys=keys, args=[slug, state, by, *classes]):
            raise ModelNotFoundError("the model was unloaded")

    def resume(self, slug: str, classes: Sequence[JobClass]) -> int:
        """Let the classes' jobs run again. Returns how many of the classes were held."""
        wakes = [names.wake_key(class_queue(slug, one)) for one in classes]
        return int(self._resume(keys=[names.hold_key(slug), *wakes], args=list(classes)))

    def read(self, slugs: Sequence[str]) -> dict[tuple[str, JobClass], Hold]:
        """The state of every class of the models; a value that cannot be read counts as open."""
        with self._redis.pipeline(transaction=False) as pipe:
            for slug in slugs:
                pipe.hgetall(names.hold_key(slug))
            found = pipe.execute(raise_on_error=False)
        return {
            (slug, job_class): _hold_of(fields if isinstance(fields, dict) else {}, job_class)
            for slug, fields in zip(slugs, found, strict=True)
            for job_class in CLASSES
        }


def class_queue(slug: str, job_class: JobClass) -> str:
    """The queue of the class' generations."""
    name_of = names.batch_queue if job_class == "batch" else names.generation_queue
    return name_of(slug)


def _hold_of(fields: Mapping[bytes, bytes], job_class: str) -> Hold:
    text = {_text(key): _text(value) for key, value in fields.items()}
    state = text.get(job_class)
    resumed_at = _seconds(text.get(f"{job_class}:resumed_at"))
    if state not in _STATES:
        return Hold(resumed_at=resumed_at)
    at = _seconds(text.get(f"{job_class}:at"))
    return Hold(_STATES[state], text.get(f"{job_class}:by", ""), at, resumed_at)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
