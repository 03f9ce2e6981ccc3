"""Every parameter of the table, in every dialect: taken, checked, named, shown."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from api.admin.jobs.processes import parameters
from api.dialects.anthropic.translate import to_job as message_job
from api.dialects.llama_server.answers import settings_object
from api.dialects.llama_server.schema import NativeCompletionBody
from api.dialects.llama_server.translate import to_native_request
from api.dialects.openai.generation.schema import ChatBody, CompletionBody
from api.dialects.openai.generation.translate import to_generate_request
from api.dialects.responses.items import to_items
from api.dialects.responses.schema import ResponseBody
from api.dialects.responses.translate import to_job as response_job
from api.dialects.sampling_fields import LLAMA_SERVER, OURS, WireNames
from api.web.errors import describe_validation
from jobs.contract.errors import InvalidRequestError
from jobs.contract.requests import GenerateRequest, GenerationDefaults
from jobs.contract.sampling import SAMPLING_FIELDS, Sampling, SamplingField
from tests.helpers.anthropic_bodies import read

NONE = GenerationDefaults()
HI: Any = [{"role": "user", "content": "hi"}]
OTHERS: dict[str, Any] = {
    "logit_bias": {"5": 1.5},
    "dry_sequence_breakers": ["\n", "é"],
    "ignore_eos": True,
}


def chat(fields: dict[str, Any]) -> GenerateRequest:
    return to_generate_request(ChatBody(messages=HI, **fields), NONE, "m")


def text(fields: dict[str, Any]) -> GenerateRequest:
    return to_generate_request(CompletionBody(prompt="x", **fields), NONE, "m")


def response(fields: dict[str, Any]) -> GenerateRequest:
    body = ResponseBody(input="x", **fields)
    return response_job(body, to_items(body.input, ""), NONE, "m")


def message(fields: dict[str, Any]) -> GenerateRequest:
    return message_job(read(**fields), NONE, "m")


def native(fields: dict[str, Any]) -> GenerateRequest:
    return to_native_request(NativeCompletionBody(prompt="x", **fields), NONE, "m")


DIALECTS = {"chat": chat, "text": text, "response": response, "message": message}
NUMBERS = [field for field in SAMPLING_FIELDS if field.type in (int, float)]


def by_field(fields: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("field", fields, ids=[field.name for field in fields])


def value_of(field: SamplingField) -> Any:
    """A value that is not the default."""
    if field.name in OTHERS:
        return OTHERS[field.name]
    limits = field.limits
    low, high = max(limits.low, -1), min(limits.high, 1 if field.type is float else 3)
    return high if field.type is int else low + 0.75 * (high - low)


def held(job: GenerateRequest, field: SamplingField) -> Any:
    value = getattr(job.sampling, field.name)
    if field.name == "logit_bias":
        return {str(token): bias for token, bias in value.items()}
    return list(value) if isinstance(value, tuple) else value


@by_field(SAMPLING_FIELDS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_takes_it_by_each_of_its_names(dialect: str, field: SamplingField) -> None:
    for name in OURS.names_of(field):
        assert held(DIALECTS[dialect]({name: value_of(field)}), field) == value_of(field)
        assert held(DIALECTS[dialect]({name: None}), field) is not None


@by_field(SAMPLING_FIELDS)
def test_llama_servers_routes_take_it_by_its_name_there(field: SamplingField) -> None:
    job = native({LLAMA_SERVER.names_of(field)[0]: value_of(field)})
    assert held(job, field) == value_of(field)
    assert LLAMA_SERVER.names_of(field)[0] in settings_object(job)


@by_field(SAMPLING_FIELDS)
def test_the_original_servers_view_shows_it(field: SamplingField) -> None:
    shown = parameters(chat({field.name: value_of(field)}))
    assert all(name in shown for name in OURS.names_of(field))


def name_of_error(call: Any, fields: dict[str, Any]) -> str | None:
    with pytest.raises((ValidationError, InvalidRequestError)) as caught:
        call(fields)
    error: Any = caught.value
    if isinstance(error, InvalidRequestError):
        return error.param
    first = error.errors()[0]
    return describe_validation([{**first, "loc": ("body", *first["loc"])}])[1]


@pytest.mark.parametrize("names", [OURS, LLAMA_SERVER])
def test_no_name_is_two_parameters(names: WireNames) -> None:
    found = [name for field in SAMPLING_FIELDS for name in names.names_of(field)]
    assert len(found) == len(set(found))


@by_field(NUMBERS)
@pytest.mark.parametrize("dialect", [*DIALECTS, "native"])
def test_what_is_no_such_number_is_refused_by_name(dialect: str, field: SamplingField) -> None:
    call = DIALECTS.get(dialect, native)
    name = field.name if dialect in DIALECTS else LLAMA_SERVER.names_of(field)[0]
    wrong: Any
    for wrong in (True, "1", float("nan"), float("inf"), [], field.limits.high * 2):
        assert name_of_error(call, {name: wrong}) == name
    if field.limits.low > -1 or field.type is int:
        assert name_of_error(call, {name: field.limits.low - 2}) == name


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"xtc_probability": 1.01}, "xtc_probability"),
        ({"dry_base": 0.9}, "dry_base"),
        ({"dry_allowed_length": 1.5}, "dry_allowed_length"),
        ({"dry_penalty_last_n": -2}, "dry_penalty_last_n"),
        ({"top_n_sigma": -1.5}, "top_n_sigma"),
        ({"dynatemp_range": -0.1}, "dynatemp_range"),
        ({"dry_sequence_breakers": []}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": "\n"}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": [""]}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": [1]}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": ["é" * 21]}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": ["a\0"]}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": ["a"] * 33}, "dry_sequence_breakers"),
        ({"repet_penalty": 1.1, "repeat_penalty": 1.2}, "repet_penalty"),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_wrong_value_is_refused_by_name(dialect: str, fields: Any, param: str) -> None:
    assert name_of_error(DIALECTS[dialect], fields) == param


ALL = {**DIALECTS, "native": native}


@pytest.mark.parametrize("dialect", ALL)
def test_what_llama_server_means_by_minus_one(dialect: str) -> None:
    call = ALL[dialect]
    sampling = call({"top_k": -1, "repeat_last_n": -1, "seed": -1}).sampling
    assert (sampling.top_k, sampling.repetition_context_size) == (0, 1_000_000)
    assert 0 <= sampling.seed < 2**32
    sampling = call({"top_n_sigma": -1, "dry_penalty_last_n": -1}).sampling
    assert (sampling.top_n_sigma, sampling.dry_penalty_last_n) == (-1.0, -1)


LIMITS = {
    "chat": ("max_tokens", "max_completion_tokens", "n_predict"),
    "text": ("max_tokens", "n_predict"),
    "response": ("max_output_tokens", "n_predict"),
    "message": ("max_tokens",),
    "native": ("n_predict",),
}


@pytest.mark.parametrize(("dialect", "name"), [(d, name) for d in LIMITS for name in LIMITS[d]])
def test_minus_one_is_no_limit_of_tokens(dialect: str, name: str) -> None:
    assert ALL[dialect]({name: -1}).max_tokens is None
    assert ALL[dialect]({name: 7}).max_tokens == 7
    assert name_of_error(ALL[dialect], {name: -2}) == name


def test_two_names_of_the_limit_that_differ_are_refused() -> None:
    assert chat({"max_tokens": 3, "n_predict": 3}).max_tokens == 3
    assert name_of_error(chat, {"max_tokens": 3, "n_predict": 4}) == "max_tokens"


@pytest.mark.parametrize("dialect", ALL)
def test_empty_values_say_nothing(dialect: str) -> None:
    stop = {"message": "stop_sequences"}.get(dialect, "stop")
    for empty in ([], None, [""]):
        fields = {stop: empty, "grammar": "", "json_schema": None, "t_max_predict_ms": -1}
        job = ALL[dialect](fields)
        assert (job.stop, job.grammar, job.predict_limit_ms) == ([], None, None)


def test_a_models_defaults_hold_where_nothing_is_said() -> None:
    defaults = GenerationDefaults(temperature=0.3, repetition_penalty=1.5, logit_bias={1: 2.0})
    body = ChatBody(messages=HI, repeat_penalty=1.0, top_p=0.5, seed=4)
    expected = Sampling(seed=4, temperature=0.3, top_p=0.5, logit_bias={1: 2.0})
    assert to_generate_request(body, defaults, "m").sampling == expected
