"""Fields that say when a job runs: the class that its tier means, priority, deadline."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.execution.submissions import LONGEST_DEADLINE_S, Order
from api.web.base_schema import Body, integer
from api.web.errors import checked

ServiceTier = Literal[
    "auto",
    "default",
    "flex",
    "scale",
    "priority",
    "fast",
    "ultrafast",
    "standard_only",
]
"""OpenAI's words, and Anthropic's ``standard_only``."""

_EARLIER = frozenset({"priority", "fast", "ultrafast"})
_EARLIER_BY = -10
"""The priority of a tier that asks to be earlier; ``priority`` may say another."""

Deadline = Annotated[float, Field(strict=True, gt=0, le=LONGEST_DEADLINE_S, allow_inf_nan=False)]


class DeadlineField(Body):
    """``deadline_s``: seconds after which the job ends with an error, waiting or running."""

    deadline_s: Deadline | None = None

    @property
    def order(self) -> Order:
        """The job's place among others."""
        return Order(deadline_s=self.deadline_s)


class OrderFields(DeadlineField):
    """OpenAI's ``service_tier`` (``flex``: class batch), vLLM's ``priority`` (lower first)."""

    service_tier: ServiceTier | None = None
    priority: Annotated[int, integer(-100, 100)] | None = None

    @property
    def order(self) -> Order:
        """The job's place among others."""
        by_tier = _EARLIER_BY if self.service_tier in _EARLIER else 0
        return Order(
            job_class="batch" if self.service_tier == "flex" else "interactive",
            priority=by_tier if self.priority is None else self.priority,
            deadline_s=self.deadline_s,
        )


def order_of(body: Body) -> Order:
    """``OrderFields.order`` of a body that declares some of the fields, or none."""
    own = {name: getattr(body, name, None) for name in OrderFields.model_fields}
    given = {name: value for name, value in own.items() if value is not None}
    return checked(OrderFields, {**(body.model_extra or {}), **given}).order
