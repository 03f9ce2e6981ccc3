"""From a load request to an engine's options: names looked up, settings where it is silent."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from jobs.contract.errors import AdapterNotFoundError, ModelLoadError, ModelNotFoundError
from jobs.contract.requests import LoadRequest
from jobs.settings import Settings
from workers.engines.base import EngineOptions
from workers.runtime.loading import engine_options, load_engine, parameter_at_fault


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small.gguf").write_bytes(b"GGUF")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "tuned.gguf").write_bytes(b"GGUF")
    return Settings(
        models_dir=tmp_path / "models",
        adapters_dir=tmp_path / "adapters",
        slots=5,
        prompt_cache_bytes=1000,
        prompt_cache_dir=tmp_path / "kept",
        fake_engine=True,
    )


def test_what_a_request_leaves_open_the_settings_say(settings: Settings) -> None:
    assert engine_options(settings, LoadRequest("big.gguf", "llama-cpp"), "llama-cpp") == (
        EngineOptions(
            num_slots=5,
            adapters_dir=settings.adapters_dir,
            prompt_cache_bytes=1000,
            prompt_cache_dir=settings.prompt_cache_dir,
        )
    )


def test_every_option_reaches_the_engine(settings: Settings) -> None:
    request = LoadRequest(
        "big.gguf",
        "llama-cpp",
        context_length=64,
        slots=2,
        threads=3,
        gpu_layers=4,
        trust_remote_code=True,
        adapter="tuned",
        kv_bits=8,
        draft_model="small.gguf",
        num_draft_tokens=6,
        prompt_cache_bytes=0,
    )
    assert engine_options(settings, request, "llama-cpp") == EngineOptions(
        context_length=64,
        num_slots=2,
        num_threads=3,
        num_gpu_layers=4,
        is_remote_code_trusted=True,
        adapters_dir=settings.adapters_dir,
        adapter="tuned.gguf",
        prompt_cache_bytes=0,
        prompt_cache_dir=settings.prompt_cache_dir,
        draft_path=settings.models_dir / "small.gguf",
        num_draft_tokens=6,
        kv_bits=8,
    )


def test_what_is_not_on_the_disk_of_this_machine_is_named(settings: Settings) -> None:
    def load(**fields: str) -> None:
        load_engine(settings, LoadRequest("fake", "fake", **fields), lambda _: None)

    with pytest.raises(AdapterNotFoundError):
        load(adapter="gone")
    with pytest.raises(ModelNotFoundError) as caught:
        load(draft_model="gone")
    assert caught.value.param == "draft_model"
    with pytest.raises(ModelLoadError, match="gone") as failed:
        load_engine(settings, LoadRequest("gone", "fake"), lambda _: None)
    assert failed.value.param == "llm_model_name"


@pytest.mark.parametrize("backend", ["llama-cpp", "mlx"])
def test_broken_files_are_the_fault_of_the_models_name(settings: Settings, backend: str) -> None:
    (settings.models_dir / "broken").mkdir()
    (settings.models_dir / "broken" / "config.json").write_text("{}")
    name = "broken" if backend == "mlx" else "small.gguf"
    with pytest.raises(ModelLoadError) as failed:
        load_engine(settings, LoadRequest(name, backend), lambda _: None)
    assert failed.value.param == "llm_model_name"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("a.gguf: llama.cpp cannot load it: unknown model architecture: 'x'", "llm_model_name"),
        ("alloc.gguf: parts are missing: alloc-00002-of-00002.gguf", "llm_model_name"),
        ("a has no weights (model*.safetensors)", "llm_model_name"),
        ("a cannot be loaded: ValueError('Missing 3 parameters: \\nlm_head')", "llm_model_name"),
        ("a.gguf: cannot load it: error loading model: mmap failed: Cannot allocate memory", None),
        ("a.gguf: no memory for a context of 9 tokens: ggml_aligned_malloc: insufficient memory "
         "(attempted to allocate 122.19 MB)", None),
        ("a.gguf: cannot load it: ggml_metal: failed to allocate buffer, size = 9 MiB", None),
        ("a.gguf: it cannot decode: ggml_metal_graph_compute: command buffer 0 failed with status "
         "5; error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
         None),
        ("a.gguf: cannot load it: cudaMalloc failed: out of memory", None),
        ("a cannot be loaded: RuntimeError('[malloc] Unable to allocate 5368709120 bytes.')", None),
        ("a cannot be loaded: RuntimeError('[metal::malloc] Resource limit (499000) exceeded.')",
         None),
        ("a cannot be loaded: RuntimeError('Resource temporarily unavailable')", None),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_no_fault_of_the_request(message: str, param: str | None) -> None:
    assert parameter_at_fault(ModelLoadError(message)) == param


def test_the_parameter_that_an_engine_names_is_at_fault() -> None:
    wrong = ModelLoadError("The model's context is 9 tokens, 10 were requested", "context_length")
    assert parameter_at_fault(wrong) == "context_length"
    # The folder is a setting of the server, no option of a load.
    folder = ModelLoadError("the folder cannot be used: Permission denied", "prompt_cache_dir")
    assert parameter_at_fault(folder) is None


@pytest.mark.parametrize(
    ("cause", "param"),
    [
        (MemoryError(), None),
        (OSError(errno.EMFILE, "too many"), None),
        (OSError(errno.EIO, "broken disk"), None),
        (FileNotFoundError(errno.ENOENT, "none"), "llm_model_name"),
        (PermissionError(errno.EACCES, "no"), "llm_model_name"),
        (KeyError("hidden_size"), "llm_model_name"),
    ],
)
def test_what_an_error_came_of_tells_whose_fault_it_is(cause: Exception, param: str | None) -> None:
    between, error = ModelLoadError("config.json cannot be read"), ModelLoadError("a: it cannot")
    between.__cause__, error.__cause__ = cause, between
    assert parameter_at_fault(error) == param
