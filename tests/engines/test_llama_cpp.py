"""What only the llama.cpp engine has; the behaviour it shares is in test_engine_contract.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.errors import ContextLengthExceededError, InvalidRequestError
from jobs.contract.sampling import Sampling
from tests.engines.driving import GREEDY, chat, drain, ids_of, run_one, sequence
from workers.engines.base import EngineOptions, FinishReason, SequenceFailure
from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"


def opened(path: Path = DEMO, options: EngineOptions | None = None) -> LlamaCppEngine:
    return open_llama_cpp(path, options or EngineOptions(), lambda fraction: None)


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaCppEngine]:
    engine = opened()
    yield engine
    engine.close()


# Facts and wrong requests


def test_the_facts_come_from_the_file(engine: LlamaCppEngine) -> None:
    info = engine.info
    assert (info.architecture, info.quantization) == ("qwen3", "F16")
    assert info.num_parameters == 1_993_088
    assert (info.context_length, info.num_slots) == (2048, 8)
    assert "<|im_start|>" in engine.tokenizer.chat_templates["default"]


def test_a_prompt_that_cannot_run_is_refused(engine: LlamaCppEngine) -> None:
    with pytest.raises(ContextLengthExceededError):
        engine.submit(sequence([1] * engine.info.context_length))
    for prompt in ([], [engine.info.vocab_size], [-1], [2**40]):
        with pytest.raises(InvalidRequestError):
            engine.submit(sequence(prompt))
    assert not engine.has_work


def test_a_text_with_a_lone_surrogate_is_refused(engine: LlamaCppEngine) -> None:
    with pytest.raises(InvalidRequestError, match="not valid Unicode"):
        engine.tokenizer.encode("a\ud800", add_special=False, parse_special=False)


# Generation


def test_the_demo_model_ends_its_answer_by_itself(engine: LlamaCppEngine) -> None:
    transcript = run_one(engine, chat(engine, "Hello!"), 200, Sampling(temperature=0.0))
    assert transcript.finish is FinishReason.STOP
    assert transcript.tokens[-1].is_end
    assert sum(token.is_end for token in transcript.tokens) == 1


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> int:
    """A token with which ``llama_decode`` fails; the others in its batch are not decoded either."""
    token = 200
    decode = lib.llama_decode

    def failing_decode(context: Any, batch: Any) -> int:
        if token in batch.token[: batch.n_tokens]:
            return -2
        result: int = decode(context, batch)
        return result

    monkeypatch.setattr(lib, "llama_decode", failing_decode)
    return token


def test_a_failing_batch_costs_only_the_guilty_sequence(
    engine: LlamaCppEngine, poisoned: int
) -> None:
    prompt = chat(engine, "Tell me a story.")
    undisturbed = run_one(engine, prompt, 12).ids
    good, late = sequence(prompt, 12), sequence(prompt, 12)
    guilty = sequence([*prompt[:5], poisoned], 12)
    engine.submit(good)
    events = engine.step()
    engine.submit(guilty)
    engine.submit(late)
    events += drain(engine)
    failures = [event for event in events if isinstance(event, SequenceFailure)]
    assert [failure.sequence_id for failure in failures] == [guilty.sequence_id]
    assert ids_of(events, good.sequence_id) == undisturbed
    assert ids_of(events, late.sequence_id) == undisturbed
    assert run_one(engine, prompt, 12).ids == undisturbed


def test_a_closed_engine_refuses_to_encode_and_still_knows_its_pieces() -> None:
    engine = opened()
    engine.submit(sequence(chat(engine, "Hi"), 50, GREEDY))
    engine.step()
    ids = engine.tokenizer.encode("abc", add_special=False, parse_special=False)
    engine.close()
    engine.close()
    assert b"".join(map(engine.tokenizer.piece, ids)) == b"abc"
    with pytest.raises(Exception, match="closed"):
        engine.tokenizer.encode("abc", add_special=False, parse_special=False)
