"""Embeddings in the decode loop: between the steps, a few at a time, each job ends once."""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    JobCancelledError,
    ModelLoadError,
)
from jobs.contract.events import Event, EventKind
from jobs.contract.requests import EmbedRequest, Prompt
from jobs.contract.rerank import Rerank
from tests.helpers.driver import assert_whole, text
from tests.helpers.loop_rig import LoopRig, fake_engine, running_loop
from tests.helpers.samples import generate
from tests.helpers.waiting import wait_until
from workers.engines.base import Pooling
from workers.engines.fake import FakeEngine
from workers.generation.embedding import EmbeddingJob, build_embedding
from workers.generation.input_prefixes import InputPrefixes, read_input_prefixes
from workers.generation.outbox import Outbox
from workers.generation.prompts import PromptEncoder

NONE = InputPrefixes()


def build(
    rig: LoopRig, *texts: str, max_run_s: float = 60.0, prefixes: InputPrefixes = NONE, **fields
) -> EmbeddingJob:
    request = EmbedRequest([Prompt(text=text) for text in texts], **fields)
    outbox = Outbox(rig.publisher, f"embd-{texts[0][:9]}", 1, 0)
    encoder = PromptEncoder(rig.engine.tokenizer, None)
    return build_embedding(outbox, request, encoder, prefixes, 600, max_run_s)


def start(rig: LoopRig, *texts: str, **fields) -> str:
    job = build(rig, *texts, **fields)
    rig.loop.admit(job)
    return job.job_id


def vectors(events: list[Event]) -> dict[int, list[float]]:
    return {
        event.choice: list(struct.unpack(f"<{len(event.embedding) // 4}f", event.embedding))
        for event in events
        if event.embedding is not None
    }


def test_each_input_gets_its_vector_in_order() -> None:
    with running_loop() as rig:
        found = rig.wait_ended(start(rig, "one", "two", "one"))
    assert_whole(found)
    result = vectors(found)
    assert list(result) == [0, 1, 2]
    assert result[0] == result[2] != result[1]
    expected = fake_engine().embed([list(b"one")], None)[0]
    assert result[0] == pytest.approx(expected, abs=1e-6)
    assert (found[-1].usage.prompt_tokens, found[-1].usage.total_tokens) == (9, 9)
    assert (rig.slots.taken, rig.loop.num_jobs) == (0, 0)


class CountingEngine(FakeEngine):
    """Keeps the sizes of what it was asked to embed; waits for ``may_go``."""

    def __init__(self) -> None:
        super().__init__(fake_engine().info, step_s=0.0)
        self.batches: list[list[int]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def embed(
        self,
        inputs: list[list[int]],
        pooling: Pooling | None,
        on_piece: Callable[[], None] | None = None,
    ) -> list[list[float]]:
        assert self.may_go.wait(20)
        if inputs == [list(b"a bug")]:
            raise RuntimeError("a bug")
        self.batches.append([len(ids) for ids in inputs])
        return super().embed(inputs, pooling)


def test_many_inputs_are_embedded_a_few_at_a_time() -> None:
    engine = CountingEngine()
    with running_loop(engine) as rig:
        sizes = [200, 200, 200, 600, 100]
        rig.wait_ended(start(rig, *("x" * size for size in sizes)))
    assert engine.batches == [[200, 200], [200], [600], [100]]


def test_streams_go_on_between_the_inputs() -> None:
    engine = CountingEngine()
    with running_loop(engine) as rig:
        stream = rig.start(generate("x" * 8, 40))
        embedding = start(rig, *["y" * 600] * 30)
        rig.wait_ended(stream)
        assert text(rig.wait_ended(stream)) == "".join(f"{i:07d} " for i in range(1, 6))
        rig.wait_ended(embedding)
    assert len(engine.batches) == 30


def test_a_cancelled_job_stops_between_two_inputs() -> None:
    engine = CountingEngine()
    engine.may_go.clear()
    with running_loop(engine) as rig:
        doomed, waiting = start(rig, "a", *["y" * 600] * 30), start(rig, "b", "c")
        rig.loop.end(doomed, JobCancelledError("enough"))
        rig.loop.end(waiting, None)
        engine.may_go.set()
        found = rig.wait_ended(doomed)
        assert (found[-1].kind, found[-1].error.message) == (EventKind.CANCELLED, "enough")
        wait_until(lambda: rig.loop.num_jobs == 0, "both are gone")
        assert rig.writer.of(waiting) == []
    assert len(engine.batches) <= 1


def test_a_wrong_size_a_bug_and_a_deadline_end_their_job_alone() -> None:
    with running_loop(CountingEngine()) as rig:
        wrong = rig.wait_ended(start(rig, "wrong", dimensions=9))[-1]
        assert (wrong.error.code, wrong.error.param) == ("unsupported_parameter", "dimensions")
        assert "8" in wrong.error.message
        bug = rig.wait_ended(start(rig, "a bug"))[-1]
        assert bug.error.code == "engine_error"
        late = rig.wait_ended(start(rig, "late", max_run_s=-1))[-1]
        assert late.error.code == "job_timeout"
        assert rig.wait_ended(start(rig, "fine", dimensions=8))[-1].kind is EventKind.FINISHED


@pytest.mark.parametrize("num", [1, 3, 7])
def test_a_vector_that_is_cut_has_length_one_again(num: int) -> None:
    with running_loop() as rig:
        whole = vectors(rig.wait_ended(start(rig, "one")))[0]
    with running_loop() as rig:
        cut = vectors(rig.wait_ended(start(rig, "one", dimensions=num)))[0]
    length = math.hypot(*whole[:num])
    assert cut == pytest.approx([value / length for value in whole[:num]], abs=1e-6)


PREFIXES = InputPrefixes({"query": "Q: ", "passage": "P: ", "other": "O: ", "plain": ""}, "other")


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({}, ["O: a", "O: b"]),
        ({"input_type": "query"}, ["Q: a", "Q: b"]),
        ({"input_type": "document"}, ["P: a", "P: b"]),
        ({"prompt_name": "plain"}, ["a", "b"]),
        ({"rerank": Rerank()}, ["Q: a", "P: b"]),
    ],
)
def test_inputs_get_the_prefix_that_is_asked_for(fields: dict[str, Any], texts: list[str]) -> None:
    with running_loop() as rig:
        job = build(rig, "a", "b", prefixes=PREFIXES, **fields)
        assert job.inputs == [list(text.encode()) for text in texts]
        plain = build(rig, "a", **{**fields, "prompt_name": None})
        assert plain.inputs == [list(b"a")]


def test_a_prefix_that_cannot_be_added_is_refused_by_name() -> None:
    for name, words in (("query", "needs texts"), ("x", "'x' is unknown.*other, passage")):
        with pytest.raises(InvalidRequestError, match=words) as caught:
            PREFIXES.add(EmbedRequest([Prompt(token_ids=[5])], prompt_name=name), 0)
        assert caught.value.param == "prompt_name"
    assert PREFIXES.add(EmbedRequest([Prompt(token_ids=[5])]), 0) == Prompt(token_ids=[5])


def test_prefixes_are_read_from_the_models_folder(tmp_path: Path) -> None:
    file = tmp_path / "config_sentence_transformers.json"
    assert read_input_prefixes(tmp_path) == NONE
    for written, words in (
        ("{", "line 1"),
        ("[]", "not a JSON object"),
        ('{"prompts": {"query": 5}}', "texts by name"),
        ('{"prompts": {}, "default_prompt_name": "query"}', "none of its prompts"),
    ):
        file.write_text(written)
        with pytest.raises(ModelLoadError, match=words):
            read_input_prefixes(tmp_path)
    file.write_text('{"prompts": {"query": "Q: "}, "default_prompt_name": null}')
    assert read_input_prefixes(tmp_path) == InputPrefixes({"query": "Q: "}, None)


def test_a_loop_that_embeds_counts_as_working() -> None:
    engine = CountingEngine()
    engine.may_go.clear()
    with running_loop(engine) as rig:
        job_id = start(rig, "slow")
        wait_until(lambda: rig.loop.idle_s > 0.05, "the loop stands still")
        engine.may_go.set()
        rig.wait_ended(job_id)
        wait_until(lambda: rig.loop.idle_s == 0.0, "it has nothing to do")


def test_winding_down_ends_embeddings_too() -> None:
    engine = CountingEngine()
    rig = LoopRig(engine)
    rig.publisher.start()
    rig.thread.start()
    job_id = start(rig, *["y" * 600] * 2000)
    wait_until(lambda: engine.batches, "it has begun")
    started = time.monotonic()
    rig.loop.wind_down(JobCancelledError("over"), grace_s=0.0, force_s=10)
    rig.thread.join(20)
    assert time.monotonic() - started < 5
    assert rig.wait_ended(job_id)[-1].kind is EventKind.CANCELLED
    assert rig.publisher.stop(20)


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (Prompt(text=""), InvalidRequestError),
        (Prompt(token_ids=[]), InvalidRequestError),
        (Prompt(token_ids=[272]), InvalidRequestError),
        (Prompt(text="x" * 601), ContextLengthExceededError),
    ],
)
def test_a_wrong_input_is_named(prompt: Prompt, kind: type[InvalidRequestError]) -> None:
    rig = LoopRig(fake_engine())
    outbox = Outbox(rig.publisher, "j", 1, 0)
    encoder = PromptEncoder(rig.engine.tokenizer, None)
    with pytest.raises(kind) as caught:
        build_embedding(
            outbox, EmbedRequest([Prompt(text="fine"), prompt]), encoder, NONE, 600, 60.0
        )
    assert caught.value.param == "input"
