"""From a load request to an engine's options: names looked up, settings where it is silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import AdapterNotFoundError, ModelLoadError, ModelNotFoundError
from jobs.requests import LoadRequest
from jobs.settings import Settings
from workers.engines.base import EngineOptions
from workers.loader import engine_options, load_engine


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
    with pytest.raises(ModelLoadError, match="gone"):
        load_engine(settings, LoadRequest("gone", "fake"), lambda _: None)
