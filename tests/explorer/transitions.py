"""States of Redis by number, and the possible outcomes of each request. All moves use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from tests.explorer.client import Request
from tests.explorer.emulated import EmulatedRedis
from tests.explorer.memory import Database, Value
from tests.explorer.positions import LOST, NOW_S, Ended, Positions, Replies
from tests.explorer.programs import Programs, stop_of
from tests.explorer.rules import Rules, State
from tests.explorer.search import Move
from tests.explorer.taken_jobs import IN_HAND

T = TypeVar("T")
_READS = frozenset(
    b"EXISTS GET HGET HGETALL HMGET IN-HAND LINDEX LLEN LRANGE MGET SISMEMBER SMEMBERS SUNION TIME "
    b"XRANGE XREVRANGE ZRANGE".split()
)


class Outcome(NamedTuple):
    """Result of a request: state of Redis, replies, and the jobs that a worker is to stop."""

    redis: int
    replies: Replies
    stops: tuple[tuple[str, str], ...] = ()


class Step(NamedTuple):
    """One possible outcome of a request.

    ``fate``: ok; reply_lost: carried out; request_lost: not carried out; delayed: the sender has
    given up, and the request may yet arrive; not_received: its message had no receiver.
    ``position``: the next one of its process. ``delayed``: the position of the delayed request.
    """

    position: int
    outcome: Outcome
    fate: str
    delayed: int | None = None


class Transitions:
    """``edit`` changes each script's text first, to seed a fault."""

    def __init__(self, rules: Rules, edit: Callable[[str], str]) -> None:
        self.rules = rules
        self.jobs = rules.jobs
        self.redis = EmulatedRedis((int(NOW_S), 0))
        programs = Programs(rules, lambda text: self.redis.scripts.add(text, edit(text)))
        self.redis.constant_of = programs.state_fields.constant_of
        self.positions = Positions(
            programs.by_name(), programs.clients, self.redis, programs.state_fields.is_outside_state
        )
        self.databases: list[Database] = []
        self._numbers: dict[frozenset[int], int] = {}
        self._outcomes: dict[tuple[int, int], Outcome] = {}

    # States of Redis.

    def number_of(self, database: Database) -> int:
        """The number of an equal state, a new one for a new state."""
        key = frozenset(database.values())
        number = self._numbers.setdefault(key, len(self.databases))
        if number == len(self.databases):
            self.databases.append(database)
        return number

    def value(self, redis: int, key: bytes) -> Value | None:
        """The value of a key."""
        number = self.databases[redis].get(key)
        return None if number is None else self.redis.cells[number].value

    def without(self, redis: int, key: bytes) -> int:
        """The state in which a key has expired."""
        return self.number_of({k: v for k, v in self.databases[redis].items() if k != key})

    # One request.

    def steps(
        self, state: State, position: int, in_hand: Callable[[], Replies] = tuple
    ) -> Iterator[Step]:
        """All possible outcomes of the request at a position."""
        request = self.positions.at(position)
        if isinstance(request, Ended):  # a program without requests
            yield Step(position, Outcome(state.redis, ()), "ok")
        elif request == IN_HAND:
            replies = (in_hand(),)
            yield Step(self.positions.after(position, replies), Outcome(state.redis, replies), "ok")
        else:
            yield from self._outcomes_with_faults(state, position, request)

    def _outcomes_with_faults(
        self, state: State, position: int, request: Request
    ) -> Iterator[Step]:
        outcome, budget = self.outcome(state.redis, position), state.budget
        yield Step(self.positions.after(position, outcome.replies), outcome, "ok")
        if budget.losses and outcome.stops:
            not_received = outcome._replace(stops=())
            yield Step(
                self.positions.after(position, outcome.replies), not_received, "not_received"
            )
        nothing, has_changed = Outcome(state.redis, ()), outcome.redis != state.redis
        disconnected = (
            self.positions.after(position, LOST) if budget.losses or budget.delays else position
        )
        for after in (position, disconnected) if request.resends == "some" else (disconnected,):
            if budget.losses and has_changed:
                yield Step(after, outcome, "reply_lost")
            if budget.delays and may_write(request):
                yield Step(after, nothing, "delayed", position)
        if budget.losses:
            yield Step(disconnected, nothing, "request_lost")

    def after(self, state: State, step: Step) -> State:
        """The state after a step's changes to Redis and its commands to stop jobs."""
        state = self._with_stops(state, step.outcome)
        budget = state.budget
        if step.fate == "delayed":
            assert step.delayed is not None
            return self.with_delayed(state, step.delayed)
        if step.fate != "ok":
            budget = budget._replace(losses=budget.losses - 1)
        return state._replace(redis=step.outcome.redis, budget=budget)

    def with_delayed(self, state: State, position: int) -> State:
        """The state in which the request at a position may yet arrive."""
        budget = state.budget._replace(delays=state.budget.delays - 1)
        return state._replace(budget=budget, delayed=tuple(sorted((*state.delayed, position))))

    def delayable(self, state: State, positions: list[int]) -> list[int]:
        """The positions whose requests may arrive after the death of their process."""
        if not state.budget.delays:
            return []
        requests = {position: self.positions.at(position) for position in positions}
        return [p for p, r in requests.items() if isinstance(r, Request) and may_write(r)]

    def arrivals(self, state: State) -> Iterator[Move]:
        """Arrivals of delayed requests."""
        for position in dict.fromkeys(state.delayed):
            outcome = self.outcome(state.redis, position)
            delayed = list(state.delayed)
            delayed.remove(position)
            after = self._with_stops(state, outcome)
            after = after._replace(redis=outcome.redis, delayed=tuple(delayed))
            yield Move(after, True, ("delayed request", "ok", position, outcome.replies, position))

    def _with_stops(self, state: State, outcome: Outcome) -> State:
        """Workers record commands to stop jobs that they have or are about to take."""
        workers = state.workers
        for token, job in outcome.stops:
            index = int(token[1:])
            worker = workers[index]
            has_it = job in {stream.job for stream in worker.streams}
            if worker.is_alive and (has_it or worker.is_taking):
                workers = replaced(workers, index, worker._replace(stops=worker.stops | {job}))
        return state._replace(workers=workers)

    def outcome(self, redis: int, position: int) -> Outcome:
        """The result of the request at a position in a state of Redis."""
        key = (redis, position)
        if key not in self._outcomes:
            request = self.positions.at(position)
            assert isinstance(request, Request)
            found = self.redis.apply(self.databases[redis], request)
            stops = (stop_of(one.channel, one.data) for one in found.published)
            self._outcomes[key] = Outcome(
                self.number_of(found.after), found.replies, tuple(filter(None, stops))
            )
        return self._outcomes[key]

    def move(self, after: State, step: Step, process: str, position: int) -> Move:
        """A step of a process as a move."""
        label = (process, step.fate, position, step.outcome.replies, step.position)
        return Move(after, step.fate != "ok", label)


def may_write(request: Request) -> bool:
    """False for a request that only reads."""
    return any(words[0] not in _READS for words in request.commands)


def replaced(parts: tuple[T, ...], index: int, part: T) -> tuple[T, ...]:
    """The tuple with another item at an index."""
    return (*parts[:index], part, *parts[index + 1 :])
