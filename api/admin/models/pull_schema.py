"""Bodies and answers of /v1/internal/model/pull and /v1/internal/model/delete."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from api.web.base_schema import Body, Flag, Text

_REPO = re.compile(
    r"(?:https?://[^/]+/|hf\.co/|huggingface\.co/)?"
    r"(?P<repo>(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95})"
    r"(?::(?P<quant>[\w.-]{1,200}))?",
    re.ASCII,
)


def parse_repo(text: str) -> tuple[str, str] | None:
    """Repository and quantization of ``[https://host/]REPO[:QUANT]``; ``None`` if malformed."""
    found = _REPO.fullmatch(text.strip().removesuffix("/"))
    if found is None or ".." in found["repo"]:
        return None
    return found["repo"], found["quant"] or ""


class PullBody(Body):
    """What to download. ``node``: the machine, by name or uid; only needed if there are several.

    ``force`` skips the checks of the free space and of the memory.
    """

    model: Annotated[
        str,
        Field(
            strict=True,
            min_length=1,
            max_length=400,
            validation_alias=AliasChoices("model", "repo", "name"),
            description="`publisher/model`, or `publisher/model:QUANT` of a GGUF repository",
        ),
    ]
    revision: Annotated[str, Field(strict=True, min_length=1, max_length=200)] = "main"
    node: Text | None = None
    force: Flag = False
    background: Flag | None = None


class PullAnswer(BaseModel):
    """The model is in the models folder, under ``model_name``."""

    model_config = ConfigDict(protected_namespaces=())

    pull: Literal["success"] = "success"
    model_name: str


class DeleteBody(Body):
    """A model of the models folder; or, with ``partial``, unfinished downloads: all, or of one
    repository.
    """

    model: Annotated[str, Field(strict=True, min_length=1, max_length=400)] | None = None
    partial: Flag = False

    @model_validator(mode="after")
    def _names_something(self) -> DeleteBody:
        if self.model is None and not self.partial:
            raise ValueError("model: name the model that is to be removed")
        return self


class DeleteAnswer(BaseModel):
    """What was removed is gone; ``freed_bytes`` became free."""

    delete: Literal["success"] = "success"
    freed_bytes: int
