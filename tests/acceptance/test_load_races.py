"""Loads and unloads that meet: each call ends with an answer that says what became of it."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.helpers.server import Server

NUM_CALLS, NUM_THREADS = 200, 8
IDS, MODELS = ("one", "two"), ("fake", "fake-1ms")
LOAD, UNLOAD = "/v1/internal/model/load", "/v1/internal/model/unload"
_ANSWERS = {
    LOAD: {(200, None), (409, "model_id_in_use"), (410, "model_unloaded"), (503, "not_ready")},
    UNLOAD: {(200, None), (503, "not_ready")},
}


def call(server: Server, choice: random.Random) -> tuple[str, int, str | None]:
    """One load or unload, and the status and code of its answer."""
    model_id = choice.choice(IDS)
    path, body = UNLOAD, None
    if choice.random() < 0.6:
        path, body = LOAD, {"llm_model_name": choice.choice(MODELS)}
    answer = server.post(path, body, model_id)
    error = answer.json().get("error")
    return path, answer.status_code, error and error["code"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_loads_and_unloads_at_once_are_answered_and_leave_the_ids_usable(
    own_server: Server,
) -> None:
    for model_id in IDS:
        own_server.load("fake", model_id)
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        choices = (random.Random(number) for number in range(NUM_CALLS))
        found = Counter(threads.map(lambda choice: call(own_server, choice), choices))
    print(sorted(found.items(), key=str))
    wrong = {key: n for key, n in found.items() if key[1:] not in _ANSWERS[key[0]]}
    assert wrong == {}
    assert found[LOAD, 200, None] > 0
    assert found[UNLOAD, 200, None] > 0
    for model_id in IDS:
        own_server.unload(model_id)
        assert model_id not in own_server.processes_by_id()
        for model in MODELS:
            own_server.load(model, model_id)
            assert own_server.chat("hi", model_id, max_tokens=2).json()["model"] == model
            own_server.unload(model_id)
