"""Facts from the header of a GGUF file."""

from __future__ import annotations

import math
from pathlib import Path

from jobs.catalog.facts.model_facts import ModelFacts, takes_tools
from jobs.catalog.gguf_header import GgufHeader, read_gguf_start
from jobs.contract.errors import ModelLoadError
from jobs.memory.formats.gguf_file import read_gguf_model


def gguf_facts(path: Path) -> ModelFacts:
    """The facts of a GGUF model; fewer if its header is cut off. Raises ``ModelLoadError``."""
    try:
        model = read_gguf_model(path)
    except ModelLoadError:
        return first_gguf_facts(path)
    header, template = model.header, model.header.chat_template or ""
    return ModelFacts(
        context_length=header.context_length,
        architecture=header.architecture,
        quantization=header.quantization,
        num_parameters=sum(math.prod(tensor.shape) for tensor in model.tensors) or None,
        task="embedding" if _is_encoder(header) else "generation",
        has_chat_template=bool(template),
        has_tools=takes_tools(template),
    )


def first_gguf_facts(path: Path) -> ModelFacts:
    """Those before the vocabulary, in a tenth of a millisecond. Raises ``ModelLoadError``."""
    header = read_gguf_start(path)
    return ModelFacts(
        context_length=header.context_length,
        architecture=header.architecture,
        quantization=header.quantization,
        task="embedding" if _is_encoder(header) else "generation",
    )


def _is_encoder(header: GgufHeader) -> bool:
    prefix = header.architecture
    is_causal = header.metadata.get(f"{prefix}.attention.causal", True)
    return not is_causal or bool(header.count(f"{prefix}.pooling_type")) or "bert" in prefix
