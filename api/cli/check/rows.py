"""The rows of a check: each tries one thing and says what it found.

They are what was written for Macs without one at hand, as far as a command can try it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from api.cli.check.asking import Answer, chat, chats, long_text, user
from api.cli.check.trial import Trial, error_of
from api.cli.client import CliError
from api.cli.doctor import Check, Verdict
from api.cli.tables import to_size_text
from jobs.platform.base import ask_program
from jobs.platform.current import current_platform
from jobs.platform.darwin import Darwin

_NUM_STREAMS = 4  # of each model
_NUM_TOKENS = 128
_LONGEST_PROMPT = 8000
_SHARE_OF_CONTEXT = 0.6
_FOOTPRINT = "/usr/bin/footprint"
_FOOTPRINT_UNITS = {"KB": 2**10, "MB": 2**20, "GB": 2**30}


def answers(trial: Trial, name: str, model_id: str) -> Check:
    """A load, and two answers that must be equal."""
    load_s = trial.load(name, model_id)
    found = [chat(trial, [user("Hello!")], model_id, _NUM_TOKENS) for _ in range(2)]
    if problem := _problem(found):
        return Check("problem", f"answers of {name}", problem)
    is_equal = found[0].text == found[1].text
    finding = (
        f"loaded in {load_s:.1f} s, first token after {found[1].first_s * 1000:.0f} ms, "
        f"{found[1].tokens_per_s:.0f} tokens/s"
    )
    if not is_equal:
        return Check("problem", f"answers of {name}", f"{finding}; two equal requests differ")
    return Check("ok", f"answers of {name}", finding)


def together(trial: Trial, model_ids: list[str], seconds: float) -> Iterator[Check]:
    """All models busy at once, beside each alone: nobody may starve or be restarted."""
    pids = [trial.process(model_id)["process_id"] for model_id in model_ids]
    alone = [_speed(trial, [model_id], 0.0) for model_id in model_ids]
    both = _speed(trial, model_ids, seconds)
    subject = f"{len(model_ids)} models at once"
    speeds = ", ".join(f"{speed:.0f}" for speed, _ in alone)
    finding = f"{both[0]:.0f} tokens/s together, alone {speeds}"
    if problem := both[1] or alone[0][1] or alone[-1][1]:
        yield Check("problem", subject, f"{finding}: {problem}")
    elif pids != [trial.process(model_id)["process_id"] for model_id in model_ids]:
        yield Check("problem", subject, f"{finding}; a model's process was replaced")
    else:
        yield Check("ok", subject, finding)


def too_much(trial: Trial, name: str, model_id: str) -> Iterator[Check]:
    """A prompt beyond the context, and a load at the limit of the memory."""
    length = trial.process(model_id)["context_length"]
    found = chat(trial, [user(long_text(trial, model_id, 2 * length, "too long"))], model_id)
    verdict: Verdict = "ok" if found.error.startswith("400 ") else "problem"
    yield Check(verdict, "a prompt beyond the context", found.error or "was answered")
    if not name.endswith(".gguf"):
        return
    num_slots = 256 if isinstance(current_platform(), Darwin) else 32
    options = {"slots": num_slots, "kv_layout": "per_slot", "context_length": length}
    body = {"llm_model_name": name, **options}
    answer = trial.post("/v1/internal/model/load", body, "large")
    subject = f"a load with {num_slots} whole contexts"
    if answer.is_error:
        is_right = answer.status_code in (400, 503, 507)
        yield Check("ok" if is_right else "problem", subject, f"refused: {error_of(answer)}")
    else:
        problem = _problem([chat(trial, [user("Hello!")], "large")])
        yield Check("problem" if problem else "ok", subject, problem or "loaded, and it answers")
        trial.unload("large")
    problem = _problem([chat(trial, [user("Hello!")], model_id)])
    yield Check("problem" if problem else "ok", "the model beside it", problem or "still answers")


def second_turn(trial: Trial, name: str, model_id: str) -> Check:
    """The second turn of a long chat must not read the first again."""
    messages = [user(long_text(trial, model_id, _room(trial, model_id), "a chat"))]
    first = chat(trial, messages, model_id, 16)
    messages += [{"role": "assistant", "content": first.text}, user("And then?")]
    second = chat(trial, messages, model_id, 16)
    subject = f"second turn of a long chat, {name}"
    if problem := _problem([first, second]):
        return Check("problem", subject, problem)
    finding = (
        f"first token after {first.first_s:.2f} s, then {second.first_s:.2f} s; "
        f"{second.num_cached} of {second.num_prompt} tokens were kept"
    )
    is_kept = second.num_cached >= 0.9 * first.num_prompt
    return Check("ok" if is_kept else "warning", subject, finding)


def prompt_speed(trial: Trial, model_id: str, number: int) -> tuple[float, str]:
    """Tokens per second at which a new prompt is read, median of three; and an error."""
    texts = (
        long_text(trial, model_id, _room(trial, model_id), f"prompt {number} {turn}")
        for turn in range(3)
    )
    found = [chat(trial, [user(text)], model_id, 1) for text in texts]
    if problem := _problem(found):
        return 0.0, problem
    return median((one.num_prompt - one.num_cached) / one.first_s for one in found), ""


def footprint(trial: Trial, name: str, model_id: str) -> Check:
    """Our figure of a worker's memory beside the system's."""
    subject = f"memory of {name}"
    found = trial.process(model_id)
    ours = int(found["memory_usage"])
    if not isinstance(current_platform(), Darwin):
        return Check("ok", subject, f"{to_size_text(ours)}; compared on a Mac only")
    said = ask_program([_FOOTPRINT, "-p", str(found["process_id"])]) or ""
    match = re.search(r"[Ff]ootprint: *([\d.]+) *(KB|MB|GB)", said)
    if match is None:
        return Check("warning", subject, f"{to_size_text(ours)}; {_FOOTPRINT} says nothing")
    theirs = float(match[1]) * _FOOTPRINT_UNITS[match[2]]
    verdict: Verdict = "ok" if abs(ours - theirs) <= 0.1 * theirs else "warning"
    return Check(verdict, subject, f"{to_size_text(ours)}, footprint says {match[1]} {match[2]}")


def _speed(trial: Trial, model_ids: list[str], seconds: float) -> tuple[float, str]:
    """Tokens per second of all streams, for at least ``seconds``; and an error."""
    started, num = time.monotonic(), 0
    while True:
        asked = chats(trial, model_ids, _NUM_STREAMS, _NUM_TOKENS)
        found = [one.result() for one in asked]
        num += sum(one.num_tokens for one in found)
        past_s = time.monotonic() - started
        problem = _problem(found)
        if problem or past_s >= seconds:
            return num / past_s, problem


def _room(trial: Trial, model_id: str) -> int:
    """Tokens of a long prompt that leaves room for answers."""
    length = int(trial.process(model_id)["context_length"])
    return min(int(length * _SHARE_OF_CONTEXT), _LONGEST_PROMPT)


def _problem(found: list[Answer]) -> str:
    for one in found:
        if one.error or not one.text:
            return one.error or "an empty answer"
    return ""


def models_of(folder: Path, names: list[str]) -> list[str]:
    """The given models, by default the demo models. Raises ``CliError`` for a missing one."""
    for name in names:
        if not (folder / name).exists():
            raise CliError(f"there is no model {name} in {folder}")
    return names
