"""One token per byte, and six control tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from workers.engines.base import FimTokens

END_ID = 256
FAULTY_ID = 262
VOCAB_SIZE = 272
_SPECIALS = {
    "<|endoftext|>": 256,
    "<|im_start|>": 257,
    "<|im_end|>": 258,
    "<|fim_prefix|>": 259,
    "<|fim_suffix|>": 260,
    "<|fim_middle|>": 261,
}
_SPECIAL_TEXTS = {token_id: text for text, token_id in _SPECIALS.items()}
_SPECIAL_PATTERN = re.compile("(" + "|".join(map(re.escape, _SPECIALS)) + ")")


class FakeTokenizer:
    """See the module. ``num_faults``: how many more times ``piece(FAULTY_ID)`` raises."""

    vocab_size = VOCAB_SIZE
    end_ids = frozenset({END_ID, _SPECIALS["<|im_end|>"]})
    bos_token = ""
    eos_token = "<|endoftext|>"
    chat_templates: Mapping[str, str] = MappingProxyType({})
    fim_tokens: FimTokens | None = FimTokens(259, 260, 261)
    num_faults = 0

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if not parse_special:
            return list(text.encode())
        ids: list[int] = []
        for part in _SPECIAL_PATTERN.split(text):
            ids += [_SPECIALS[part]] if part in _SPECIALS else part.encode()
        return ids

    def piece(self, token_id: int) -> bytes:
        if token_id == FAULTY_ID and self.num_faults > 0:
            self.num_faults -= 1
            raise RuntimeError("the prompt asked for a fault in the tokenizer")
        return bytes([token_id]) if token_id < 256 else b""

    def control_text(self, token_id: int) -> str:
        return _SPECIAL_TEXTS.get(token_id, "")
