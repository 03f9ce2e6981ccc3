"""What the clients of a world may do next."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.storage import names
from tests.explorer.actors import NOWHERE, Client
from tests.explorer.ground import Ground, put
from tests.explorer.points import Ended
from tests.explorer.rules import Rules, State
from tests.explorer.search import Move
from tests.explorer.supervisor_programs import Who

_DESIRED_MODELS = names.DESIRED_MODELS.encode()


def clients_of(rules: Rules) -> tuple[Client, ...]:
    """Who wants something; the first one submits."""
    found = [Client("submit", is_done=not rules.tokens)]
    found += [Client("cancel", place) for place in rules.cancelled]
    found += [Client("purge")] if rules.has_purge else []
    found += [Client("sweep")] if rules.has_sweep else []
    found += [Client("load")] if rules.loads else []
    found += [Client("unload")] if rules.unloads else []
    return tuple(found)


class ClientMoves:
    """See ``world``."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._rules = ground.rules

    def of(self, state: State, place: int) -> Iterator[Move]:
        """Of the client of that number."""
        client, ground = state.clients[place], self._ground
        if client.is_done:
            return
        point = client.point if client.point != NOWHERE else self._wish(state, client)
        if point == NOWHERE:
            return
        who = f"client {place}"
        for step in ground.steps(state, point):
            after = self._with(ground.after(state, step), place, step.point)
            yield ground.move(after, step, who, point)
        if client.point != NOWHERE and state.left.losses:
            left = state.left._replace(losses=state.left.losses - 1)
            after = self._with(state._replace(left=left), place, NOWHERE)
            yield Move(after, True, (who, "leaves in the middle"))

    def _wish(self, state: State, client: Client) -> int:
        """Where a client begins, as soon as there is something for it to do."""
        start, num_submitted = self._ground.points.start, state.clients[0].place
        is_wanted = self._ground.value(state.redis, _DESIRED_MODELS) is not None
        match client.wish:
            case "submit" if not self._rules.has_loads:
                return start("submit", f"j{client.place}")
            case "submit" if is_wanted or self._are_loads_done(state):
                return start("submit_desired", f"j{client.place}")
            case "cancel" if num_submitted > client.place:
                return start("cancel", f"j{client.place}")
            case "purge" if num_submitted:
                return start("purge")
            case "sweep" if num_submitted:
                return start("sweep", Who(9), None)
            case "load" if not is_wanted:
                return start("load", client.place)
            case "unload" if is_wanted:
                return start("unload", client.place)
        return NOWHERE

    def _are_loads_done(self, state: State) -> bool:
        return all(one.is_done for one in state.clients if one.wish == "load")

    def _with(self, state: State, place: int, point: int) -> State:
        """The state with a client at that point, or after its wish."""
        client = state.clients[place]
        if point != NOWHERE:
            ended = self._ground.points.at(point)
            if not isinstance(ended, Ended) or ended.broken:
                client = client._replace(point=point)
                return state._replace(clients=put(state.clients, place, client))
        client = self._done(client)
        return state._replace(clients=put(state.clients, place, client))

    def _done(self, client: Client) -> Client:
        most = {
            "submit": len(self._ground.jobs),
            "load": self._rules.loads,
            "unload": self._rules.unloads,
        }
        if client.wish not in most:
            return client._replace(point=NOWHERE, is_done=True)
        num = client.place + 1
        return Client(client.wish, num, is_done=num == most[client.wish])
