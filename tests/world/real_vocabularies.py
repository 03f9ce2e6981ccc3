"""Real vocabularies in our tokenizer class, compared with what llama.cpp's tests expect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jobs.contract.requests import Message, Prompt
from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.load.tokenizer import LlamaCppTokenizer
from workers.generation.prompts import PromptEncoder
from workers.text.grammar import _Vocabulary

_BETWEEN = "\n__ggml_vocab_test__\n"
_ROUND_TRIPS = ["Hello, world!", "  two  blanks\n\n", "Grüße 日本語 👋🏽", '{"a": [1, 2.5]}', "▁x"]


def print_table(models: Path) -> bool:
    """Whether every vocabulary does what it must."""
    print(f"\n{'vocabulary':18} {'cases':>9} {'joined':>7} {'forced':>7} {'control':>8} {'BOS':>4}")
    good = True
    for path in sorted(models.glob("ggml-vocab-*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        row = _row(path)
        print(f"{name:18} " + row)
        good = good and "!" not in row
    print("cases: equal to llama.cpp's expected tokens; joined: pieces are the text; forced: the")
    print("same for texts that a grammar forces; control: tokens of clients stay text in a chat;")
    print("BOS: once in a raw prompt that begins with it. ! is wrong.")
    return good


def _row(path: Path) -> str:
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        return "llama.cpp cannot load it"
    tokenizer = LlamaCppTokenizer(model)
    try:
        return _checked(path, tokenizer)
    finally:
        tokenizer.close()
        lib.llama_model_free(model)


def _checked(path: Path, tokenizer: LlamaCppTokenizer) -> str:
    cases = list(_cases(path))
    num_equal = sum(
        tokenizer.encode(text, add_special=False, parse_special=False) == ids for text, ids in cases
    )
    joined = sum(_is_joined(tokenizer, text) for text in _ROUND_TRIPS)
    forced = sum(_is_forced(tokenizer, text) for text in _ROUND_TRIPS)
    mark = "" if num_equal == len(cases) else "!"
    control = "yes" if _stay_text(tokenizer) else "no!"
    bos = "yes" if _has_bos_once(tokenizer) else "no!"
    of = len(_ROUND_TRIPS)
    return (
        f"{num_equal}/{len(cases)}{mark:1} ".rjust(10)
        + f"{joined}/{of} ".rjust(8)
        + (f"{forced}/{of} ".rjust(8) + f"{control:>8} {bos:>4}")
    )


def _cases(path: Path) -> Iterator[tuple[str, list[int]]]:
    """The texts and tokens that llama.cpp's tests expect."""
    texts, tokens = path.with_name(path.name + ".inp"), path.with_name(path.name + ".out")
    if texts.is_file() and tokens.is_file():
        # The files are read as bytes: some texts hold a carriage return.
        found = texts.read_bytes().decode().split(_BETWEEN)
        lines = tokens.read_text(encoding="utf-8").splitlines()
        for text, line in zip(found, lines, strict=False):
            yield text, [int(one) for one in line.split()]


def _joined(tokenizer: LlamaCppTokenizer, ids: list[int]) -> str:
    return b"".join(map(tokenizer.piece, ids)).decode(errors="replace")


def _is_joined(tokenizer: LlamaCppTokenizer, text: str) -> bool:
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    return _joined(tokenizer, ids) in (text, " " + text)


def _is_forced(tokenizer: LlamaCppTokenizer, text: str) -> bool:
    return _joined(tokenizer, _Vocabulary(tokenizer)(text)) == text


def _stay_text(tokenizer: LlamaCppTokenizer) -> bool:
    encoder = PromptEncoder(tokenizer, "chatml")
    texts = [tokenizer.control_text(i) for i in range(tokenizer.vocab_size)]
    # A file may list its unknown token, or one of a single character, as a control token.
    attack = "x".join([text for text in texts if len(text) > 1][:64])
    found = encoder.encode(Prompt(messages=[Message("user", attack)]))
    plain = encoder.encode(Prompt(messages=[Message("user", "fine")]))
    control = [i for i in found if tokenizer.control_text(i) and not _is_unknown(tokenizer, i)]
    return control == [i for i in plain if tokenizer.control_text(i)]


def _is_unknown(tokenizer: LlamaCppTokenizer, token_id: int) -> bool:
    return tokenizer.control_text(token_id) in ("<unk>", "[UNK]")


def _has_bos_once(tokenizer: LlamaCppTokenizer) -> bool:
    bos = tokenizer.bos_token
    if not bos:
        return True
    ids = PromptEncoder(tokenizer, "chatml").encode(Prompt(text=f"{bos}Hello"))
    return [tokenizer.control_text(i) for i in ids].count(bos) == 1
