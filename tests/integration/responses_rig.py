"""What tests of /v1/responses share."""

from __future__ import annotations

from typing import Any

from tests.integration.api_rig import Rig

ADD: Any = {"type": "function", "name": "add", "parameters": {"type": "object"}}


def answered(rig: Rig, *texts: str, **fields: Any) -> dict[str, Any]:
    """A response that the scripted worker has answered."""
    future = rig.post_soon("/v1/responses", {"input": "hi", **fields})
    rig.take().answer(*texts)
    shown: dict[str, Any] = future.result().json()
    return shown
