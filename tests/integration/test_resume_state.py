"""What a sequence carries besides its tokens survives the death of its worker."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from jobs.contract.events import Event
from jobs.contract.requests import GenerateRequest
from tests.helpers.driver import Driver, assert_whole, text, token_ids
from tests.helpers.samples import generate

SLOW = "fake-20ms"
LENGTH = 60


def undisturbed_and_cut(driver: Driver, request: GenerateRequest) -> list[list[Event]]:
    """The job's events with a worker that lives, and with one that is killed on the way."""
    pid = driver.load_ready(SLOW).pid
    whole = driver.submit(request)
    driver.wait_ended(whole)
    cut = driver.submit(request)
    driver.wait_running(cut, 5)
    os.kill(pid, signal.SIGKILL)
    found = [driver.wait_ended(job_id) for job_id in (whole, cut)]
    assert {event.attempt for event in found[1]} == {1, 2}
    for events in found:
        assert_whole(events)
    return found


@pytest.mark.parametrize("mode", [1, 2])
def test_mirostat_goes_on_where_it_stood(driver: Driver, mode: int) -> None:
    sampling: dict[str, Any] = {"seed": 3, "temperature": 2.0, "mirostat_mode": mode}
    whole, cut = undisturbed_and_cut(driver, generate("k" * 8, LENGTH, sampling=sampling))
    assert token_ids(cut) == token_ids(whole)
    last = [
        [e.mirostat_mu for e in events if e.mirostat_mu is not None][-1] for events in (whole, cut)
    ]
    assert last[0] == last[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"xtc_probability": 0.5, "xtc_threshold": 0.02, "dynatemp_range": 0.5},
        {"dry_multiplier": 5.0, "dry_allowed_length": 1, "temperature": 1.0},
        {"dry_multiplier": 1.0, "dry_penalty_last_n": 30, "top_n_sigma": 2.0},
    ],
)
def test_samplers_that_look_back_or_act_by_chance_go_on_the_same(
    driver: Driver, settings: dict[str, Any]
) -> None:
    sampling: dict[str, Any] = {"seed": 3, "temperature": 2.0, **settings}
    whole, cut = undisturbed_and_cut(driver, generate("k" * 8, LENGTH, sampling=sampling))
    assert token_ids(cut) == token_ids(whole)


def test_an_echoed_prompt_is_sent_once(driver: Driver) -> None:
    prompt = "k" * 300
    request = generate(prompt, LENGTH, echo=True, sampling={"num_logprobs": 1})
    whole, cut = undisturbed_and_cut(driver, request)
    assert text(cut) == text(whole)
    assert text(cut).startswith(prompt)
    parts = [[e.prompt for e in events if e.prompt is not None] for events in (whole, cut)]
    assert parts[0] == parts[1]
    assert [len(part) for part in parts[1]] == [256, 44]
    logprobs = [[p for e in events for p in e.logprobs or []] for events in (whole, cut)]
    assert logprobs[0] == logprobs[1]
