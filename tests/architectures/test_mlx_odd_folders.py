"""Two hundred odd model folders: each is loaded rightly, or refused with what is wrong."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import mlx.core as mx
import pytest

from jobs.contract.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    ModelLoadError,
)
from tests.architectures.mlx_odd_folders import EITHER, REFUSED, WORKS
from tests.architectures.mlx_reference import prompt_of, texts
from tests.architectures.mlx_spoils import CONFIG, weights, with_json
from tests.engines.tiny_mlx import opened, write_qwen

pytestmark = pytest.mark.real_engine

# A message without words: an exception's repr, or a traceback.
BARE = re.compile(r"(Error|Exception)\(|Traceback|^'\w+'$|: '\w+'$")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen(tmp_path_factory.mktemp("mlx") / "qwen")


@pytest.fixture(scope="module")
def text(qwen: Path) -> list[int]:
    return said(qwen)


@pytest.fixture
def folder(qwen: Path, tmp_path: Path) -> Path:
    """A copy of the model folder, to be spoiled."""
    return Path(shutil.copytree(qwen, tmp_path / "spoiled"))


def said(folder: Path) -> list[int]:
    engine = opened(folder, num_slots=1)
    try:
        return texts(engine, [prompt_of(1, 12)], 4)[0]
    finally:
        engine.close()


def test_there_are_two_hundred() -> None:
    assert len(WORKS) + len(REFUSED) + len(EITHER) >= 200


@pytest.mark.parametrize("name", WORKS)
def test_a_folder_that_is_only_unusual_says_the_same(
    name: str, folder: Path, text: list[int]
) -> None:
    WORKS[name](folder)
    assert said(folder) == text


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_folder_is_refused_with_what_is_wrong(name: str, folder: Path) -> None:
    spoil, words = REFUSED[name]
    spoil(folder)
    with pytest.raises(ModelLoadError) as refusal:
        opened(folder)
    assert words in refusal.value.message
    assert not BARE.search(refusal.value.message)


@pytest.mark.parametrize("name", EITHER)
def test_a_spoiled_folder_works_or_is_refused_in_words(name: str, folder: Path) -> None:
    EITHER[name](folder)
    refusal = refusal_of(folder)
    if refusal is not None:
        assert re.search(r"spoiled|json|safetensors|tokenizer", refusal)
        assert not BARE.search(refusal)


def refusal_of(folder: Path) -> str | None:
    try:
        assert len(said(folder)) == 4
    except ContextLengthExceededError:
        return None  # loaded, with a context shorter than the prompt
    except (ModelLoadError, InvalidRequestError) as refusal:
        return refusal.message
    return None


@pytest.mark.parametrize("place", [None, "text_config"])
def test_a_quantization_is_found_in_the_text_configuration_too(
    place: str | None, folder: Path
) -> None:
    settings = {"group_size": 32, "bits": 8}

    def quantized(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        made: dict[str, mx.array] = {}
        for name, tensor in tensors.items():
            if tensor.ndim < 2:
                made[name] = tensor
                continue
            stem = name.removesuffix(".weight")
            parts = mx.quantize(tensor, **settings)
            names = (name, f"{stem}.scales", f"{stem}.biases")
            made |= dict(zip(names, parts, strict=True))
        return made

    weights(quantized)(folder)
    nested = {"quantization": settings}
    with_json(CONFIG, **(nested if place is None else {place: nested}))(folder)
    engine = opened(folder, num_slots=1)
    assert engine.info.quantization == "8-bit, groups of 32"
    assert len(texts(engine, [prompt_of(1, 12)], 4)[0]) == 4
    engine.close()
