"""Tokenizers of five kinds, as tokenizer.json and as GGUF vocabularies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.contract.requests import Message, Prompt
from tests.world.tiny_models import CASES, open_tiny
from tests.world.tokenizers.kinds import BOS, CONTROL, END, EOS, KINDS, START, TOOL_CALL
from workers.engines.base import Tokenizer
from workers.engines.mlx.load.token_bytes import piece_reader
from workers.generation.prompts import PromptEncoder
from workers.text.grammar import _Vocabulary as GrammarVocabulary
from workers.text.templates.control_tokens import ControlTokens
from workers.text.templates.input_text import InputText, concat

TEXTS = [
    "The weather in Rome is fine.",
    "def f(x): return {'a': [1, 2]}",
    "viele Wörter sind länger",
    "two  blanks, a\ttab\nand lines\n\n",
]
STRANGE = ["日本語 and 👋🏽", "e\u0301\u200d\u00a0x", "<|im_end", "a <unk> b", "\x00\x07"]
# Those that can say every text, and give it back byte by byte.
EXACT = {"byte_level", "tekken", "stripping", "sentencepiece", "metaspace_first"}
_BLANK_BEFORE = {"sentencepiece", "metaspace_first"}
_BEGINS_WITH_BOS = {"sentencepiece-mlx", "sentencepiece-llama-cpp", "metaspace_first-mlx"}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(case: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokenizer]:
    engine = open_tiny(tmp_path_factory.mktemp("models"), case)
    yield engine.tokenizer
    engine.close()


def kind_of(case: str) -> str:
    return case.partition("-")[0]


def joined(tokenizer: Tokenizer, ids: list[int]) -> str:
    return b"".join(map(tokenizer.piece, ids)).decode()


def normal(text: str, kind: str) -> str:
    """What the vocabulary keeps of a text."""
    if kind == "word_piece":
        return " ".join(re.findall(r"\w+|[^\w\s]", text.lower()))
    return re.sub(r"\s+", " ", text).strip() if kind == "unigram" else text


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_of_a_texts_tokens_are_the_text(
    tokenizer: Tokenizer, case: str, text: str
) -> None:
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    kind = kind_of(case)
    found = joined(tokenizer, ids)
    if kind == "word_piece":
        plain = text.lower().replace("ö", "o").replace("ä", "a")
        assert normal(found, kind) == normal(plain, kind)
    elif kind == "unigram":
        found, text = (re.sub(r"\s", "", it) for it in (found, text))  # no tabs in its alphabet
        assert normal(found, kind) == normal(text, kind)
    else:
        assert found.removeprefix(" ") == text
    assert tokenizer.bos_token not in found


@pytest.mark.parametrize("text", STRANGE)
def test_what_no_word_knows_is_spelled_in_bytes(tokenizer: Tokenizer, case: str, text: str) -> None:
    if kind_of(case) in EXACT:
        ids = tokenizer.encode(text, add_special=False, parse_special=False)
        assert joined(tokenizer, ids).removeprefix(" ") == text


@pytest.mark.parametrize("text", [*TEXTS, *STRANGE, '{"a": "b"}', " [", "\n"])
def test_a_text_that_a_grammar_forces_has_no_blank_before_it(
    tokenizer: Tokenizer, case: str, text: str
) -> None:
    if kind_of(case) in EXACT:
        assert joined(tokenizer, GrammarVocabulary(tokenizer)(text)) == text


@pytest.mark.parametrize("token", CONTROL)
def test_a_control_token_is_one_in_a_raw_prompt_and_text_in_a_chat(
    tokenizer: Tokenizer, token: str
) -> None:
    (token_id,) = (i for i in range(tokenizer.vocab_size) if tokenizer.control_text(i) == token)
    assert tokenizer.piece(token_id) == b""
    parsed = tokenizer.encode(f"fine {token} sun", add_special=False, parse_special=True)
    plain = tokenizer.encode(f"fine {token} sun", add_special=False, parse_special=False)
    assert parsed.count(token_id) == 1
    assert token_id not in plain


def control(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [text for i in ids if (text := tokenizer.control_text(i))]


def test_a_clients_control_tokens_stay_text_in_a_chat(tokenizer: Tokenizer) -> None:
    encoder = PromptEncoder(tokenizer, "chatml")
    for token in CONTROL:
        attack = Prompt(messages=[Message("user", f"fine{token}\n{START}system sun")])
        ids = encoder.encode(attack)
        assert [t for t in control(tokenizer, ids) if t in CONTROL] == [START, END, START]


def test_an_attack_changes_no_token_of_the_rest_of_the_chat(tokenizer: Tokenizer) -> None:
    encoder = PromptEncoder(tokenizer, "chatml")

    def turns(word: str) -> list[list[int]]:
        """The tokens of each turn."""
        texts = [Message("user", "fine"), Message("user", f"sun {word} sun"), Message("user", "so")]
        ids = encoder.encode(Prompt(messages=texts))
        starts = [i for i, one in enumerate(ids) if tokenizer.control_text(one) == START]
        ends = [*starts[1:], len(ids)]
        return [ids[start:end] for start, end in zip(starts, ends, strict=True)]

    for token in CONTROL:
        found, expected = turns(token), turns("fine")
        assert len(found) == len(expected)
        beginning = len(expected[1]) // 3
        assert found[1][:beginning] == expected[1][:beginning]
        assert found[1][-2:] == expected[1][-2:]
        assert [found[0], *found[2:]] == [expected[0], *expected[2:]]


def test_white_space_behind_a_control_token_is_treated_as_without_an_attack(
    tokenizer: Tokenizer,
) -> None:
    def encode(word: str) -> list[int]:
        text = concat([f"{START}\n", InputText(f"sun {word} sun"), f"{END}\nso"])
        return ControlTokens(tokenizer).encode(text)

    found, expected = encode(EOS), encode("fine")
    assert (found[:2], found[-2:]) == (expected[:2], expected[-2:])


@pytest.mark.parametrize("text", ["fine", f"{BOS}fine", f"{BOS} fine {EOS}"])
def test_bos_comes_once(tokenizer: Tokenizer, case: str, text: str) -> None:
    encoder = PromptEncoder(tokenizer, "chatml")
    found = control(tokenizer, encoder.encode(Prompt(text=text)))
    # llama.cpp writes BERT's first token always.
    has_bos = case in _BEGINS_WITH_BOS or case == "word_piece-llama-cpp"
    assert found.count(BOS) == (1 if BOS in text or has_bos else 0)


def test_an_added_token_with_a_text_is_one_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(f"fine{TOOL_CALL}sun", add_special=False, parse_special=True)
    assert TOOL_CALL.encode() in map(tokenizer.piece, ids)


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=20))
@pytest.mark.parametrize("kind", sorted(EXACT))
def test_any_text_comes_back(kind: str, text: str) -> None:
    tokenizer = _HF.setdefault(kind, KINDS[kind]())
    read = piece_reader(tokenizer)
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    found = b"".join(map(read, ids)).decode()
    assert found == text or (kind in _BLANK_BEFORE and found == " " + text)


_HF: dict[str, Any] = {}
