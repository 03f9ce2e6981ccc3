"""Runs of faults and their results."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from unittest import SkipTest

if TYPE_CHECKING:
    from tests.faults.rig import Rig


class Verdict(StrEnum):
    HOLDS = "holds"
    MISSES = "misses"
    NOT_RUN = "not run"
    WAITS = "waits"


@dataclass(frozen=True, slots=True)
class Result:
    """The worst figures of all rounds."""

    worst: str
    is_held: bool
    rounds: int
    detail: str = ""
    is_right: bool = True
    """False when something was lost, doubled, wrong or hung, regardless of times."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a row is run: ``fast`` rounds in the test suite (0: not there), ``full`` by itself."""

    act: Callable[[Rig, int], Result]
    full: int
    fast: int = 0


def result_of(act: Callable[[], Result]) -> Result:
    """The result of a run, also of one that raises; ``SkipTest`` where it cannot run here."""
    try:
        return act()
    except (KeyboardInterrupt, SystemExit, SkipTest):
        raise
    except BaseException as error:  # pytest's failures are not Exceptions
        traceback.print_exc()
        what = str(error).strip().split("\n")[0][:300]
        return Result("aborted", False, 0, f"{type(error).__name__}: {what}")


class Tally:
    """Counts what went wrong and keeps the worst figures of a run."""

    def __init__(self) -> None:
        self.rounds = 0
        self._faults: list[str] = []
        self._worst: dict[str, tuple[float, float, str]] = {}
        self._counts: Counter[str] = Counter()

    def count(self, what: str) -> None:
        """Count an occurrence, for information."""
        self._counts[what] += 1

    def check(self, is_right: bool, what: str) -> None:
        """Record a fault unless ``is_right``."""
        if not is_right:
            self._faults.append(what)

    def note(self, name: str, value: float, limit: float, unit: str = "s") -> None:
        """Record a figure with an upper limit; the largest value counts."""
        worst = max(value, self._worst.get(name, (float("-inf"), 0.0, ""))[0])
        self._worst[name] = (worst, limit, unit)

    def note_least(self, name: str, value: float, limit: float, unit: str) -> None:
        """Record a figure with a lower limit; the smallest value counts."""
        least = -max(-value, -self._worst[name][0] if name in self._worst else float("-inf"))
        self._worst[name] = (least, -limit, unit)

    @property
    def is_held(self) -> bool:
        return not self._faults and not self._missed()

    def _missed(self) -> list[str]:
        return [
            name
            for name, (worst, limit, _) in self._worst.items()
            if (worst > limit if limit >= 0 else worst < -limit)
        ]

    def result(self, lead: str = "") -> Result:
        """The worst figures of all rounds, and the first faults as detail."""
        figures = [lead] if lead else []
        figures += [f"{number} {what}" for what, number in self._counts.items()]
        figures += [
            f"{name} {_shown(w)} {unit}".strip() for name, (w, _, unit) in self._worst.items()
        ]
        if self._faults:
            figures.insert(0, f"{len(self._faults)} wrong")
        elif not lead:
            figures.insert(0, "0 wrong")
        over = [f"{name} misses its goal" for name in self._missed()]
        shown = self._faults[:3] + (["..."] if len(self._faults) > 3 else []) + over
        detail = "; ".join(shown)
        is_right = not self._faults
        return Result("; ".join(figures), self.is_held, self.rounds, detail, is_right)


def _shown(value: float) -> str:
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
