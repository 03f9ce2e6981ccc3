"""Breadth-first search of a world's state graph: invariants of states, reachability of goals."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

State = Hashable


class Move(NamedTuple):
    """One step of a process: the state after it, and its label. A fault (a death, a lost reply, an
    expired lock) may happen or not; any other move happens some time, if it stays enabled."""

    after: State
    is_fault: bool
    label: Hashable


class World(Protocol):
    """The transition system that is searched."""

    def initial(self) -> State:
        """The initial state."""

    def moves(self, state: State) -> Iterable[Move]:
        """All enabled moves, in a deterministic order."""

    def violation_of(self, before: State, move: Move) -> str | None:
        """The violated invariant of the move or of the state after it."""

    def goals(self, state: State) -> tuple[bool, ...]:
        """Which goals the state meets. Each must be reachable from every state without faults."""

    def describe(self, state: State, move: Move) -> str:
        """The move as a line of text."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated invariant or an unreachable goal, and the shortest history that leads to it."""

    message: str
    history: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{n:3d}. {line}" for n, line in enumerate(self.history, 1)]
        return "\n".join([self.message, *lines])


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a search. ``is_complete``: all states of the world were expanded."""

    num_states: int
    num_moves: int
    depth: int
    seconds: float
    is_complete: bool
    violations: tuple[Violation, ...] = ()

    def __str__(self) -> str:
        found = "\n\n".join(map(str, self.violations)) or "no violation"
        kind = "complete" if self.is_complete else "incomplete"
        return (
            f"{self.num_states} states ({kind}), {self.num_moves} moves, "
            f"{self.depth} steps deep, {self.seconds:.0f} s\n{found}"
        )


@dataclass(slots=True)
class _Graph:
    """States by number, the parent of each, and the moves between them that are no faults."""

    states: list[State] = field(default_factory=list)
    numbers: dict[State, int] = field(default_factory=dict)
    parents: array[int] = field(default_factory=lambda: array("i"))
    depths: array[int] = field(default_factory=lambda: array("H"))
    sources: array[int] = field(default_factory=lambda: array("I"))
    targets: array[int] = field(default_factory=lambda: array("I"))
    goals: list[int] = field(default_factory=list)

    def add(self, state: State, parent: int) -> int:
        """Add a new state; returns its number."""
        number = self.numbers[state] = len(self.states)
        self.states.append(state)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1 if parent >= 0 else 0)
        return number


class Search:
    """One search; ``run`` starts it."""

    def __init__(self, world: World, max_states: int, max_violations: int = 1) -> None:
        self._world = world
        self._max_states = max_states
        self._max_violations = max_violations
        self._graph = _Graph()
        self._num_moves = 0
        self._violations: list[Violation] = []

    def run(self, on_progress: Callable[[int], None] = lambda num_states: None) -> Result:
        """Search until all states are expanded, or to ``max_states`` or ``max_violations``.
        ``on_progress`` gets the number of expanded states, every 10 000 states."""
        began_at, graph = time.monotonic(), self._graph
        graph.add(self._world.initial(), -1)
        number = 0
        while number < len(graph.states) < self._max_states and not self._has_enough:
            self._expand(number)
            number += 1
            if number % 10_000 == 0:
                on_progress(number)
        is_complete = number == len(graph.states)
        if is_complete and not self._has_enough:
            self._find_dead_ends()
        seconds = time.monotonic() - began_at
        found, depth = tuple(self._violations), max(graph.depths)
        return Result(len(graph.states), self._num_moves, depth, seconds, is_complete, found)

    @property
    def _has_enough(self) -> bool:
        return len(self._violations) >= self._max_violations

    def _expand(self, number: int) -> None:
        graph, world = self._graph, self._world
        state = graph.states[number]
        graph.goals.append(_bits(world.goals(state)))
        for move in world.moves(state):
            self._num_moves += 1
            target = graph.numbers.get(move.after)
            if target is None:
                target = graph.add(move.after, number)
            if not move.is_fault and target != number:
                graph.sources.append(number)
                graph.targets.append(target)
            message = world.violation_of(state, move)
            if message is not None and not self._has_enough:
                lines = [*self._history(number), world.describe(state, move)]
                self._violations.append(Violation(message, tuple(lines)))

    def _history(self, number: int) -> list[str]:
        """The shortest history that leads to that state, a line per move."""
        graph, lines = self._graph, []
        while (parent := graph.parents[number]) >= 0:
            before, after = graph.states[parent], graph.states[number]
            move = next(m for m in self._world.moves(before) if m.after == after)
            lines.append(self._world.describe(before, move))
            number = parent
        return lines[::-1]

    def _find_dead_ends(self) -> None:
        """Report the nearest state from which a goal is unreachable without faults."""
        graph = self._graph
        num_goals = len(self._world.goals(graph.states[0]))
        for goal in range(num_goals):
            reached = bytearray(bits >> goal & 1 for bits in graph.goals)
            for number in _backwards(reached, graph.sources, graph.targets):
                reached[number] = 1
            stuck = reached.find(0)
            if stuck >= 0 and not self._has_enough:
                message = f"goal {goal} is unreachable from here on"
                self._violations.append(Violation(message, tuple(self._history(stuck))))


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << index for index, flag in enumerate(flags) if flag)


def _backwards(reached: bytearray, sources: array[int], targets: array[int]) -> Iterator[int]:
    """States from which a ``reached`` one can be reached; the caller marks each."""
    num = len(reached)
    first = array("I", bytes(4 * (num + 1)))
    for target in targets:
        first[target + 1] += 1
    for number in range(num):
        first[number + 1] += first[number]
    next_free, incoming = array("I", first), array("I", bytes(4 * len(targets)))
    for source, target in zip(sources, targets, strict=True):
        incoming[next_free[target]] = source
        next_free[target] += 1
    stack = [number for number in range(num) if reached[number]]
    while stack:
        number = stack.pop()
        for source in incoming[first[number] : first[number + 1]]:
            if not reached[source]:
                yield source
                stack.append(source)
