"""Events of a finished embeddings job to its answer: vectors, or an order of documents. Pure."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from typing import Any

from api.dialects.openai.rerank.ranking import rerank_answer
from jobs.contract.events import Event, Usage
from jobs.contract.requests import EmbedRequest

_FLOAT_BYTES = 4


def embeddings_answer(request: EmbedRequest, events: Iterable[Event]) -> Any:
    """The body of the answer. ``events`` are all of the job's, up to ``finished``.

    A vector may come twice, from two attempts; the later one counts.
    """
    vectors: dict[int, bytes] = {}
    usage = Usage()
    for event in events:
        usage = event.usage or usage
        if event.embedding is not None:
            vectors[event.choice] = event.embedding
    found = [vectors[index] for index in range(len(request.inputs))]
    if request.rerank is not None:
        return rerank_answer(request, request.rerank, [_as_floats(v) for v in found], usage)
    show = _as_base64 if request.encoding_format == "base64" else _as_floats
    data = [
        {"object": "embedding", "index": index, "embedding": show(vector)}
        for index, vector in enumerate(found)
    ]
    return {
        "object": "list",
        "data": data,
        "model": request.model,
        "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens},
        **({"embeddings": data} if request.is_shown_twice else {}),
    }


def _as_base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _as_floats(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(vector) // _FLOAT_BYTES}f", vector))
