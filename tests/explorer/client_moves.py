"""The enabled moves of a world's clients."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.storage import names
from tests.explorer.actors import IDLE, Client
from tests.explorer.positions import Ended
from tests.explorer.rules import Rules, State
from tests.explorer.search import Move
from tests.explorer.supervisor_programs import SupervisorRef
from tests.explorer.transitions import Transitions, replaced

_DESIRED_MODELS = names.DESIRED_MODELS.encode()


def clients_of(rules: Rules) -> tuple[Client, ...]:
    """The clients at the beginning; the first one submits."""
    found = [Client("submit", is_done=not rules.tokens)]
    found += [Client("cancel", index) for index in rules.cancelled]
    found += [Client("purge")] if rules.has_purge else []
    found += [Client("sweep")] if rules.has_sweep else []
    found += [Client("load")] if rules.loads else []
    found += [Client("unload")] if rules.unloads else []
    return tuple(found)


class ClientMoves:
    """See ``world``."""

    def __init__(self, transitions: Transitions) -> None:
        self._transitions = transitions
        self._rules = transitions.rules

    def of(self, state: State, index: int) -> Iterator[Move]:
        """Moves of the client with that index."""
        client, transitions = state.clients[index], self._transitions
        if client.is_done:
            return
        position = client.position if client.position != IDLE else self._start_of(state, client)
        if position == IDLE:
            return
        process = f"client {index}"
        for step in transitions.steps(state, position):
            after = self._with(transitions.after(state, step), index, step.position)
            yield transitions.move(after, step, process, position)
        if client.position != IDLE and state.budget.losses:
            budget = state.budget._replace(losses=state.budget.losses - 1)
            after = self._with(state._replace(budget=budget), index, IDLE)
            yield Move(after, True, (process, "dies before its reply"))

    def _start_of(self, state: State, client: Client) -> int:
        """The first position of a client's next program, if its request is possible."""
        start, num_submitted = self._transitions.positions.start, state.clients[0].number
        is_desired = self._transitions.value(state.redis, _DESIRED_MODELS) is not None
        match client.kind:
            case "submit" if not self._rules.has_loads:
                return start("submit", f"j{client.number}")
            case "submit" if is_desired or self._are_loads_done(state):
                return start("submit_desired", f"j{client.number}")
            case "cancel" if num_submitted > client.number:
                return start("cancel", f"j{client.number}")
            case "purge" if num_submitted:
                return start("purge")
            case "sweep" if num_submitted:
                return start("sweep", SupervisorRef(9), None)
            case "load" if not is_desired:
                return start("load", client.number)
            case "unload" if is_desired:
                return start("unload", client.number)
        return IDLE

    def _are_loads_done(self, state: State) -> bool:
        return all(one.is_done for one in state.clients if one.kind == "load")

    def _with(self, state: State, index: int, position: int) -> State:
        """The state with a client at that position, or after its program's end."""
        client = state.clients[index]
        if position != IDLE:
            ended = self._transitions.positions.at(position)
            if not isinstance(ended, Ended) or ended.error:
                client = client._replace(position=position)
                return state._replace(clients=replaced(state.clients, index, client))
        client = self._after_request(client)
        return state._replace(clients=replaced(state.clients, index, client))

    def _after_request(self, client: Client) -> Client:
        limits = {
            "submit": len(self._transitions.jobs),
            "load": self._rules.loads,
            "unload": self._rules.unloads,
        }
        if client.kind not in limits:
            return client._replace(position=IDLE, is_done=True)
        num = client.number + 1
        return Client(client.kind, num, is_done=num == limits[client.kind])
