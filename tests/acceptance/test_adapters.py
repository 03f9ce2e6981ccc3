"""LoRA adapters of both formats, from the folder to the text, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from scripts.make_model import make_adapter
from scripts.modelfiles.shape import Shape
from tests.helpers.server import ROOT, Server, make_server

pytestmark = pytest.mark.timeout(180)

STORY = "Tell me a story, please."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the adapters ``one.gguf`` and ``one`` (MLX) for the demo model."""
    folder = tmp_path_factory.mktemp("adapters")
    shape = Shape.from_config(ROOT / "models" / "demo" / "config.json")
    make_adapter(folder / "one", shape, scale=4.0, seed=1)
    server = make_server(MGS_ADAPTERS_DIR=str(folder))
    server.start_all()
    yield server
    assert server.stop() == []


@pytest.fixture(autouse=True)
def _nothing_loaded(server: Server) -> Iterator[None]:
    yield
    server.unload_all()


def story(server: Server, model_id: str, **fields: str) -> str:
    answer = server.chat(STORY, model_id, max_tokens=40, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_the_folder_is_listed_with_who_was_loaded_with_what(server: Server) -> None:
    server.load("demo", "0", adapter_name="one")
    listed = httpx.get(f"{server.url}/v1/internal/adapter/list", timeout=10).json()
    assert listed["adapter_names"] == ["one", "one.gguf"]
    mlx, gguf = listed["adapters"]
    assert (mlx["model_type"], mlx["loaded_model_ids"]) == ("mlx", ["0"])
    assert (gguf["model_type"], gguf["loaded_model_ids"]) == ("llama-cpp", [])


@pytest.mark.parametrize("model", ["demo", "demo.gguf"])
def test_an_adapter_given_at_load_changes_every_text(server: Server, model: str) -> None:
    server.load(model, "0")
    server.load(model, "1", adapter_name="one")
    assert story(server, "0") != story(server, "1")
    assert story(server, "1", adapter_name="one") == story(server, "1")
    answer = server.post("/v1/internal/model/load", {"llm_model_name": model}, "1")
    assert answer.status_code == 409


def test_a_gguf_model_takes_one_per_request(server: Server) -> None:
    server.load("demo.gguf", "0")
    server.load("demo.gguf", "1", adapter_name="one")
    assert story(server, "0", adapter_name="one") == story(server, "1")
    assert story(server, "0", adapter_name="one.gguf") == story(server, "1")
    assert story(server, "0") != story(server, "1")


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_mlx_model_refuses_another_than_its_own_before_any_token(
    server: Server, is_stream: bool
) -> None:
    server.load("demo", "0")
    answer = server.chat(STORY, "0", adapter_name="one", stream=is_stream)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "adapter_name"
