"""Which model a request means."""

from __future__ import annotations

import pytest

from api.resolve import listed_name, read_model_id, resolve
from jobs import names
from jobs.errors import InvalidRequestError, ModelNotFoundError
from jobs.records import Want
from jobs.requests import LoadRequest


def wants(**models: str) -> dict[str, Want]:
    """Wants by slug; ``_0="demo"`` is the model demo under id 0."""
    found = {}
    for key, name in models.items():
        model_id = key.lstrip("_")
        found[names.slug_of(model_id)] = Want(model_id, "u", LoadRequest(name, "fake"), "j", 0.0)
    return found


LOADED = wants(_0="demo", _1="demo.gguf", _2="demo", writer="big", _9="1")


@pytest.mark.parametrize(
    ("header", "model", "model_id"),
    [
        (None, None, "0"),
        (None, "", "0"),
        (None, "dummy", "0"),
        (None, "gpt-4", "0"),
        ("", None, "0"),
        (None, "1", "1"),  # an id, though also the name of the model under id 9
        (None, "demo", "0"),  # the lowest of two
        (None, "demo.gguf", "1"),
        (None, "writer", "writer"),
        (None, "big", "writer"),
        ("2", "demo.gguf", "2"),
        ("1", "nonsense", "1"),
    ],
)
def test_the_model_is_found(header: str | None, model: str | None, model_id: str) -> None:
    assert resolve(LOADED, header, model).model_id == model_id


@pytest.mark.parametrize(("header", "model"), [("7", None), ("demo", "demo"), ("7", "demo")])
def test_an_id_without_a_model_is_not_found(header: str | None, model: str | None) -> None:
    with pytest.raises(ModelNotFoundError):
        resolve(LOADED, header, model)


def test_nothing_is_found_when_nothing_is_loaded() -> None:
    with pytest.raises(ModelNotFoundError, match="'0'"):
        resolve({}, None, "demo")


def test_what_is_listed_addresses_the_same_model() -> None:
    listed = [listed_name(LOADED, want) for want in LOADED.values()]
    assert listed == ["demo", "demo.gguf", "2", "big", "9"]
    for name, want in zip(listed, LOADED.values(), strict=True):
        assert resolve(LOADED, None, name) is want


@pytest.mark.parametrize("header", ["x" * 65, "a\x07b", "\xff"])
def test_a_header_out_of_shape_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_model_id(header)
    assert caught.value.param == "X-Model-Id"


def test_a_header_may_be_any_text() -> None:
    assert read_model_id("größe".encode().decode("latin-1")) == "größe"
