"""LoRA adapters in the MLX engine: applied when the model is loaded, for every sequence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest

from jobs.contract.errors import (
    AdapterNotFoundError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from scripts.modelfiles.lora import random_updates
from scripts.modelfiles.mlx_folder import write_mlx_adapter
from scripts.modelfiles.shape import Shape
from tests.engines.tiny_mlx import GREEDY, ids, opened, run, write_qwen
from workers.engines.base import Sequence
from workers.engines.mlx.engine import MlxEngine

DEMO = Path(__file__).parents[2] / "models" / "demo"
SHAPE = Shape.from_config(DEMO / "config.json")
UPDATES = random_updates(SHAPE, ["self_attn.q_proj", "mlp.up_proj"], rank=4, seed=1)
SCALE = 4.0  # less does not turn the demo model from its phrases
PROMPTS = [[763, 20 + i, 300, 41 + 7 * i] for i in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapters folder with one adapter for the demo model, "good"."""
    folder = tmp_path_factory.mktemp("adapters")
    write_mlx_adapter(folder / "good", SHAPE, UPDATES, SCALE)
    return folder


@pytest.fixture
def spoiled(folder: Path, tmp_path: Path) -> Path:
    """A copy of "good", to be spoiled."""
    return Path(shutil.copytree(folder / "good", tmp_path / "spoiled"))


def open_demo(**options: Any) -> MlxEngine:
    return opened(DEMO, **options)


def texts(engine: MlxEngine) -> list[list[int]]:
    sequences = [Sequence(i, prompt, 40, GREEDY) for i, prompt in enumerate(PROMPTS)]
    try:
        return [ids(tokens) for tokens in run(engine, sequences).values()]
    finally:
        engine.close()


def merged(folder: Path) -> Path:
    """The demo model with the update in its matrices."""
    Path(shutil.copytree(DEMO, folder))
    weights = cast(dict[str, mx.array], mx.load(str(folder / "model.safetensors")))
    for update in UPDATES:
        name = f"{update.module}.weight"
        change = mx.array(SCALE * (update.up @ update.down))
        weights[name] = weights[name].astype(mx.float32) + change
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


def test_an_adapter_changes_the_text_as_merged_weights_do(folder: Path, tmp_path: Path) -> None:
    found = texts(open_demo(adapters_dir=folder, adapter="good"))
    assert found == texts(opened(merged(tmp_path / "merged")))
    assert found != texts(open_demo())


def test_a_sequence_may_name_the_loaded_adapter_and_no_other(folder: Path) -> None:
    engine = open_demo(adapters_dir=folder, adapter="good")
    plain = Sequence(0, PROMPTS[0], 10, GREEDY)
    assert run(engine, [replace(plain, adapter="good")]) == run(engine, [plain])
    with pytest.raises(UnsupportedParameterError) as refusal:
        engine.submit(replace(plain, adapter="other"))
    assert refusal.value.param == "adapter_name"


def test_a_model_without_an_adapter_takes_none() -> None:
    engine = open_demo()
    with pytest.raises(UnsupportedParameterError) as refusal:
        engine.submit(Sequence(0, [1], 1, GREEDY, adapter="good"))
    assert refusal.value.param == "adapter_name"


def test_names_are_looked_up_and_never_joined(folder: Path, tmp_path: Path) -> None:
    (folder / ".hidden").mkdir(exist_ok=True)
    (folder / ".hidden" / "adapter_config.json").write_text("{}")
    (folder / "empty").mkdir(exist_ok=True)
    names = ["none", "", ".", "..", "good/", "./good", f"../{folder.name}/good", ".hidden"]
    for name in [*names, "empty", str(folder / "good")]:
        with pytest.raises(AdapterNotFoundError, match="there is no adapter") as refusal:
            open_demo(adapters_dir=folder, adapter=name)
        assert refusal.value.param == "adapter_name"
    for elsewhere in (None, tmp_path / "nowhere"):
        with pytest.raises(AdapterNotFoundError, match="there is no adapter"):
            open_demo(adapters_dir=elsewhere, adapter="good")


def test_an_adapter_for_another_shape_is_refused_with_the_reason(
    folder: Path, tmp_path: Path
) -> None:
    other = write_qwen(tmp_path / "qwen")
    with pytest.raises(InvalidRequestError, match=r"shape .*does not match|not an adapter") as no:
        opened(other, adapters_dir=folder, adapter="good")
    assert no.value.param == "adapter_name"
    assert str(folder) not in no.value.message


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def widen_rank(folder: Path) -> None:
    weights = cast(dict[str, mx.array], mx.load(str(folder / "adapters.safetensors")))
    wider = {name: mx.array(np.repeat(np.array(w), 2, axis=-1)) for name, w in weights.items()}
    mx.save_safetensors(str(folder / "adapters.safetensors"), wider)


def change_weights(
    folder: Path, factor: float = 1.0, keep: Callable[[str], bool] = lambda name: True
) -> None:
    weights = cast(dict[str, mx.array], mx.load(str(folder / "adapters.safetensors")))
    kept = {name: factor * weight for name, weight in weights.items() if keep(name)}
    mx.save_safetensors(str(folder / "adapters.safetensors"), kept)


def change_scale(folder: Path, scale: Any) -> None:
    parameters = json.loads((folder / "adapter_config.json").read_text())["lora_parameters"]
    change_config(folder, lora_parameters={**parameters, "scale": scale})


SPOILS: dict[str, tuple[Any, str]] = {
    "broken config": (lambda f: truncate(f / "adapter_config.json"), "cannot be read"),
    "of another library": (
        lambda f: (f / "adapter_config.json").write_text('{"peft_type": "LORA"}'),
        "no lora_parameters",
    ),
    "no weights": (
        lambda f: (f / "adapters.safetensors").unlink(),
        "there is no adapter 'spoiled' for mlx",
    ),
    "truncated": (lambda f: truncate(f / "adapters.safetensors"), "is truncated"),
    "no scale": (lambda f: change_config(f, lora_parameters={"rank": 4}), "scale"),
    "other rank": (widen_rank, "does not match model parameter shape"),
    "other keys": (
        lambda f: change_config(
            f, lora_parameters={"rank": 4, "scale": 1.0, "dropout": 0.0, "keys": ["mlp.up_proj"]}
        ),
        "not an adapter parameter in the model",
    ),
    "half of the weights": (
        lambda f: change_weights(f, keep=lambda n: "_a" in n),
        "lacks .*lora_b",
    ),
    "weights of one layer": (lambda f: change_weights(f, keep=lambda n: ".0." in n), "lacks model"),
    "DoRA without magnitudes": (lambda f: change_config(f, fine_tune_type="dora"), r"lacks .*\.m,"),
    "no numbers": (lambda f: change_weights(f, factor=float("nan")), "not finite"),
    "endless scale": (lambda f: change_scale(f, float("inf")), "scale .* is no number"),
    "scale in words": (lambda f: change_scale(f, "much"), "scale .* is no number"),
    "layers in words": (lambda f: change_config(f, num_layers="all"), "not supported between"),
    "all weights instead": (
        lambda f: change_config(f, fine_tune_type="full"),
        "not an adapter parameter in the model",
    ),
}


@pytest.mark.parametrize("name", SPOILS)
def test_a_spoiled_adapter_is_refused_with_what_is_wrong(name: str, spoiled: Path) -> None:
    spoil, words = SPOILS[name]
    spoil(spoiled)
    with pytest.raises((InvalidRequestError, AdapterNotFoundError), match=words) as refusal:
        open_demo(adapters_dir=spoiled.parent, adapter="spoiled")
    assert refusal.value.param == "adapter_name"


def test_dropout_is_for_training_only(spoiled: Path) -> None:
    parameters = json.loads((spoiled / "adapter_config.json").read_text())["lora_parameters"]
    options = {"adapters_dir": spoiled.parent, "adapter": "spoiled"}
    expected = texts(open_demo(**options))
    change_config(spoiled, lora_parameters=parameters | {"dropout": 0.5})
    assert texts(open_demo(**options)) == expected


def test_an_adapter_that_is_only_unusual_works(spoiled: Path) -> None:
    options = {"adapters_dir": spoiled.parent, "adapter": "spoiled"}
    expected = texts(open_demo(**options))
    change_config(spoiled, num_layers=99, fine_tune_type="rslora", unknown=[1])
    weights = cast(dict[str, mx.array], mx.load(str(spoiled / "adapters.safetensors")))
    halves = {name: weight.astype(mx.float16) for name, weight in weights.items()}
    mx.save_safetensors(str(spoiled / "adapters.safetensors"), halves)
    assert texts(open_demo(**options)) == expected
