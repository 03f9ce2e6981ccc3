"""Every engine under one name: the contract suite runs on all of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers.engines.base import Engine, EngineOptions
from workers.engines.factory import open_engine

MODELS = Path(__file__).parents[2] / "models"
BACKENDS = {
    "fake": (Path("fake"), "numpy"),
    "llama-cpp": (MODELS / "demo.gguf", "llama_cpp"),
    "mlx": (MODELS / "demo", "mlx"),
}

OpenEngine = Callable[[EngineOptions], Engine]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend that is installed here."""
    name: str = request.param
    if importlib.util.find_spec(BACKENDS[name][1]) is None:
        pytest.skip(f"{BACKENDS[name][1]} is not installed")
    return name


@pytest.fixture(scope="module")
def shared_engine(backend: str) -> Iterator[Engine]:
    engine = _open(backend, EngineOptions())
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """An engine with its default options, with no work left from an earlier test."""
    assert not shared_engine.has_work
    return shared_engine


@pytest.fixture
def open_with(backend: str) -> Iterator[OpenEngine]:
    """Opens engines with options of the test's own, and closes them after it."""
    opened: list[Engine] = []

    def open_one(options: EngineOptions) -> Engine:
        opened.append(_open(backend, options))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


def _open(backend: str, options: EngineOptions) -> Engine:
    return open_engine(backend, BACKENDS[backend][0], options, lambda fraction: None)
