"""Sampling settings. They mean the same on every engine.

Every engine applies them in this order: ``logit_bias``, penalties, ``top_k``, ``typical_p``,
``top_p``, ``min_p``, ``temperature``, draw. A neutral value switches its step off.
"""

from __future__ import annotations

import hashlib

import msgspec

_MAX_SEED = 0xFFFFFFFF  # llama.cpp reads this one value as "draw a random seed"


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sampling settings of one sequence. The API has validated all values.

    ``seed`` is always set: the API draws one when the client gives none. The draw of a token
    depends only on the seed and the token's index in the sequence. ``temperature`` 0 is greedy.
    Penalties look at the last ``repetition_context_size`` tokens of prompt and answer (0: none).
    ``num_logprobs``: ``None`` computes no log-probabilities, 0 the chosen token's, n also those of
    the n most likely tokens.
    """

    seed: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    repetition_context_size: int = 20
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    mirostat_mode: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    num_logprobs: int | None = None
    ignore_eos: bool = False

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        is_neutral = (
            self.repetition_penalty == 1.0
            and self.presence_penalty == 0.0
            and self.frequency_penalty == 0.0
        )
        return not is_neutral and self.repetition_context_size > 0


def draw_seed(seed: int, position: int) -> int:
    """The 32-bit seed of the draw at ``position``, never llama.cpp's "random" value.

    It depends only on its arguments, so a sequence that is resumed at any token continues with
    the same draws.
    """
    digest = hashlib.blake2b(
        seed.to_bytes(8, "little", signed=False) + position.to_bytes(8, "little"), digest_size=4
    ).digest()
    return int.from_bytes(digest, "little") % _MAX_SEED


def choice_seed(seed: int, choice: int) -> int:
    """The seed of a choice: the request's own for the first, a derived one for the others."""
    return seed if choice == 0 else draw_seed(seed, (1 << 40) + choice)
