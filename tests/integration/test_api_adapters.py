"""Adapters through HTTP: what is there, who uses it, and no way out of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.contract.records import DesiredModel
from jobs.contract.requests import LoadRequest
from tests.integration.api_rig import Rig, check_error_shape

LIST = "/v1/internal/adapter/list"


def add_adapters(folder: Path) -> None:
    (folder / "tuned").mkdir(parents=True)
    (folder / "tuned" / "adapter_config.json").write_text("{}")
    (folder / "tuned" / "adapters.safetensors").write_bytes(b"12345")
    (folder / "other.gguf").write_bytes(b"GGUF")
    (folder / "notes.txt").write_text("")


def test_the_list_is_empty_without_a_folder(rig: Rig) -> None:
    assert rig.http.get(LIST).json() == {"adapter_names": [], "adapters": []}


def test_the_list_shows_what_is_on_disk_and_who_was_loaded_with_it(rig: Rig) -> None:
    add_adapters(rig.settings.adapters_dir)
    load = LoadRequest("fake", "fake", adapter="tuned")
    assert rig.desired_models.put("7", DesiredModel("7", "uid", load, "load-7", 1.0))
    rig.load("0")
    assert rig.http.get(LIST).json() == {
        "adapter_names": ["other.gguf", "tuned"],
        "adapters": [
            {
                "name": "other.gguf",
                "model_type": "llama-cpp",
                "file_size_bytes": 4,
                "loaded_model_ids": [],
            },
            {"name": "tuned", "model_type": "mlx", "file_size_bytes": 5, "loaded_model_ids": ["7"]},
        ],
    }


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_request_for_an_adapter_that_is_not_there_is_a_404_that_names_the_field(
    rig: Rig, is_stream: bool
) -> None:
    rig.load()
    future = rig.chat_soon(adapter_name="../secret", stream=is_stream)
    job = rig.take()
    assert job.request.adapter == "../secret"
    job.failed("adapter_not_found", "there is no adapter", "adapter_name")
    answer = future.result()
    assert answer.status_code == 404
    check_error_shape(answer.json())
    assert answer.json()["error"]["param"] == "adapter_name"
