"""What the supervisors of a world may do next."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.contract.records import DesiredModel, decode_record
from jobs.storage import names
from tests.explorer.actors import GONE, NOWHERE, UNBORN, Supervisor, Worker
from tests.explorer.ground import Ground, put
from tests.explorer.memory import Hash
from tests.explorer.points import Ended
from tests.explorer.rules import State
from tests.explorer.search import Move
from tests.explorer.sights import CONTROL, SLUG, STANDING, list_keys
from tests.explorer.supervisor_programs import Ran, Ticked, Who

_OWNER = names.owner_key(SLUG).encode()
_DESIRED_MODELS = names.DESIRED_MODELS.encode()


class SupervisorMoves:
    """See ``world``."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._rules = ground.rules

    def of(self, state: State, place: int) -> Iterator[Move]:
        """Of the supervisor of that number."""
        one, ground = state.supervisors[place], self._ground
        if one.mode == "dead" or (self._rules.has_one_node and self._is_early(state, place)):
            return
        for point in [one.point] if one.point != NOWHERE else self._ticks(state, place):
            for step in ground.steps(state, point):
                after = self._with(ground.after(state, step), place, step.point)
                yield ground.move(after, step, f"supervisor {place}", point)
        if state.left.supervisor_deaths:
            yield from self._deaths(state, place)

    def of_lock(self, state: State) -> Iterator[Move]:
        """The lock of the model runs out: of a dead supervisor, or of one that is frozen."""
        holder = self._ground.value(state.redis, _OWNER)
        if holder is None:
            return
        assert isinstance(holder, bytes)
        is_dead = state.supervisors[int(holder[-1:])].mode == "dead"
        left = state.left
        if not is_dead:
            if not left.expiries:
                return
            left = left._replace(expiries=left.expiries - 1)
        after = state._replace(redis=self._ground.without(state.redis, _OWNER), left=left)
        yield Move(after, not is_dead, ("lock", f"of {holder!r} runs out"))

    def _is_early(self, state: State, place: int) -> bool:
        """A successor does not run before the other one is dead."""
        return place > 0 and state.supervisors[place - 1].mode != "dead"

    def _ticks(self, state: State, place: int) -> list[int]:
        """What a supervisor that waits may begin."""
        one, start = state.supervisors[place], self._ground.points.start
        who = Who(place, tuple(range(place)) if self._rules.has_one_node else (), one.holds)
        if one.mode == "runs" and state.workers[one.worker].mode == "dead":
            return [
                start("settle", who, _ran(state, one), state.workers[one.worker].code, one.suspects)
            ]
        if self._rules.has_loads:
            return self._ticks_with_loads(state, one, who)
        if one.mode == "idle":
            return [start("take_over", who)] if UNBORN in state.workers else []
        return [start("renew", who)] if self._rules.expiries else []

    def _ticks_with_loads(self, state: State, one: Supervisor, who: Who) -> list[int]:
        """Only those that may come to something; the others change nothing."""
        start, desired = self._ground.points.start, self._desired(state)
        found = []
        if self._has_stale(state, desired):
            found.append(start("sweep", who, _ran(state, one) if one.mode == "runs" else None))
        if one.mode == "runs":
            is_changed = desired is None or desired.uid != state.workers[one.worker].desired
            if state.workers[one.worker].mode == "live" and (is_changed or self._rules.expiries):
                found.append(start("check", who, _ran(state, one)))
            return found
        if desired is not None and UNBORN in state.workers:
            found.append(start("start", who, state.workers.index(UNBORN)))
        if desired is None and self._has_slug(state):
            found.append(start("drain", who))
        return found

    def _desired(self, state: State) -> DesiredModel | None:
        found = self._ground.value(state.redis, _DESIRED_MODELS)
        assert found is None or isinstance(found, Hash)
        return decode_record(DesiredModel, found[SLUG.encode()]) if found else None

    def _has_stale(self, state: State, desired: DesiredModel | None) -> bool:
        """Whether a load or an unload waits that nobody asks for any more."""
        waiting = self._ground.value(state.redis, list_keys(CONTROL)[0].encode()) or ()
        assert isinstance(waiting, tuple)
        return any(desired is None or job != desired.load_job.encode() for job in waiting)

    def _has_slug(self, state: State) -> bool:
        return self._ground.value(state.redis, names.SLUGS.encode()) is not None

    def _with(self, state: State, place: int, point: int) -> State:
        """The state with a supervisor at that point, or after what the program's end means."""
        one, workers = state.supervisors[place], state.workers
        ended = self._ground.points.at(point)
        if not isinstance(ended, Ended) or ended.broken:
            one = one._replace(point=point)
            return state._replace(supervisors=put(state.supervisors, place, one))
        ticked = ended.result
        assert isinstance(ticked, Ticked)
        one = one._replace(point=NOWHERE, suspects=ticked.suspects)
        if self._rules.has_loads:
            one = one._replace(holds=ticked.holds)
        if ticked.started is not None and UNBORN in workers:  # else it cannot be started
            number = workers.index(UNBORN)
            desired, load_job = ticked.started
            is_ready = not self._rules.has_loads
            born = Worker("live", place, desired=desired, load_job=load_job, is_ready=is_ready)
            workers = put(workers, number, born)
            one = one._replace(mode="runs", worker=number)
        if ticked.told and workers[one.worker].mode == "live":
            workers = put(workers, one.worker, workers[one.worker]._replace(mode="told"))
        if ticked.is_settled:
            workers = put(workers, one.worker, GONE)
            one = one._replace(mode="idle", worker=NOWHERE)
        return state._replace(supervisors=put(state.supervisors, place, one), workers=workers)

    def _deaths(self, state: State, place: int) -> Iterator[Move]:
        """Its worker lives on until it notices; one that was dead before is nobody's any more."""
        one = state.supervisors[place]
        left = state.left._replace(supervisor_deaths=state.left.supervisor_deaths - 1)
        workers = tuple(
            GONE if worker.mode == "dead" and worker.owner == place else worker
            for worker in state.workers
        )
        supervisors = put(state.supervisors, place, Supervisor("dead"))
        after = state._replace(supervisors=supervisors, workers=workers, left=left)
        yield Move(after, True, (f"supervisor {place}", "dies"))
        points = [one.point] if one.point != NOWHERE else []
        for point in self._ground.late_ones(state, points):
            late = self._ground.with_late(after, point)
            yield Move(
                late, True, (f"supervisor {place}", "dies, and its last request is under way")
            )


def _ran(state: State, one: Supervisor) -> Ran:
    worker = state.workers[one.worker]
    return Ran(
        token(one.worker), worker.desired or STANDING.uid, worker.load_job or STANDING.load_job
    )


def token(place: int) -> str:
    """Of the worker of that number."""
    return f"w{place}"
