"""Memory over HTTP: estimates of models on disk, what is reserved and used, budgets of machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.catalog.catalog import find_model
from jobs.contract.records import NodeStatus
from jobs.contract.requests import LoadRequest
from jobs.memory.ledger import MemoryKey, MemoryLedger
from jobs.storage import names
from tests.integration.api_rig import Rig

ESTIMATE = "/v1/internal/model/estimate"
GIB = 1 << 30


@pytest.fixture(autouse=True)
def models(rig: Rig) -> None:
    demo = Path(__file__).parents[2] / "models"
    rig.settings.models_dir.mkdir(exist_ok=True)
    for name in ("demo", "demo.gguf"):
        (rig.settings.models_dir / name).symlink_to(demo / name)


def supervise(rig: Rig, node: str, budget: int | None, **reserved: int) -> None:
    status = NodeStatus(
        node,
        1,
        16 * GIB,
        uid=node,
        reserved=reserved,
        budget_bytes=budget,
        binding="" if budget is None else "memory",
    )
    rig.desired_models.heartbeat_node(status)
    rig.redis.persist(names.node_key(node))


@pytest.mark.parametrize(("name", "kind"), [("demo", "mlx"), ("demo.gguf", "llama-cpp")])
def test_a_model_on_disk_is_estimated_without_loading_it(rig: Rig, name: str, kind: str) -> None:
    supervise(rig, "here", 10 * GIB)
    answer = rig.http.get(ESTIMATE, params={"llm_model_name": name, "context_length": 512})
    found = answer.json()
    assert answer.status_code == 200, found
    assert (found["model_name"], found["model_type"], found["basis"]) == (name, kind, "header")
    parts = ("weights_bytes", "state_bytes", "compute_bytes", "prompt_cache_bytes")
    assert found["total_bytes"] == sum(found[part] for part in parts)
    assert found["context_length"] == 512
    assert (found["budget_bytes"], found["binding"], found["fits"]) == (10 * GIB, "memory", True)


def test_what_is_more_than_the_largest_budget_does_not_fit(rig: Rig) -> None:
    supervise(rig, "one", 1000)
    supervise(rig, "two", 2000)
    found = rig.http.get(ESTIMATE, params={"llm_model_name": "demo"}).json()
    assert (found["budget_bytes"], found["fits"]) == (2000, False)


def test_what_an_earlier_process_took_counts(rig: Rig) -> None:
    entry = find_model(rig.settings, "demo")
    key = MemoryKey.of(entry, LoadRequest("demo", "mlx"), rig.settings)
    MemoryLedger(rig.settings.state_dir).note(key, 3 * GIB)
    found = rig.http.get(ESTIMATE, params={"llm_model_name": "demo"}).json()
    assert found["basis"] == "measured"
    assert found["total_bytes"] == 3 * GIB + found["prompt_cache_bytes"]


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ({}, 400, "llm_model_name"),
        ({"llm_model_name": "gone"}, 404, "llm_model_name"),
        ({"llm_model_name": "demo", "draft_model": "gone"}, 404, "draft_model"),
        ({"llm_model_name": "demo", "kv_bits": 7}, 400, "kv_bits"),
        ({"llm_model_name": "demo", "slots": "many"}, 400, "slots"),
        ({"llm_model_name": "demo", "colour": "red"}, 400, "colour"),
    ],
)
def test_a_wrong_query_is_refused_by_its_name(
    rig: Rig, query: dict[str, str], status: int, param: str
) -> None:
    answer = rig.http.get(ESTIMATE, params=query)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param


def test_used_and_reserved_memory_are_shown_with_the_machines_budgets(rig: Rig) -> None:
    rig.heartbeat(rig.load(), memory_bytes=3000, prompt_cache_bytes=400)
    supervise(rig, "here", 10_000, **{names.slug_of("0"): 5000})
    supervise(rig, "older", None)
    shown = rig.http.get("/management/processes").json()
    [process] = shown["processes"]
    assert process["memory_usage"] == 3000
    assert process["reserved_bytes"] == 5000
    assert process["prompt_cache_bytes"] == 400
    by_name = {node["node"]: node for node in shown["nodes"]}
    here = by_name["here"]
    assert (here["budget_bytes"], here["reserved_bytes"]) == (10_000, 5000)
    assert (here["available_bytes"], here["binding"]) == (5000, "memory")
    assert (by_name["older"]["budget_bytes"], by_name["older"]["binding"]) == (None, None)


def test_budgets_of_machines_with_one_name_are_added_in_the_metrics(rig: Rig) -> None:
    supervise(rig, "here", 10_000, a=1, b=2)
    other = NodeStatus("here", 2, 0, uid="other", budget_bytes=500, reserved={"c": 4})
    rig.desired_models.heartbeat_node(other)
    text = rig.http.get("/metrics").text
    assert 'mgs_memory_budget_bytes{node="here"} 10500.0' in text
    assert 'mgs_memory_reserved_bytes{node="here"} 7.0' in text
