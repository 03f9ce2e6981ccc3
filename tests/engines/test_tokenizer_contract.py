"""What every engine's tokenizer does (the demo models have byte-level vocabularies)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.engines.base import Engine, Tokenizer


def decode(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    return b"".join(tokenizer.piece(token_id) for token_id in ids)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text() | st.text("a b\n\t 12<|>imend😀é漢'", max_size=60))
def test_any_text_comes_back_from_its_tokens(engine: Engine, text: str) -> None:
    ids = engine.tokenizer.encode(text, add_special=False, parse_special=False)
    assert decode(engine.tokenizer, ids) == text.encode()
    assert all(0 <= token_id < engine.tokenizer.vocab_size for token_id in ids)


def test_an_emoji_family_comes_back(engine: Engine) -> None:
    text = "👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \u200f\x00 漢字"
    ids = engine.tokenizer.encode(text, add_special=False, parse_special=False)
    assert decode(engine.tokenizer, ids) == text.encode()


def test_control_tokens_are_read_only_when_asked_for(engine: Engine) -> None:
    tokenizer = engine.tokenizer
    text = f"a{tokenizer.eos_token}b"
    parsed = tokenizer.encode(text, add_special=False, parse_special=True)
    plain = tokenizer.encode(text, add_special=False, parse_special=False)
    assert len(parsed) == 3
    assert parsed[1] in tokenizer.end_ids
    assert not set(plain) & tokenizer.end_ids
    assert decode(tokenizer, plain) == text.encode()


def test_control_tokens_have_no_text(engine: Engine) -> None:
    assert engine.tokenizer.end_ids
    assert {engine.tokenizer.piece(token_id) for token_id in engine.tokenizer.end_ids} == {b""}


def test_an_empty_text_has_no_tokens(engine: Engine) -> None:
    assert engine.tokenizer.encode("", add_special=False, parse_special=False) == []


def test_several_threads_may_encode_at_once(engine: Engine) -> None:
    texts = [f"{i} " * 200 for i in range(32)]

    def encode(text: str) -> bytes:
        ids = engine.tokenizer.encode(text, add_special=False, parse_special=False)
        return decode(engine.tokenizer, ids)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(encode, texts)) == [text.encode() for text in texts]
