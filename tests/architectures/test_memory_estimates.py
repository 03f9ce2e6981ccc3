"""Estimates from headers against the bytes that the libraries report, for tiny models."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from jobs.catalog.catalog import ModelEntry
from jobs.contract.requests import LoadRequest
from jobs.memory.estimate import MemoryEstimate, estimate_memory
from jobs.memory.facts import MachineFacts
from jobs.settings import Settings
from scripts.make_model import make_model
from scripts.modelfiles.gguf_file import GgufType
from scripts.modelfiles.shape import PRESETS
from tests.architectures import gguf_reference, mlx_reference
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.binding import NativeLog
from workers.engines.llama_cpp.engine import open_llama_cpp
from workers.engines.mlx import library
from workers.engines.mlx.cache import kv

pytestmark = pytest.mark.real_engine

# Grouped, latent and shared heads, windows, experts, recurrent states of all kinds.
GGUF = (
    "llama falcon gpt2 gemma2 gemma3 gemma3n gemma4 gpt-oss deepseek2 minicpm3 mamba2 rwkv7 jamba"
    " falcon-h1 qwen3next nemotron_h lfm2 minimax-01 grok"
).split()
MLX = (
    "llama gpt_neox gemma3 gemma3n gpt_oss llama4 deepseek_v2 deepseek_v3 deepseek_v32 mamba2 rwkv7"
    " jamba falcon_h1 qwen3_next nemotron_h lfm2 kimi_linear recurrent_gemma nemotron-nas"
).split()
DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"
CONTEXT = 512
FACTS = MachineFacts(8 << 30)
_BUFFER = re.compile(r"(model|KV|RS|compute|output) buffer size = +([\d.]+) MiB")
_ROUNDING = 2 * 10486  # the log has hundredths of MiB, of two buffers


@dataclass(frozen=True)
class Reported:
    weights: int
    state: int
    compute: int | None = None


def estimate_of(path: Path, backend: str, **options: Any) -> MemoryEstimate:
    entry = ModelEntry(path.name, path, backend, 0)
    load = LoadRequest(path.name, backend, prompt_cache_bytes=0, **options)
    return estimate_memory(entry, load, Settings(), FACTS)


def assert_near(estimated: int, reported: int, rounding: int = 0) -> None:
    """Within 15 %, and not more than 10 % too low."""
    assert estimated <= 1.15 * reported + rounding
    assert estimated >= 0.9 * reported - rounding


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What llama.cpp logs from now on."""
    found: list[str] = []
    ends = NativeLog._end_line

    def end_line(log: NativeLog) -> None:
        found.append(log._line)
        ends(log)

    monkeypatch.setattr(NativeLog, "_end_line", end_line)
    return found


def reported_by_llama_cpp(lines: Iterable[str]) -> Reported:
    sizes: dict[str, int] = {}
    for line in lines:
        # The first line of weights is of a plan, the mapped one of the model.
        if (match := _BUFFER.search(line)) and "  CPU model buffer" not in line:
            sizes[match[1]] = sizes.get(match[1], 0) + int(float(match[2]) * (1 << 20))
    state = sizes.get("KV", 0) + sizes.get("RS", 0)
    return Reported(sizes["model"], state, sizes["compute"] + sizes["output"])


@pytest.mark.parametrize("name", GGUF)
def test_a_gguf_model_takes_what_is_estimated(name: str, lines: list[str]) -> None:
    gguf_reference.opened(name, context_length=CONTEXT).close()
    reported = reported_by_llama_cpp(lines)
    estimate = estimate_of(gguf_reference.file_of(name), "llama-cpp", context_length=CONTEXT)
    assert estimate.basis == "header"
    assert_near(estimate.weights_bytes, reported.weights, _ROUNDING)
    assert_near(estimate.state_bytes, reported.state, _ROUNDING)


@pytest.mark.parametrize("kv_bits", [4, 8])
@pytest.mark.parametrize("layout", ["unified", "per_slot"])
def test_quantized_cells_and_cells_per_slot_are_counted(
    kv_bits: int, layout: Any, lines: list[str]
) -> None:
    options: dict[str, Any] = {"context_length": CONTEXT, "kv_bits": kv_bits, "kv_layout": layout}
    open_llama_cpp(DEMO, EngineOptions(num_slots=3, **options), lambda fraction: None).close()
    estimate = estimate_of(DEMO, "llama-cpp", slots=3, **options)
    assert_near(estimate.state_bytes, reported_by_llama_cpp(lines).state, _ROUNDING)


def test_tensors_that_a_cpu_copies_in_another_order_count_twice(
    tmp_path: Path, lines: list[str]
) -> None:
    (path,) = make_model(tmp_path / "tiny", PRESETS["tiny"], mlx_type=None, gguf_type=GgufType.Q4_0)
    open_llama_cpp(path, EngineOptions(), lambda fraction: None).close()
    estimate = estimate_of(path, "llama-cpp")
    assert estimate.weights_bytes > 1.8 * path.stat().st_size
    assert_near(estimate.weights_bytes, reported_by_llama_cpp(lines).weights, _ROUNDING)


@pytest.mark.parametrize("name", MLX)
def test_an_mlx_model_takes_what_is_estimated(name: str) -> None:
    folder = mlx_reference.folder_of(name)
    reported = reported_by_mlx(name)
    estimate = estimate_of(folder, "mlx", context_length=CONTEXT)
    assert estimate.basis == "header"
    assert_near(estimate.weights_bytes, reported.weights)
    assert_near(estimate.state_bytes, reported.state)


def reported_by_mlx(name: str) -> Reported:
    """Weights, and the cache at the end of a context that was read in chunks."""
    module = mlx_reference.Reference(name).module
    cache = library.new_cache(module)
    for _ in range(0, CONTEXT, 256):
        module(mx.arange(256)[None], cache)
        mx.eval(kv.arrays(cache))
    weights = [array for _, array in tree_flatten(module.parameters())]
    return Reported(sum(array.nbytes for array in weights), kv.num_bytes(cache))
