"""Templates and vocabularies that the sources of llama.cpp carry, out of the pinned package.

They are not ours to commit: the source package is asked of pip and unpacked under ``build/``.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "build" / "world"
_PACKAGE = "llama-cpp-python"
_WANTED = ("/models/templates/", "/models/ggml-vocab-")
_DOWNLOAD_TIMEOUT_S = 600


def find_models() -> Path | None:
    """llama.cpp's folder ``models``, downloaded when need be; ``None``, with a word, if not."""
    folder = _FOLDER / f"{_PACKAGE}-{version(_PACKAGE)}"
    if not folder.is_dir():
        package = _download()
        if package is None:
            return None
        _unpack(package, folder)
    return folder


def _download() -> Path | None:
    _FOLDER.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", _PACKAGE]
    command += [f"{_PACKAGE}=={version(_PACKAGE)}", "-d", str(_FOLDER)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False
    )
    found = sorted(_FOLDER.glob("llama_cpp_python-*.tar.gz"))
    if done.returncode or not found:
        reason = done.stderr.strip().splitlines()[-1:] or ["no such package"]
        print(f"skipped: pip has no source package of {_PACKAGE} ({reason[0]})")
        return None
    return found[-1]


def _unpack(package: Path, folder: Path) -> None:
    temporary = folder.with_suffix(".tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    with tarfile.open(package) as archive:
        for member in archive:
            name = member.name.partition("/models/")[2]
            if member.isfile() and any(wanted in member.name for wanted in _WANTED):
                target = temporary / name
                target.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source is not None
                target.write_bytes(source.read())
    temporary.rename(folder)
