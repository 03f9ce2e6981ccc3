"""The bytes of single tokens; a token may be only a part of a character."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from tokenizers import Tokenizer as HfTokenizer

PieceReader = Callable[[int], bytes]

_KEPT = 1 << 14
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def piece_reader(tokenizer: HfTokenizer) -> PieceReader:
    """A function that returns the bytes of a token id."""
    decoder = tokenizer.decoder
    # A decoder shows its type only in its pickled state, which is JSON.
    to_bytes = _converter(None if decoder is None else json.loads(decoder.__getstate__()))
    added = {
        token_id: b"" if token.special else token.content.encode()
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
    }

    @functools.lru_cache(maxsize=_KEPT)  # called for every generated token
    def read(token_id: int) -> bytes:
        if token_id in added:
            return added[token_id]
        token = tokenizer.id_to_token(token_id)
        return b"" if token is None else to_bytes(token)

    return read


def _converter(decoder: Any) -> Callable[[str], bytes]:
    kinds = set(_decoder_kinds(decoder))
    if "ByteLevel" in kinds:
        return _from_byte_level
    return _from_sentencepiece if kinds & {"Metaspace", "ByteFallback", "Replace"} else str.encode


def _decoder_kinds(decoder: Any) -> Iterator[str]:
    """Types of a decoder and of the decoders in its sequence."""
    if decoder is None:
        return
    yield str(decoder["type"])
    for inner in decoder.get("decoders", ()):
        yield from _decoder_kinds(inner)


def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: printable Latin-1 maps to itself, the other bytes to U+0100 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_of_character()


def _from_byte_level(token: str) -> bytes:
    return b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in token)


def _from_sentencepiece(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace("▁", " ").encode()
