"""Estimates of models on disk, on machines that are played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.catalog.catalog import ModelEntry
from jobs.contract.requests import LoadRequest
from jobs.memory.estimate import MemoryEstimate, estimate_memory
from jobs.memory.facts import Gpu, MachineFacts
from jobs.settings import Settings

MODELS = Path(__file__).parents[2] / "models"
GIB, MIB = 1 << 30, 1 << 20
CPU = MachineFacts(16 * GIB)
MAC = MachineFacts(16 * GIB, dict.fromkeys(("mlx", "llama-cpp"), Gpu("metal", 10 * GIB)))
CUDA = MachineFacts(64 * GIB, dict.fromkeys(("mlx", "llama-cpp"), Gpu("cuda", 24 * GIB)))
BACKENDS = {"demo": "mlx", "demo.gguf": "llama-cpp"}


def estimate(
    name: str, facts: MachineFacts = CPU, folder: Path = MODELS, **options: Any
) -> MemoryEstimate:
    backend = BACKENDS.get(name, "llama-cpp" if name.endswith(".gguf") else "mlx")
    path = folder / name
    size = path.stat().st_size if path.is_file() else 1000
    entry = ModelEntry(name, path, backend, size)
    return estimate_memory(entry, LoadRequest(name, backend, **options), Settings(), facts)


def test_the_parts_make_the_sum() -> None:
    for name in BACKENDS:
        found = estimate(name)
        parts = found.weights_bytes, found.state_bytes, found.compute_bytes, found.cache_bytes
        assert found.total_bytes == sum(parts)
        assert min(parts) > 0
        assert found.basis == "header"


def test_kept_prompts_count_with_their_limit() -> None:
    assert estimate("demo").cache_bytes == CPU.memory_bytes // 10
    assert estimate("demo.gguf").cache_bytes == CPU.memory_bytes // 16
    assert estimate("demo.gguf", prompt_cache_bytes=0).cache_bytes == 0
    huge = MachineFacts(1 << 40)
    assert estimate("demo", huge).cache_bytes == 2 * GIB


def test_context_and_slots_are_those_that_the_engine_chooses() -> None:
    default = estimate("demo.gguf")
    assert (default.context_length, default.num_slots) == (2048, 8)
    assert default.state_bytes == 2048 * 8 * default.state_per_token
    alone = estimate("demo.gguf", context_length=100, slots=1)
    assert alone.state_bytes == 256 * alone.state_per_token
    own_cells = estimate("demo.gguf", context_length=300, slots=3, kv_layout="per_slot")
    assert own_cells.state_bytes == 3 * 512 * own_cells.state_per_token
    one_context = estimate("demo", context_length=1000)
    assert one_context.state_bytes == 1024 * one_context.state_per_token


def test_a_cpu_keeps_mlx_weights_and_state_in_float32_and_a_gpu_as_they_are() -> None:
    on_cpu, on_gpu = estimate("demo", CPU), estimate("demo", MAC)
    assert on_cpu.weights_bytes == 2 * on_gpu.weights_bytes
    assert on_cpu.state_bytes == 2 * on_gpu.state_bytes


def test_quantized_keys_and_values_take_less() -> None:
    plain = estimate("demo.gguf").state_bytes
    assert estimate("demo.gguf", kv_bits=8).state_bytes == plain * 17 // 32
    assert estimate("demo.gguf", kv_bits=4).state_bytes == plain * 9 // 32
    assert estimate("demo", kv_bits=8).state_bytes < estimate("demo").state_bytes
    assert estimate("demo", kv_bits=8).num_slots == 1


def test_on_a_gpu_with_its_own_memory_only_that_counts() -> None:
    found = estimate("demo.gguf", CUDA)
    assert found.cache_bytes == 0
    assert found.compute_bytes < estimate("demo.gguf", CPU).compute_bytes
    on_cpu = estimate("demo.gguf", CUDA, gpu_layers=0)
    assert on_cpu.cache_bytes > 0


def test_a_draft_model_is_counted_with_its_own_cells(tmp_path: Path) -> None:
    alone = estimate("demo.gguf")
    entry = ModelEntry("demo.gguf", MODELS / "demo.gguf", "llama-cpp", 0)
    load = LoadRequest("demo.gguf", "llama-cpp", draft_model="demo.gguf")
    both = estimate_memory(entry, load, Settings(models_dir=MODELS), CPU)
    assert both.weights_bytes == 2 * alone.weights_bytes
    assert both.state_bytes == 2 * alone.state_bytes
    gone = LoadRequest("demo.gguf", "llama-cpp", draft_model="gone", adapter="gone")
    assert estimate_memory(entry, gone, Settings(models_dir=tmp_path), CPU).weights_bytes


def test_an_adapter_is_counted(tmp_path: Path) -> None:
    (tmp_path / "tone.gguf").write_bytes(bytes(5000))
    entry = ModelEntry("demo.gguf", MODELS / "demo.gguf", "llama-cpp", 0)
    load = LoadRequest("demo.gguf", "llama-cpp", adapter="tone.gguf")
    found = estimate_memory(entry, load, Settings(adapters_dir=tmp_path), CPU)
    assert found.weights_bytes == estimate("demo.gguf").weights_bytes + 5000


def test_the_fake_engine_needs_nothing() -> None:
    entry = ModelEntry("fake", Path("fake"), "fake", 0)
    assert estimate_memory(entry, LoadRequest("fake", "fake"), Settings(), CPU).total_bytes == 0


# Files in which something is wrong, or unknown


def config_folder(tmp_path: Path, **fields: Any) -> Path:
    """The demo model's folder with another configuration."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = json.loads((MODELS / "demo" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    (folder / "model.safetensors").symlink_to(MODELS / "demo" / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "never_heard_of", "num_hidden_layers": None},
        {"model_type": "deepseek_v41"},
        {"model_file": "own.py"},
        {"num_hidden_layers": 10**9},
        {"model_type": "qwen3_next", "full_attention_interval": 0},
        {"model_type": "gemma3_text", "head_dim": -3, "hidden_size": 0},
        {"model_type": "kimi_linear", "linear_attn_config": {"num_heads": "x"}},
        {"model_type": "nemotron-nas", "block_configs": [3]},
    ],
)
def test_an_odd_configuration_makes_a_guess(tmp_path: Path, fields: dict[str, Any]) -> None:
    config_folder(tmp_path, **fields)
    found = estimate("model", folder=tmp_path)
    assert found.basis == "guess"
    assert found.weights_bytes > 0
    assert found.state_bytes > 0


@pytest.mark.parametrize("length", [0, 3, 10, 100, 3000])
def test_a_file_that_is_cut_off_makes_a_guess_by_its_size(tmp_path: Path, length: int) -> None:
    data = (MODELS / "demo.gguf").read_bytes()[:length]
    (tmp_path / "cut.gguf").write_bytes(data)
    found = estimate("cut.gguf", folder=tmp_path)
    assert (found.basis, found.weights_bytes) == ("guess", int(1.2 * length))


def test_a_model_that_is_gone_makes_a_guess(tmp_path: Path) -> None:
    assert estimate("gone", folder=tmp_path).basis == "guess"
    assert estimate("gone.gguf", folder=tmp_path).basis == "guess"
