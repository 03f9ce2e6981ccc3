"""The tokenizer of a GGUF file."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping

from jobs.contract.errors import EngineError, InvalidRequestError
from workers.engines.base import FimTokens
from workers.engines.llama_cpp.binding import NULL_TOKEN, Pointer, lib

_PIECE_BYTES = 256  # longer pieces are rare and need a second call


class LlamaCppTokenizer:
    """Implements ``workers.engines.base.Tokenizer``.

    The data of single tokens is read once, at load: ``piece`` is then only a list lookup, and
    works after ``close``.
    """

    def __init__(self, model: Pointer) -> None:
        self._vocab = lib.llama_model_get_vocab(model)
        self._num_tokens: int = lib.llama_vocab_n_tokens(self._vocab)
        self._pieces = [_piece(self._vocab, token) for token in range(self._num_tokens)]
        self._fim_tokens = _fim_tokens(self._vocab)
        self._control_texts = {
            token: _text(self._vocab, token)
            for token, piece in enumerate(self._pieces)
            if not piece
        }
        self._end_ids = frozenset(
            token for token in range(self._num_tokens) if lib.llama_vocab_is_eog(self._vocab, token)
        )
        self._bos_token = _text(self._vocab, lib.llama_vocab_bos(self._vocab))
        self._eos_token = _text(self._vocab, lib.llama_vocab_eos(self._vocab))
        self._chat_templates = _chat_templates(model)
        # Threads may run llama_tokenize together, but close() must not free the vocabulary then.
        self._in_use = threading.Lock()
        self._is_closed = False

    @property
    def vocab_size(self) -> int:
        return self._num_tokens

    @property
    def end_ids(self) -> frozenset[int]:
        """llama.cpp's end-of-generation tokens: EOS, end of turn, and similar ones by name."""
        return self._end_ids

    @property
    def bos_token(self) -> str:
        return self._bos_token

    @property
    def eos_token(self) -> str:
        return self._eos_token

    @property
    def chat_templates(self) -> Mapping[str, str]:
        return self._chat_templates

    @property
    def fim_tokens(self) -> FimTokens | None:
        """See ``base.Tokenizer``; from the file's metadata or the names of the tokens."""
        return self._fim_tokens

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """See ``base.Tokenizer``. Raises ``InvalidRequestError`` for invalid Unicode."""
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:  # a lone surrogate, which JSON can carry
            reason = f"text is not valid Unicode (position {error.start})"
            raise InvalidRequestError(reason) from error
        with self._in_use:
            if self._is_closed:
                raise EngineError("the model is closed")
            return _tokenize(self._vocab, data, add_special, parse_special)

    def piece(self, token_id: int) -> bytes:
        return self._pieces[token_id]

    def control_text(self, token_id: int) -> str:
        return self._control_texts.get(token_id, "")

    def close(self) -> None:
        """Stop using the model, so that it can be freed; waits for a running ``encode``."""
        with self._in_use:
            self._is_closed = True


def _tokenize(vocab: Pointer, data: bytes, add_special: bool, parse_special: bool) -> list[int]:
    capacity = len(data) + 8  # at most one token per byte, a space in front, BOS and EOS
    tokens = (lib.llama_token * capacity)()
    count = lib.llama_tokenize(vocab, data, len(data), tokens, capacity, add_special, parse_special)
    if count < 0:
        raise EngineError(f"llama.cpp could not tokenize a text of {len(data)} bytes")
    return list(tokens[:count])


def _piece(vocab: Pointer, token: int) -> bytes:
    buffer = ctypes.create_string_buffer(_PIECE_BYTES)
    length = lib.llama_token_to_piece(vocab, token, buffer, _PIECE_BYTES, 0, False)
    if length < 0:
        buffer = ctypes.create_string_buffer(-length)
        length = lib.llama_token_to_piece(vocab, token, buffer, -length, 0, False)
    return buffer.raw[:length]


def _fim_tokens(vocab: Pointer) -> FimTokens | None:
    prefix = lib.llama_vocab_fim_pre(vocab)
    suffix = lib.llama_vocab_fim_suf(vocab)
    middle = lib.llama_vocab_fim_mid(vocab)
    return None if NULL_TOKEN in (prefix, suffix, middle) else FimTokens(prefix, suffix, middle)


def _chat_templates(model: Pointer) -> dict[str, str]:
    """The templates by name; the unnamed one is ``default``."""
    found = {}
    for name in (None, "tool_use", "rag"):
        template = lib.llama_model_chat_template(model, None if name is None else name.encode())
        if template:
            found[name or "default"] = template.decode("utf-8", errors="replace")
    return found


def _text(vocab: Pointer, token: int) -> str:
    if token == NULL_TOKEN:
        return ""
    text: bytes = lib.llama_vocab_get_text(vocab, token)
    return text.decode("utf-8", errors="replace")
