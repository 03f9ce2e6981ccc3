"""Which files of a repository make a model: an MLX folder, or the parts of one GGUF file."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from jobs.contract.errors import PullError, RepoNotFoundError
from workers.pull.hub import RemoteFile

DEFAULT_QUANT = "Q4_K_M"

# ``DEFAULT_ALLOW_PATTERNS`` of mlx-lm's utils.py without "*.py": code is never downloaded.
_MLX_PATTERNS = (
    "*.json", "model*.safetensors", "tokenizer.model", "*.tiktoken", "tiktoken.model", "*.txt",
    "*.jsonl", "*.jinja",
)  # fmt: skip
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})$")
_QUANT = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4))"
    r"(?=$|[-._/])"
)
_NO_MODEL = re.compile(r"(^|[-_.])(mmproj|imatrix)([-_.]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Choice:
    """The files of one model, and the entries of the models folder that they become.

    An MLX model becomes the folder ``name`` with the files below it; of a GGUF model each file
    becomes an entry, and the first is its ``name``. ``quant`` is "" for an MLX model.
    """

    name: str
    files: tuple[RemoteFile, ...]
    quant: str = ""
    is_folder: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def weights_bytes(self) -> int:
        weights = (".safetensors", ".gguf")
        return sum(file.size for file in self.files if file.path.lower().endswith(weights))

    def place_of(self, file: RemoteFile) -> str:
        """The file's path below the model's folder, or its name in the models folder."""
        return file.path if self.is_folder else PurePosixPath(file.path).name


def choose(repo: str, files: Sequence[RemoteFile], quant: str) -> Choice:
    """The model of the repository; ``quant`` chooses among its GGUF models ("": ours to choose).

    Raises ``RepoNotFoundError`` with the choices, or ``PullError`` for a repository without a
    model.
    """
    safe = [file for file in files if _is_safe(file.path)]
    models = _gguf_models(safe)
    if models and (quant or not _is_mlx(safe)):
        return _gguf_choice(repo, models, quant)
    if quant:
        raise RepoNotFoundError(f"{repo} has no GGUF files to choose {quant} from", "model")
    if not _is_mlx(safe):
        message = f"{repo} has neither GGUF files nor config.json with model*.safetensors"
        raise PullError(message, "model")
    chosen = tuple(file for file in safe if any(fnmatchcase(file.path, p) for p in _MLX_PATTERNS))
    return Choice(repo.rpartition("/")[2], chosen, is_folder=True)


def _is_safe(path: str) -> bool:
    """Whether the path stays below the folder that it is joined to, and is no hidden file."""
    parts = path.split("/")
    return (
        path.isprintable()
        and "\\" not in path
        and not any(part == "" or part.startswith(".") for part in parts)
    )


def _is_mlx(files: Sequence[RemoteFile]) -> bool:
    paths = {file.path for file in files}
    return "config.json" in paths and any(fnmatchcase(p, "model*.safetensors") for p in paths)


def _gguf_models(files: Sequence[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """The parts of each GGUF model in order, by its path without suffix and part number."""
    models: dict[str, list[RemoteFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: file.path):
        path = PurePosixPath(file.path)
        if path.suffix.lower() == ".gguf" and not _NO_MODEL.search(path.stem):
            models[_SPLIT.sub("", file.path[: -len(path.suffix)])].append(file)
    return models


def _gguf_choice(repo: str, models: dict[str, list[RemoteFile]], quant: str) -> Choice:
    labels = {stem: _label(stem) for stem in models}
    wanted = _normal(quant.removesuffix(".gguf") or DEFAULT_QUANT)
    found = [stem for stem in models if wanted in (labels[stem], _normal(stem.rpartition("/")[2]))]
    if not found and not quant and len(models) == 1:
        found = list(models)
    if len(found) != 1:
        raise RepoNotFoundError(_choices(repo, labels, found, quant), "model")
    parts = models[found[0]]
    _check_parts(repo, found[0], parts)
    return Choice(PurePosixPath(parts[0].path).name, tuple(parts), labels[found[0]])


def _label(stem: str) -> str:
    """The quantization in a file's path, as it is usually written; without one, the file's name."""
    found = _QUANT.findall(stem.upper())
    return _normal(found[-1]) if found else _normal(stem.rpartition("/")[2])


def _normal(quant: str) -> str:
    return re.sub(r"^FP(16|32)$", r"F\1", quant.upper())


def _choices(repo: str, labels: dict[str, str], found: Sequence[str], quant: str) -> str:
    if found:  # several files of one quantization
        names = ", ".join(sorted(stem.rpartition("/")[2] for stem in found))
        return f"{repo} has several models of that kind: choose one of {names}"
    names = ", ".join(sorted(set(labels.values())))
    missing = f"no {quant}" if quant else f"no {DEFAULT_QUANT} among its GGUF files"
    return f"{repo} has {missing}: choose one of {names} (as {repo}:NAME)"


def _check_parts(repo: str, stem: str, parts: Sequence[RemoteFile]) -> None:
    counts = [_SPLIT.search(PurePosixPath(part.path).stem) for part in parts]
    numbers = [(int(found[1]), int(found[2])) for found in counts if found]
    whole = [(number, len(parts)) for number in range(1, len(parts) + 1)]
    is_single = len(parts) == 1 and not numbers
    if not is_single and numbers != whole:
        raise PullError(f"{repo} has not all parts of {stem}", "model")
