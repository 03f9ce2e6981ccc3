"""The table of sampling parameters (``jobs.contract.sampling``) as fields of request bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, create_model

from api.web.base_schema import Body, Breakers, Flag, LogitBias, integer, number
from jobs.contract.errors import InvalidRequestError
from jobs.contract.requests import GenerationDefaults
from jobs.contract.sampling import SAMPLING_FIELDS, Limits, Sampling, SamplingField

_OTHER_TYPES = {bool: Flag, dict[int, float]: LogitBias, tuple[str, ...]: Breakers}
_T = TypeVar("_T")


def _type_of(field: SamplingField) -> Any:
    limits = field.limits
    low = min([limits.low, *(value for value, _ in limits.odd)])
    if field.type is int:
        return Annotated[int, integer(int(low), int(limits.high)), _in_range(limits)]
    if field.type is float:
        return Annotated[float, number(low, limits.high), _in_range(limits)]
    return _OTHER_TYPES[field.type]


def _in_range(limits: Limits) -> AfterValidator:
    odd = dict(limits.odd)

    def check(value: float) -> float:
        if value < limits.low and value not in odd:
            listed = ", ".join(str(one) for one in odd)
            raise ValueError(f"must be at least {limits.low}, or {listed}")
        return value

    return AfterValidator(check)


@dataclass(frozen=True, slots=True)
class WireNames:
    """The names of the parameters on a group of routes."""

    names_of: Callable[[SamplingField], tuple[str, ...]]

    def body(self, *only: str) -> type[Body]:
        """A request body with all parameters, or only with those named; all are optional."""
        fields: dict[str, Any] = {
            name: (_type_of(field) | None, None)
            for field in SAMPLING_FIELDS
            for name in self.names_of(field)
            if not only or field.name in only
        }
        return create_model("SamplingFields", __base__=Body, **fields)

    def read(self, body: Body) -> dict[str, Any]:
        """The values that ``body`` has, by the names of ``Sampling``.

        ``InvalidRequestError`` for two names of one parameter that differ.
        """
        known = type(body).model_fields
        found = {}
        for field in SAMPLING_FIELDS:
            names = [name for name in self.names_of(field) if name in known]
            value = same_value({name: getattr(body, name) for name in names})
            if isinstance(value, int | float):
                value = dict(field.limits.odd).get(value, value)
            if value is not None:
                found[field.name] = value
        return found

    def shown(self, sampling: Sampling) -> dict[str, Any]:
        """The values of ``sampling`` under each of their names."""
        return {
            name: getattr(sampling, field.name)
            for field in SAMPLING_FIELDS
            for name in self.names_of(field)
        }


OURS = WireNames(lambda field: (*field.limits.aliases, field.name))
_WITHOUT_ALIASES = WireNames(lambda field: (field.name,))
LLAMA_SERVER = WireNames(lambda field: (field.limits.llama_server or field.name,))

if TYPE_CHECKING:
    SamplingBody = Body
    DefaultsBody = Body
    ResponseSamplingBody = Body
else:
    SamplingBody = OURS.body()
    DefaultsBody = _WITHOUT_ALIASES.body(*GenerationDefaults.__struct_fields__)
    ResponseSamplingBody = OURS.body("temperature", "top_p")


def same_value(spellings: Mapping[str, _T | None]) -> _T | None:
    """The value of a parameter that has several names; two that differ are refused."""
    given = {name: value for name, value in spellings.items() if value is not None}
    first, *others = given.values() or [None]
    if any(value != first for value in others):
        listed = " and ".join(given)
        raise InvalidRequestError(f"{listed} are one parameter and differ", next(iter(given)))
    return first
