"""Models through the API: what their files and models.toml say, their states, their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.records import WorkerState
from jobs.storage import names
from tests.helpers.stores import add_described_gguf, add_to_hugging_face, add_to_ollama, mlx_files
from tests.helpers.stores import gguf as gguf_file
from tests.integration.api_rig import Rig, running_api

DESCRIBED = {
    "general.architecture": "qwen3",
    "qwen3.context_length": 4096,
    "general.file_type": 15,
    "tokenizer.chat_template": "{{ tools }}",
}


@pytest.fixture
def rig(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    """An API with models in three sources and a models.toml."""
    add_described_gguf(tmp_path / "models" / "Big-Q4_K_M.gguf", DESCRIBED)
    add_to_hugging_face(tmp_path / "hub", "org/mlx", mlx_files(2))
    add_to_ollama(tmp_path / "ollama", "registry.ollama.ai/library/llama3/8b", gguf_file("l"))
    (tmp_path / "models" / "models.toml").write_text(
        '["big"]\naliases = ["gpt-4o"]\n["llama3:8b"]\nunlisted = true\n'
        "[fake]\nunlisted = true\npinned = true\n[fake.load]\nslots = 3\n"
        "[fake.defaults]\ntemperature = 0.5\n"
    )
    sources = {"model_sources": "models,hf,ollama", "HF_HUB_CACHE": tmp_path / "hub"}
    store = {"OLLAMA_MODELS": tmp_path / "ollama"}
    with running_api(tmp_path, redis_url, **sources, **store) as running:
        yield running


def listed(rig: Rig) -> dict[str, Any]:
    return {model["id"]: model for model in rig.http.get("/v1/models").json()["data"]}


def test_models_of_all_sources_are_listed_with_their_facts(rig: Rig) -> None:
    models = listed(rig)
    assert list(models) == ["Big-Q4_K_M.gguf", "org/mlx", "tiny.gguf"]
    big = models["Big-Q4_K_M.gguf"]
    assert (big["architecture"], big["quantization"], big["context_length"]) == (
        "qwen3", "Q4_K_M", 4096,
    )  # fmt: skip
    assert (big["has_tools"], big["aliases"], big["source"]) == (True, ["gpt-4o"], "models")
    assert (models["org/mlx"]["source"], models["org/mlx"]["size_bytes"]) == ("hf", 20)
    assert models["org/mlx"]["status"]["value"] == "unloaded"
    on_disk = rig.http.get("/v1/internal/model/list").json()["model_names"]
    assert on_disk == list(models)


def test_an_unlisted_model_is_hidden_and_can_be_asked_for(rig: Rig) -> None:
    rig.load("0", "fake")
    assert "fake" not in listed(rig)
    assert rig.http.get("/v1/models/fake").json()["state"] == "ready"
    assert rig.http.get("/v1/models/LLAMA3:8B").json()["model_name"] == "llama3:8b"


def test_a_model_on_disk_is_shown_under_any_of_its_names(rig: Rig) -> None:
    big, mlx = "Big-Q4_K_M.gguf", "org/mlx"
    for name, found in {"gpt-4o": big, "big:q4_k_m": big, "mlx": mlx, "org/mlx@hf": mlx}.items():
        shown = rig.http.get(f"/v1/models/{name}").json()
        assert (shown["id"], shown["model_name"], shown["state"]) == (name, found, "unloaded")
        info = rig.http.get(f"/v1/internal/model/info/{name.rpartition('/')[2]}").json()
        assert info["model_name"] == found


def test_a_name_that_means_nothing_gets_the_nearest(rig: Rig) -> None:
    answer = rig.http.get("/v1/models/big-q4")
    assert answer.status_code == 404
    assert "did you mean 'Big-Q4_K_M.gguf'" in answer.json()["error"]["message"]


def test_states_are_also_said_in_llama_servers_words(rig: Rig) -> None:
    desired = rig.load("0", "tiny.gguf")
    for state, value in {
        WorkerState.STARTING: "loading",
        WorkerState.LOADING: "loading",
        WorkerState.READY: "loaded",
        WorkerState.STOPPING: "unloaded",
        WorkerState.FAILED: "unloaded",
    }.items():
        rig.heartbeat(desired, state=state, load_fraction=0.25)
        model = listed(rig)["tiny.gguf"]
        assert model["state"] == state.value
        progress = 0.25 if value == "loading" else None
        failed = True if state is WorkerState.FAILED else None
        assert model["status"] == {"value": value, "progress": progress, "failed": failed}


def test_a_parked_model_is_unloaded_for_llama_servers_clients(rig: Rig) -> None:
    desired = rig.load("0", "tiny.gguf")
    rig.desired_models.change("0", desired.uid, is_parked=True, pinned=True)
    model = listed(rig)["tiny.gguf"]
    assert (model["state"], model["status"]["value"]) == ("parked", "unloaded")
    assert (model["pinned"], model["expires_at"]) == (True, None)


def test_a_load_has_the_options_of_models_toml_where_it_has_none(rig: Rig) -> None:
    rig.supervise()
    body = {"llm_model_name": "FAKE", "temperature": 0.9, "background": True}
    assert rig.post("/v1/internal/model/load", body).status_code == 202
    desired = rig.desired_models.get("0")
    assert (desired.load.model_name, desired.load.slots, desired.pinned) == ("fake", 3, True)
    assert desired.load.defaults.temperature == 0.9
    assert rig.post("/v1/internal/model/load", {**body, "slots": 4}).status_code == 409
    body = {"llm_model_name": "fake", "pinned": False, "background": True}
    rig.post("/v1/internal/model/load", body, X_Model_Id="2")
    assert rig.desired_models.get("2").load.defaults.temperature == 0.5
    assert not rig.desired_models.get("2").pinned


def test_any_name_of_a_loaded_model_leads_to_it(rig: Rig) -> None:
    rig.load("0", "Big-Q4_K_M.gguf")
    for name in ("gpt-4o", "big", "BIG:Q4_K_M", "big-q4_k_m.gguf"):
        future = rig.chat_soon(model=name)
        rig.take().answer("x")
        assert future.result().json()["model"] == "Big-Q4_K_M.gguf"
    assert set(rig.desired_models.all()) == {"0"}


def test_a_request_loads_a_model_by_any_of_its_names_and_by_its_options(rig: Rig) -> None:
    rig.supervise()
    text = '["org/mlx"]\nttl = "5m"\npriority = 2\nload.slots = 5\ndefaults.top_p = 0.5\n'
    (rig.settings.models_dir / "models.toml").write_text(text)
    rig.chat_soon(model="MLX")
    queue = names.generation_queue(names.slug_of("org/mlx"))
    rig.take(queue).answer("x")
    desired = rig.desired_models.get(names.slug_of("org/mlx"))
    assert (desired.model_id, desired.origin, desired.is_parked) == ("org/mlx", "auto", True)
    assert (desired.ttl_s, desired.priority, desired.load.slots) == (300, 2, 5)
    assert desired.load.defaults.top_p == 0.5


def test_a_name_that_may_be_several_models_loads_none(rig: Rig) -> None:
    add_described_gguf(rig.settings.models_dir / "Big-Q8_0.gguf", DESCRIBED)
    rig.supervise()
    answer = rig.chat_soon(model="big").result()
    assert answer.status_code == 404
    message = answer.json()["error"]["message"]
    assert message == "'big' may be one of several models: 'Big-Q4_K_M.gguf', 'Big-Q8_0.gguf'"
    assert rig.desired_models.all() == {}


def test_a_model_id_is_no_alias_and_no_likeness(rig: Rig) -> None:
    rig.supervise()
    for model_id in ("gpt-4o", "big", "tiny"):
        answer = rig.post("/v1/completions", {"prompt": "a"}, X_Model_Id=model_id)
        assert answer.status_code == 404
    rig.post_soon("/v1/completions", {"prompt": "a"}, X_Model_Id="tiny.gguf")
    rig.take(names.generation_queue(names.slug_of("tiny.gguf"))).answer("x")
