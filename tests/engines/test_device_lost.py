"""A GPU whose command fails: nothing of it is shown, and the engine asks for its process' end.

There is no GPU here, so the libraries are made to report one that fails: late, as they do.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs.contract.errors import ModelLoadError
from tests.engines.conftest import MODELS
from tests.engines.driving import chat, sequence
from workers.engines.base import Engine, EngineOptions, SequenceFailure, Token
from workers.engines.factory import open_engine
from workers.engines.failures import DeviceLostError

TEXTS = [f"Count from {i} to {i + 9}." for i in range(1, 9)]
LENGTH = 24
NUM_ROUNDS = 15
FAILED_ON_METAL = "ggml_metal_synchronize: error: command buffer 0 failed with status 5\n"
STUCK_ON_METAL = "ggml_metal_graph_compute: backend is in error state from a previous failure\n"

Tokens = dict[int, list[int]]
Fail = Callable[[int], None]
"""``fail(n)``: the device's n-th call from now on fails; its results are garbage."""


@pytest.fixture(scope="module", params=["llama-cpp", "mlx"])
def backend(request: pytest.FixtureRequest) -> str:
    library = {"llama-cpp": "llama_cpp", "mlx": "mlx"}[request.param]
    pytest.importorskip(library)
    return str(request.param)


@pytest.fixture
def open_engine_anew(backend: str) -> Iterator[Callable[[], Engine]]:
    opened: list[Engine] = []

    def open_one() -> Engine:
        path = MODELS / ("demo" if backend == "mlx" else "demo.gguf")
        opened.append(open_engine(backend, path, EngineOptions(num_slots=8), lambda done: None))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


@pytest.fixture
def device(backend: str, monkeypatch: pytest.MonkeyPatch) -> FailingDevice:
    return FailingMlx(monkeypatch) if backend == "mlx" else FailingMetal(monkeypatch)


class FailingDevice:
    """Its call number ``due`` fails; ``lateness``: calls until the library reports it."""

    due: int | None = None
    lateness = 0
    num_calls = 0

    def fail_at(self, num_calls: int, lateness: int) -> None:
        self.num_calls, self.due, self.lateness = 0, num_calls, lateness

    def _is_due(self) -> bool:
        self.num_calls += 1
        return self.due is not None and self.num_calls == self.due

    def repair(self) -> None:
        self.due = None


class FailingMetal(FailingDevice):
    """llama.cpp on Metal: ``llama_decode`` returns 0 and computes nothing; synchronising logs it.

    Every later call returns -3.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from workers.engines.llama_cpp.binding import lib, llama_log

        decode, synchronize = lib.llama_decode, lib.llama_synchronize
        self._has_failed = self._is_logged = False

        def failing_decode(context: Any, batch: Any) -> int:
            if self._has_failed:
                llama_log.write(4, STUCK_ON_METAL.encode())
                return -3
            self._has_failed = self._is_due()
            return 0 if self._has_failed else int(decode(context, batch))

        def failing_synchronize(context: Any) -> None:
            synchronize(context)
            if self._has_failed and not self._is_logged:
                self._is_logged = True
                llama_log.write(4, FAILED_ON_METAL.encode())

        monkeypatch.setattr(lib, "llama_decode", failing_decode)
        monkeypatch.setattr(lib, "llama_synchronize", failing_synchronize)

    def repair(self) -> None:
        super().repair()
        self._has_failed = self._is_logged = False


class FailingMlx(FailingDevice):
    """MLX on Metal: the failed call's tokens are wrong, and a later call raises, once.

    At the latest it is the first one after somebody has waited for those tokens.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import mlx.core as mx

        from workers.engines.mlx import device
        from workers.engines.mlx.sampling.sampler import BatchSampler

        self._left: int | None = None
        draw = BatchSampler.draw

        def wrong_draw(sampler: BatchSampler, logits: Any, inputs: Any) -> Any:
            if self._is_due():
                self._left = self.lateness
                logits = -logits
            return draw(sampler, logits, inputs)

        def reporting(call: Callable[..., None], *, waits: bool) -> Callable[..., None]:
            def report_or_call(*arrays: Any) -> None:
                if self._left == -1:
                    self._left = None
                    raise RuntimeError("[METAL] Command buffer execution failed: Timeout")
                if self._left is not None:
                    self._left = -1 if waits else self._left - 1
                call(*arrays)

            return report_or_call

        monkeypatch.setattr(device, "is_gpu", lambda: True)
        monkeypatch.setattr(BatchSampler, "draw", wrong_draw)
        monkeypatch.setattr(mx, "eval", reporting(mx.eval, waits=True))
        monkeypatch.setattr(mx, "async_eval", reporting(mx.async_eval, waits=False))

    def repair(self) -> None:
        super().repair()
        self._left = None


def drive(engine: Engine, shown: Tokens, prompts: dict[int, list[int]]) -> None:
    """Run all prompts to their ends; note the tokens of each in ``shown`` as they come."""
    index_of = {}
    for index, prompt in prompts.items():
        one = sequence([*prompt, *shown[index]], LENGTH - len(shown[index]))
        index_of[one.sequence_id] = index
        engine.submit(one)
    while engine.has_work:
        for event in engine.step():
            assert not isinstance(event, SequenceFailure), event
            if isinstance(event, Token):
                shown[index_of[event.sequence_id]].append(event.token_id)


def test_nothing_of_a_failed_call_is_shown_and_all_streams_go_on_in_a_new_engine(
    open_engine_anew: Callable[[], Engine], device: FailingDevice
) -> None:
    engine = open_engine_anew()
    prompts = {index: chat(engine, text) for index, text in enumerate(TEXTS)}
    whole: Tokens = {index: [] for index in prompts}
    device.fail_at(-1, 0)
    drive(engine, whole, prompts)
    num_calls = device.num_calls
    random_numbers = random.Random(8)
    for _ in range(NUM_ROUNDS):
        engine = open_engine_anew()
        device.fail_at(random_numbers.randint(1, num_calls - 4), random_numbers.randint(0, 1))
        shown: Tokens = {index: [] for index in prompts}
        with pytest.raises(DeviceLostError):
            drive(engine, shown, prompts)
        assert all(whole[index][: len(shown[index])] == shown[index] for index in prompts)
        device.repair()
        unfinished = {i: prompt for i, prompt in prompts.items() if len(shown[i]) < LENGTH}
        assert unfinished
        drive(open_engine_anew(), shown, unfinished)
        assert shown == whole


def test_memory_that_one_prompt_cannot_have_is_its_own_failure_on_a_gpu_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("mlx")
    from workers.engines.mlx import device

    monkeypatch.setattr(device, "is_gpu", lambda: True)
    for message in (
        "[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum",
        "[malloc] Unable to allocate 9 bytes.",
        "[cuda::malloc_async] out of memory",
    ):
        device.raise_if_lost(RuntimeError(message))
    device.raise_if_lost(ValueError("[METAL] Command buffer"))
    with pytest.raises(DeviceLostError):
        device.raise_if_lost(RuntimeError("[METAL] Command buffer execution failed"))


def test_on_a_cpu_no_error_is_taken_for_the_loss_of_the_device() -> None:
    pytest.importorskip("mlx")
    from workers.engines.mlx import device

    if device.is_gpu():
        pytest.skip("MLX computes on a GPU here")
    device.raise_if_lost(RuntimeError("[METAL] Command buffer execution failed"))


def test_an_error_of_cuda_ends_the_process_before_ggml_aborts_it() -> None:
    pytest.importorskip("llama_cpp")
    code = (
        "from workers.engines.llama_cpp.binding import llama_log\n"
        "llama_log.write(4, b'CUDA error: an illegal memory access was encountered\\n')\n"
        "import os; os.abort()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 84


def test_a_gpu_that_fails_at_load_is_a_load_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    device = FailingMetal(monkeypatch)
    device.fail_at(1, 0)
    with pytest.raises(ModelLoadError, match="the GPU failed at its first step"):
        open_engine("llama-cpp", MODELS / "demo.gguf", EngineOptions(), lambda done: None)
