"""The world as a transition system: two supervisors, their workers, clients, one Redis.

A state consists of the number of Redis' state, the position of each process in its program, and
the numbers of faults that may still happen. A step is one request of one process, or a fault. The
search covers all orders of all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.explorer.actors import IDLE, NOT_STARTED, Client, Supervisor
from tests.explorer.checks import Checks
from tests.explorer.client import Request
from tests.explorer.client_moves import ClientMoves, clients_of
from tests.explorer.positions import Ended
from tests.explorer.rules import FaultBudget, Rules, State
from tests.explorer.search import Move
from tests.explorer.state_fields import QUEUE, list_keys
from tests.explorer.step_text import describe
from tests.explorer.supervisor_moves import SupervisorMoves
from tests.explorer.transitions import Transitions
from tests.explorer.worker_moves import WorkerMoves


class JobWorld:
    """See ``Rules`` and ``search.World``. ``edit`` changes each script's text first, to seed a
    fault."""

    def __init__(self, rules: Rules, edit: Callable[[str], str] = lambda text: text) -> None:
        self.rules = rules
        self._transitions = Transitions(rules, edit)
        self._supervisors = SupervisorMoves(self._transitions)
        self._workers = WorkerMoves(self._transitions)
        self._clients = ClientMoves(self._transitions)
        transitions = self._transitions
        self._checks = Checks(transitions.redis.cells, transitions.databases, rules)

    def initial(self) -> State:
        rules = self.rules
        budget = FaultBudget(
            rules.losses,
            rules.delays,
            rules.worker_deaths,
            rules.supervisor_deaths,
            rules.expiries,
            rules.parks,
            rules.closes,
            rules.yields,
            rules.runner_deaths,
            rules.retries,
        )
        workers = (NOT_STARTED,) * rules.num_workers
        supervisors, clients = (Supervisor(),) * rules.num_supervisors, clients_of(rules)
        state = State(self._transitions.number_of({}), supervisors, workers, clients, budget)
        return self._with_unclaimed_job(state) if rules.has_unclaimed_job else state

    def _with_unclaimed_job(self, state: State) -> State:
        """The first job was submitted, and moved to RQ's intermediate list."""
        transitions, (queue, intermediate) = self._transitions, list_keys(QUEUE)
        before = transitions.outcome(state.redis, transitions.positions.start("submit", "j0")).redis
        words = ("LMOVE", queue, intermediate, "LEFT", "RIGHT")
        request = Request((tuple(word.encode() for word in words),))
        after = transitions.redis.apply(transitions.databases[before], request).after
        submitter = Client("submit", 1, is_done=len(self.rules.tokens) == 1)
        clients = (submitter, *state.clients[1:])
        return state._replace(redis=transitions.number_of(after), clients=clients)

    def moves(self, state: State) -> Iterator[Move]:
        for index in range(len(state.supervisors)):
            yield from self._supervisors.of(state, index)
        for index in range(len(state.workers)):
            yield from self._workers.of(state, index)
        for index in range(len(state.clients)):
            yield from self._clients.of(state, index)
        yield from self._supervisors.of_lock(state)
        if state.delayed:
            yield from self._transitions.arrivals(state)

    def violation_of(self, before: State, move: Move) -> str | None:
        assert isinstance(move.after, State)
        error = (
            self._program_error(move)
            or self._extra_yield(move.after)
            or self._workers.crowd_of(move.after)
        )
        return error or self._checks.violation_of(before.redis, move.after.redis)

    def _extra_yield(self, state: State) -> str | None:
        num_asked = self.rules.yields - state.budget.yields
        is_extra = self._checks.num_yields(state.redis) > num_asked
        return "a job has given way more often than its worker wanted" if is_extra else None

    def goals(self, state: State) -> tuple[bool, ...]:
        is_ended, is_clean = self._checks.goals(state.redis)
        is_submitted = all(client.is_done for client in state.clients if client.has_jobs)
        is_idle = (
            all(s.position == IDLE for s in state.supervisors)
            and all(worker.is_idle for worker in state.workers)
            and all(client.position == IDLE for client in state.clients)
        )
        return is_submitted and is_ended, is_submitted and is_clean and is_idle

    def describe(self, state: State, move: Move) -> str:
        assert isinstance(move.label, tuple)
        return describe(self._transitions.positions, move.label)

    def _program_error(self, move: Move) -> str | None:
        """The uncaught exception of a program."""
        if len(move.label) < 5:
            return None
        ended = self._transitions.positions.at(move.label[4])
        if isinstance(ended, Ended) and ended.error:
            return f"uncaught exception: {ended.error}"
        return None
