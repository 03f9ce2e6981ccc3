"""The small world: two supervisors, their workers, clients, one Redis; and all that can happen.

A state has the number of Redis' state, where each process stands in its program, and how many
faults may still happen. A step is one request of one process, or a fault: all orders of all steps
are gone through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from tests.explorer import actors
from tests.explorer.actors import GONE, NOWHERE, UNBORN, Client, Lane, Supervisor, Worker
from tests.explorer.checks import Checks
from tests.explorer.emulated import EmulatedRedis
from tests.explorer.kit import SLUG, Kit, is_private, seen_of, stop_of
from tests.explorer.memory import Database
from tests.explorer.points import LOST, NOW_S, Ended, Points, Replies
from tests.explorer.search import Move
from tests.explorer.words import describe

T = TypeVar("T")
KILLED = -9
STOPPED = 0
_OWNER = f"mgs:owner:{SLUG}".encode()


class Left(NamedTuple):
    """How many faults may still happen."""

    losses: int
    worker_deaths: int
    supervisor_deaths: int
    expiries: int


class State(NamedTuple):
    """Everything, as few numbers as possible."""

    redis: int
    supervisors: tuple[Supervisor, ...]
    workers: tuple[Worker, ...]
    clients: tuple[Client, ...]
    left: Left


@dataclass(frozen=True, slots=True)
class Rules:
    """What the world has, and what may happen in it.

    ``tokens``: of each job. ``slots``: jobs that a worker runs at once. ``losses``: replies, or
    requests, that are lost. ``expiries``: how often a supervisor is frozen for so long that its
    lock runs out. ``cancelled``: places of the jobs of which a client wants the end.
    ``has_one_node``: the second supervisor is the first one's successor on its node.
    """

    tokens: tuple[int, ...] = (2, 1, 1)
    slots: int = 1
    losses: int = 0
    worker_deaths: int = 0
    supervisor_deaths: int = 0
    expiries: int = 0
    cancelled: tuple[int, ...] = ()
    has_purge: bool = False
    has_one_node: bool = False
    num_workers: int = 3


class Outcome(NamedTuple):
    """What a request comes to: state of Redis, replies, and the jobs that a worker is to stop."""

    redis: int
    replies: Replies
    stops: tuple[tuple[str, str], ...]


class Step(NamedTuple):
    """One way in which a request goes: ``fate`` is ok, lost (it was done, and its reply lost), cut
    (it was not done), unheard (a message reached nobody)."""

    point: int
    outcome: Outcome
    fate: str


class JobWorld:
    """See ``Rules`` and ``search.World``. ``edit``: what is done to each script first, for a fault
    that is planted."""

    def __init__(self, rules: Rules, edit: Callable[[str], str] = lambda text: text) -> None:
        self.rules = rules
        self._jobs = {f"j{place}": num for place, num in enumerate(rules.tokens)}
        self._redis = EmulatedRedis((int(NOW_S), 0), seen_of)
        self._kit = Kit(
            self._jobs,
            lambda text: self._redis.scripts.add(text, edit(text)),
            has_one_node=rules.has_one_node,
        )
        self._points = Points(self._kit.programs(), self._kit.clients, self._redis, is_private)
        self._databases: list[Database] = []
        self._numbers: dict[frozenset[int], int] = {}
        self._outcomes: dict[tuple[int, int], Outcome] = {}
        self._checks = Checks(self._redis.cells, self._databases, list(self._jobs))

    # search.World.

    def initial(self) -> State:
        rules = self.rules
        clients = [Client("submit")]
        clients += [Client("cancel", place) for place in rules.cancelled]
        clients += [Client("purge")] if rules.has_purge else []
        left = Left(rules.losses, rules.worker_deaths, rules.supervisor_deaths, rules.expiries)
        workers = (UNBORN,) * rules.num_workers
        return State(self._number_of({}), (Supervisor(),) * 2, workers, tuple(clients), left)

    def moves(self, state: State) -> Iterator[Move]:
        for place in range(len(state.supervisors)):
            yield from self._of_supervisor(state, place)
        for place, worker in enumerate(state.workers):
            if worker.is_alive:
                yield from self._of_worker(state, place)
        for place in range(len(state.clients)):
            yield from self._of_client(state, place)
        yield from self._of_lock(state)

    def complaint(self, before: State, move: Move) -> str | None:
        assert isinstance(move.after, State)
        broken = self._broken(move)
        return broken or self._checks.complaint(before.redis, move.after.redis)

    def goals(self, state: State) -> tuple[bool, ...]:
        is_ended, is_clean = self._checks.goals(state.redis)
        is_submitted = state.clients[0].place == len(self._jobs)
        is_at_rest = (
            all(s.point == NOWHERE for s in state.supervisors)
            and all(worker.is_at_rest for worker in state.workers)
            and all(client.point == NOWHERE for client in state.clients)
        )
        return is_submitted and is_ended, is_submitted and is_clean and is_at_rest

    def describe(self, state: State, move: Move) -> str:
        assert isinstance(move.label, tuple)
        return describe(self._points, move.label)

    # Whose steps there are.

    def _of_supervisor(self, state: State, place: int) -> Iterator[Move]:
        one = state.supervisors[place]
        if one.mode == "dead" or (self.rules.has_one_node and self._is_early(state, place)):
            return
        for point in [one.point] if one.point != NOWHERE else self._ticks(state, place):
            for step in self._steps(state, point):
                found = self._after(state, step)
                yield self._move(
                    self._with_supervisor(found, place, step.point), step, f"supervisor {place}", point
                )
        if state.left.supervisor_deaths:
            yield self._death_of_supervisor(state, place)

    def _is_early(self, state: State, place: int) -> bool:
        """A successor does not run before the other one is dead."""
        return place > 0 and state.supervisors[place - 1].mode != "dead"

    def _ticks(self, state: State, place: int) -> list[int]:
        """What a supervisor that waits may begin."""
        one, start = state.supervisors[place], self._points.start
        gone = tuple(range(place)) if self.rules.has_one_node else ()
        if one.mode == "idle":
            is_free = UNBORN in state.workers
            return [start("take_over", place, gone)] if is_free else []
        worker = state.workers[one.worker]
        if worker.mode == "dead":
            token = _token(one.worker)
            return [start("settle", place, gone, token, worker.code, one.suspects)]
        return [start("renew", place, gone)] if self.rules.expiries else []

    def _with_supervisor(self, state: State, place: int, point: int) -> State:
        """The state with a supervisor at that point, or after what the program's end means."""
        one, workers = state.supervisors[place], state.workers
        ended = self._points.at(point)
        if not isinstance(ended, Ended):
            return state._replace(
                supervisors=_put(state.supervisors, place, one._replace(point=point))
            )
        one = one._replace(point=NOWHERE)
        match ended.result:
            case "start":
                number = workers.index(UNBORN)
                workers = _put(workers, number, Worker("live", place))
                one = Supervisor("runs", number)
            case "lost" if workers[one.worker].mode == "live":
                told = workers[one.worker]._replace(mode="told")
                workers = _put(workers, one.worker, told)
            case ("settled", _):
                workers = _put(workers, one.worker, GONE)
                one = Supervisor()
            case ("failed", suspects):
                one = one._replace(suspects=suspects)
        return state._replace(
            supervisors=_put(state.supervisors, place, one), workers=workers
        )

    def _death_of_supervisor(self, state: State, place: int) -> Move:
        """Its worker lives on until it notices; one that was dead before is nobody's any more."""
        left = state.left._replace(supervisor_deaths=state.left.supervisor_deaths - 1)
        workers = tuple(
            GONE if worker.mode == "dead" and worker.owner == place else worker
            for worker in state.workers
        )
        supervisors = _put(state.supervisors, place, Supervisor("dead"))
        after = state._replace(supervisors=supervisors, workers=workers, left=left)
        return Move(after, True, (f"supervisor {place}", "dies"))

    def _of_worker(self, state: State, place: int) -> Iterator[Move]:
        worker = state.workers[place]
        yield from self._of_lane(state, place)
        for stream in worker.streams:
            point = stream.point
            for step in self._steps(state, point):
                after = self._with_stream(self._after(state, step), place, stream, step.point)
                yield self._move(after, step, f"worker {place}, {stream.job}", point)
        yield from self._ends_of_worker(state, place)

    def _ends_of_worker(self, state: State, place: int) -> Iterator[Move]:
        worker, who = state.workers[place], f"worker {place}"
        if state.supervisors[worker.owner].mode == "dead":
            after = state._replace(workers=_put(state.workers, place, GONE))
            yield Move(after, False, (who, "ends, as its supervisor is gone"))
            return
        left, told = state.left, worker.mode == "told"
        if not told and not left.worker_deaths:
            return
        if not told:
            left = left._replace(worker_deaths=left.worker_deaths - 1)
        for code in (KILLED, STOPPED) if told else (KILLED,):
            dead = Worker("dead", worker.owner, code)
            after = state._replace(workers=_put(state.workers, place, dead), left=left)
            yield Move(after, not told, (who, f"ends with code {code}"))

    def _of_lane(self, state: State, place: int) -> Iterator[Move]:
        worker, token = state.workers[place], _token(place)
        point = worker.lane.point
        if point == NOWHERE:
            if len(worker.streams) >= self.rules.slots:
                return
            point = self._points.start("take", token)
        for step in self._steps(state, point):
            after = self._with_lane(self._after(state, step), place, step.point)
            yield self._move(after, step, f"worker {place}, lane", point)

    def _with_lane(self, state: State, place: int, point: int) -> State:
        """The state with a worker's lane at that point, or after what the program's end means."""
        worker, token = state.workers[place], _token(place)
        ended, start, job = self._points.at(point), self._points.start, worker.lane.job
        in_hand = frozenset(stream.job for stream in worker.streams)
        lane, streams = Lane(job, point), worker.streams
        if isinstance(ended, Ended):
            name = self._points.program_of(point)
            match name, ended.result:
                case ("take", None) | ("rescue", _) | ("aside", "done"):
                    lane = Lane()
                case _, "failed":
                    lane = Lane("", start("rescue", token, in_hand))
                case "take", str(taken):
                    lane = Lane(taken, start("open", token, taken))
                case "open", "aside":
                    lane = Lane(job, start("aside", token, job))
                case "open", (attempt, seq, said, reason):
                    stream = actors.opened(job, attempt, seq, said, reason)
                    streams = (*streams, self._started(stream))
                    lane = Lane()
        worker = worker._replace(lane=lane, streams=tuple(sorted(streams)))
        return state._replace(workers=_put(state.workers, place, worker))

    def _with_stream(self, state: State, place: int, stream: actors.Stream, point: int) -> State:
        """The state with a job of a worker at that point, or at what it does next."""
        worker, ended = state.workers[place], self._points.at(point)
        others = [one for one in worker.streams if one.job != stream.job]
        new: actors.Stream | None
        if not isinstance(ended, Ended):
            new = stream._replace(point=point)
        else:
            job, is_taken = stream.job, bool(ended.result)
            tokens, is_stopped = self._jobs[job], job in worker.stops
            new = actors.after(_token(place), stream, is_taken, tokens, is_stopped)
            new = self._started(new) if new is not None else None
        if new is not None:
            others.append(new)
        stops = worker.stops & {one.job for one in others}
        worker = worker._replace(streams=tuple(sorted(others)), stops=stops)
        return state._replace(workers=_put(state.workers, place, worker))

    def _started(self, stream: actors.Stream) -> actors.Stream:
        name, args = stream.doing
        return stream._replace(point=self._points.start(name, *args))

    def _of_client(self, state: State, place: int) -> Iterator[Move]:
        client = state.clients[place]
        if client.is_done:
            return
        point = client.point
        if point == NOWHERE:
            point = self._wish(state, client)
            if point == NOWHERE:
                return
        for step in self._steps(state, point):
            after = self._with_client(self._after(state, step), place, step.point)
            yield self._move(after, step, f"client {place}", point)
        if client.point != NOWHERE and state.left.losses:
            left = state.left._replace(losses=state.left.losses - 1)
            after = self._with_client(state._replace(left=left), place, NOWHERE)
            yield Move(after, True, (f"client {place}", "leaves in the middle"))

    def _wish(self, state: State, client: Client) -> int:
        """Where a client begins, as soon as there is something for it to do."""
        num_submitted = state.clients[0].place
        match client.wish:
            case "submit":
                return self._points.start("submit", f"j{client.place}")
            case "cancel" if num_submitted > client.place:
                return self._points.start("cancel", f"j{client.place}")
            case "purge" if num_submitted:
                return self._points.start("purge")
        return NOWHERE

    def _with_client(self, state: State, place: int, point: int) -> State:
        client = state.clients[place]
        if point != NOWHERE and not isinstance(self._points.at(point), Ended):
            client = client._replace(point=point)
        elif client.wish == "submit":
            num = client.place + 1
            client = Client("submit", num, is_done=num == len(self._jobs))
        else:
            client = Client(client.wish, client.place, is_done=True)
        return state._replace(clients=_put(state.clients, place, client))

    def _of_lock(self, state: State) -> Iterator[Move]:
        """The lock of the model runs out: of a dead supervisor, or of one that is frozen."""
        database = self._databases[state.redis]
        number = database.get(_OWNER)
        if number is None:
            return
        holder = self._redis.cells[number].value
        assert isinstance(holder, bytes)
        is_dead = state.supervisors[int(holder[-1:])].mode == "dead"
        left = state.left
        if not is_dead:
            if not left.expiries:
                return
            left = left._replace(expiries=left.expiries - 1)
        after = self._number_of({k: v for k, v in database.items() if k != _OWNER})
        yield Move(
            state._replace(redis=after, left=left), not is_dead, ("lock", f"of {holder!r} runs out")
        )

    # One request.

    def _steps(self, state: State, point: int) -> Iterator[Step]:
        """All ways in which the request at a point may go."""
        request = self._points.at(point)
        if isinstance(request, Ended):  # a program that asks for nothing
            yield Step(point, Outcome(state.redis, (), ()), "ok")
            return
        outcome = self._outcome(state.redis, point)
        yield Step(self._points.after(point, outcome.replies), outcome, "ok")
        if not state.left.losses:
            return
        if outcome.stops:
            unheard = outcome._replace(stops=())
            yield Step(self._points.after(point, outcome.replies), unheard, "unheard")
        has_changed = outcome.redis != state.redis
        if has_changed and request.resends != "never":
            yield Step(point, outcome, "lost")
        if request.resends != "always":
            broken = self._points.after(point, LOST)
            if has_changed:
                yield Step(broken, outcome, "lost")
            yield Step(broken, Outcome(state.redis, (), ()), "cut")

    def _after(self, state: State, step: Step) -> State:
        """The state after what a step does to Redis, and whom it tells to stop a job."""
        workers, left = state.workers, state.left
        for token, job in step.outcome.stops:
            place = int(token[1:])
            worker = workers[place]
            if job in {stream.job for stream in worker.streams}:
                workers = _put(workers, place, worker._replace(stops=worker.stops | {job}))
        if step.fate != "ok":
            left = left._replace(losses=left.losses - 1)
        return state._replace(redis=step.outcome.redis, workers=workers, left=left)

    def _move(self, after: State, step: Step, who: str, point: int) -> Move:
        return Move(after, step.fate != "ok", (who, step.fate, point, step.outcome.replies, step.point))

    def _broken(self, move: Move) -> str | None:
        """What a program that broke says."""
        if len(move.label) < 5:  # type: ignore[arg-type]
            return None
        ended = self._points.at(move.label[4])  # type: ignore[index]
        return f"a program breaks: {ended.broken}" if isinstance(ended, Ended) and ended.broken else None

    def _outcome(self, number: int, point: int) -> Outcome:
        key = (number, point)
        if key not in self._outcomes:
            request = self._points.at(point)
            assert not isinstance(request, Ended)
            found = self._redis.do(self._databases[number], request)
            stops = (stop_of(one.channel, one.data) for one in found.published)
            self._outcomes[key] = Outcome(
                self._number_of(found.after), found.replies, tuple(filter(None, stops))
            )
        return self._outcomes[key]

    def _number_of(self, database: Database) -> int:
        key = frozenset(database.values())
        number = self._numbers.setdefault(key, len(self._databases))
        if number == len(self._databases):
            self._databases.append(database)
        return number


def _token(place: int) -> str:
    return f"w{place}"


def _put(parts: tuple[T, ...], place: int, part: T) -> tuple[T, ...]:
    return (*parts[:place], part, *parts[place + 1 :])
