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
_BLANK = "▁"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def piece_reader(tokenizer: HfTokenizer) -> PieceReader:
    """A function that returns the bytes of a token id."""
    to_bytes = _converter(tokenizer)
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


def _converter(tokenizer: HfTokenizer) -> Callable[[str], bytes]:
    """From a token of the vocabulary to bytes.

    The normalizer and the pre-tokenizer decide, the decoder only if they leave it open: some
    converted models have a byte-level vocabulary with a SentencePiece decoder.
    """
    encoders = [*_parts(tokenizer.normalizer), *_parts(tokenizer.pre_tokenizer)]
    decoders = {str(part["type"]): part for part in _parts(tokenizer.decoder)}
    if any(part["type"] == "ByteLevel" for part in encoders):
        return _from_byte_level
    if any(part["type"] == "Metaspace" or _writes_blanks(part) for part in encoders):
        return _from_sentencepiece
    if "ByteLevel" in decoders:
        return _from_byte_level
    if "WordPiece" in decoders:
        return functools.partial(_from_word_piece, decoders["WordPiece"]["prefix"])
    is_sentencepiece = decoders.keys() & {"Metaspace", "ByteFallback", "Replace"}
    return _from_sentencepiece if is_sentencepiece else str.encode


def _parts(component: Any) -> Iterator[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder, or the parts of a sequence of them."""
    if component is not None:
        # A component shows its type only in its pickled state, which is JSON.
        yield from _leaves(json.loads(component.__getstate__()))


def _leaves(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    inner = [part for key in _SEQUENCES for part in state.get(key, ())]
    if not inner:
        yield state
    for part in inner:
        yield from _leaves(part)


_SEQUENCES = ("normalizers", "pretokenizers", "decoders")


def _writes_blanks(part: dict[str, Any]) -> bool:
    return part["type"] == "Replace" and part.get("content") == _BLANK


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
    return bytes.fromhex(byte[1]) if byte else token.replace(_BLANK, " ").encode()


def _from_word_piece(prefix: str, token: str) -> bytes:
    """A token with the prefix continues a word; any other token begins a word."""
    return (token.removeprefix(prefix) if token.startswith(prefix) else " " + token).encode()
