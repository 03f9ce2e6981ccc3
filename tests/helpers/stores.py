"""Models folders and stores of other programs, as those programs lay them out; files are tiny."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from jobs.settings import Settings
from tests.gguf_bytes import Metadata, gguf_bytes

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL_LAYER = "application/vnd.ollama.image.model"


def settings_of(
    home: Path, sources: str = "models,hf,lmstudio,ollama", **fields: object
) -> Settings:
    """Settings whose stores lie in ``home``."""
    values: dict[str, object] = {
        "models_dir": home / "models",
        "state_dir": home / "state",
        "model_sources": sources,
        "HF_HUB_CACHE": home / "hub",
        "lmstudio_dir": home / "lmstudio",
        "OLLAMA_MODELS": home / "ollama",
    }
    return Settings(**values | fields)


def gguf(name: str = "", kind: str = "model", architecture: str = "llama") -> bytes:
    """A GGUF header; ``name`` makes it differ from others."""
    return gguf_bytes(
        {"general.architecture": architecture, "general.type": kind, "general.name": name}
    )


def add_gguf(path: Path, **fields: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf(path.name, **fields))


def add_described_gguf(path: Path, metadata: Metadata) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf_bytes(metadata))


def mlx_files(num_shards: int = 1) -> dict[str, bytes]:
    """The files of an MLX model; with several shards also their index."""
    if num_shards == 1:
        return {"config.json": b"{}", "model.safetensors": b"x" * 10, "tokenizer.json": b"{}"}
    shards = [f"model-{n:05}-of-{num_shards:05}.safetensors" for n in range(1, num_shards + 1)]
    places = {f"layer.{number}": shard for number, shard in enumerate(shards)}
    return {
        "config.json": b"{}",
        "model.safetensors.index.json": json.dumps({"weight_map": places}).encode(),
        **dict.fromkeys(shards, b"x" * 10),
        "tokenizer.json": b"{}",
    }


def add_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def add_to_hugging_face(hub: Path, repository: str, files: dict[str, bytes]) -> Path:
    """A repository in the cache: blobs, a snapshot of links, the ref; returns the snapshot."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    (folder / "blobs").mkdir(parents=True)
    for name, data in files.items():
        blob = folder / "blobs" / hashlib.sha256(name.encode() + data).hexdigest()
        blob.write_bytes(data)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        depth = len(link.relative_to(folder).parts) - 1
        link.symlink_to(Path(*[".."] * depth, "blobs", blob.name))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return snapshot


def add_to_ollama(store: Path, name: str, data: bytes, **layers: bytes) -> Path:
    """A model ``host/namespace/model/tag`` with further layers by kind; returns its blob."""
    every = [_layer(store, MODEL_LAYER, data)]
    every += [_layer(store, f"application/vnd.ollama.image.{k}", v) for k, v in layers.items()]
    manifest = store / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": every}))
    return store / "blobs" / str(every[0]["digest"]).replace(":", "-")


def _layer(store: Path, kind: str, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    (store / "blobs" / f"sha256-{digest}").write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}
