"""S9: requests with templates, adapters and paths."""

from __future__ import annotations

from typing import Any

from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import Rig, worker_pid

_INJECTED = "{{ 'injected ' * 1000 }}"
_FIELDS: tuple[dict[str, Any], ...] = (
    {"chat_template": _INJECTED},
    {"template": _INJECTED},
    {"tokenizer_config": {"chat_template": _INJECTED}},
    {"chat_template_kwargs": {"chat_template": _INJECTED}},
    {"chat_template_kwargs": {"messages": [{"role": "user", "content": "injected"}]}},
    {"chat_template_kwargs": {"bos_token": "injected"}},
    {"chat_template_kwargs": {"tools": [{"name": "injected"}]}},
    {"chat_template_kwargs": {"__class__": "injected"}},
    {"chat_template_kwargs": {"enable_thinking": _INJECTED}},
    {"chat_template_kwargs": {"reasoning_effort": "x" * 10_000}},
    {"chat_template_kwargs": [1]},
    {"adapters": ["../../etc/passwd"]},
    {"adapters": "/etc"},
    {"lora": [{"id": 0, "path": "/etc/passwd"}]},
    {"adapter_name": "../secret"},
    {"adapter_name": "/etc/passwd"},
    {"adapter_name": "a\x00b"},
    {"model": "../../etc/passwd"},
    {"model": "/etc/passwd"},
    {"model_path": "/etc/passwd"},
    {"draft_model": "/etc/passwd"},
    {"grammar_file": "/etc/passwd"},
    {"slot_save_path": "/etc"},
    {"prompt_cache": "/etc/passwd"},
)


def foreign_fields(rig: Rig, rounds: int) -> Result:
    """Each is refused or has no effect: the fake engine's text depends on the prompt's length."""
    tally = Tally()
    messages = [{"role": "user", "content": "k"}]
    request = {"messages": messages, "max_tokens": 20, "temperature": 0}
    path = "/v1/chat/completions"
    with rig.server("fake") as server:
        pid = worker_pid(server)
        plain = server.post(path, request).json()["choices"][0]["message"]["content"]
        for _ in range(rounds):
            for fields in _FIELDS:
                answer = server.post(path, {**request, **fields})
                shown = f"{str(fields)[:60]}: {answer.status_code} {answer.text[:100]}"
                is_refused = answer.status_code in (400, 404)
                tally.check(is_refused or answer.status_code == 200, shown)
                if not is_refused:
                    text = answer.json()["choices"][0]["message"]["content"]
                    tally.check(text == plain, shown)
                tally.rounds += 1
        tally.check(worker_pid(server) == pid, "another worker")
    return tally.result()


RUNS = {"S9": Run(foreign_fields, full=5, fast=1)}
