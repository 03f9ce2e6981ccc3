"""Faults in one answer, asked of the fake engine by its prompt: its job ends, the loop goes on."""

from __future__ import annotations

import pytest

from jobs.contract.events import Event, EventKind
from jobs.contract.requests import Prompt
from tests.helpers.driver import text
from tests.helpers.grammars import LETTERS, RUNS_FULL
from tests.helpers.loop_rig import LoopRig, fake_engine, running_loop
from tests.helpers.samples import generate
from tests.helpers.waiting import wait_until
from workers.engines.fake.tokenizer import FAULTY_ID

FOREVER = {"sampling": {"ignore_eos": True}, "max_tokens": None}


def counting(start: int, end: int) -> str:
    """What the fake engine says at these places."""
    return "".join(f"{i // 8:07d} "[i % 8] for i in range(start, end))


def assert_neighbours_go_on(rig: LoopRig, doomed: str, code: str) -> list[Event]:
    """``doomed`` fails by that code, a job beside it and one after it are whole."""
    healthy = rig.start(generate("x" * 8, 100))
    job_id = rig.start(generate(doomed, **FOREVER))
    found = rig.wait_ended(job_id)
    assert (found[-1].kind, found[-1].error.code) == (EventKind.FAILED, code)
    assert text(rig.wait_ended(healthy)) == counting(8, 108)
    assert text(rig.wait_ended(rig.start(generate("x" * 8, 8)))) == "0000001 "
    wait_until(lambda: rig.slots.taken == 0, "every slot is free")
    assert not rig.engine.has_work
    return found


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("place", ["draw", "piece"])
def test_what_goes_wrong_with_one_answer_ends_its_job_only(place: str, number: int) -> None:
    with running_loop(fake_engine(step_ms=1)) as rig:
        found = assert_neighbours_go_on(rig, f"<<raise:{place}@{number}>>", "internal_error")
    assert found[0].kind is EventKind.STARTED
    start = len(f"<<raise:{place}@{number}>>")
    assert text(found) == counting(start, start + number - 1)


def test_an_answer_that_cannot_be_read_ends_all_choices_of_its_job() -> None:
    with running_loop(fake_engine(step_ms=1)) as rig:
        prompts = [Prompt(text="x" * 8), Prompt(text="<<raise:piece@4>>")]
        job_id = rig.start(generate(prompts=prompts, num_choices=2, **FOREVER))
        found = rig.wait_ended(job_id)
        assert found[-1].error.code == "internal_error"
        assert [event.is_terminal for event in found].count(True) == 1
        wait_until(lambda: rig.slots.taken == 0, "every slot is free")
        assert not rig.engine.has_work
        assert text(rig.wait_ended(rig.start(generate("x" * 8, 8)))) == "0000001 "


def test_an_echo_that_cannot_be_read_ends_its_job_only() -> None:
    engine = fake_engine(step_ms=1)
    with running_loop(engine) as rig:
        engine.tokenizer.num_faults = 1
        prompts = [Prompt(token_ids=[120, FAULTY_ID, 120])]
        doomed = generate("", 4, prompts=prompts, echo=True, sampling={"num_logprobs": 1})
        healthy = rig.start(generate("x" * 8, 100))
        assert rig.wait_ended(rig.start(doomed))[-1].error.code == "internal_error"
        assert text(rig.wait_ended(healthy)) == counting(8, 108)


def test_a_step_that_raises_ends_the_jobs_of_its_batch_and_no_later_one() -> None:
    with running_loop(fake_engine(step_ms=1)) as rig:
        ids = [rig.start(generate("x", **FOREVER)), rig.start(generate("<<raise:step@3>>"))]
        for job_id in ids:
            assert rig.wait_ended(job_id)[-1].error.code == "engine_error"
        assert text(rig.wait_ended(rig.start(generate("x" * 8, 8)))) == "0000001 "
        assert rig.slots.taken == 0


@pytest.mark.parametrize("num_prompts", [1, 3])
def test_no_more_tokens_are_cached_than_the_prompts_have(num_prompts: int) -> None:
    """Six choices read a prompt once; each finds what the first has left."""
    with running_loop(fake_engine(slots=4)) as rig:
        prompts = [Prompt(text=f"{number} prompt " * 40) for number in range(num_prompts)]
        request = generate(prompts=prompts, num_choices=6, max_tokens=4)
        first, again = (rig.wait_ended(rig.start(request))[-1] for _ in range(2))
    assert (first.usage.prompt_tokens, first.usage.cached_tokens) == (360 * num_prompts, 0)
    assert again.usage.cached_tokens == 359 * num_prompts
    assert first.timings.prefill_tokens_per_s >= 0
    assert again.timings.prefill_tokens_per_s >= 0


def test_a_grammar_that_breaks_down_keeps_its_code() -> None:
    engine = fake_engine(step_ms=1)
    with running_loop(engine) as rig:
        healthy = rig.start(generate("x" * 8, 100))
        biases = dict.fromkeys(LETTERS, 50.0)
        request = generate("a word", None, grammar=RUNS_FULL, sampling={"logit_bias": biases})
        found = rig.wait_ended(rig.start(request))
        assert (found[-1].error.code, found[-1].error.param) == ("grammar_failed", "grammar")
        assert [event.finish_reason for event in found if event.finish_reason] == []
        assert found[-1].usage.completion_tokens == len(text(found)) > 0
        assert text(rig.wait_ended(healthy)) == counting(8, 108)
