"""Sampling settings, and the table of what clients may send. They mean the same on every engine.

Every engine applies them in this order: ``logit_bias``, penalties, DRY, the grammar's mask,
``top_n_sigma``, ``top_k``, ``typical_p``, ``top_p``, ``min_p``, XTC, temperature, draw. A neutral
value switches its step off. XTC, DRY, ``top_n_sigma`` and the dynamic temperature have the names,
the meaning and the dependent defaults of llama-server.
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

_MAX_SEED = 0xFFFFFFFF  # llama.cpp reads this one value as "draw a random seed"
_XTC_DRAWS = 1 << 41  # beyond all positions, so that XTC's draws are not the tokens'


class Limits(NamedTuple):
    """The values that clients may send for a field, and its names.

    ``aliases`` are further names of the same parameter. ``llama_server`` is its name on
    llama-server's own routes, where that differs. ``odd`` are values beside the range, and what
    they mean (``None``: as if absent): -1 is llama-server's, a penalty of 0 mlx_lm.server's.
    """

    low: float = -math.inf
    high: float = math.inf
    aliases: tuple[str, ...] = ()
    llama_server: str | None = None
    odd: tuple[tuple[float, float | None], ...] = ()


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sampling settings of one sequence. The API has validated all values.

    ``seed`` is always set: the API draws one when the client gives none. The draw of a token
    depends only on the seed and the token's index in the sequence. ``temperature`` 0 is greedy: the
    most likely token after penalties and grammar. Penalties look at the last
    ``repetition_context_size`` tokens of prompt and answer (0: none), DRY at the last
    ``dry_penalty_last_n`` (-1: all). ``num_logprobs``: ``None`` computes no log-probabilities, 0
    the chosen token's, n also those of the n most likely tokens.

    A field with ``Limits`` is a parameter of the API in all dialects.
    """

    seed: Annotated[int, Limits(-(2**63), 2**63 - 1, odd=((-1, None),))] = 0
    temperature: Annotated[float, Limits(0, 2)] = 1.0
    dynatemp_range: Annotated[float, Limits(0, 10)] = 0.0
    dynatemp_exponent: Annotated[float, Limits(0, 100)] = 1.0
    top_n_sigma: Annotated[float, Limits(-1, 100)] = -1.0
    top_k: Annotated[int, Limits(0, 1_000_000, odd=((-1, 0),))] = 0
    typical_p: Annotated[float, Limits(0, 1)] = 1.0
    top_p: Annotated[float, Limits(0, 1)] = 1.0
    min_p: Annotated[float, Limits(0, 1)] = 0.0
    xtc_probability: Annotated[float, Limits(0, 1)] = 0.0
    xtc_threshold: Annotated[float, Limits(0, 1)] = 0.1
    repetition_penalty: Annotated[
        float,
        Limits(0.01, 100, ("repet_penalty", "repeat_penalty"), "repeat_penalty", ((0, 1.0),)),
    ] = 1.0
    repetition_context_size: Annotated[
        int, Limits(0, 1_000_000, ("repeat_last_n",), "repeat_last_n", ((-1, 1_000_000),))
    ] = 20
    presence_penalty: Annotated[float, Limits(-2, 2)] = 0.0
    frequency_penalty: Annotated[float, Limits(-2, 2)] = 0.0
    dry_multiplier: Annotated[float, Limits(0, 100)] = 0.0
    dry_base: Annotated[float, Limits(1, 100)] = 1.75
    dry_allowed_length: Annotated[int, Limits(0, 1_000_000)] = 2
    dry_penalty_last_n: Annotated[int, Limits(-1, 1_000_000)] = -1
    dry_sequence_breakers: Annotated[tuple[str, ...], Limits()] = ("\n", ":", '"', "*")
    logit_bias: Annotated[dict[int, float], Limits(-100, 100)] = {}
    mirostat_mode: Annotated[int, Limits(0, 2, ("mirostat",), "mirostat")] = 0
    mirostat_tau: Annotated[float, Limits(0, 100)] = 5.0
    mirostat_eta: Annotated[float, Limits(0, 1)] = 0.1
    ignore_eos: Annotated[bool, Limits()] = False
    num_logprobs: int | None = None

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

    @property
    def has_dry(self) -> bool:
        return self.dry_multiplier > 0.0 and self.dry_penalty_last_n != 0

    def has_xtc_at(self, position: int) -> bool:
        """Whether XTC acts at ``position``: decided by chance, from seed and position."""
        if self.xtc_probability == 0.0:
            return False
        return draw_seed(self.seed, _XTC_DRAWS + position) / _MAX_SEED < self.xtc_probability


class SamplingField(NamedTuple):
    """A row of the table: a field of ``Sampling`` that clients may set."""

    name: str
    type: Any
    limits: Limits


SAMPLING_FIELDS = tuple(
    SamplingField(name, *get_args(hint))
    for name, hint in get_type_hints(Sampling, include_extras=True).items()
    if get_origin(hint) is Annotated
)


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
