"""Every engine under one name: the contract suite runs on all of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from workers.engines.base import Engine, EngineOptions
from workers.engines.factory import open_engine

MODELS = Path(__file__).parents[2] / "models"
BACKENDS = {
    "fake": (Path("fake"), "numpy"),
    "llama-cpp": (MODELS / "demo.gguf", "llama_cpp"),
    "mlx": (MODELS / "demo", "mlx"),
}
# What a GPU runs: without what is made for a CPU.
_UNTUNED: dict[str, Any] = {"is_cpu_tuned": False}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in BACKENDS},
    "llama-cpp-untuned": ("llama-cpp", _UNTUNED),
    "llama-cpp-per-slot": ("llama-cpp", {"kv_layout": "per_slot", **_UNTUNED}),
    "mlx-untuned": ("mlx", _UNTUNED),
}

OpenEngine = Callable[[EngineOptions], Engine]


@pytest.hookimpl(tryfirst=True)  # before the marks are asked for
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs a real engine, but the contract suite on the fake one."""
    for item in items:
        if Path(__file__).parent in item.path.parents and _case_of(item) != "fake":
            item.add_marker(pytest.mark.real_engine)


def _case_of(item: pytest.Item) -> str | None:
    spec = getattr(item, "callspec", None)
    return None if spec is None else spec.params.get("case")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """A backend that is installed here, and options that hold for all engines of a test."""
    name: str = request.param
    library = BACKENDS[CASES[name][0]][1]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    return name


@pytest.fixture(scope="module")
def backend(case: str) -> str:
    return CASES[case][0]


@pytest.fixture(scope="module")
def shared_engine(case: str) -> Iterator[Engine]:
    engine = _open(case, EngineOptions())
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """An engine with its default options, with no work left from an earlier test."""
    assert not shared_engine.has_work
    return shared_engine


@pytest.fixture
def open_with(case: str) -> Iterator[OpenEngine]:
    """Opens engines with options of the test's own, and closes them after it."""
    opened: list[Engine] = []

    def open_one(options: EngineOptions) -> Engine:
        opened.append(_open(case, options))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


def _open(case: str, options: EngineOptions) -> Engine:
    backend, own = CASES[case]
    given = replace(options, **own)
    return open_engine(backend, BACKENDS[backend][0], given, lambda fraction: None)
