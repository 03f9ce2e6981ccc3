"""Forgets the jobs of lines whose answers are on disk."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from itertools import islice

from rq import Queue
from rq.job import Job
from rq.results import Result

from jobs.storage import names, object_names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import batch_scripts

_AT_ONCE = 200
_RUNS_TTL_S = 60 * 86400  # longer than the longest window of a batch


class LineJobs:
    """Deletes all that Redis knows of a line's job, once its worker has released it."""

    def __init__(self, redis: SyncRedis) -> None:
        self._redis = redis
        self._script = redis.register_script(batch_scripts.FORGET_LINES)
        self._waiting: set[str] = set()
        self._lock = threading.Lock()  # the batches of a process share this

    @property
    def num_waiting(self) -> int:
        """Jobs that are still to be deleted."""
        return len(self._waiting)

    def forget(self, job_ids: Iterable[str] = ()) -> None:
        """Delete these jobs, and those that could not be deleted before."""
        with self._lock:
            self._waiting.update(job_ids)
            for some in _chunks(sorted(self._waiting)):
                for (model_id, queue), ids in self._by_queue(some).items():
                    self._waiting.difference_update(self._forget(model_id, queue, ids))

    def runs(self, batch_id: str) -> dict[int, int]:
        """How often lines of a batch were run again, by line; what is no number is left out."""
        found = self._redis.hgetall(object_names.batch_runs_key(batch_id)).items()
        return {int(n): int(run) for n, run in found if n.isdigit() and run.isdigit()}

    def note_run(self, batch_id: str, line: int, run: int) -> None:
        """Keep the number of a line's next run, before its job is submitted."""
        key = object_names.batch_runs_key(batch_id)
        with self._redis.pipeline() as pipe:
            pipe.hset(key, str(line), run)
            pipe.expire(key, _RUNS_TTL_S)
            pipe.execute()

    def find(self, job_ids: Iterable[str]) -> list[str]:
        """Those of the jobs that Redis knows."""
        found = []
        for some in _chunks(job_ids):
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in some:
                    pipe.exists(names.job_key(job_id))
                known = pipe.execute()
            found += [job_id for job_id, is_known in zip(some, known, strict=True) if is_known]
        return found

    def _by_queue(self, job_ids: Sequence[str]) -> dict[tuple[str, str], list[str]]:
        """The jobs by model and queue; those that are gone leave the list of what waits."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(names.job_key(job_id), "model_id", "queue")
            found = zip(job_ids, pipe.execute(), strict=True)
        groups: dict[tuple[str, str], list[str]] = {}
        for job_id, (model_id, queue) in found:
            if model_id is None or queue is None:
                self._waiting.discard(job_id)
            else:
                groups.setdefault((model_id.decode(), queue.decode()), []).append(job_id)
        return groups

    def _forget(self, model_id: str, queue_name: str, job_ids: list[str]) -> list[str]:
        queue = Queue(queue_name, connection=self._redis)
        registries = names.rq_registry_keys(queue_name)
        keys = [names.JOB_EXPIRY, names.claims_key(names.slug_of(model_id))]
        keys += [queue.key, queue.intermediate_queue_key, *registries]
        for job_id in job_ids:
            keys += [names.job_key(job_id), names.request_key(job_id), names.log_key(job_id)]
            keys += [Job.key_for(job_id), Result.get_key(job_id), names.rq_executions_key(job_id)]
        answers = self._script(keys=keys, args=[len(registries), len(job_ids), *job_ids])
        return [job_id for job_id, is_gone in zip(job_ids, answers, strict=True) if is_gone]


def _chunks(ids: Iterable[str]) -> Iterable[list[str]]:
    remaining = iter(ids)
    while some := list(islice(remaining, _AT_ONCE)):
        yield some
