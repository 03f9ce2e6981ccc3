"""The catalog: what in the models folder is a model, and no way out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.catalog.catalog import find_adapter, find_draft, find_model, list_adapters, list_models
from jobs.contract.errors import AdapterNotFoundError, InvalidRequestError, ModelNotFoundError
from jobs.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "models"
    found.mkdir()
    return found


@pytest.fixture
def settings(folder: Path) -> Settings:
    adapters = folder.parent / "adapters"
    return Settings(
        models_dir=folder, adapters_dir=adapters, state_dir=folder.parent, fake_engine=False
    )


def add_mlx(folder: Path, name: str, *sizes: int) -> None:
    (folder / name).mkdir()
    for file in ("config.json", "tokenizer.json"):
        (folder / name / file).write_text("{}")
    for number, size in enumerate(sizes):
        (folder / name / f"model-{number}.safetensors").write_bytes(b"x" * size)


def add_gguf(path: Path, size: int = 4) -> None:
    path.write_bytes(b"GGUF".ljust(size, b"x"))


def names(settings: Settings) -> list[str]:
    return [entry.name for entry in list_models(settings)]


def test_folders_and_files_are_models_by_their_format(settings: Settings, folder: Path) -> None:
    add_mlx(folder, "b-mlx", 10, 20)
    add_gguf(folder / "a.gguf", 7)
    add_gguf(folder / "C.GGUF", 5)
    found = [(entry.name, entry.backend, entry.size_bytes) for entry in list_models(settings)]
    assert found == [("C.GGUF", "llama-cpp", 5), ("a.gguf", "llama-cpp", 7), ("b-mlx", "mlx", 30)]


def test_what_is_no_model_is_not_listed(settings: Settings, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "readme.md").write_text("")
    (folder / "weights.safetensors").write_text("")
    (folder / ".hidden.gguf").write_text("")
    (folder / "folder.gguf").mkdir()
    (folder / "gone.gguf").symlink_to(folder / "nothing")
    add_mlx(folder, ".cache")
    assert names(settings) == []


@pytest.mark.parametrize(
    "name", ["mmproj-model-f16.gguf", "MMPROJ-x.gguf", "gemma-3-mmproj.gguf", "a.mmproj-q8_0.gguf"]
)
def test_a_projector_for_images_is_no_model(settings: Settings, folder: Path, name: str) -> None:
    for file in (name, "improj-model.gguf"):
        add_gguf(folder / file)
    assert names(settings) == ["improj-model.gguf"]


def test_an_incomplete_model_is_not_listed_and_found_by_its_own_name_only(
    settings: Settings, folder: Path
) -> None:
    """As in a cache of which a part was deleted. Its load says what is missing."""
    add_mlx(folder, "cut", 10)
    (folder / "cut" / "model-00001-of-00002.safetensors").write_bytes(b"x")
    add_mlx(folder, "hollow")
    for name in ("big-00001-of-00002.gguf", "whole.gguf"):
        add_gguf(folder / name)
    (folder / "big-00002-of-00002.gguf").symlink_to(folder / "nothing")
    (folder / "no.gguf").write_bytes(bytes(1000))
    assert names(settings) == ["whole.gguf"]
    for name, problem in (
        ("cut", "missing: model-00002-of-00002.safetensors"),
        ("hollow", "it has no weights (model*.safetensors)"),
        ("big-00001-of-00002.gguf", "missing: big-00002-of-00002.gguf"),
        ("no.gguf", r"not a GGUF file (it begins with b'\x00\x00\x00\x00')"),
    ):
        assert find_model(settings, name).problem == problem
        with pytest.raises(ModelNotFoundError):
            find_model(settings, name.upper())


def test_a_file_whose_name_is_no_text_hides_no_other(settings: Settings, folder: Path) -> None:
    """It could not be said in JSON."""
    settings.adapters_dir.mkdir()
    for place in (folder, settings.adapters_dir):
        add_gguf(place / "good.gguf")
        try:
            add_gguf(place / os.fsdecode(b"\xff\xfe.gguf"))
        except OSError:
            pytest.skip("this file system takes text only")
    assert names(settings) == ["good.gguf"]
    assert [entry.name for entry in list_adapters(settings.adapters_dir)] == ["good.gguf"]


def test_the_parts_of_a_split_model_are_one(settings: Settings, folder: Path) -> None:
    for stem in ("big", "odd[1]*"):
        for part in (1, 2, 3):
            add_gguf(folder / f"{stem}-0000{part}-of-00003.gguf", 4 + part)
    add_gguf(folder / "big-00001-of-00001.gguf")
    found = {entry.name: entry.size_bytes for entry in list_models(settings)}
    assert found == {
        "big-00001-of-00003.gguf": 18,
        "big-00001-of-00001.gguf": 4,
        "odd[1]*-00001-of-00003.gguf": 18,
    }


def test_a_folder_that_is_not_there_holds_nothing(settings: Settings, folder: Path) -> None:
    folder.rmdir()
    assert names(settings) == []


def test_the_folder_is_read_again_each_time(settings: Settings, folder: Path) -> None:
    assert names(settings) == []
    add_mlx(folder, "new", 1)
    assert names(settings) == ["new"]
    assert find_model(settings, "new").path == folder / "new"


@pytest.mark.parametrize(
    "name",
    [
        "../secret", "secret", "/etc", "..", ".", "", "models/../secret", "inside/", "./inside",
        "inside\x00", "~", "%2e%2e/secret", "inside\u200b", "x" * 10_000,
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(settings: Settings, folder: Path, name: str) -> None:
    add_mlx(folder.parent, "secret", 1)
    add_mlx(folder, "inside", 1)
    with pytest.raises(ModelNotFoundError) as caught:
        find_model(settings, name)
    assert caught.value.param == "llm_model_name"
    assert len(caught.value.message) < 300


def test_the_fake_model_is_there_only_when_asked_for(settings: Settings, folder: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        find_model(settings, "fake")
    trial = Settings(models_dir=folder, fake_engine=True)
    assert names(trial) == ["fake"]
    assert find_model(trial, "fake-20ms").backend == "fake"
    with pytest.raises(ModelNotFoundError):
        find_model(trial, "fake-20s")


def add_adapters(settings: Settings) -> Path:
    """An MLX adapter ``tuned`` and two GGUF ones, one of the same stem."""
    folder = settings.adapters_dir
    add_mlx_adapter(folder / "tuned")
    (folder / "tuned.gguf").write_bytes(b"x" * 3)
    (folder / "other.GGUF").write_bytes(b"x")
    return folder


def add_mlx_adapter(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text("{}")
    (path / "adapters.safetensors").write_bytes(b"x" * 5)


def test_adapters_are_listed_by_their_format(settings: Settings) -> None:
    assert list_adapters(settings.adapters_dir) == []
    folder = add_adapters(settings)
    (folder / "README.md").write_text("")
    (folder / "half").mkdir()
    (folder / "half" / "adapter_config.json").write_text("{}")
    (folder / "gone.gguf").symlink_to(folder / "nothing")
    add_mlx_adapter(folder / ".cache")
    found = [
        (entry.name, entry.backend, entry.size_bytes)
        for entry in list_adapters(settings.adapters_dir)
    ]
    assert found == [
        ("other.GGUF", "llama-cpp", 1),
        ("tuned", "mlx", 5),
        ("tuned.gguf", "llama-cpp", 3),
    ]


@pytest.mark.parametrize(
    ("name", "backend", "found"),
    [
        ("tuned", "mlx", "tuned"),
        ("tuned", "llama-cpp", "tuned.gguf"),
        ("tuned.gguf", "llama-cpp", "tuned.gguf"),
        ("other", "llama-cpp", "other.GGUF"),
        ("tuned", "fake", "tuned"),
        ("other", "fake", "other.GGUF"),
    ],
)
def test_an_adapter_is_found_for_the_models_that_can_use_it(
    settings: Settings, name: str, backend: str, found: str
) -> None:
    add_adapters(settings)
    assert find_adapter(settings.adapters_dir, name, backend).name == found


@pytest.mark.parametrize(("name", "backend"), [("other", "mlx"), ("tuned.gguf", "mlx")])
def test_an_adapter_of_the_other_format_is_not_found(
    settings: Settings, name: str, backend: str
) -> None:
    add_adapters(settings)
    with pytest.raises(AdapterNotFoundError, match=backend):
        find_adapter(settings.adapters_dir, name, backend)


@pytest.mark.parametrize(
    "name",
    [
        "../secret", "../secret.gguf", "secret", "/etc", "..", ".", "", "adapters/tuned", "tuned/",
        "./tuned", "tuned\x00", "tuned.gguf\x00", "~", "%2e%2e/secret", "TUNED", "x" * 10_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("backend", ["mlx", "llama-cpp", "fake"])
def test_no_adapters_name_leads_out_of_the_folder(
    settings: Settings, name: str, backend: str
) -> None:
    folder = add_adapters(settings)
    add_mlx_adapter(folder.parent / "secret")
    (folder.parent / "secret.gguf").write_bytes(b"x")
    with pytest.raises(AdapterNotFoundError) as caught:
        find_adapter(settings.adapters_dir, name, backend)
    assert caught.value.param == "adapter_name"
    assert len(caught.value.message) < 300


def test_a_link_in_the_folder_is_the_users_own_wish(settings: Settings, folder: Path) -> None:
    add_mlx_adapter(folder.parent / "elsewhere")
    settings.adapters_dir.mkdir()
    (settings.adapters_dir / "linked").symlink_to(folder.parent / "elsewhere")
    assert find_adapter(settings.adapters_dir, "linked", "mlx").name == "linked"


def test_a_draft_is_a_model_for_the_same_library(settings: Settings, folder: Path) -> None:
    add_mlx(folder, "small")
    assert find_draft(settings, "small", "mlx").path == folder / "small"
    with pytest.raises(InvalidRequestError, match="small") as caught:
        find_draft(settings, "small", "llama-cpp")
    assert caught.value.param == "draft_model"
    with pytest.raises(ModelNotFoundError) as unknown:
        find_draft(settings, "../small", "mlx")
    assert unknown.value.param == "draft_model"
