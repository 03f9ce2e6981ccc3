"""The enabled moves of a world's supervisors."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.contract.records import DesiredModel, decode_record
from jobs.storage import names
from tests.explorer.actors import GONE, IDLE, NO_INDEX, NOT_STARTED, Supervisor, Worker
from tests.explorer.memory import Hash
from tests.explorer.positions import Ended
from tests.explorer.rules import State
from tests.explorer.search import Move
from tests.explorer.state_fields import CONTROL, PERMANENT, QUEUES, SLUG, list_keys
from tests.explorer.supervisor_programs import SupervisorRef, TickResult, WorkerRef
from tests.explorer.transitions import Transitions, replaced

_OWNER = names.owner_key(SLUG).encode()
_DESIRED_MODELS = names.DESIRED_MODELS.encode()


class SupervisorMoves:
    """See ``world``."""

    def __init__(self, transitions: Transitions) -> None:
        self._transitions = transitions
        self._rules = transitions.rules
        self._decisions: dict[str, set[int]] = {"park": set(), "shut": set()}

    def of(self, state: State, index: int) -> Iterator[Move]:
        """Moves of the supervisor with that index."""
        one, transitions = state.supervisors[index], self._transitions
        if one.mode == "dead" or (self._rules.has_one_node and self._is_early(state, index)):
            return
        for position in [one.position] if one.position != IDLE else self._ticks(state, index):
            spent = self._spent(state, position)
            for step in transitions.steps(spent, position):
                after = self._with(transitions.after(spent, step), index, step.position)
                yield transitions.move(after, step, f"supervisor {index}", position)
        if state.budget.supervisor_deaths:
            yield from self._deaths(state, index)

    def _spent(self, state: State, position: int) -> State:
        """The state in which a decision to park or close was made, if the position begins one."""
        budget = state.budget
        if position in self._decisions["park"]:
            budget = budget._replace(parks=budget.parks - 1)
        elif position in self._decisions["shut"]:
            budget = budget._replace(closes=budget.closes - 1)
        return state._replace(budget=budget)

    def of_lock(self, state: State) -> Iterator[Move]:
        """The expiry of the model's lock: that of a dead supervisor, or of a frozen one."""
        holder = self._transitions.value(state.redis, _OWNER)
        if holder is None:
            return
        assert isinstance(holder, bytes)
        is_dead = state.supervisors[int(holder[-1:])].mode == "dead"
        budget = state.budget
        if not is_dead:
            if not budget.expiries:
                return
            budget = budget._replace(expiries=budget.expiries - 1)
        after = state._replace(redis=self._transitions.without(state.redis, _OWNER), budget=budget)
        yield Move(after, not is_dead, ("lock", f"of {holder!r} expires"))

    def _is_early(self, state: State, index: int) -> bool:
        """A successor does not run before its predecessor is dead."""
        return index > 0 and state.supervisors[index - 1].mode != "dead"

    def _ticks(self, state: State, index: int) -> list[int]:
        """First positions of the programs that an idle supervisor may start."""
        one, start = state.supervisors[index], self._transitions.positions.start
        ref = SupervisorRef(
            index, tuple(range(index)) if self._rules.has_one_node else (), one.is_owner
        )
        if one.mode == "running" and state.workers[one.worker].mode == "dead":
            return [
                start(
                    "settle",
                    ref,
                    _worker_ref(state, one),
                    state.workers[one.worker].code,
                    one.suspects,
                )
            ]
        if self._rules.has_loads:
            return self._ticks_with_loads(state, one, ref)
        if one.mode == "idle":
            return [start("take_over", ref)] if NOT_STARTED in state.workers else []
        return [start("renew", ref)] if self._rules.expiries else []

    def _ticks_with_loads(self, state: State, one: Supervisor, ref: SupervisorRef) -> list[int]:
        """Only of programs that may change the state."""
        start, desired = self._transitions.positions.start, self._desired(state)
        found = []
        if self._has_stale(state, desired):
            found.append(
                start("sweep", ref, _worker_ref(state, one) if one.mode == "running" else None)
            )
        if one.mode == "running":
            is_changed = (
                desired is None
                or desired.uid != state.workers[one.worker].desired
                or desired.is_parked
            )
            if state.workers[one.worker].mode == "running" and (is_changed or self._rules.expiries):
                found.append(start("check", ref, _worker_ref(state, one)))
            elif desired is not None:
                found += self._partings(state, one, ref)
            return found
        if desired is not None and desired.is_parked and not self._has_waiting(state):
            return found
        if desired is not None and NOT_STARTED in state.workers:
            found.append(start("start", ref, state.workers.index(NOT_STARTED)))
        if desired is None and self._has_slug(state):
            found.append(start("drain", ref))
        return found

    def _partings(self, state: State, one: Supervisor, ref: SupervisorRef) -> Iterator[int]:
        """Parking and closing of the model that it runs, while it runs and once it is ready."""
        worker, start = state.workers[one.worker], self._transitions.positions.start
        if worker.mode != "running" or not worker.is_ready:
            return
        if one.is_closed:
            yield start("park", ref, _worker_ref(state, one), True)
            return
        for name, left in (("park", state.budget.parks), ("shut", state.budget.closes)):
            if left:
                args = (False,) if name == "park" else ()
                position = start(name, ref, _worker_ref(state, one), *args)
                self._decisions[name].add(position)
                yield position

    def _has_waiting(self, state: State) -> bool:
        """Whether a job waits for the model, or was held by a worker that is gone."""
        keys = [list_keys(queue)[0] for queue in QUEUES.values()]
        claims = names.claims_key(SLUG)
        return any(self._transitions.value(state.redis, key.encode()) for key in [*keys, claims])

    def _desired(self, state: State) -> DesiredModel | None:
        found = self._transitions.value(state.redis, _DESIRED_MODELS)
        assert found is None or isinstance(found, Hash)
        return decode_record(DesiredModel, found[SLUG.encode()]) if found else None

    def _has_stale(self, state: State, desired: DesiredModel | None) -> bool:
        """Whether a load or an unload is queued that belongs to no desired model."""
        waiting = self._transitions.value(state.redis, list_keys(CONTROL)[0].encode()) or ()
        assert isinstance(waiting, tuple)
        return any(desired is None or job != desired.load_job.encode() for job in waiting)

    def _has_slug(self, state: State) -> bool:
        return self._transitions.value(state.redis, names.SLUGS.encode()) is not None

    def _with(self, state: State, index: int, position: int) -> State:
        """The state with a supervisor at that position, or after its tick."""
        one, workers = state.supervisors[index], state.workers
        ended = self._transitions.positions.at(position)
        if not isinstance(ended, Ended) or ended.error:
            one = one._replace(position=position)
            return state._replace(supervisors=replaced(state.supervisors, index, one))
        result = ended.result
        assert isinstance(result, TickResult)
        one = one._replace(position=IDLE, suspects=result.suspects)
        if self._rules.has_loads:
            one = one._replace(is_owner=result.is_owner)
        if result.started is not None and NOT_STARTED in workers:  # else no worker is left to start
            number = workers.index(NOT_STARTED)
            desired, load_job = result.started
            is_ready = not self._rules.has_loads
            started = Worker(
                "running", index, desired=desired, load_job=load_job, is_ready=is_ready
            )
            workers = replaced(workers, number, started)
            one = one._replace(mode="running", worker=number)
        if result.is_closed and self._rules.closes:
            one = one._replace(is_closed=True)
        if result.is_stopping and workers[one.worker].mode == "running":
            workers = replaced(workers, one.worker, workers[one.worker]._replace(mode="stopping"))
        if result.is_settled:
            workers = replaced(workers, one.worker, GONE)
            one = one._replace(mode="idle", worker=NO_INDEX, is_closed=False)
        return state._replace(supervisors=replaced(state.supervisors, index, one), workers=workers)

    def _deaths(self, state: State, index: int) -> Iterator[Move]:
        """Its worker runs on until it notices; a worker that was dead before is never settled."""
        one = state.supervisors[index]
        budget = state.budget._replace(supervisor_deaths=state.budget.supervisor_deaths - 1)
        workers = tuple(
            GONE if worker.mode == "dead" and worker.owner == index else worker
            for worker in state.workers
        )
        supervisors = replaced(state.supervisors, index, Supervisor("dead"))
        after = state._replace(supervisors=supervisors, workers=workers, budget=budget)
        yield Move(after, True, (f"supervisor {index}", "dies"))
        positions = [one.position] if one.position != IDLE else []
        for position in self._transitions.delayable(state, positions):
            delayed = self._transitions.with_delayed(after, position)
            yield Move(
                delayed, True, (f"supervisor {index}", "dies, and its last request is delayed")
            )


def _worker_ref(state: State, one: Supervisor) -> WorkerRef:
    worker = state.workers[one.worker]
    return WorkerRef(
        token(one.worker), worker.desired or PERMANENT.uid, worker.load_job or PERMANENT.load_job
    )


def token(index: int) -> str:
    """Token of the worker with that index."""
    return f"w{index}"
