"""Models leave the models folder: only those, and none that is loaded or to be loaded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from api.admin.models.removal import remove_model
from jobs.catalog.partial_downloads import list_partial
from jobs.contract.errors import ModelConflictError
from jobs.contract.records import DesiredModel
from jobs.contract.requests import LoadRequest
from jobs.storage import names
from tests.integration.api_rig import Rig

DELETE = "/v1/internal/model/delete"


@pytest.fixture
def models(rig: Rig) -> Path:
    return rig.settings.models_dir


def want(rig: Rig, name: str, **fields: Any) -> DesiredModel:
    """A desired model without a process."""
    options = {"draft_model": fields.pop("draft_model", None)}
    desired = DesiredModel(
        "7", "uid", LoadRequest(name, "mlx", **options), "j", time.time(), **fields
    )
    assert rig.desired_models.put(names.slug_of("7"), desired)
    return desired


def add_mlx(models: Path, name: str = "tiny") -> Path:
    folder = models / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    return folder


def test_a_folder_is_removed_with_all_that_is_in_it(rig: Rig, models: Path) -> None:
    folder = add_mlx(models)
    answer = rig.post(DELETE, {"model": "tiny"}).json()
    assert answer == {"delete": "success", "freed_bytes": 1002}
    assert not folder.exists()
    assert list_partial(models) == []
    assert (models / "tiny.gguf").exists()


def test_all_parts_of_a_split_model_are_removed(rig: Rig, models: Path) -> None:
    for part in (1, 2, 3):
        (models / f"big-{part:05}-of-00003.gguf").write_bytes(b"GGUF")
    (models / "big-00001-of-00002.gguf").write_bytes(b"GGUF")
    assert rig.post(DELETE, {"model": "big-00001-of-00003.gguf"}).json()["freed_bytes"] == 12
    assert sorted(p.name for p in models.glob("*.gguf")) == ["big-00001-of-00002.gguf", "tiny.gguf"]


def test_of_a_link_only_the_link_is_removed(rig: Rig, models: Path, tmp_path: Path) -> None:
    elsewhere = add_mlx(tmp_path / "elsewhere", "real")
    (models / "linked").symlink_to(elsewhere)
    assert rig.post(DELETE, {"model": "linked"}).status_code == 200
    assert (elsewhere / "model.safetensors").exists()
    assert not (models / "linked").is_symlink()


@pytest.mark.parametrize("is_parked", [False, True])
def test_a_model_that_is_loaded_or_parked_stays(rig: Rig, models: Path, is_parked: bool) -> None:
    folder = add_mlx(models)
    want(rig, "tiny", is_parked=is_parked)
    answer = rig.post(DELETE, {"model": "tiny"})
    assert answer.status_code == 409
    assert "is loaded as model '7': unload it first" in answer.json()["error"]["message"]
    assert (folder / "config.json").exists()


def test_a_draft_model_of_a_loaded_one_stays(rig: Rig, models: Path) -> None:
    add_mlx(models)
    want(rig, "another", draft_model="tiny")
    assert rig.post(DELETE, {"model": "tiny"}).status_code == 409


def test_only_an_entry_of_exactly_that_name_is_removed(rig: Rig) -> None:
    for name in ("none", "../models/tiny.gguf", ".pull", "tiny", "TINY.gguf", "/etc/passwd"):
        assert rig.post(DELETE, {"model": name}).status_code == 404, name


def test_the_fake_model_is_not_on_disk(rig: Rig) -> None:
    assert rig.post(DELETE, {"model": "fake"}).status_code == 400


def test_a_folder_with_another_model_in_it_stays(rig: Rig, models: Path) -> None:
    folder = add_mlx(models)
    (folder / "small-Q8_0.gguf").write_bytes(b"GGUF")
    answer = rig.post(DELETE, {"model": "tiny"})
    assert answer.status_code == 409
    assert "has 'tiny:Q8_0', too" in answer.json()["error"]["message"]
    assert rig.post(DELETE, {"model": "tiny:Q8_0"}).status_code == 200
    assert rig.post(DELETE, {"model": "tiny"}).status_code == 200


def test_a_publishers_folder_goes_with_its_last_model(rig: Rig, models: Path) -> None:
    add_mlx(models / "org", "one")
    add_mlx(models / "org", "two")
    assert rig.post(DELETE, {"model": "org/one"}).status_code == 200
    assert (models / "org" / "two").is_dir()
    assert rig.post(DELETE, {"model": "org/two"}).status_code == 200
    assert not (models / "org").exists()


def test_a_load_that_begins_meanwhile_keeps_the_model(rig: Rig, models: Path) -> None:
    folder = add_mlx(models)
    desired = DesiredModel("7", "uid", LoadRequest("tiny", "mlx"), "j", time.time())
    answers = iter([{}, {"7": desired}])
    with pytest.raises(ModelConflictError):
        remove_model(rig.settings, lambda: next(answers), "tiny")
    assert (folder / "config.json").exists()
    assert list_partial(models) == []


def test_without_unfinished_downloads_nothing_is_removed(rig: Rig) -> None:
    assert rig.post(DELETE, {"partial": True}).json()["freed_bytes"] == 0
    assert rig.post(DELETE, {"partial": True, "model": "org/none"}).status_code == 404
    assert rig.post(DELETE, {}).status_code == 400
