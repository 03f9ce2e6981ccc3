"""How a job of vectors is shown as a ranking."""

from __future__ import annotations

from typing import Literal

import msgspec


class Rerank(msgspec.Struct, frozen=True, omit_defaults=True):
    """Show vectors as a ranking: similarity of the first input to each of the others.

    ``top_n``: ``None`` returns all. ``shape``: whose API the answer follows.
    """

    top_n: int | None = None
    has_documents: bool = False
    shape: Literal["jina", "tei"] = "jina"
