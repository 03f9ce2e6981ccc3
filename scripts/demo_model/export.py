"""Writes models/demo/ and models/demo.gguf from a training folder.

`python -m scripts.demo_model.export --run .state/demo_model`: the same float16 values in both
formats. Needs numpy, gguf and safetensors, not PyTorch.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from scripts.demo_model.held_out import ROOT
from scripts.demo_model.template import CHAT_TEMPLATE
from scripts.modelfiles.gguf_file import GgufType, write_gguf_model
from scripts.modelfiles.mlx_folder import MlxType, write_mlx_model
from scripts.modelfiles.shape import Shape, Weights
from scripts.modelfiles.vocabulary import read_vocabulary

NAME = "mlx-gguf-server demo"
DESCRIPTION = "Small demo model, trained from generated text with scripts/demo_model"
LARGEST_BYTES = 6_000_000  # per format: both files are in the repository


def read_run(run: Path) -> tuple[Shape, Weights]:
    """The shape and the weights of a training folder, rounded to float16."""
    shape = Shape(**json.loads((run / "architecture.json").read_text(encoding="utf-8")))
    with np.load(run / "weights.npz") as archive:
        return shape, {name: archive[name].astype(np.float16) for name in archive.files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="target folder")
    arguments = parser.parse_args()
    shape, weights = read_run(arguments.run)
    vocabulary = read_vocabulary(arguments.run / "tokenizer.json", CHAT_TEMPLATE)
    folder, file = arguments.models / "demo", arguments.models / "demo.gguf"
    write_mlx_model(folder, shape, weights, vocabulary, MlxType.FLOAT16)
    write_gguf_model(file, NAME, shape, weights, vocabulary, GgufType.F16, DESCRIPTION)
    sizes = {"MLX": sum(f.stat().st_size for f in folder.iterdir()), "GGUF": file.stat().st_size}
    for name, size in sizes.items():
        print(f"{name}: {size} bytes")
    if max(sizes.values()) > LARGEST_BYTES:
        raise SystemExit(f"larger than {LARGEST_BYTES} bytes")


if __name__ == "__main__":
    main()
