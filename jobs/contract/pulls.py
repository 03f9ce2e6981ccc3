"""The request of a download. It belongs to no model, but to a machine."""

from __future__ import annotations

import msgspec


class PullRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="pull"):
    """Download a model of the hub into the models folder of the machine with the uid ``node``.

    ``repo`` is ``publisher/model``; ``quant`` chooses among GGUF files. With ``is_forced``
    neither the free space nor the memory is checked.
    """

    repo: str
    node: str
    quant: str = ""
    revision: str = "main"
    is_forced: bool = False
    v: int = 1
