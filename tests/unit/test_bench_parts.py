"""Texts, requests and model files of the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.client import Post
from bench.machine import heading
from bench.measurement import BenchError
from bench.model_files import EngineKind, ModelFile
from bench.servers import Setup, find_llama_server
from bench.targets import TARGETS
from bench.texts import Texts
from scripts.modelfiles.shape import PRESETS


def test_equal_keys_give_equal_texts_and_others_do_not() -> None:
    texts = Texts(tokens_per_word=2.0)
    assert texts.words("a", 50) == texts.words("a", 50) != texts.words("b", 50)
    assert len(texts.tokens("a", 50).split()) == 25


def test_a_text_is_measured_with_the_model_s_own_tokenizer() -> None:
    texts = Texts.measured(lambda text: 3 * len(text.split()))
    assert len(texts.tokens("a", 30).split()) == 10


def test_a_post_is_an_http_request_with_its_length() -> None:
    head, _, body = Post(80, "/v1/completions", {"prompt": "é"}).to_bytes().partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/completions HTTP/1.1"
    assert b"Content-Length: %d" % len(body) in lines
    assert b"Connection: close" in lines
    assert json.loads(body) == {"prompt": "é"}


def test_the_kv_cache_of_a_preset_is_known() -> None:
    shape = PRESETS["tiny"]  # 6 layers, 2 KV heads of 32
    gguf = ModelFile("tiny.gguf", EngineKind.GGUF, Path("tiny.gguf"), shape)
    assert gguf.kv_bytes == 16384 * 2 * 6 * 2 * 32 * 2
    with pytest.raises(BenchError, match="presets only"):
        _ = ModelFile("mine", EngineKind.MLX, Path("mine")).kv_bytes


def test_a_llama_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such llama-server"):
        find_llama_server(tmp_path / "llama-server")


def test_every_kind_of_model_has_the_bare_loop_and_our_server() -> None:
    setup = Setup(threads=1)
    for kind in (EngineKind.GGUF, EngineKind.MLX):
        first = [target for target in TARGETS if kind in target.kinds][:2]
        assert [target.name for target in first] == ["bare", "ours"]
        assert [target.missing(setup) for target in first] == ["", ""]


@pytest.mark.parametrize(("system", "is_said"), [("Linux x86_64", True), ("Darwin arm64", False)])
def test_a_heading_says_what_computes(system: str, is_said: bool) -> None:
    text = heading({"system": system, "processor": "P", "cores": "2 physical", "mlx": "1"})
    assert text.startswith(f"{system}, P, 2 physical cores\n")
    assert text.endswith("mlx 1")
    assert ("OpenBLAS" in text) is is_said
