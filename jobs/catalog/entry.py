"""What the catalog knows of a model or an adapter without reading its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Source = Literal["models", "hf", "lmstudio", "ollama"]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model on disk. ``backend`` is ``mlx``, ``llama-cpp`` or ``fake``.

    ``quantization`` is what the name of a GGUF file says (``Q4_K_M``), "" if it says nothing.
    ``projector`` is the file that turns images or sound into input of the model. ``problem`` says
    why the model is not complete; then it is not listed.
    """

    name: str
    path: Path
    backend: str
    size_bytes: int
    source: Source = "models"
    quantization: str = ""
    projector: Path | None = None
    aliases: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """One LoRA adapter on disk, for models of ``backend``."""

    name: str
    path: Path
    backend: Literal["mlx", "llama-cpp"]
    size_bytes: int

    @property
    def is_file(self) -> bool:
        return self.backend == "llama-cpp"
