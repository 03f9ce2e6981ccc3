"""PATCH /v1/internal/model: a loaded model is pinned, parked and started again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.contract.records import DesiredModel
from jobs.storage import names
from tests.integration.api_rig import Rig, running_api

PATH = "/v1/internal/model"


@pytest.fixture
def rig(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    with running_api(tmp_path, redis_url) as running:
        running.supervise()
        running.load()
        running.redis.set(names.owner_key("0"), "here|token")
        yield running


def change(rig: Rig, model_id: str = "0", **body: Any) -> httpx.Response:
    return rig.http.patch(PATH, json=body, headers={"X-Model-Id": model_id})


def desired(rig: Rig) -> DesiredModel:
    found = rig.desired_models.get("0")
    assert found is not None
    return found


def test_a_loaded_model_is_pinned_and_unpinned(rig: Rig) -> None:
    answer = change(rig, pinned=True)
    assert answer.json() == {
        "model_id": "0", "model_name": "fake", "pinned": True, "parked": False, "ttl": None,
        "priority": 0,
    }  # fmt: skip
    assert desired(rig).pinned
    assert change(rig, pinned=False, ttl=60, priority=2).status_code == 200
    found = desired(rig)
    assert (found.pinned, found.ttl_s, found.priority) == (False, 60.0, 2)
    change(rig, ttl=None)
    found = desired(rig)
    assert (found.pinned, found.ttl_s, found.priority) == (False, None, 2)


def test_an_idle_model_is_parked_and_started_again(rig: Rig) -> None:
    assert change(rig, parked=True).json()["parked"] is True
    assert desired(rig).is_parked
    assert rig.redis.get(names.take_key("0.gen.scripted")) == b"dead", "its worker takes nothing"
    assert change(rig, parked=True).json()["parked"] is True
    assert change(rig, parked=False).json()["parked"] is False
    assert not desired(rig).is_parked


def test_a_model_with_jobs_is_not_parked(rig: Rig) -> None:
    rig.post("/v1/completions", {"prompt": "x", "background": True})
    answer = change(rig, parked=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "model_busy")
    assert not desired(rig).is_parked
    rig.take()
    assert change(rig, parked=True).status_code == 409
    assert rig.redis.get(names.take_key("0.gen.scripted")) is None


def test_a_model_without_a_process_cannot_be_parked(rig: Rig) -> None:
    rig.redis.delete(names.status_key("0"))
    answer = change(rig, parked=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "pinned"),
        ({"pinned": 1}, "pinned"),
        ({"ttl": -1}, "ttl"),
        ({"priority": 101}, "priority"),
    ],
)
def test_wrong_input_is_named(rig: Rig, body: dict[str, Any], param: str) -> None:
    answer = change(rig, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_model_that_is_not_loaded_is_a_404(rig: Rig) -> None:
    assert change(rig, "9", pinned=True).status_code == 404
