"""What engines do on a GPU, seen on a CPU: its memory, and how prompts are read there.

There is no GPU here: the engines are told of one, with so much memory, and compute on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs.contract.errors import InsufficientMemoryError
from jobs.memory.facts import Gpu
from tests.engines.conftest import MODELS
from tests.engines.driving import chat, drain, long_prompt, run_one, sequence
from tests.engines.test_device_lost import FailingMetal
from workers.engines.base import Engine, EngineOptions, Prefill, StepEvent
from workers.engines.factory import open_engine

MIB = 1 << 20

OpenOn = Callable[..., Any]


@pytest.fixture(params=["llama-cpp", "mlx"])
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"llama-cpp": "llama_cpp", "mlx": "mlx"}[request.param])
    return str(request.param)


@pytest.fixture
def open_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenOn]:
    """Opens the demo model on a GPU with so many MiB, or (``None``) on the CPU."""
    opened: list[Engine] = []

    def open_one(backend: str, gpu: float | None, **options: Any) -> Engine:
        with monkeypatch.context() as patch:
            if gpu is not None:
                _add_gpu(patch, backend, int(gpu * MIB))
            path = MODELS / ("demo" if backend == "mlx" else "demo.gguf")
            given = EngineOptions(**options)
            opened.append(open_engine(backend, path, given, lambda done: None))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


def _add_gpu(patch: pytest.MonkeyPatch, backend: str, num_bytes: int) -> None:
    if backend == "mlx":
        from workers.engines.mlx import device

        patch.setattr(device, "is_gpu", lambda: True)
        patch.setattr(device, "gpu", lambda: Gpu("metal", num_bytes))
        return
    from workers.engines.llama_cpp import devices
    from workers.engines.llama_cpp.binding import lib

    patch.setattr(lib, "llama_supports_gpu_offload", lambda: True)
    patch.setattr(devices, "free_bytes", lambda: num_bytes)


def test_a_gpu_says_what_a_chat_without_one_says(open_on: OpenOn, backend: str) -> None:
    there, here = open_on(backend, 1000), open_on(backend, None)
    prompts = [[40, 41, 42], long_prompt(here, 400), chat(here, "Count from 1 to 5.")]
    for prompt in prompts:
        assert run_one(there, prompt).ids == run_one(here, prompt).ids
    for one in [sequence(prompt) for prompt in prompts]:
        there.submit(one)
    drain(there)


def test_a_model_takes_no_more_than_the_gpu_has(open_on: OpenOn, backend: str) -> None:
    with pytest.raises(InsufficientMemoryError):
        open_on(backend, 3)
    small = open_on(backend, {"llama-cpp": 16, "mlx": 20}[backend])
    assert small.info.context_length <= 2048
    if backend == "llama-cpp":
        assert small._memory.num_cells < open_on(backend, 1000)._memory.num_cells


def prefills(events: list[StepEvent]) -> list[int]:
    done = [event.num_done for event in events if isinstance(event, Prefill)]
    return [end - start for start, end in zip([0, *done], done, strict=False)]


def test_a_prompt_that_nobody_waits_behind_is_read_in_larger_pieces(
    open_on: OpenOn, backend: str
) -> None:
    engine = open_on(backend, 1000, step_budget_s=1e-9)  # every piece is too long: 32 tokens
    text = long_prompt(engine, 600)
    run_one(engine, [50, *text], 1)  # then the pieces are of the smallest size
    engine.submit(sequence([60, *text], 1))
    alone = prefills(drain(engine))
    for first in (70, 71):
        engine.submit(sequence([first, *text], 1))
    together = [event for event in engine.step() if isinstance(event, Prefill)]
    drain(engine)
    assert alone[0] >= 2 * max(event.num_done for event in together)


def test_kept_prefixes_stay_in_the_cells_of_a_gpu(open_on: OpenOn) -> None:
    pytest.importorskip("llama_cpp")
    engine = open_on("llama-cpp", 1000)
    texts = [[40 + i, *long_prompt(engine, 900)] for i in range(6)]
    for text in texts:
        run_one(engine, text)
    assert engine._host_cache.num_bytes == 0
    for text in texts:
        assert run_one(engine, [*text, 3, 4]).prefills[0].num_cached >= len(text)
    assert engine._host_cache.num_bytes == 0


def test_a_gpu_whose_memory_ends_in_the_first_pass_gets_fewer_cells(
    open_on: OpenOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metal allocates late: the context is there, and the trial fails."""
    pytest.importorskip("llama_cpp")
    from workers.engines.llama_cpp.binding import lib

    num_cells = open_on("llama-cpp", None)._memory.num_cells
    metal = FailingMetal(monkeypatch)
    free = lib.llama_free

    def free_and_repair(context: Any) -> None:  # another context begins anew
        free(context)
        metal.repair()

    monkeypatch.setattr(lib, "llama_free", free_and_repair)
    metal.fail_at(1, 0)
    engine = open_on("llama-cpp", None)
    assert engine._memory.num_cells == num_cells // 2
    assert len(run_one(engine, [40, 41, 42]).ids) == 12
