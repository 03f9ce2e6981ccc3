"""How long a model that a request has loaded may be unused, as a request wishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from jobs.contract.errors import InvalidRequestError
from jobs.contract.records import DesiredModel
from jobs.storage import names
from jobs.storage.desired_models import DesiredModels


class KeepAlive:
    """Sets it. ``max_s``: the server's default; 0 without one. The last request counts."""

    def __init__(
        self, desired_models: DesiredModels, in_thread: Callable[..., Awaitable[Any]], max_s: float
    ) -> None:
        self._desired_models = desired_models
        self._in_thread = in_thread
        self._max_s = max_s

    async def set(self, desired: DesiredModel, seconds: float, *, may_manage: bool) -> None:
        """Set how long the model may be unused; negative: for ever.

        Longer than the server's default is for managers: ``InvalidRequestError``.
        """
        if desired.origin != "auto":
            return
        ttl_s = None if seconds < 0 else seconds
        is_longer = self._max_s > 0 and not 0 <= seconds <= self._max_s
        if is_longer and not may_manage:
            raise InvalidRequestError(
                f"keep_alive: more than {self._max_s:g} s needs the management key", "keep_alive"
            )
        if ttl_s != desired.ttl_s:
            slug = names.slug_of(desired.model_id)
            change = partial(self._desired_models.change, slug, desired.uid, ttl_s=ttl_s)
            await self._in_thread(change)
