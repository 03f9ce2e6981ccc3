"""Makes models with random weights, and LoRA adapters, for the MLX and the GGUF backend.

Examples, from the root of the repository:

  python scripts/make_model.py model --preset tiny --out models/tiny
      models/tiny/ (MLX float16) and models/tiny.gguf (f16), the same weights
  python scripts/make_model.py model --preset small --out models/small --format gguf \\
      --gguf-type q8_0
  python scripts/make_model.py model --preset tiny --layers 2 --vocab 4096 --out models/two --seed 7
  python scripts/make_model.py adapter --base models/demo --out adapters/demo-noise --rank 4
      adapters/demo-noise/ (MLX) and adapters/demo-noise.gguf, the same update

The same arguments give the same weights. Such a model generates random text; greedy sampling runs
to the token limit, because the end tokens have a zero logit.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
if __package__ in (None, ""):  # run as a file: makes the package `scripts` importable
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from scripts.modelfiles.gguf_file import (  # noqa: E402
    GgufType,
    write_gguf_adapter,
    write_gguf_model,
)
from scripts.modelfiles.lora import random_updates  # noqa: E402
from scripts.modelfiles.mlx_folder import (  # noqa: E402
    MlxType,
    write_mlx_adapter,
    write_mlx_model,
)
from scripts.modelfiles.shape import PRESETS, Shape, random_weights  # noqa: E402
from scripts.modelfiles.vocabulary import read_model_vocabulary  # noqa: E402

# Option of the command line -> field of Shape.
_SIZES = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv-heads": "num_key_value_heads",
    "head-dim": "head_dim",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
    "context": "max_position_embeddings",
}


def make_model(
    out: Path,
    shape: Shape,
    *,
    seed: int = 0,
    mlx_type: MlxType | None = MlxType.FLOAT16,
    gguf_type: GgufType | None = GgufType.F16,
    scales_type: type[np.float16] | type[np.float32] = np.float32,
    tokenizer: Path = ROOT / "models" / "demo",
) -> list[Path]:
    """Writes `out`/ (MLX) and `out`.gguf with the same random weights; None: not that format.

    Args:
        out: path without a suffix; its name becomes the model's name.
        tokenizer: an MLX model folder whose tokenizer is padded to the size of the vocabulary.

    Returns the paths written. Raises ValueError for a shape that cannot be written.
    """
    vocabulary = read_model_vocabulary(tokenizer).padded(shape.vocab_size)
    weights = random_weights(shape, seed, silent_tokens=vocabulary.end_ids)
    out.parent.mkdir(parents=True, exist_ok=True)
    written = []
    if mlx_type is not None:
        write_mlx_model(out, shape, weights, vocabulary, mlx_type, scales_type)
        written.append(out)
    if gguf_type is not None:
        file = _gguf_path(out)
        write_gguf_model(file, out.name, shape, weights, vocabulary, gguf_type)
        written.append(file)
    return written


def make_adapter(
    out: Path,
    shape: Shape,
    *,
    rank: int = 4,
    scale: float = 1.0,
    targets: tuple[str, ...] = ("self_attn.q_proj", "self_attn.v_proj"),
    seed: int = 0,
    mlx: bool = True,
    gguf: bool = True,
) -> list[Path]:
    """Writes `out`/ (MLX) and `out`.gguf with the same random update W + scale * up @ down."""
    updates = random_updates(shape, list(targets), rank, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    written = []
    if mlx:
        write_mlx_adapter(out, shape, updates, scale)
        written.append(out)
    if gguf:
        write_gguf_adapter(_gguf_path(out), out.name, updates, scale)
        written.append(_gguf_path(out))
    return written


def _gguf_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.gguf")  # not with_suffix: names such as "m-0.5b" have dots


def shape_from(arguments: argparse.Namespace) -> Shape:
    """The preset, with sizes replaced by those of the command line."""
    given = {
        field: getattr(arguments, option.replace("-", "_")) for option, field in _SIZES.items()
    }
    return replace(PRESETS[arguments.preset], **{k: v for k, v in given.items() if v is not None})


def _run_model(arguments: argparse.Namespace) -> list[Path]:
    shape = shape_from(arguments)
    print(f"{shape.num_parameters:,} parameters")
    scales: type[np.float16] | type[np.float32] = (
        np.float16 if arguments.mlx_scales == "float16" else np.float32
    )
    return make_model(
        arguments.out,
        shape,
        seed=arguments.seed,
        mlx_type=None if arguments.format == "gguf" else MlxType(arguments.mlx_type),
        gguf_type=None if arguments.format == "mlx" else GgufType(arguments.gguf_type),
        scales_type=scales,
        tokenizer=arguments.tokenizer,
    )


def _run_adapter(arguments: argparse.Namespace) -> list[Path]:
    return make_adapter(
        arguments.out,
        Shape.from_config(arguments.base / "config.json"),
        rank=arguments.rank,
        scale=arguments.scale,
        targets=tuple(arguments.targets),
        seed=arguments.seed,
        mlx=arguments.format != "gguf",
        gguf=arguments.format != "mlx",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="{model,adapter}")
    _add_model_command(commands.add_parser("model", help="a model with random weights"))
    _add_adapter_command(commands.add_parser("adapter", help="a random LoRA adapter"))
    return parser


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="OUT/ is MLX, OUT.gguf is GGUF")
    formats = ("both", "mlx", "gguf")
    parser.add_argument("--format", choices=formats, default="both", help="default: both")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")


def _add_model_command(parser: argparse.ArgumentParser) -> None:
    _add_common_options(parser)
    sizes = ", ".join(f"{name} {shape.num_parameters:,}" for name, shape in PRESETS.items())
    parser.add_argument(
        "--preset", choices=PRESETS, default="tiny", help=f"parameters: {sizes}; default: tiny"
    )
    for option, field in _SIZES.items():
        help_text = f"{field}, instead of the preset's"
        parser.add_argument(f"--{option}", type=int, metavar="N", help=help_text)
    gguf_types, mlx_types = [t.value for t in GgufType], [t.value for t in MlxType]
    parser.add_argument("--gguf-type", choices=gguf_types, default="f16", help="default: f16")
    parser.add_argument("--mlx-type", choices=mlx_types, default="float16", help="default: float16")
    parser.add_argument(
        "--mlx-scales",
        choices=("float32", "float16"),
        default="float32",
        help="type of the scales of 8bit and 4bit; float16 is very slow on a CPU; default: float32",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        default=ROOT / "models" / "demo",
        help="MLX folder whose tokenizer is padded; default: models/demo",
    )
    parser.set_defaults(run=_run_model)


def _add_adapter_command(parser: argparse.ArgumentParser) -> None:
    _add_common_options(parser)
    parser.add_argument("--base", type=Path, required=True, help="MLX folder of the base model")
    parser.add_argument("--rank", type=int, default=4, help="default: 4")
    parser.add_argument("--scale", type=float, default=1.0, help="default: 1.0")
    parser.add_argument(
        "--targets",
        nargs="+",
        default=["self_attn.q_proj", "self_attn.v_proj"],
        metavar="MODULE",
        help="modules of a layer; default: self_attn.q_proj self_attn.v_proj",
    )
    parser.set_defaults(run=_run_adapter)


def main() -> None:
    arguments = _parser().parse_args()
    try:
        written = arguments.run(arguments)
    except ValueError as error:
        raise SystemExit(f"make_model: {error}") from error
    for path in written:
        print(path)


if __name__ == "__main__":
    main()
