"""What a body says of its job's order."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.anthropic.schema import MessagesBody
from api.dialects.openai.embeddings.schema import EmbeddingsBody
from api.dialects.order_fields import OrderFields, order_of
from api.dialects.responses.schema import ResponseBody
from api.execution.submissions import AS_IT_COMES, Order, tier_of
from jobs.contract.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("fields", "order"),
    [
        ({}, AS_IT_COMES),
        ({"service_tier": "scale", "priority": None, "deadline_s": None}, AS_IT_COMES),
        ({"service_tier": "flex", "priority": 7}, Order("batch", 7)),
        ({"service_tier": "fast"}, Order(priority=-10)),
        ({"service_tier": "ultrafast", "priority": -50}, Order(priority=-50)),
        ({"deadline_s": 5}, Order(deadline_s=5.0)),
    ],
)
def test_fields_make_an_order(fields: dict[str, Any], order: Order) -> None:
    assert OrderFields(**fields).order == order
    response = ResponseBody(input="hi", **fields)
    assert order_of(response) == order
    message = MessagesBody.model_validate({"messages": [_HI], "max_tokens": 5, **fields})
    assert order_of(message) == order


_HI = {"role": "user", "content": "hi"}


@pytest.mark.parametrize("fields", [{"priority": 101}, {"priority": True}, {"deadline_s": 0}])
def test_a_wrong_value_is_named_also_where_the_body_does_not_declare_it(
    fields: dict[str, Any],
) -> None:
    (name,) = fields
    with pytest.raises(InvalidRequestError, match=f"^{name}: ") as error:
        order_of(ResponseBody(input="hi", **fields))
    assert error.value.param == name


def test_vectors_have_a_deadline_only() -> None:
    body = EmbeddingsBody.model_validate({"input": "x", "priority": 5, "deadline_s": 3})
    assert body.order == Order(deadline_s=3.0)


@pytest.mark.parametrize(
    ("job_class", "priority", "tier"),
    [
        ("batch", -5, "flex"),
        ("interactive", -1, "priority"),
        ("interactive", 0, "default"),
        ("interactive", 9, "default"),
    ],
)
def test_the_tier_is_what_the_job_had(job_class: Any, priority: int, tier: str) -> None:
    assert tier_of(job_class, priority) == tier
