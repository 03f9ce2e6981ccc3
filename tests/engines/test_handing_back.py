"""A job that gives way after every few tokens says the same as one that is left alone."""

from __future__ import annotations

import time
from typing import Any

import pytest

from jobs.contract.events import Event
from jobs.contract.grammars import Grammar, GrammarKind
from jobs.contract.requests import GenerateRequest
from tests.helpers.driver import token_ids
from tests.helpers.loop_rig import LoopRig, running_loop
from tests.helpers.samples import generate
from workers.engines.base import Engine, Prefill
from workers.generation.job import GenerationJob

EVERY = 5
_SCHEMA = (
    '{"type":"object","properties":{"name":{"type":"string","minLength":20,"maxLength":60},'
    '"age":{"type":"integer"}},"required":["name","age"]}'
)
REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "seeded": {"sampling": {"temperature": 0.9, "top_p": 0.9, "seed": 11}},
    "penalties": {"sampling": {"temperature": 0.7, "seed": 5, "repetition_penalty": 1.2}},
    "mirostat": {"sampling": {"temperature": 0.8, "seed": 3, "mirostat_mode": 2}},
    "two choices": {"sampling": {"temperature": 1.0, "seed": 9}, "num_choices": 2},
    "logprobs": {"sampling": {"num_logprobs": 3}},
    "grammar": {"grammar": Grammar(GrammarKind.JSON_SCHEMA, _SCHEMA)},
}


def by_choice(events: list[Event]) -> dict[int, list[int]]:
    return {
        choice: token_ids([event for event in events if event.choice == choice])
        for choice in {event.choice for event in events}
    }


def counted_reading(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Filled with (tokens read, tokens found in the prompt cache) of each prompt from now on."""
    found: list[tuple[int, int]] = []
    note = GenerationJob.note_prefill

    def counted(job: GenerationJob, choice: int, progress: Prefill) -> None:
        if progress.num_done == progress.num_total:
            found.append((progress.num_total - progress.num_cached, progress.num_cached))
        note(job, choice, progress)

    monkeypatch.setattr(GenerationJob, "note_prefill", counted)
    return found


def handed_back(rig: LoopRig, request: GenerateRequest) -> tuple[list[Event], int]:
    """The events of a job that is handed back after every few tokens; and how often it was."""
    job_id = rig.start(request)
    rig.wait_tokens(job_id, EVERY)
    num_returns = 0
    deadline = time.monotonic() + 60
    while not (found := rig.writer.of(job_id))[-1].is_terminal:
        assert time.monotonic() < deadline
        rig.loop.hand_back(job_id)
        before = len(token_ids(found))
        while len(rig.handed_back) <= num_returns and not rig.writer.of(job_id)[-1].is_terminal:
            time.sleep(0.001)
        if len(rig.handed_back) > num_returns:
            num_returns += 1
            rig.start_again(job_id, request)
            while (
                len(token_ids(rig.writer.of(job_id))) < before + EVERY
                and not rig.writer.of(job_id)[-1].is_terminal
            ):
                time.sleep(0.001)
    return found, num_returns


@pytest.mark.parametrize("kind", REQUESTS)
def test_handed_back_a_job_says_the_same(
    engine: Engine, case: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = dict(REQUESTS[kind])
    sampling = {"ignore_eos": "grammar" not in fields, **fields.pop("sampling", {})}
    if case == "fake":
        pytest.skip("ends before it can be handed back: see test_batch_class")
    read = counted_reading(monkeypatch)
    prompt = f"{kind}: " + "Once upon a time there was a little house. " * 12
    request = generate(prompt, 48, sampling=sampling, **fields)
    with running_loop(engine, step_pause_s=0.004) as rig:
        alone = rig.wait_ended(rig.start(request))
        del read[:]
        found, num_returns = handed_back(rig, request)
        assert by_choice(found) == by_choice(alone)
        assert num_returns >= 3
        assert found[-1].usage.completion_tokens == alone[-1].usage.completion_tokens
        num_read, num_known = (sum(one) for one in zip(*read, strict=True))
        assert num_read <= max(0.05 * (num_read + num_known), len(read)), "the cache has the rest"
