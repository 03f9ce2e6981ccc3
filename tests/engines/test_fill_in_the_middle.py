"""Models with tokens for a gap in a text: found in both formats, and put where they belong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.contract.errors import UnsupportedParameterError
from jobs.contract.requests import Prompt
from scripts.make_model import make_model
from scripts.modelfiles.shape import PRESETS
from workers.engines.base import Engine, EngineOptions, FimTokens
from workers.engines.factory import open_engine
from workers.engines.fim import find_fim_tokens
from workers.generation.prompts import PromptEncoder

DEMO = Path(__file__).parents[2] / "models" / "demo"
NAMES = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


def add_gap_tokens(folder: Path) -> Path:
    """The demo model's tokenizer with three more control tokens."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    last = tokenizer["added_tokens"][-1]
    for offset, name in enumerate(NAMES, start=1):
        token = {**last, "id": last["id"] + offset, "content": name, "special": True}
        tokenizer["added_tokens"].append(token)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture(scope="module", params=["llama-cpp", "mlx"])
def filler(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """An engine with a model that fills gaps."""
    folder = tmp_path_factory.mktemp("filler")
    paths = make_model(
        folder / "filler", PRESETS["tiny"], tokenizer=add_gap_tokens(folder / "source")
    )
    path = next(p for p in paths if p.is_dir() == (request.param == "mlx"))
    engine = open_engine(request.param, path, EngineOptions(), lambda fraction: None)
    yield engine
    engine.close()


def test_the_tokens_are_found_by_their_names(filler: Engine) -> None:
    tokenizer = filler.tokenizer
    found = tokenizer.fim_tokens
    assert found is not None
    ids = (found.prefix, found.suffix, found.middle)
    assert tuple(map(tokenizer.control_text, ids)) == NAMES
    assert {tokenizer.piece(token_id) for token_id in ids} == {b""}


def test_a_gap_stands_between_its_tokens(filler: Engine) -> None:
    tokenizer = filler.tokenizer
    encode = PromptEncoder(tokenizer, None).encode
    plain = tokenizer.encode("def f(", add_special=False, parse_special=False)
    after = tokenizer.encode("<|im_end|>", add_special=False, parse_special=True)
    found = tokenizer.fim_tokens
    expected = [found.prefix, *plain, found.suffix, *after, found.middle]
    assert encode(Prompt(text="def f(", suffix="<|im_end|>")) == expected
    assert encode(Prompt(token_ids=plain, suffix="<|im_end|>")) == expected
    assert encode(Prompt(text="", suffix="<|im_end|>")) == [
        expected[0],
        *expected[len(plain) + 1 :],
    ]


def test_a_model_without_such_tokens_says_so() -> None:
    engine = open_engine("llama-cpp", DEMO.with_suffix(".gguf"), EngineOptions(), lambda f: None)
    assert engine.tokenizer.fim_tokens is None
    with pytest.raises(UnsupportedParameterError) as caught:
        PromptEncoder(engine.tokenizer, None).encode(Prompt(text="a", suffix="b"))
    assert caught.value.param == "suffix"
    engine.close()


def test_all_three_tokens_must_be_there() -> None:
    known = {name: token_id for token_id, name in enumerate(NAMES, start=7)}
    assert find_fim_tokens(known.get) == FimTokens(7, 8, 9)
    assert find_fim_tokens({**known, "<|fim_middle|>": None}.get) is None
    assert find_fim_tokens({"<PRE>": 1, "<SUF>": 2, "<MID>": 3, "<|fim_prefix|>": 4}.get) == (
        FimTokens(1, 2, 3)
    )
