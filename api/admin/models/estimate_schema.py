"""Query and answer of /v1/internal/model/estimate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.admin.models.schema import LoadBody
from jobs.contract.requests import KvLayout

_Number = Annotated[int | None, Field(ge=0, le=2**50)]


class EstimateQuery(BaseModel):
    """The model and the load options on which its memory depends, as in a load's body."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    llm_model_name: Annotated[str, Field(min_length=1, max_length=255)]
    context_length: _Number = None
    slots: _Number = None
    gpu_layers: _Number = None
    adapter_name: str | None = None
    kv_bits: _Number = None
    kv_layout: KvLayout | None = None
    draft_model: str | None = None
    num_draft_tokens: _Number = None
    prompt_cache_bytes: _Number = None

    def to_body(self) -> LoadBody:
        """The body of a load with these options. Raises pydantic's ``ValidationError``."""
        return LoadBody(**self.model_dump(exclude_none=True))


class Estimate(BaseModel):
    """What a model will need in memory, in bytes, before it is loaded.

    ``prompt_cache_bytes`` is the limit of kept prompts. ``total_bytes`` is the sum or, if ``basis``
    is ``measured``, what an earlier process took, if it is ``given``, what models.toml says.
    ``guess``: not all of the model's architecture is known. ``state_bytes`` is for ``slots`` sequences of a GGUF model, for one whole context of an
    MLX model. ``fits``: within the budget of all models, ``None`` if there is none.
    """

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_type: str
    basis: Literal["header", "guess", "measured", "given"]
    weights_bytes: int
    state_bytes: int
    compute_bytes: int
    prompt_cache_bytes: int
    total_bytes: int
    context_length: int
    slots: int
    state_bytes_per_token: int
    budget_bytes: int | None
    binding: str
    fits: bool | None
