"""A check that takes a sleep of the machine: what was running, waiting and stored must be there."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from api.cli.check.asking import Answer, chat, user
from api.cli.check.trial import Trial, error_of
from api.cli.client import CliError
from api.cli.doctor import Check

LOG_TTL_S = 120
SHORTEST_S = 180
"""A sleep of this length would lose results if the time asleep counted."""
_PATIENCE_S = 900.0
_JUMP_S = 5.0
_STREAM_S = 30.0
_NUM_QUEUED = 3
_NUM_ROUNDS = 2  # with one that had ended before the sleep; results must live that long


@dataclass(frozen=True, slots=True)
class _Round:
    """A stream, and the jobs that waited behind it."""

    answer: Answer
    job_ids: list[str]


def survive(trial: Trial, model_id: str, tokens_per_s: float) -> Check:
    """Keep the model busy, wait for a sleep of the machine, and look at what it interrupted.

    The server must keep results for ``LOG_TTL_S`` and have one slot. ``tokens_per_s``: the model's.
    """
    context = int(trial.process(model_id)["context_length"])
    num_tokens = min(int(_STREAM_S * tokens_per_s), context // 2)
    rounds: deque[_Round] = deque(maxlen=_NUM_ROUNDS)
    has_slept = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        work = pool.submit(_work, trial, model_id, num_tokens, rounds, has_slept)
        try:
            slept_s = _wait_for_sleep()
        finally:
            has_slept.set()
        work.result()
    if slept_s is None:
        return Check("warning", "sleep", f"the machine did not sleep in {_PATIENCE_S:g} s")
    finding = f"slept for {slept_s:.0f} s"
    if problem := _lost(trial, rounds):
        return Check("problem", "sleep", f"{finding}: {problem}")
    if slept_s < SHORTEST_S:
        return Check("warning", "sleep", f"{finding}, which proves little: at least {SHORTEST_S} s")
    return Check("ok", "sleep", f"{finding}; its stream, queued jobs and results are there")


def _work(
    trial: Trial,
    model_id: str,
    num_tokens: int,
    rounds: deque[_Round],
    has_slept: threading.Event,
) -> None:
    """Rounds of a stream with jobs behind it, until the one after the sleep has ended."""
    while not has_slept.is_set():
        with ThreadPoolExecutor(max_workers=1) as pool:
            messages = [user("Tell me a story.")]
            stream = pool.submit(chat, trial, messages, model_id, num_tokens)
            job_ids = [_submit(trial, model_id, 4) for _ in range(_NUM_QUEUED)]
            rounds.append(_Round(stream.result(), job_ids))


def _wait_for_sleep() -> float | None:
    """Wait until the wall clock jumps ahead of the monotonic one; seconds of the jump."""
    started = time.monotonic()
    before = time.time() - started
    while time.monotonic() - started < _PATIENCE_S:
        time.sleep(1.0)
        jump = time.time() - time.monotonic() - before
        if jump > _JUMP_S:
            return jump
    return None


def _lost(trial: Trial, rounds: Iterable[_Round]) -> str:
    """What of the work is not as it should be."""
    for one in rounds:
        if one.answer.error:
            return f"a stream ended with {one.answer.error}"
        for job_id in one.job_ids:
            status = _wait_ended(trial, job_id)
            if status != "finished":
                return f"a job is {status}"
    return ""


def _submit(trial: Trial, model_id: str, num: int) -> str:
    body: dict[str, Any] = {"messages": [user("Hello!")], "max_tokens": num, "background": True}
    answer = trial.post("/v1/chat/completions", body, model_id)
    if answer.is_error:
        raise CliError(f"no job is accepted: {error_of(answer)}")
    return str(answer.json()["id"])


def _wait_ended(trial: Trial, job_id: str) -> str:
    """The status of a job that has ended, or what the server says of it."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        found = trial.http.get(f"/v1/jobs/{job_id}")
        if found.is_error:
            return f"lost ({error_of(found)})"
        status = str(found.json()["status"])
        if status not in ("queued", "running"):
            return status
        time.sleep(0.5)
    return "still not ended"
