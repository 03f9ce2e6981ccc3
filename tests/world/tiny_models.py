"""Tiny models with the tokenizers of ``tokenizers/kinds``, mostly of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import tokenizers
from safetensors.numpy import save_file

from scripts.modelfiles.gguf_file import GgufType, write_gguf_model
from scripts.modelfiles.shape import Shape, Weights, random_weights
from tests.world.tokenizers.kinds import BOS, BYTES, CONTROL, END, EOS, KINDS, UNKNOWN
from workers.engines.base import Engine, EngineOptions
from workers.engines.factory import open_engine

MakeWeights = Callable[[tokenizers.Tokenizer], tuple[Shape, Weights]]

_GGUF_MODELS = {
    "byte_level": "gpt2",
    "sentencepiece": "llama",
    "word_piece": "bert",
    "unigram": "t5",
}

# Kind of tokenizer and backend. What tokenizer.json can say beyond these, GGUF files do not have.
CASES = [
    *(f"{kind}-mlx" for kind in KINDS),
    *(f"{kind}-llama-cpp" for kind in _GGUF_MODELS),
]


def open_tiny(folder: Path, case: str, template: str = "", **options: Any) -> Engine:
    """The engine of ``case``, on a model written into ``folder``."""
    kind, _, backend = case.partition("-")
    write = write_mlx if backend == "mlx" else write_gguf
    path = write(folder, kind, template)
    return open_engine(backend, path, EngineOptions(**options), lambda fraction: None)


def make_tokenizer(kind: str, tokens: Sequence[tokenizers.AddedToken] = ()) -> tokenizers.Tokenizer:
    """The tokenizer of that kind, with further tokens."""
    tokenizer = KINDS[kind]()
    tokenizer.add_special_tokens([token for token in tokens if token.special])
    tokenizer.add_tokens([token for token in tokens if not token.special])
    return tokenizer


def random_model(tokenizer: tokenizers.Tokenizer) -> tuple[Shape, Weights]:
    """Some ten thousand random parameters; it never writes a control token by itself."""
    shape = Shape(64, 2, 2, 1, 32, 64, tokenizer.get_vocab_size(), 4096)
    silent = [tokenizer.token_to_id(text) for text in (UNKNOWN, *CONTROL)]
    return shape, random_weights(shape, seed=7, silent_tokens=silent)


def write_mlx(
    folder: Path,
    kind: str,
    template: str = "",
    name: str = "",
    tokens: Sequence[tokenizers.AddedToken] = (),
    make_weights: MakeWeights = random_model,
) -> Path:
    tokenizer = make_tokenizer(kind, tokens)
    shape, weights = make_weights(tokenizer)
    path = folder / (name or kind)
    path.mkdir()
    save_file(weights, path / "model.safetensors", metadata={"format": "mlx"})
    is_tied = "lm_head.weight" not in weights
    config = {"model_type": "qwen3", **shape.to_dict(), "tie_word_embeddings": is_tied}
    config["eos_token_id"] = tokenizer.token_to_id(END)
    settings: dict[str, Any] = {"bos_token": BOS, "eos_token": EOS}
    if template:
        settings["chat_template"] = template
    for file, content in (("config.json", config), ("tokenizer_config.json", settings)):
        (path / file).write_text(json.dumps(content), encoding="utf-8")
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def write_gguf(
    folder: Path,
    kind: str,
    template: str = "",
    name: str = "",
    tokens: Sequence[tokenizers.AddedToken] = (),
    make_weights: MakeWeights = random_model,
) -> Path:
    tokenizer = make_tokenizer(kind, tokens)
    shape, weights = make_weights(tokenizer)
    path = folder / f"{name or kind}.gguf"
    write_gguf_model(
        path, kind, shape, weights, _vocabulary(kind, tokenizer, template), GgufType.F16
    )
    return path


def _vocabulary(
    kind: str, tokenizer: tokenizers.Tokenizer, template: str
) -> Callable[[gguf.GGUFWriter], None]:
    def add(writer: gguf.GGUFWriter) -> None:
        model = json.loads(tokenizer.to_str())["model"]
        ids = {role: tokenizer.token_to_id(text) for role, text in _SPECIAL.items()}
        writer.add_tokenizer_model(_GGUF_MODELS[kind])
        writer.add_tokenizer_pre("qwen2" if kind == "byte_level" else "default")
        tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
        writer.add_token_list([_spelled(kind, token, tokenizer) for token in tokens])
        writer.add_token_types([_type(token, tokenizer) for token in tokens])
        writer.add_token_scores(_scores(kind, tokens, model))
        if kind == "byte_level":
            writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
        writer.add_bos_token_id(ids["bos"])
        writer.add_eos_token_id(ids["eos"])
        writer.add_eot_token_id(ids["eot"])
        writer.add_unk_token_id(ids["unk"])
        writer.add_sep_token_id(ids["eos"])
        writer.add_pad_token_id(ids["eos"])
        writer.add_mask_token_id(ids["unk"])
        writer.add_add_bos_token(kind == "sentencepiece")
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(kind in ("sentencepiece", "unigram"))
        if template:
            writer.add_chat_template(template)

    return add


_SPECIAL = {"bos": BOS, "eos": EOS, "eot": END, "unk": UNKNOWN}


def _spelled(kind: str, token: str, tokenizer: tokenizers.Tokenizer) -> str:
    """WordPiece is turned round there: what begins a word is marked, what continues it is not."""
    if kind != "word_piece" or _added(token, tokenizer) is not None:
        return token
    return token.removeprefix("##") if token.startswith("##") else "▁" + token


def _added(token: str, tokenizer: tokenizers.Tokenizer) -> tokenizers.AddedToken | None:
    found = tokenizer.get_added_tokens_decoder()
    return found.get(tokenizer.token_to_id(token))


def _type(token: str, tokenizer: tokenizers.Tokenizer) -> gguf.TokenType:
    added = _added(token, tokenizer)
    if token == UNKNOWN:
        return gguf.TokenType.UNKNOWN
    if added is not None:
        return gguf.TokenType.CONTROL if added.special else gguf.TokenType.USER_DEFINED
    return gguf.TokenType.BYTE if token in _BYTES else gguf.TokenType.NORMAL


_BYTES = set(BYTES)


def _scores(kind: str, tokens: list[str], model: dict[str, Any]) -> list[float]:
    """A word's own, or the rank of the merge that makes it."""
    if kind == "unigram":
        found = dict(model["vocab"])
        return [float(found.get(token, 0.0)) for token in tokens]
    ranks = {"".join(pair): -1.0 - i for i, pair in enumerate(model.get("merges", []))}
    return [ranks.get(token, 0.0) for token in tokens]
