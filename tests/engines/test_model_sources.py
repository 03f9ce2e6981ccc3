"""What the catalog lists of other programs can be loaded where it lies: links, blobs, parts."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from jobs.catalog.catalog import find_model, list_models
from jobs.contract.requests import LoadRequest
from tests.helpers.stores import add_files, add_to_hugging_face, add_to_ollama, settings_of
from workers.runtime.loading import load_engine

MODELS = Path(__file__).resolve().parents[2] / "models"

pytestmark = pytest.mark.real_engine


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in all sources and both formats."""
    home = tmp_path_factory.mktemp("home")
    mlx = {file.name: file.read_bytes() for file in (MODELS / "demo").iterdir()}
    data = (MODELS / "demo.gguf").read_bytes()
    snapshot = add_to_hugging_face(home / "hub", "org/mlx", mlx)
    (snapshot / "gone.json").symlink_to(snapshot / "nothing")
    add_to_hugging_face(home / "hub", "org/GGUF", split(home / "parts"))
    add_to_ollama(home / "ollama", "registry.ollama.ai/library/demo/latest", data)
    add_files(home / "lmstudio" / "org" / "mlx-lm", mlx)
    return home


def split(folder: Path) -> dict[str, bytes]:
    """The demo model as GGUF file in two parts."""
    folder.mkdir()
    reader = gguf.GGUFReader(MODELS / "demo.gguf")
    half = len(reader.tensors) // 2 + 1
    writer = gguf.GGUFWriter(folder / "demo-F16.gguf", "qwen3", split_max_tensors=half)
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture")):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_demo_model_is_in_all_sources(home: Path) -> None:
    names = [entry.name for entry in list_models(settings_of(home))]
    assert names == ["demo:latest", "org/GGUF:F16", "org/mlx", "org/mlx-lm"]


@pytest.mark.parametrize("name", ["demo:latest", "org/GGUF:F16", "org/mlx", "org/mlx-lm"])
def test_a_listed_model_can_be_loaded(home: Path, tmp_path: Path, name: str) -> None:
    """With a cache on disk, whose files belong to the identity of the model's."""
    settings = settings_of(home, prompt_cache_dir=tmp_path)
    entry = find_model(settings, name)
    loaded = load_engine(settings, LoadRequest(entry.name, entry.backend), lambda done: None)
    try:
        assert loaded.engine.tokenizer.encode("Hello", add_special=False, parse_special=False)
    finally:
        loaded.engine.close()
