"""What all moves of a world stand on: Redis' states by number, and the ways a request may go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from tests.explorer.client import Request
from tests.explorer.emulated import EmulatedRedis
from tests.explorer.kit import Kit, stop_of
from tests.explorer.memory import Database, Value
from tests.explorer.points import LOST, NOW_S, Ended, Points, Replies
from tests.explorer.rules import Rules, State
from tests.explorer.search import Move
from tests.explorer.worker_programs import IN_HAND

T = TypeVar("T")
_READS = frozenset(
    b"EXISTS GET HGET HGETALL HMGET IN-HAND LINDEX LLEN LRANGE MGET SISMEMBER SMEMBERS SUNION TIME "
    b"XRANGE XREVRANGE ZRANGE".split()
)


class Outcome(NamedTuple):
    """What a request comes to: state of Redis, replies, and the jobs that a worker is to stop."""

    redis: int
    replies: Replies
    stops: tuple[tuple[str, str], ...] = ()


class Step(NamedTuple):
    """One way in which a request goes. ``fate``: ok, lost (it was done, and its reply lost), cut
    (it was not done), late (nobody waits for it any more, and it may yet be done), unheard (a
    message reached nobody). ``point``: where its process is then."""

    point: int
    outcome: Outcome
    fate: str
    late: int | None = None


class Ground:
    """``edit``: what is done to each script first, for a fault that is planted."""

    def __init__(self, rules: Rules, edit: Callable[[str], str]) -> None:
        self.rules = rules
        self.jobs = {f"j{place}": num for place, num in enumerate(rules.tokens)}
        self.redis = EmulatedRedis((int(NOW_S), 0))
        kit = Kit(
            self.jobs,
            lambda text: self.redis.scripts.add(text, edit(text)),
            has_one_node=rules.has_one_node,
            has_loads=rules.has_loads,
        )
        self.redis.sight = kit.sights.seen
        self.points = Points(kit.programs(), kit.clients, self.redis, kit.sights.is_private)
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
        """What stands under a key."""
        number = self.databases[redis].get(key)
        return None if number is None else self.redis.cells[number].value

    def without(self, redis: int, key: bytes) -> int:
        """The state in which a key has expired."""
        return self.number_of({k: v for k, v in self.databases[redis].items() if k != key})

    # One request.

    def steps(
        self, state: State, point: int, in_hand: Callable[[], Replies] = tuple
    ) -> Iterator[Step]:
        """All ways in which the request at a point may go."""
        request = self.points.at(point)
        if isinstance(request, Ended):  # a program that asks for nothing
            yield Step(point, Outcome(state.redis, ()), "ok")
        elif request == IN_HAND:
            replies = (in_hand(),)
            yield Step(self.points.after(point, replies), Outcome(state.redis, replies), "ok")
        else:
            yield from self._ways(state, point, request)

    def _ways(self, state: State, point: int, request: Request) -> Iterator[Step]:
        outcome, left = self.outcome(state.redis, point), state.left
        yield Step(self.points.after(point, outcome.replies), outcome, "ok")
        if left.losses and outcome.stops:
            unheard = outcome._replace(stops=())
            yield Step(self.points.after(point, outcome.replies), unheard, "unheard")
        nothing, has_changed = Outcome(state.redis, ()), outcome.redis != state.redis
        broken = self.points.after(point, LOST) if left.losses or left.lates else point
        for after in (point, broken) if request.resends == "some" else (broken,):
            if left.losses and has_changed:
                yield Step(after, outcome, "lost")
            if left.lates and may_write(request):
                yield Step(after, nothing, "late", point)
        if left.losses:
            yield Step(broken, nothing, "cut")

    def after(self, state: State, step: Step) -> State:
        """The state after what a step does to Redis, and whom it tells to stop a job."""
        state = self._told(state, step.outcome)
        left = state.left
        if step.fate == "late":
            assert step.late is not None
            return self.with_late(state, step.late)
        if step.fate != "ok":
            left = left._replace(losses=left.losses - 1)
        return state._replace(redis=step.outcome.redis, left=left)

    def with_late(self, state: State, point: int) -> State:
        """The state in which the request at a point may yet arrive."""
        left = state.left._replace(lates=state.left.lates - 1)
        return state._replace(left=left, late=tuple(sorted((*state.late, point))))

    def late_ones(self, state: State, points: list[int]) -> list[int]:
        """Those of the points whose requests may arrive after their process is dead."""
        if not state.left.lates:
            return []
        requests = {point: self.points.at(point) for point in points}
        return [p for p, r in requests.items() if isinstance(r, Request) and may_write(r)]

    def arrivals(self, state: State) -> Iterator[Move]:
        """Late requests that arrive."""
        for point in dict.fromkeys(state.late):
            outcome = self.outcome(state.redis, point)
            late = list(state.late)
            late.remove(point)
            after = self._told(state, outcome)
            after = after._replace(redis=outcome.redis, late=tuple(late))
            yield Move(after, True, ("late", "ok", point, outcome.replies, point))

    def _told(self, state: State, outcome: Outcome) -> State:
        """Workers note commands to stop jobs that they have, or are about to have."""
        workers = state.workers
        for token, job in outcome.stops:
            place = int(token[1:])
            worker = workers[place]
            has_it = job in {stream.job for stream in worker.streams}
            if worker.is_alive and (has_it or worker.gen.point >= 0):
                workers = put(workers, place, worker._replace(stops=worker.stops | {job}))
        return state._replace(workers=workers)

    def outcome(self, redis: int, point: int) -> Outcome:
        """What the request at a point does to a state of Redis."""
        key = (redis, point)
        if key not in self._outcomes:
            request = self.points.at(point)
            assert isinstance(request, Request)
            found = self.redis.do(self.databases[redis], request)
            stops = (stop_of(one.channel, one.data) for one in found.published)
            self._outcomes[key] = Outcome(
                self.number_of(found.after), found.replies, tuple(filter(None, stops))
            )
        return self._outcomes[key]

    def move(self, after: State, step: Step, who: str, point: int) -> Move:
        """A step of somebody as a move."""
        label = (who, step.fate, point, step.outcome.replies, step.point)
        return Move(after, step.fate != "ok", label)


def may_write(request: Request) -> bool:
    """False for one that only reads."""
    return any(words[0] not in _READS for words in request.commands)


def put(parts: tuple[T, ...], place: int, part: T) -> tuple[T, ...]:
    """The tuple with another part at a place."""
    return (*parts[:place], part, *parts[place + 1 :])
