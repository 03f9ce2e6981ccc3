"""llama-server's ``samplers``: those that are not listed are off.

Their order is this server's in any case (``jobs.contract.sampling``). Some that clients list by
default, as ``infill``, are not there: they are taken and do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.contract.errors import InvalidRequestError
from jobs.contract.sampling import Sampling

_FIELDS = {
    "penalties": ("repetition_penalty", "presence_penalty", "frequency_penalty"),
    "dry": ("dry_multiplier",),
    "top_n_sigma": ("top_n_sigma",),
    "top_k": ("top_k",),
    "typ_p": ("typical_p",),
    "top_p": ("top_p",),
    "min_p": ("min_p",),
    "xtc": ("xtc_probability",),
    "temperature": ("temperature", "dynatemp_range"),
    "infill": (),
    "tfs_z": (),
    "adaptive_p": (),
}
_OTHER_NAMES = {"typical_p": "typ_p", "typical": "typ_p", "temp": "temperature"}
_LETTERS = dict(zip("edskypmxtifa", _FIELDS, strict=True))
_NEUTRAL = Sampling()


def switched_off(samplers: list[str] | str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Neutral values for what ``samplers``, names or a word of letters, leaves out.

    With mirostat the list means nothing, as in llama-server. ``InvalidRequestError`` for a sampler
    that does not exist.
    """
    if samplers is None:
        return {}
    listed = {_name_of(sampler, isinstance(samplers, str)) for sampler in samplers}
    if given.get("mirostat_mode"):
        return {}
    off = (field for name in _FIELDS.keys() - listed for field in _FIELDS[name])
    return {field: getattr(_NEUTRAL, field) for field in off}


def _name_of(sampler: str, is_letter: bool) -> str:
    name = _LETTERS.get(sampler) if is_letter else _OTHER_NAMES.get(sampler, sampler)
    if name not in _FIELDS:
        raise InvalidRequestError(f"samplers: there is no sampler {sampler[:40]!r}", "samplers")
    return name
