"""Proofs, and the decorator that registers a function as one."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.registry import Result, Tally

__all__ = ["PROOFS", "Proof", "Result", "Tally", "all_proofs", "proof"]

Act = Callable[[int], Result]


@dataclass(frozen=True, slots=True)
class Proof:
    """``act`` runs a number of rounds: ``full`` by itself, ``fast`` in the tests (0: not there)."""

    name: str
    what: str
    goal: str
    act: Act
    full: int
    fast: int


PROOFS: dict[str, Proof] = {}


def proof(
    name: str, *, goal: str, full: int, fast: int = 0, timeout_s: float = 180
) -> Callable[[Act], Callable[[], None]]:
    """Register a proof, and turn it into a test with few rounds within ``timeout_s``."""

    def register(act: Act) -> Callable[[], None]:
        known = PROOFS.get(name)  # a file may be imported under two names
        assert known is None or known.act.__code__ == act.__code__, name
        what = act.__name__.removeprefix("test_").replace("_", " ")
        PROOFS[name] = Proof(name, what, goal, act, full, fast)

        def test() -> None:
            result = act(fast)
            assert result.is_right, result

        functools.update_wrapper(test, act)
        del test.__wrapped__  # type: ignore[attr-defined] # its argument is no fixture
        if not fast:
            test.__test__ = False  # type: ignore[attr-defined]
        return pytest.mark.timeout(timeout_s)(test)

    return register


def all_proofs() -> dict[str, Proof]:
    """The proofs of all modules of this folder, by name."""
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"{__package__}.{file.stem}")
    return PROOFS
