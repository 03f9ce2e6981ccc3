"""The enabled moves of a world's clients."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.storage import names
from tests.explorer.actors import IDLE, Client
from tests.explorer.checks import TERMINAL
from tests.explorer.memory import Hash
from tests.explorer.positions import Ended
from tests.explorer.rules import FaultBudget, Rules, State
from tests.explorer.search import Move
from tests.explorer.supervisor_programs import SupervisorRef
from tests.explorer.transitions import Transitions, replaced

_DESIRED_MODELS = names.DESIRED_MODELS.encode()


def clients_of(rules: Rules) -> tuple[Client, ...]:
    """The clients at the beginning; the first one submits."""
    found = [Client("submit", is_done=len(rules.tokens) == len(rules.lines))]
    found += [Client("line", index) for index in rules.lines]
    found += [Client(kind) for kind in rules.holds]
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
        if client.kind == "line":
            yield from self._local_of_line(state, index)
        position = client.position if client.position != IDLE else self._start_of(state, client)
        if position == IDLE:
            return
        process = f"client {index}"
        for step in transitions.steps(state, position):
            after = self._with(transitions.after(state, step), index, step.position)
            yield transitions.move(after, step, process, position)
        if client.position != IDLE and client.kind != "line" and state.budget.losses:
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
            case "line":
                return self._start_of_line(client)
            case "hold batch" | "hold interactive" | "drain batch" | "drain interactive":
                kind, job_class = client.kind.split()
                is_held = client.number > 0
                return start("resume", job_class) if is_held else start("hold", job_class, kind)
            case "cancel" if num_submitted > client.number or client.number in self._rules.lines:
                return start("cancel", f"j{client.number}")
            case "purge" if num_submitted or self._rules.lines:
                return start("purge")
            case "sweep" if num_submitted or self._rules.lines:
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
            result = ended.result
        else:
            result = None
        if client.kind == "line":
            client = self._after_line(client, result)
        elif client.kind in self._rules.holds and client.number and result in (None, "failed"):
            client = client._replace(position=IDLE)  # somebody resumes the class in the end
        else:
            client = self._after_request(client)
        return state._replace(clients=replaced(state.clients, index, client))

    # The runner of a line.

    def _start_of_line(self, client: Client) -> int:
        job = f"j{client.number}"
        name = {"": "submit", "saved": "forget_line", "again": "forget_line"}.get(client.phase)
        return IDLE if name is None else self._transitions.positions.start(name, job)

    def _local_of_line(self, state: State, index: int) -> Iterator[Move]:
        """Steps of the runner without a request: it keeps the answer or not, or dies."""
        client, budget = state.clients[index], state.budget
        process = f"runner of j{client.number}"

        def move(what: str, new: Client, left: FaultBudget, *, is_fault: bool) -> Move:
            clients = replaced(state.clients, index, new)
            return Move(state._replace(clients=clients, budget=left), is_fault, (process, what))

        if client.phase == "follow" and self._has_ended(state, f"j{client.number}"):
            yield move("saves the answer", client._replace(phase="saved"), budget, is_fault=False)
            if budget.retries:
                left = budget._replace(retries=budget.retries - 1)
                yield move("tries again", client._replace(phase="again"), left, is_fault=True)
        if budget.runner_deaths and (client.phase or client.position != IDLE):
            left = budget._replace(runner_deaths=budget.runner_deaths - 1)
            phase = "saved" if client.phase == "saved" else ""
            new = client._replace(phase=phase, position=IDLE)
            yield move("dies and starts again", new, left, is_fault=True)
            positions = [client.position] if client.position != IDLE else []
            for position in self._transitions.delayable(state, positions):
                found = move("dies after its request", new, left, is_fault=True)
                after = self._transitions.with_delayed(found.after, position)
                yield found._replace(after=after)

    def _has_ended(self, state: State, job: str) -> bool:
        record = self._transitions.value(state.redis, names.job_key(job).encode())
        return isinstance(record, Hash) and record[b"status"] in TERMINAL

    def _after_request(self, client: Client) -> Client:
        limits = {
            "submit": len(self._rules.tokens) - len(self._rules.lines),
            "load": self._rules.loads,
            "unload": self._rules.unloads,
        }
        limits |= dict.fromkeys(self._rules.holds, 2)
        if client.kind not in limits:
            return client._replace(position=IDLE, is_done=True)
        num = client.number + 1
        return Client(client.kind, num, is_done=num == limits[client.kind])

    def _after_line(self, client: Client, result: object) -> Client:
        """The runner of a line after a request."""
        client = client._replace(position=IDLE)
        match client.phase:
            case "":
                return client._replace(phase="follow" if result == "submitted" else "")
            case "again":
                return client._replace(phase="", number=next_job(self._rules, client.number))
        return client._replace(is_done=result == "gone")


def next_job(rules: Rules, number: int) -> int:
    """The index of a line's job when it is run again."""
    return number + rules.width
