"""The product's own objects, on clients that ask the explorer: what processes do step by step.

Each public function here is a program (``points``): real code of the product, called as its caller
in the product calls it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from redis.exceptions import RedisError

from jobs import names, scripts
from jobs.errors import ErrorInfo, JobNotFoundError
from jobs.event_log import EventWriter, read_log
from jobs.events import Event, EventKind
from jobs.records import Want, encode_record
from jobs.requests import LoadRequest
from jobs.settings import Settings
from jobs.sight import Sight
from jobs.store import JobStore
from jobs.submission import Submission
from jobs.wants import Wants
from tests.explorer.client import AskingRedis, Request, Words
from tests.explorer.memory import Hash, Value
from tests.explorer.points import NOW_S
from tests.helpers.samples import generate
from workers.aftermath import Aftermath
from workers.claimant import Claimant
from workers.node_identity import NodeIdentity
from workers.ownership import Ownership
from workers.restarts import RestartPolicy
from workers.supervisor import Supervisor
from workers.undertaker import Undertaker

SLUG = "0"
LOAD = LoadRequest(model_name="fake", backend="fake")
WANT = Want(model_id="0", uid="u", load=LOAD, load_job="load", created_at=1.0, was_ready=True)
QUEUE = names.generation_queue(SLUG)
AGE_S = 1.0  # of jobs that a purge spares


class Kit:
    """Everything that programs need; ``jobs``: how many tokens each job has, by id."""

    def __init__(
        self, jobs: dict[str, int], on_script: Callable[[str], object], *, has_one_node: bool
    ) -> None:
        self._jobs = jobs
        self._has_one_node = has_one_node
        self._settings = Settings(
            REDIS_URL="unix:///nowhere", models_dir=Path(tempfile.gettempdir()), fake_engine=True
        )
        self.api = AskingRedis(on_script, resends="some")  # jobs.connection.connect
        self.lane = AskingRedis(on_script, resends="never", has_bare_replies=True)
        self.publisher = AskingRedis(on_script, resends="always")
        with patch("jobs.event_log.ScriptLine", _AskingLine):
            self.store = JobStore(self.api, self._settings)
        self._writer = _writer(self.publisher, self._settings)
        self._undertaker = Undertaker(self.store, self._settings)

    @property
    def clients(self) -> tuple[AskingRedis, ...]:
        return self.api, self.lane, self.publisher

    def programs(self) -> dict[str, Callable[..., Hashable]]:
        """All programs by name."""
        found = (
            self.submit,
            self.cancel,
            self.purge,
            self.take_over,
            self.renew,
            self.settle,
            self.take,
            self.rescue,
            self.open,
            self.aside,
            self.say,
            self.end,
            self.begin,
            self.close,
        )
        return {program.__name__: program for program in found}

    # The API.

    def submit(self, job: str) -> str:
        """A client's request becomes a job."""
        submission = Submission(job, "0", generate("p", self._jobs[job]), {"model": "fake"})
        try:
            self.store.submit(submission)
        except RedisError:
            return "failed"
        return "submitted"

    def cancel(self, job: str) -> str:
        """A client wants a job ended."""
        try:
            return self.store.cancel(job, "enough").status
        except JobNotFoundError:
            return "gone"
        except RedisError:
            return "failed"

    def purge(self) -> str:
        """Somebody wants all jobs ended."""
        try:
            return str(self.store.purge(SLUG, -AGE_S))
        except RedisError:
            return "failed"

    # Supervisors.

    def take_over(self, node: int, gone: tuple[int, ...]) -> str:
        """A tick of a supervisor that does not run the model: it takes it, if it may."""
        ownership = self._ownership(node, gone)
        claimant = Claimant(self._settings, Wants(self.api), ownership, _clear_sight())
        parts: Any = SimpleNamespace(_undertaker=self._undertaker)
        try:
            if not claimant.claim({SLUG: WANT}):
                return "not ours"
            Supervisor._bury_leftover(parts, SLUG)
        except RedisError:
            return "failed"
        return "start"

    def renew(self, node: int, gone: tuple[int, ...]) -> str:
        """A tick of a supervisor that runs the model: is it still its own?"""
        ownership = self._ownership(node, gone)
        ownership._held = {SLUG}
        try:
            return "lost" if ownership.renew({SLUG}) else "ours"
        except RedisError:
            return "failed"

    def settle(
        self, node: int, gone: tuple[int, ...], token: str, code: int, suspects: frozenset[str] | None
    ) -> tuple[str, frozenset[str] | None]:
        """A worker of the supervisor has ended. Also answers whom it suspects, for the next try."""
        restarts = RestartPolicy()
        ownership = self._ownership(node, gone)
        ownership._held = {SLUG}
        aftermath = Aftermath(Wants(self.api), self._undertaker, restarts)
        child: Any = SimpleNamespace(
            slug=SLUG,
            want=WANT,
            token=token,
            exit_code=code,
            worker_names=[worker_name(token)],
            last_status=None,
            killed_for=None,
            suspects=None if suspects is None else set(suspects),
        )
        parts: Any = SimpleNamespace(_ownership=ownership, _aftermath=aftermath)
        try:
            Supervisor._settle(parts, child)
        except RedisError:
            return "failed", None if child.suspects is None else frozenset(child.suspects)
        return "settled", None

    def _ownership(self, node: int, gone: tuple[int, ...]) -> Ownership:
        return Ownership(self.api, self._identity(node, gone))

    def _identity(self, node: int, gone: tuple[int, ...]) -> NodeIdentity:
        uid = "n" if self._has_one_node else f"n{node}"
        return NodeIdentity(uid, f"s{node}", uid, frozenset(f"s{other}" for other in gone))

    # A worker's lane.

    def take(self, token: str) -> str | None:
        """The next job of the queue."""
        queue = self.store.queue(QUEUE)
        script = self.lane.register_script(scripts.TAKE)
        try:
            found = script(
                keys=[queue.key, queue.intermediate_queue_key, names.claims_key(SLUG)],
                args=[worker_name(token), names.job_key(""), 0],
            )
        except RedisError:
            return "failed"
        return found.decode() if found is not None else None

    def rescue(self, token: str, in_hand: frozenset[str]) -> str:
        """After a lost reply: back with what Redis has given us without our knowing."""
        worker = worker_name(token)
        try:
            for claimant, job in self.store.claims(SLUG):
                if claimant == worker and job not in in_hand:
                    self.store.return_to_queue(self.store.record(job), worker, has_killed=False)
        except RedisError:
            return "failed"
        return "done"

    def open(self, token: str, job: str) -> tuple[Hashable, ...] | str:
        """Open the attempt: its number, newest event, tokens said so far, reason of a cancel."""
        worker = worker_name(token)
        script = self.lane.register_script(scripts.OPEN_ATTEMPT)
        keys = [names.job_key(job), names.log_key(job), names.request_key(job)]
        try:
            state, *rest = script(keys=[*keys, names.claims_key(SLUG)], args=[job, worker])
            if state != b"open":
                return "aside"
            attempt, seq, _, _, reason, _ = rest
            said = sum(e.kind is EventKind.CHUNK for e in read_log(self.api, job)) if seq else 0
        except RedisError:
            return "failed"
        return attempt, seq, said, reason.decode()

    def aside(self, token: str, job: str) -> str:
        """The job is not for us (any more)."""
        queue, worker = self.store.queue(QUEUE), worker_name(token)
        try:
            self.lane.lrem(queue.intermediate_queue_key, 0, job)
            self.lane.srem(names.claims_key(SLUG), names.claim(worker, job))
        except RedisError:
            return "failed"
        return "done"

    # A worker's publisher and its books.

    def say(self, job: str, attempt: int, seq: int, kind: str) -> bool:
        """Write an event that ends nothing, until Redis answers: whether it took it."""
        text = {"text": "t"} if kind == EventKind.CHUNK else {}
        event = Event(job=job, attempt=attempt, seq=seq, kind=EventKind(kind), t=NOW_S, **text)
        return self._writer.append([event])[0]

    def end(self, job: str, attempt: int, seq: int, kind: str) -> bool:
        """Write the terminal event, until Redis answers: whether it is the job's end."""
        error = ErrorInfo("job_cancelled", "enough") if kind == EventKind.CANCELLED else None
        event = Event(
            job=job, attempt=attempt, seq=seq, kind=EventKind(kind), t=NOW_S, error=error
        )
        return self._writer.settle(event)

    def begin(self, token: str, job: str) -> str:
        """Note in RQ that the job runs."""
        self.publisher.lrem(self.store.queue(QUEUE).intermediate_queue_key, 1, job)
        return "begun"

    def close(self, token: str, job: str) -> str:
        """Let go of a job."""
        with self.publisher.pipeline() as pipe:
            pipe.lrem(self.store.queue(QUEUE).intermediate_queue_key, 1, job)
            pipe.srem(names.claims_key(SLUG), names.claim(worker_name(token), job))
            pipe.execute()
        return "closed"


class _AskingLine:
    """In place of ``ScriptLine``, which has a socket of its own."""

    def __init__(self, redis: AskingRedis, script: str) -> None:
        self._script = redis.register_script(script)

    def send(self, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        return SimpleNamespace(answer=lambda: self._script(keys=keys, args=args))


def _writer(redis: AskingRedis, settings: Settings) -> EventWriter:
    with patch("jobs.event_log.ScriptLine", _AskingLine):
        return EventWriter(redis, settings.log_ttl_s, settings.failure_ttl_s)


def worker_name(token: str) -> str:
    return names.worker_name(SLUG, "gen", token)


def stop_of(channel: bytes, data: bytes) -> tuple[str, str] | None:
    """Token of the worker and id of the job that a published command stops."""
    prefix = names.rq_command_channel("").encode()
    if not channel.startswith(prefix):
        return None
    return channel.removeprefix(prefix).decode().split(".")[2], json.loads(data)["job_id"]


def _clear_sight() -> Sight:
    return Sight(lambda: 0.0, lambda: 0.0)


# What is no part of states.

_KEPT_LISTS = (f"rq:queue:{QUEUE}".encode(), f"rq:queue:{QUEUE}:intermediate".encode())
_CONSTANT: dict[bytes, Value] = {names.WANTS.encode(): Hash({b"0": encode_record(WANT)})}
_RQ_JOB = Hash({b"status": b"queued", b"origin": QUEUE.encode(), b"data": b""})


def seen_of(key: bytes) -> Value | bool | None:
    """What a key that is left out of states seems to hold; False for those that are kept."""
    if key.startswith(b"rq:"):
        if key.startswith(b"rq:job:"):
            return _RQ_JOB
        return False if key in _KEPT_LISTS else None
    if key.startswith((b"mgs:wake:", b"mgs:worker:")):
        return None
    return _CONSTANT.get(key, False)


_MANY_KEYS = (b"MGET", b"DEL", b"EXISTS", b"SUNION", b"UNLINK")


def is_private(request: Request) -> bool:
    """True for a request that touches only keys that are left out of states."""
    return all(_is_private(words) for words in request.commands)


def _is_private(words: Words) -> bool:
    if words[0] in (b"TIME", b"PING"):
        return True
    if words[0] in (b"EVALSHA", b"PUBLISH"):
        return False
    keys = words[1:] if words[0] in _MANY_KEYS else words[1:2]
    return all(seen_of(key) is not False for key in keys)
