"""The decode loop over the fake engine: each job ends by itself, and only once."""

from __future__ import annotations

import pytest

from jobs.contract.errors import InvalidRequestError, JobCancelledError, ModelUnloadedError
from jobs.contract.events import EventKind, PromptUsage
from jobs.contract.requests import Prompt
from tests.helpers.driver import assert_whole, text
from tests.helpers.loop_rig import LoopRig, fake_engine, running_loop
from tests.helpers.samples import generate
from tests.helpers.waiting import wait_until
from workers.engines.base import Prefill, Sequence, SequenceFailure, StepEvent, Token
from workers.engines.fake import FakeEngine
from workers.generation.job import GenerationJob

FOREVER = {"sampling": {"ignore_eos": True}, "max_tokens": None}


def test_a_job_counts_up_to_its_limit_and_frees_its_slot() -> None:
    with running_loop() as rig:
        job_id = rig.start(generate("x" * 8, 20))
        found = rig.wait_ended(job_id)
        assert_whole(found)
        assert text(found) == "0000001 0000002 0000"
        last = found[-1]
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (8, 20)
        assert last.timings.prefill_tokens_per_s >= 0
        assert (rig.slots.taken, rig.loop.num_jobs, rig.loop.idle_s) == (0, 0, 0.0)
        assert rig.settled == [(last, True)]


def test_the_end_of_the_text_is_a_stop() -> None:
    with running_loop() as rig:
        found = rig.wait_ended(rig.start(generate("x" * 500, None)))
        assert text(found) == _counting(500, 511)
        assert [event.finish_reason for event in found if event.finish_reason] == ["stop"]


def _counting(start: int, end: int) -> str:
    return "".join(f"{position // 8:07d} "[position % 8] for position in range(start, end))


def test_several_jobs_run_at_once_and_do_not_mix() -> None:
    with running_loop(fake_engine(slots=3)) as rig:
        lengths = {rig.start(generate("x" * size, 30)): size for size in range(1, 11)}
        for job_id, size in lengths.items():
            assert text(rig.wait_ended(job_id)) == _counting(size, size + 30)
        wait_until(lambda: rig.slots.taken == 0, "every slot is free")


def test_a_stop_string_ends_the_sequence_in_the_engine_too() -> None:
    with running_loop(fake_engine(step_ms=1)) as rig:
        job_id = rig.start(generate("x" * 8, **FOREVER, stop=["2 0"]))
        found = rig.wait_ended(job_id)
        assert text(found) == "0000001 000000"
        assert [event.finish_reason for event in found if event.finish_reason] == ["stop"]
        assert [event.stop for event in found if event.stop] == ["2 0"]
        wait_until(lambda: not rig.engine.has_work, "the engine has forgotten it")
        assert rig.slots.taken == 0


def test_a_cancelled_job_ends_with_its_reason_and_its_neighbour_goes_on() -> None:
    with running_loop(fake_engine(step_ms=1)) as rig:
        doomed, other = rig.start(generate("x", **FOREVER)), rig.start(generate("x" * 8, 200))
        rig.wait_tokens(doomed, 3)
        rig.loop.end(doomed, JobCancelledError("enough"))
        found = rig.wait_ended(doomed)
        assert found[-1].kind is EventKind.CANCELLED
        assert found[-1].error.message == "enough"
        assert found[-1].usage.completion_tokens >= 3
        assert text(rig.wait_ended(other)) == _counting(8, 208)


def test_a_job_that_waits_for_a_slot_of_the_engine_can_be_cancelled() -> None:
    with running_loop(fake_engine(slots=1, step_ms=1)) as rig:
        running, waiting = rig.start(generate("x", **FOREVER)), rig.start(generate("x", **FOREVER))
        rig.wait_tokens(running)
        rig.loop.end(waiting, JobCancelledError("enough"))
        kinds = [event.kind for event in rig.wait_ended(waiting)]
        assert kinds == [EventKind.STARTED, EventKind.CANCELLED]
        rig.loop.end(running, JobCancelledError("enough"))
        rig.wait_ended(running)
        wait_until(lambda: rig.slots.taken == 0, "both slots are free")


def test_ending_an_unknown_or_ended_job_does_nothing() -> None:
    with running_loop() as rig:
        rig.loop.end("nobody", JobCancelledError("x"))
        job_id = rig.start(generate("x" * 8, 4))
        rig.wait_ended(job_id)
        rig.loop.end(job_id, JobCancelledError("late"))
        rig.wait_ended(rig.start(generate("x" * 8, 4)))
        assert [event.is_terminal for event in rig.writer.of(job_id)].count(True) == 1
        assert rig.slots.taken == 0


def test_a_job_that_is_dropped_says_nothing_more() -> None:
    with running_loop(fake_engine(step_ms=1)) as rig:
        job_id = rig.start(generate("x", **FOREVER))
        rig.wait_tokens(job_id)
        rig.loop.end(job_id, None)
        wait_until(lambda: rig.slots.taken == 0, "its slot is free")
        rig.wait_ended(rig.start(generate("x", 4)))
        assert not any(event.is_terminal for event in rig.writer.of(job_id))


def test_a_job_past_its_deadline_fails_by_name() -> None:
    with running_loop(fake_engine(step_ms=1)) as rig:
        found = rig.wait_ended(rig.start(generate("x", **FOREVER), max_run_s=0.05))
        assert found[-1].kind is EventKind.FAILED
        assert found[-1].error.code == "job_timeout"
        assert rig.slots.taken == 0


def test_every_choice_ends_by_itself_and_the_job_with_the_last() -> None:
    with running_loop() as rig:
        prompts = [Prompt(text="x" * 8), Prompt(text="x" * 505)]
        job_id = rig.start(generate(prompts=prompts, num_choices=2, max_tokens=16))
        found = rig.wait_ended(job_id)
        reasons = {event.choice: event.finish_reason for event in found if event.finish_reason}
        assert reasons == {0: "length", 1: "length", 2: "stop", 3: "stop"}
        assert_whole(found)
        assert rig.slots.taken == 0


def test_log_probabilities_come_with_their_tokens() -> None:
    with running_loop() as rig:
        found = rig.wait_ended(rig.start(generate("x" * 8, 6, sampling={"num_logprobs": 2})))
        entries = [entry for event in found for entry in event.logprobs or []]
        assert "".join(entry.text for entry in entries) == "000000"
        for entry in entries:
            assert entry.logprob <= 0
            assert entry.top[0].token_id == entry.token_id
            assert bytes(entry.raw).decode() == entry.text


def scored(text: str, max_tokens: int, **fields):
    return generate(text, max_tokens, echo=True, sampling={"num_logprobs": 1}, **fields)


def test_an_echoed_prompt_comes_before_its_continuation_with_what_it_was_worth() -> None:
    with running_loop() as rig:
        found = rig.wait_ended(rig.start(scored("0000000 0000001 ", 4)))
    assert_whole(found)
    chunks = [event for event in found if event.kind is EventKind.CHUNK]
    assert text(found) == "0000000 0000001 0000"
    (echo,) = [event for event in chunks if event.prompt is not None]
    assert echo is chunks[0]
    assert (echo.token_ids, echo.logprobs) == ([], None)
    assert "".join(token.text for token in echo.prompt) == echo.text == "0000000 0000001 "
    assert echo.prompt[0].logprob is None
    assert all(token.logprob < 0 for token in echo.prompt[1:])
    assert all(token.top[0].token_id == token.token_id for token in echo.prompt[1:])
    assert sum(len(event.logprobs or []) for event in chunks) == 4


def test_a_long_prompt_is_echoed_in_parts() -> None:
    with running_loop() as rig:
        found = rig.wait_ended(rig.start(scored("é" * 300, 2)))
    parts = [event for event in found if event.prompt is not None]
    assert [len(part.prompt) for part in parts] == [256, 256, 88]
    assert text(parts) == "é" * 300


def test_a_prompt_that_is_only_echoed_has_no_token_behind_it() -> None:
    with running_loop() as rig:
        found = rig.wait_ended(rig.start(scored("x" * 8, 0, num_choices=2)))
        assert_whole(found)
        assert rig.slots.taken == 0
    assert [text(found, choice) for choice in (0, 1)] == ["x" * 8] * 2
    assert [event.finish_reason for event in found if event.finish_reason] == ["length"] * 2
    assert [event.token_ids for event in found if event.token_ids] == []
    assert found[-1].usage.completion_tokens == 0


def test_where_mirostat_stands_comes_with_each_chunk() -> None:
    sampling = {"mirostat_mode": 2, "temperature": 1.0, "num_logprobs": 0}
    with running_loop(fake_engine(step_ms=1)) as rig:
        found = rig.wait_ended(rig.start(generate("x" * 8, 20, sampling=sampling)))
        plain = rig.wait_ended(rig.start(generate("x" * 8, 20)))
    chunks = [event for event in found if event.kind is EventKind.CHUNK]
    assert len(chunks) > 1
    assert all(isinstance(event.mirostat_mu, float) for event in chunks)
    assert [event.mirostat_mu for event in plain] == [None] * len(plain)


class BrokenEngine(FakeEngine):
    """Raises at the next step when told to, and gives one sequence up when told its prompt."""

    has_to_fail = False
    gives_up_on: bytes = b"give up"

    def step(self) -> list[StepEvent]:
        if self.has_to_fail:
            self.has_to_fail = False
            raise RuntimeError("out of memory")
        doomed = [r.sequence for r in self._running.values() if self._is_doomed(r.sequence)]
        for sequence in doomed:
            self.abort(sequence.sequence_id)
        failures = [SequenceFailure(s.sequence_id, "no room") for s in doomed]
        return [*super().step(), *failures]

    def submit(self, sequence: Sequence) -> None:
        if bytes(sequence.prompt) == b"wrong":
            raise InvalidRequestError("does not fit", "adapter_name")
        if bytes(sequence.prompt) == b"a bug":
            raise RuntimeError("a bug")
        super().submit(sequence)

    def _is_doomed(self, sequence: Sequence) -> bool:
        return bytes(sequence.prompt) == self.gives_up_on


@pytest.fixture
def broken() -> BrokenEngine:
    return BrokenEngine(fake_engine().info, step_s=0.001)


def test_an_engine_that_raises_ends_every_job_of_its_batch_and_the_loop_goes_on(
    broken: BrokenEngine,
) -> None:
    with running_loop(broken) as rig:
        ids = [rig.start(generate("x", **FOREVER)) for _ in range(3)]
        for job_id in ids:
            rig.wait_tokens(job_id)
        broken.has_to_fail = True
        for job_id in ids:
            found = rig.wait_ended(job_id)
            assert found[-1].error.code == "engine_error"
            assert "out of memory" in found[-1].error.message
        assert rig.slots.taken == 0
        assert text(rig.wait_ended(rig.start(generate("x" * 8, 8)))) == "0000001 "


def test_a_sequence_that_the_engine_gives_up_ends_its_own_job_only(broken: BrokenEngine) -> None:
    with running_loop(broken) as rig:
        healthy, doomed = rig.start(generate("x" * 8, 100)), rig.start(generate("give up"))
        found = rig.wait_ended(doomed)
        assert (found[-1].error.code, found[-1].error.message) == ("engine_error", "no room")
        assert text(rig.wait_ended(healthy)) == _counting(8, 108)


@pytest.mark.parametrize(
    ("prompt", "code"), [("wrong", "invalid_request"), ("a bug", "engine_error")]
)
def test_a_job_that_the_engine_does_not_take_fails_before_it_has_started(
    broken: BrokenEngine, prompt: str, code: str
) -> None:
    with running_loop(broken) as rig:
        healthy = rig.start(generate("x" * 8, 100))
        prompts = [Prompt(text="fine"), Prompt(text=prompt)]
        (failed,) = rig.wait_ended(rig.start(generate(prompts=prompts)))
        assert (failed.kind, failed.error.code) == (EventKind.FAILED, code)
        assert text(rig.wait_ended(healthy)) == _counting(8, 108)
        wait_until(lambda: rig.slots.taken == 0, "every slot is free")
        assert not rig.engine.has_work


def test_a_refused_job_leaves_the_engine() -> None:
    with running_loop(fake_engine(step_ms=1)) as rig:
        job_id = rig.start(generate("x", **FOREVER))
        rig.wait_tokens(job_id)
        rig.writer.refused.add(job_id)
        wait_until(lambda: not rig.engine.has_work, "the engine has forgotten it")
        assert rig.refused[0] == job_id
        assert not any(event.is_terminal for event in rig.writer.of(job_id))


def test_winding_down_lets_short_jobs_finish_and_tells_long_ones_why() -> None:
    rig = LoopRig(fake_engine(step_ms=1))
    rig.publisher.start()
    rig.thread.start()
    short, long = rig.start(generate("x" * 8, 30)), rig.start(generate("x", **FOREVER))
    rig.loop.wind_down(ModelUnloadedError("unloaded"), grace_s=0.5, force_s=10)
    rig.thread.join(20)
    assert not rig.thread.is_alive()
    assert rig.wait_ended(short)[-1].kind is EventKind.FINISHED
    assert rig.wait_ended(long)[-1].error.code == "model_unloaded"
    assert rig.publisher.stop(20)


def test_no_command_is_lost_while_the_loop_falls_asleep() -> None:
    with running_loop() as rig:
        for _ in range(300):
            assert text(rig.wait_ended(rig.start(generate("x" * 8, 1)))) == "0"


def test_an_answer_that_cannot_be_read_ends_its_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser's fault on what a model wrote: the loop, and the neighbour, go on."""
    with running_loop(fake_engine(step_ms=1)) as rig:
        other = rig.start(generate("x" * 8, 200))
        doomed = rig.start(generate("x" * 8, **FOREVER))
        rig.wait_tokens(doomed, 3)

        def fail(token: Token) -> None:
            raise RecursionError("a parser's fault")

        (choice,) = rig.loop._jobs[doomed].choices.values()
        monkeypatch.setattr(choice, "feed", fail)
        found = rig.wait_ended(doomed)
        assert found[-1].error.code == "internal_error"
        assert text(rig.wait_ended(other)) == _counting(8, 208)
        wait_until(lambda: rig.slots.taken == 0, "both slots are free")
        assert text(rig.wait_ended(rig.start(generate("x" * 8, 8)))) == "0000001 "


def test_cached_tokens_count_once_per_prompt() -> None:
    request = generate(prompts=[Prompt(text="a"), Prompt(text="b")], num_choices=3)
    job = GenerationJob("job", request, None, {}, [10, 10], queued_s=0.0, deadline=0.0)
    for choice, cached in enumerate([2, 9, 9, 0, 5, 5]):
        job.note_prefill(choice, Prefill(choice + 1, 10, 10, cached))
    assert job.usage.cached_tokens == 2
    assert job.usage.prompts == [PromptUsage(10, 2), PromptUsage(10, 0)]
    assert job.timings().prefill_tokens_per_s >= 0
    job.note_prefill(0, Prefill(1, 14, 14, 12))  # read again: it had to give way to others
    assert job.usage.cached_tokens == 2
