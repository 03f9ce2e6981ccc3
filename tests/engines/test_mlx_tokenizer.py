"""Tokens to bytes and text to tokens, for the two kinds of vocabularies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from tokenizers.processors import TemplateProcessing

from tests.engines.tiny_mlx import END_ID, START_ID, TOOL_ID, byte_tokenizer
from workers.engines.mlx.load.tokenizer import MlxTokenizer, load_tokenizer


def sentencepiece_tokenizer() -> Tokenizer:
    """A few words with the meta space, and a token per byte for everything else."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab"]
    vocab = {word: i for i, word in enumerate(words)}
    merges = [("▁", "a"), ("a", "b")]
    model = models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def adapter(tokenizer: Tokenizer, **changes: Any) -> MlxTokenizer:
    known: dict[str, Any] = {"bos_token": "", "eos_token": "", "end_ids": [], "chat_templates": {}}
    return MlxTokenizer(tokenizer.to_str(), **(known | changes))


BYTE_LEVEL = adapter(byte_tokenizer())
SENTENCEPIECE = adapter(sentencepiece_tokenizer())
WELL_FORMED = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SENTENCEPIECE], ids=["bytes", "words"])
@given(text=WELL_FORMED)
def test_pieces_joined_are_the_bytes_of_the_text(tokenizer: MlxTokenizer, text: str) -> None:
    # The meta space itself cannot be told from a space: the vocabulary knows only one of them.
    text = text.replace("▁", "")
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    assert b"".join(map(tokenizer.piece, ids)) == text.encode()


@given(words=st.lists(st.sampled_from(["<|end|>", "<|start|>", "<tool_call>", "a ", "é"])))
def test_control_tokens_are_never_made_from_plain_text(words: list[str]) -> None:
    text = "".join(words)
    plain = BYTE_LEVEL.encode(text, add_special=True, parse_special=False)
    parsed = BYTE_LEVEL.encode(text, add_special=True, parse_special=True)
    assert not {END_ID, START_ID} & set(plain)
    assert parsed.count(END_ID) == words.count("<|end|>")
    assert plain.count(TOOL_ID) == parsed.count(TOOL_ID) == words.count("<tool_call>")


def test_control_tokens_have_no_text_and_added_ones_do() -> None:
    assert BYTE_LEVEL.piece(END_ID) == b""
    assert BYTE_LEVEL.piece(TOOL_ID) == b"<tool_call>"
    assert BYTE_LEVEL.piece(10_000) == b""


@pytest.mark.parametrize(("adds_bos", "expected"), [(True, 1), (False, 0), (None, 0)])
def test_add_bos_token_adds_it_where_tokenizer_json_does_not(
    adds_bos: bool | None, expected: int
) -> None:
    tokenizer = adapter(byte_tokenizer(), bos_token="<|start|>", adds_bos=adds_bos)
    ids = tokenizer.encode("<|start|>x", add_special=True, parse_special=False)
    assert ids.count(START_ID) == expected
    again = tokenizer.encode("<|start|>x", add_special=True, parse_special=True)
    assert again.count(START_ID) == 1
    assert START_ID not in tokenizer.encode("x", add_special=False, parse_special=False)


@pytest.mark.parametrize(("adds_bos", "expected"), [(True, 1), (False, 0), (None, 1)])
def test_add_bos_token_overrules_tokenizer_json(adds_bos: bool | None, expected: int) -> None:
    definition = byte_tokenizer()
    definition.post_processor = TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", START_ID)]
    )
    tokenizer = adapter(definition, bos_token="<|start|>", adds_bos=adds_bos)
    for parse_special in (True, False):
        ids = tokenizer.encode("x", add_special=True, parse_special=parse_special)
        assert ids.count(START_ID) == expected


def write_tokenizer(folder: Path, settings: dict[str, Any]) -> MlxTokenizer:
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(folder, {"eos_token_id": 1})


def test_end_tokens_are_those_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    tokenizer = write_tokenizer(tmp_path, {"eos_token": {"content": "<|end|>"}, "bos_token": None})
    assert tokenizer.end_ids == {1, 2, 3, END_ID}
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("", "<|end|>")


NAMED = [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("yes", {"default": "yes"}),
        (NAMED, {"rag": "no", "default": "yes"}),
        (NAMED[:1], {"rag": "no"}),
        (None, {}),
    ],
)
def test_a_chat_template_is_a_text_or_several_by_name(
    found: Any, expected: dict[str, str], tmp_path: Path
) -> None:
    assert write_tokenizer(tmp_path, {"chat_template": found}).chat_templates == expected


def test_further_templates_lie_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    found = write_tokenizer(tmp_path, {"chat_template": "plain"}).chat_templates
    assert found == {"default": "plain", "tool_use": "tools"}


def test_a_chat_template_in_a_file_of_its_own_comes_first(tmp_path: Path) -> None:
    (tmp_path / "chat_template.json").write_text('{"chat_template": "second"}')
    assert write_tokenizer(tmp_path, {"chat_template": "third"}).chat_templates == {
        "default": "second"
    }
    (tmp_path / "chat_template.jinja").write_text("first")
    assert write_tokenizer(tmp_path, {"chat_template": "third"}).chat_templates == {
        "default": "first"
    }
