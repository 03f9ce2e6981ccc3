"""The enabled moves of a world's workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.explorer import actors
from tests.explorer.actors import GONE, IDLE, Consumer, RoundResult, SendResult, Stream, Worker
from tests.explorer.positions import Ended, Replies
from tests.explorer.rules import State
from tests.explorer.search import Move
from tests.explorer.supervisor_moves import token
from tests.explorer.supervisor_programs import owner_of
from tests.explorer.transitions import Transitions, replaced

KILLED = -9
STOPPED = 0


class WorkerMoves:
    """See ``world``."""

    def __init__(self, transitions: Transitions) -> None:
        self._transitions = transitions
        self._rules = transitions.rules

    def of(self, state: State, index: int) -> Iterator[Move]:
        """Moves of the worker with that index."""
        worker, transitions = state.workers[index], self._transitions
        if not worker.is_alive:
            return
        for name in self._rules.lanes:
            yield from self._of_consumer(state, index, name)
        for stream in worker.streams:
            for step in (
                transitions.steps(state, stream.position) if stream.position != IDLE else ()
            ):
                after = self._with_stream(
                    transitions.after(state, step), index, stream, step.position
                )
                yield transitions.move(
                    after, step, f"worker {index}, {stream.job}", stream.position
                )
            if stream.task == "mgs.generate" and stream == self._at_begin(stream, index):
                yield self._without_begin(state, index, stream)
            if state.budget.yields and stream == self._started(stream, index):
                yield from self._giving_way(state, index, stream)
        yield from self._ends(state, index)

    # Consumers.

    def _of_consumer(self, state: State, index: int, name: str) -> Iterator[Move]:
        position = self._position_of(state, index, name)
        if position == IDLE:
            return
        for step in self._transitions.steps(
            state, position, lambda: _in_hand(state.workers[index])
        ):
            after = self._with_consumer(
                self._transitions.after(state, step), index, name, step.position
            )
            yield self._transitions.move(after, step, f"worker {index}, {name}", position)

    def _position_of(self, state: State, index: int, name: str) -> int:
        """The position of a consumer; between two rounds, the next one's first."""
        worker, start = state.workers[index], self._transitions.positions.start
        consumer = _consumer(worker, name)
        if consumer.position != IDLE:
            return consumer.position
        owner = owner_of(worker.owner, has_one_node=self._rules.has_one_node)
        if name != "ctl":
            if not worker.is_ready or not worker.has_room(name, self._rules.slots):
                return IDLE
            order = worker.used, self._running(worker), self._num_taking(worker, name)
            return start("take", token(index), name, owner, consumer, _jobs(worker), *order)
        if any(s.task == "mgs.load" for s in worker.streams):
            return IDLE
        args = (_jobs(worker), worker.desired, worker.load_job, worker.is_ready)
        return start("take_control", token(index), owner, consumer, *args)

    def _with_consumer(self, state: State, index: int, name: str, position: int) -> State:
        """The state with a consumer at that position, or after its round."""
        worker, ended = state.workers[index], self._transitions.positions.at(position)
        consumer = _consumer(worker, name)
        if consumer.position == IDLE and name != "ctl":
            worker = worker._replace(used=())  # the take has reported it
        if not isinstance(ended, Ended) or ended.error:
            worker = _with_consumer(worker, name, consumer._replace(position=position))
            return state._replace(workers=replaced(state.workers, index, worker))
        found = ended.result
        assert isinstance(found, RoundResult)
        worker = _with_consumer(worker, name, found.consumer)
        if found.opened is not None:
            stream = self._started(actors.stream_of(found.opened), index)
            others = [one for one in worker.streams if one.job != stream.job]
            worker = worker._replace(streams=tuple(sorted((*others, stream))))
        if found.exit_code is not None:
            worker = worker._replace(mode="stopping", code=found.exit_code)
        worker = _pruned(worker)
        return state._replace(workers=replaced(state.workers, index, worker))

    # Jobs.

    def _with_stream(self, state: State, index: int, stream: Stream, position: int) -> State:
        """The state with a job of a worker at that position, or at its next action."""
        worker, ended = state.workers[index], self._transitions.positions.at(position)
        others = [one for one in worker.streams if one.job != stream.job]
        new: Stream | None = stream._replace(position=position)
        if isinstance(ended, Ended) and not ended.error:
            sent = ended.result if isinstance(ended.result, SendResult) else None
            tokens = self._transitions.jobs.get(stream.job, 0)
            if stream.action.name == "hand_back":
                new = actors.after_hand_back(stream, ended.result == "cancelled")
            else:
                new = actors.after(stream, sent, tokens, stream.job in worker.stops)
            if new is not None:
                if stream.task == "mgs.load" and stream.action.name == "begin":
                    worker = worker._replace(is_ready=True)
                new = self._started(new, index)
        streams = others if new is None else [*others, new]
        if new is None and self._rules.callers and stream.lane != "ctl":
            use = dict(worker.used)
            field = f"{self._rules.class_of(stream.job)}:{self._caller_of(stream)}"
            use[field] = use.get(field, 0.0) + 1.0
            worker = worker._replace(used=tuple(sorted(use.items())))
        worker = _pruned(worker._replace(streams=tuple(sorted(streams))))
        return state._replace(workers=replaced(state.workers, index, worker))

    def _at_begin(self, stream: Stream, index: int) -> Stream | None:
        """The stream at the start of the program that records it as running in RQ."""
        return self._started(stream, index) if stream.action.name == "begin" else None

    def _without_begin(self, state: State, index: int, stream: Stream) -> Move:
        """The job sends its next event before it is recorded as running in RQ."""
        worker, tokens = state.workers[index], self._transitions.jobs.get(stream.job, 0)
        new = actors.after(stream, None, tokens, stream.job in worker.stops)
        assert new is not None
        streams = {one.job: one for one in worker.streams}
        streams[stream.job] = self._started(new._replace(is_begun=False), index)
        worker = worker._replace(streams=tuple(sorted(streams.values())))
        after = state._replace(workers=replaced(state.workers, index, worker))
        return Move(after, False, (f"worker {index}, {stream.job}", "is not recorded as running"))

    def _giving_way(self, state: State, index: int, stream: Stream) -> Iterator[Move]:
        """The job goes back to its queue instead of sending its next event."""
        new = actors.handed_back(stream)
        if new is None:
            return
        worker, budget = state.workers[index], state.budget
        others = [one for one in worker.streams if one.job != stream.job]
        worker = worker._replace(streams=tuple(sorted([*others, self._started(new, index)])))
        after = state._replace(
            workers=replaced(state.workers, index, worker),
            budget=budget._replace(yields=budget.yields - 1),
        )
        yield Move(after, True, (f"worker {index}, {stream.job}", "gives way"))

    def _caller_of(self, stream: Stream) -> str:
        return self._rules.callers[self._rules.index_of(stream.job)]

    def _running(self, worker: Worker) -> tuple[tuple[str, int], ...]:
        """The number of running jobs of each caller."""
        if not self._rules.max_running:
            return ()
        running = [self._caller_of(one) for one in worker.streams if one.has_slot]
        return tuple(sorted(Counter(running).items()))

    def crowd_of(self, state: State) -> str | None:
        """A caller with more running jobs in one worker than it may have."""
        limit = self._rules.max_running
        for worker in state.workers:
            if any(num > limit for _, num in self._running(worker)):
                return "a caller runs more jobs than it may"
        return None

    def _num_taking(self, worker: Worker, name: str) -> int:
        """Whether the other consumer of generations is in a round."""
        if not self._rules.max_running:
            return 0
        other = worker.batch if name == "gen" else worker.gen
        return int(other.position != IDLE)

    def _started(self, stream: Stream, index: int) -> Stream:
        """The stream at the start of its next action."""
        name, args = stream.action
        if not name:
            return stream._replace(position=IDLE)
        if name != "send":
            args = (token(index), stream.lane, *args)
        return stream._replace(position=self._transitions.positions.start(name, *args))

    # Ends.

    def _ends(self, state: State, index: int) -> Iterator[Move]:
        process = f"worker {index}"
        positions = self._transitions.delayable(state, self._positions_of(state, index))
        for after, is_fault, how in self._deaths(state, index):
            yield Move(after, is_fault, (process, how))
            for position in positions:
                delayed = self._transitions.with_delayed(after, position)
                label = (process, f"{how}, and has sent", position)
                yield Move(delayed, True, label)

    def _deaths(self, state: State, index: int) -> Iterator[tuple[State, bool, str]]:
        worker = state.workers[index]
        if state.supervisors[worker.owner].mode == "dead":
            gone = state._replace(workers=replaced(state.workers, index, GONE))
            yield gone, False, "ends, as its supervisor is dead"
            return
        budget, is_stopping = state.budget, worker.mode == "stopping"
        if not is_stopping and not budget.worker_deaths:
            return
        if not is_stopping:
            budget = budget._replace(worker_deaths=budget.worker_deaths - 1)
        codes = {worker.code: None, KILLED: None} if is_stopping else {KILLED: None}
        for code in codes:
            dead = Worker(
                "dead", worker.owner, code, desired=worker.desired, load_job=worker.load_job
            )
            after = state._replace(workers=replaced(state.workers, index, dead), budget=budget)
            yield after, not is_stopping, f"ends with code {code}"

    def _positions_of(self, state: State, index: int) -> list[int]:
        """The positions of its threads."""
        positions = [self._position_of(state, index, name) for name in self._rules.lanes]
        positions += [stream.position for stream in state.workers[index].streams]
        return [position for position in positions if position != IDLE]


def _consumer(worker: Worker, name: str) -> Consumer:
    return {"gen": worker.gen, "batch": worker.batch, "ctl": worker.ctl}[name]


def _with_consumer(worker: Worker, name: str, consumer: Consumer) -> Worker:
    return worker._replace(**{name: consumer})


def _in_hand(worker: Worker) -> Replies:
    return tuple(job.encode() for job in _jobs(worker))


def _jobs(worker: Worker) -> tuple[str, ...]:
    return tuple(stream.job for stream in worker.streams)


def _pruned(worker: Worker) -> Worker:
    """The worker without commands to stop jobs that it does not have and cannot get any more."""
    if worker.is_taking:
        return worker
    return worker._replace(stops=worker.stops & {one.job for one in worker.streams})
