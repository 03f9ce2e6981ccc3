"""What the workers of a world may do next."""

from __future__ import annotations

from collections.abc import Iterator

from tests.explorer import actors
from tests.explorer.actors import GONE, NOWHERE, Consumer, Round, Sent, Stream, Worker
from tests.explorer.ground import Ground, put
from tests.explorer.points import Ended, Replies
from tests.explorer.rules import State
from tests.explorer.search import Move
from tests.explorer.supervisor_moves import token
from tests.explorer.supervisor_programs import owner_of

KILLED = -9
STOPPED = 0
_QUEUES = ("gen", "ctl")


class WorkerMoves:
    """See ``world``."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._rules = ground.rules

    def of(self, state: State, place: int) -> Iterator[Move]:
        """Of the worker of that number."""
        worker, ground = state.workers[place], self._ground
        if not worker.is_alive:
            return
        for name in _QUEUES:
            yield from self._of_consumer(state, place, name)
        for stream in worker.streams:
            for step in ground.steps(state, stream.point) if stream.point != NOWHERE else ():
                after = self._with_stream(ground.after(state, step), place, stream, step.point)
                yield ground.move(after, step, f"worker {place}, {stream.job}", stream.point)
            if stream.task == "mgs.generate" and stream == self._at_begin(stream, place):
                yield self._without_begin(state, place, stream)
        yield from self._ends(state, place)

    # Its consumers.

    def _of_consumer(self, state: State, place: int, name: str) -> Iterator[Move]:
        point = self._point_of(state, place, name)
        if point == NOWHERE:
            return
        for step in self._ground.steps(state, point, lambda: _in_hand(state.workers[place])):
            after = self._with_consumer(self._ground.after(state, step), place, name, step.point)
            yield self._ground.move(after, step, f"worker {place}, {name}", point)

    def _point_of(self, state: State, place: int, name: str) -> int:
        """Where a consumer is; between two rounds that is the beginning of the next, if it may."""
        worker, start = state.workers[place], self._ground.points.start
        consumer = _consumer(worker, name)
        if consumer.point != NOWHERE:
            return consumer.point
        owner = owner_of(worker.owner, has_one_node=self._rules.has_one_node)
        if name == "gen":
            is_full = worker.num_slots_taken >= self._rules.slots
            if is_full or not worker.is_ready:
                return NOWHERE
            return start("take", token(place), owner, consumer, _jobs(worker))
        if not self._rules.has_loads or any(s.task == "mgs.load" for s in worker.streams):
            return NOWHERE
        args = (_jobs(worker), worker.desired, worker.load_job, worker.is_ready)
        return start("take_control", token(place), owner, consumer, *args)

    def _with_consumer(self, state: State, place: int, name: str, point: int) -> State:
        """The state with a consumer at that point, or after what the program's end means."""
        worker, ended = state.workers[place], self._ground.points.at(point)
        consumer = _consumer(worker, name)
        if not isinstance(ended, Ended) or ended.broken:
            worker = _with_consumer(worker, name, consumer._replace(point=point))
            return state._replace(workers=put(state.workers, place, worker))
        found = ended.result
        assert isinstance(found, Round)
        worker = _with_consumer(worker, name, found.consumer)
        if found.opened is not None:
            stream = self._started(actors.stream_of(found.opened), place)
            others = [one for one in worker.streams if one.job != stream.job]
            worker = worker._replace(streams=tuple(sorted((*others, stream))))
        if found.exit_code is not None:
            worker = worker._replace(mode="told", code=found.exit_code)
        worker = _pruned(worker)
        return state._replace(workers=put(state.workers, place, worker))

    # Its jobs.

    def _with_stream(self, state: State, place: int, stream: Stream, point: int) -> State:
        """The state with a job of a worker at that point, or at what it does next."""
        worker, ended = state.workers[place], self._ground.points.at(point)
        others = [one for one in worker.streams if one.job != stream.job]
        new: Stream | None = stream._replace(point=point)
        if isinstance(ended, Ended) and not ended.broken:
            sent = ended.result if isinstance(ended.result, Sent) else None
            tokens = self._ground.jobs.get(stream.job, 0)
            new = actors.after(stream, sent, tokens, stream.job in worker.stops)
            if new is not None:
                if stream.task == "mgs.load" and stream.doing.name == "begin":
                    worker = worker._replace(is_ready=True)
                new = self._started(new, place)
        streams = others if new is None else [*others, new]
        worker = _pruned(worker._replace(streams=tuple(sorted(streams))))
        return state._replace(workers=put(state.workers, place, worker))

    def _at_begin(self, stream: Stream, place: int) -> Stream | None:
        """The stream as it is before the first step that notes it as running in RQ."""
        return self._started(stream, place) if stream.doing.name == "begin" else None

    def _without_begin(self, state: State, place: int, stream: Stream) -> Move:
        """The job says its next event before RQ is told that it runs."""
        worker, tokens = state.workers[place], self._ground.jobs.get(stream.job, 0)
        new = actors.after(stream, None, tokens, stream.job in worker.stops)
        assert new is not None
        streams = {one.job: one for one in worker.streams}
        streams[stream.job] = self._started(new._replace(is_begun=False), place)
        worker = worker._replace(streams=tuple(sorted(streams.values())))
        after = state._replace(workers=put(state.workers, place, worker))
        return Move(after, False, (f"worker {place}, {stream.job}", "is not noted as running"))

    def _started(self, stream: Stream, place: int) -> Stream:
        """The stream at the beginning of what it does next."""
        name, args = stream.doing
        if not name:
            return stream._replace(point=NOWHERE)
        if name != "send":
            args = (token(place), "gen" if stream.task == "mgs.generate" else "ctl", *args)
        return stream._replace(point=self._ground.points.start(name, *args))

    # Its end.

    def _ends(self, state: State, place: int) -> Iterator[Move]:
        worker, who = state.workers[place], f"worker {place}"
        points = self._ground.late_ones(state, self._points_of(state, place))
        for after, is_fault, how in self._deaths(state, place):
            yield Move(after, is_fault, (who, how))
            for point in points:
                late = self._ground.with_late(after, point)
                label = (who, f"{how}, and has sent", point)
                yield Move(late, True, label)
        del worker

    def _deaths(self, state: State, place: int) -> Iterator[tuple[State, bool, str]]:
        worker = state.workers[place]
        if state.supervisors[worker.owner].mode == "dead":
            gone = state._replace(workers=put(state.workers, place, GONE))
            yield gone, False, "ends, as its supervisor is gone"
            return
        left, is_told = state.left, worker.mode == "told"
        if not is_told and not left.worker_deaths:
            return
        if not is_told:
            left = left._replace(worker_deaths=left.worker_deaths - 1)
        codes = {worker.code: None, KILLED: None} if is_told else {KILLED: None}
        for code in codes:
            dead = Worker(
                "dead", worker.owner, code, desired=worker.desired, load_job=worker.load_job
            )
            after = state._replace(workers=put(state.workers, place, dead), left=left)
            yield after, not is_told, f"ends with code {code}"

    def _points_of(self, state: State, place: int) -> list[int]:
        """Where its threads are."""
        points = [self._point_of(state, place, name) for name in _QUEUES]
        points += [stream.point for stream in state.workers[place].streams]
        return [point for point in points if point != NOWHERE]


def _consumer(worker: Worker, name: str) -> Consumer:
    return worker.gen if name == "gen" else worker.ctl


def _with_consumer(worker: Worker, name: str, consumer: Consumer) -> Worker:
    return worker._replace(gen=consumer) if name == "gen" else worker._replace(ctl=consumer)


def _in_hand(worker: Worker) -> Replies:
    return tuple(job.encode() for job in _jobs(worker))


def _jobs(worker: Worker) -> tuple[str, ...]:
    return tuple(stream.job for stream in worker.streams)


def _pruned(worker: Worker) -> Worker:
    """Without commands to stop what is not there; a round may yet bring it."""
    if worker.gen.point != NOWHERE:
        return worker
    return worker._replace(stops=worker.stops & {one.job for one in worker.streams})
