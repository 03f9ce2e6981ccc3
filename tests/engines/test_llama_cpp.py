"""What only the llama.cpp engine has; the behaviour it shares is in test_engine_contract.py."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    JobCancelledError,
    ModelLoadError,
    UnsupportedParameterError,
)
from jobs.sampling import Sampling
from tests.engines.driving import GREEDY, chat, drain, ids_of, run_one, sequence
from tests.gguf_bytes import Metadata, gguf_bytes
from workers.engines.base import EngineOptions, FinishReason, SequenceFailure
from workers.engines.llama_cpp.binding import NativeLog, lib
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp
from workers.engines.llama_cpp.room import CHUNK_TARGET_S, MIN_CHUNK, ChunkSize, Room

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"


def opened(path: Path = DEMO, options: EngineOptions | None = None) -> LlamaCppEngine:
    return open_llama_cpp(path, options or EngineOptions(), lambda fraction: None)


def load_error(path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        opened(path)
    assert path.name in caught.value.message
    return caught.value.message


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaCppEngine]:
    engine = opened()
    yield engine
    engine.close()


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Callable[[bytes], bytes]], Path]:
    """Writes a changed copy of the demo model."""

    def write(edit: Callable[[bytes], bytes]) -> Path:
        path = tmp_path / "edited.gguf"
        path.write_bytes(edit(DEMO.read_bytes()))
        return path

    return write


# Files that cannot be loaded


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in load_error(tmp_path / "none.gguf")


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    assert "folder" in load_error(tmp_path)


def test_a_file_of_another_kind_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"PK\x03\x04 not a model")
    assert "not a GGUF file" in load_error(path)


@pytest.mark.parametrize("fraction", [0.0001, 0.002, 0.5, 0.999])
def test_a_file_cut_off_is_said_to_be_incomplete(
    fraction: float, edited: Callable[[Callable[[bytes], bytes]], Path]
) -> None:
    message = load_error(edited(lambda data: data[: int(len(data) * fraction)]))
    assert "cut off" in message or "corrupted or incomplete" in message


def test_an_unknown_architecture_is_named(
    edited: Callable[[Callable[[bytes], bytes]], Path],
) -> None:
    path = edited(lambda data: data.replace(b"qwen3", b"qwenX"))
    assert "unknown model architecture: 'qwenX'" in load_error(path)


def test_a_header_without_a_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "qwen3"}))
    assert "llama.cpp cannot load it" in load_error(path)


def test_missing_parts_of_a_split_model_are_named(tmp_path: Path) -> None:
    path = tmp_path / "big-00001-of-00003.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "qwen3", "split.count": 3}))
    (tmp_path / "big-00003-of-00003.gguf").touch()
    message = load_error(path)
    assert "big-00002-of-00003.gguf" in message
    assert "big-00003-of-00003.gguf" not in message


def test_a_later_part_points_to_the_first(tmp_path: Path) -> None:
    for part in (0, 1):
        metadata: Metadata = {
            "general.architecture": "qwen3",
            "split.count": 2,
            "split.no": part,
        }
        (tmp_path / f"big-0000{part + 1}-of-00002.gguf").write_bytes(gguf_bytes(metadata))
    assert "load big-00001-of-00002.gguf" in load_error(tmp_path / "big-00002-of-00002.gguf")


def test_a_failed_load_can_be_followed_by_a_good_one(tmp_path: Path) -> None:
    load_error(tmp_path / "none.gguf")
    opened().close()


@pytest.mark.parametrize("num_slots", [0, 100_000])
def test_an_impossible_number_of_slots_is_refused(num_slots: int) -> None:
    with pytest.raises(InvalidRequestError, match="slots"):
        opened(options=EngineOptions(num_slots=num_slots))


# Loading


def test_progress_goes_from_nothing_to_all() -> None:
    fractions: list[float] = []
    open_llama_cpp(DEMO, EngineOptions(), fractions.append).close()
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) > 2


def test_an_exception_while_loading_stops_the_load() -> None:
    def cancel(fraction: float) -> None:
        raise JobCancelledError("unloaded meanwhile")

    with pytest.raises(JobCancelledError, match="unloaded meanwhile"):
        open_llama_cpp(DEMO, EngineOptions(), cancel)


def test_the_facts_come_from_the_file(engine: LlamaCppEngine) -> None:
    info = engine.info
    assert (info.architecture, info.quantization) == ("qwen3", "F16")
    assert info.num_parameters == 1_993_088
    assert (info.context_length, info.num_slots) == (2048, 8)
    assert "<|im_start|>" in (engine.tokenizer.chat_template or "")


def test_importing_the_package_does_not_import_llama_cpp() -> None:
    code = (
        "import sys, workers.engines.llama_cpp, jobs.gguf_header; print('llama_cpp' in sys.modules)"
    )
    folder = DEMO.parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_llama_cpp_writes_nothing_to_the_terminal(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from workers.engines.base import EngineOptions;"
        "from workers.engines.llama_cpp.engine import open_llama_cpp;"
        "open_llama_cpp(Path('models/demo.gguf'), EngineOptions(), lambda f: None)"
    )  # without close: also what the library says at exit
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=DEMO.parents[1], capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")


# The log of llama.cpp


def test_lines_go_to_debug_and_complaints_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    log = NativeLog()
    with caplog.at_level(logging.DEBUG, "workers.engines.llama_cpp.binding"):
        log.write(2, b"loading")  # information in two pieces
        log.write(5, b" tensors\n")
        log.write(4, b"error: no \xff memory\n")
    assert "llama.cpp: loading tensors" in caplog.messages
    assert log.complaints() == "error: no � memory"
    log.clear()
    assert log.complaints() == ""


def test_a_real_load_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "workers.engines.llama_cpp.binding"):
        opened().close()
    assert any("general.architecture" in message for message in caplog.messages)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


# Wrong requests


def test_mirostat_is_refused_by_name(engine: LlamaCppEngine) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        engine.check(Sampling(mirostat_mode=2))
    assert caught.value.param == "mirostat_mode"


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


def test_the_pool_is_shared_and_a_sequence_waits_for_its_room() -> None:
    """Eight slots, 32,768 cells: four sequences that reserve 8,192 each fill the pool."""
    engine = opened(options=EngineOptions(context_length=8192))
    large = [sequence([1, 2, 3], 8000) for _ in range(5)]
    for one in large:
        engine.submit(one)
    started = {event.sequence_id for event in engine.step()}
    assert started == {one.sequence_id for one in large[:4]}
    engine.abort(large[0].sequence_id)
    assert large[4].sequence_id in {event.sequence_id for event in engine.step()}
    engine.close()


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


# Room and chunks


def test_room_is_taken_in_slots_and_cells() -> None:
    room = Room(num_slots=2, num_cells=100)
    assert (room.take(60), room.take(60), room.take(40), room.take(0)) == (0, None, 1, None)
    room.give_back(0, 60)
    assert room.take(61) is None
    assert room.take(60) == 0


def test_chunks_grow_while_fast_and_shrink_when_slow() -> None:
    chunk = ChunkSize(1000)
    for _ in range(10):
        chunk.observe(chunk.num_tokens, CHUNK_TARGET_S / 10)
    assert chunk.num_tokens == 1000
    chunk.observe(1000, CHUNK_TARGET_S * 1.25)
    assert chunk.num_tokens == 800
    for _ in range(10):
        chunk.observe(chunk.num_tokens, CHUNK_TARGET_S * 100)
    assert chunk.num_tokens == MIN_CHUNK


def test_a_small_fast_chunk_says_nothing_about_large_ones() -> None:
    chunk = ChunkSize(1000)
    first = chunk.num_tokens
    chunk.observe(1, 0.001)
    chunk.observe(0, 99.0)
    assert chunk.num_tokens == first
