"""The small world: two supervisors, their workers, clients, one Redis; and all that can happen.

A state has the number of Redis' state, where each process stands in its program, and how many
faults may still happen. A step is one request of one process, or a fault: all orders of all steps
are gone through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.explorer.actors import NOWHERE, UNBORN, Client, Supervisor
from tests.explorer.checks import Checks
from tests.explorer.client import Request
from tests.explorer.client_moves import ClientMoves, clients_of
from tests.explorer.ground import Ground
from tests.explorer.points import Ended
from tests.explorer.rules import Left, Rules, State
from tests.explorer.search import Move
from tests.explorer.sights import QUEUE, list_keys
from tests.explorer.supervisor_moves import SupervisorMoves
from tests.explorer.words import describe
from tests.explorer.worker_moves import WorkerMoves


class JobWorld:
    """See ``Rules`` and ``search.World``. ``edit``: what is done to each script first, for a fault
    that is planted."""

    def __init__(self, rules: Rules, edit: Callable[[str], str] = lambda text: text) -> None:
        self.rules = rules
        self._ground = Ground(rules, edit)
        self._supervisors = SupervisorMoves(self._ground)
        self._workers = WorkerMoves(self._ground)
        self._clients = ClientMoves(self._ground)
        ground = self._ground
        self._checks = Checks(ground.redis.cells, ground.databases, has_stray=rules.has_stray)

    def initial(self) -> State:
        rules = self.rules
        left = Left(
            rules.losses,
            rules.lates,
            rules.worker_deaths,
            rules.supervisor_deaths,
            rules.expiries,
        )
        workers = (UNBORN,) * rules.num_workers
        supervisors, clients = (Supervisor(),) * rules.num_supervisors, clients_of(rules)
        state = State(self._ground.number_of({}), supervisors, workers, clients, left)
        return self._with_stray(state) if rules.has_stray else state

    def _with_stray(self, state: State) -> State:
        """The first job was submitted, and has got into RQ's intermediate list."""
        ground, (queue, intermediate) = self._ground, list_keys(QUEUE)
        before = ground.outcome(state.redis, ground.points.start("submit", "j0")).redis
        words = ("LMOVE", queue, intermediate, "LEFT", "RIGHT")
        request = Request((tuple(word.encode() for word in words),))
        after = ground.redis.do(ground.databases[before], request).after
        submitter = Client("submit", 1, is_done=len(self.rules.tokens) == 1)
        clients = (submitter, *state.clients[1:])
        return state._replace(redis=ground.number_of(after), clients=clients)

    def moves(self, state: State) -> Iterator[Move]:
        for place in range(len(state.supervisors)):
            yield from self._supervisors.of(state, place)
        for place in range(len(state.workers)):
            yield from self._workers.of(state, place)
        for place in range(len(state.clients)):
            yield from self._clients.of(state, place)
        yield from self._supervisors.of_lock(state)
        if state.late:
            yield from self._ground.arrivals(state)

    def complaint(self, before: State, move: Move) -> str | None:
        assert isinstance(move.after, State)
        broken = self._broken(move)
        return broken or self._checks.complaint(before.redis, move.after.redis)

    def goals(self, state: State) -> tuple[bool, ...]:
        is_ended, is_clean = self._checks.goals(state.redis)
        is_submitted = state.clients[0].place == len(self._ground.jobs)
        is_at_rest = (
            all(s.point == NOWHERE for s in state.supervisors)
            and all(worker.is_at_rest for worker in state.workers)
            and all(client.point == NOWHERE for client in state.clients)
        )
        return is_submitted and is_ended, is_submitted and is_clean and is_at_rest

    def describe(self, state: State, move: Move) -> str:
        assert isinstance(move.label, tuple)
        return describe(self._ground.points, move.label)

    def _broken(self, move: Move) -> str | None:
        """What a program that broke says."""
        if len(move.label) < 5:
            return None
        ended = self._ground.points.at(move.label[4])
        if isinstance(ended, Ended) and ended.broken:
            return f"a program breaks: {ended.broken}"
        return None
