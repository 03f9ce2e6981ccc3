"""Which model a request means."""

from __future__ import annotations

import pytest

from api.execution.resolve import ModelFinder, read_model_id
from jobs.catalog.model_aliases import parse_aliases
from jobs.contract.errors import InvalidRequestError, ModelNotFoundError
from jobs.contract.records import DesiredModel
from jobs.contract.requests import LoadRequest
from jobs.storage import names


def desired_models(**models: str) -> dict[str, DesiredModel]:
    """DesiredModels by slug; ``_0="demo"`` is the model demo under id 0."""
    found = {}
    for key, name in models.items():
        model_id = key.lstrip("_")
        found[names.slug_of(model_id)] = DesiredModel(
            model_id, "u", LoadRequest(name, "fake"), "j", 0.0
        )
    return found


LOADED = desired_models(_0="demo", _1="demo.gguf", _2="demo", writer="big", _9="1")
ALIASES = "gpt-4o=big,small=1,big=demo,claude-*=demo.gguf,claude-opus-*=writer,gone=missing,2=big"
PLAIN = ModelFinder(LOADED)
FINDER = ModelFinder(LOADED, parse_aliases(ALIASES))


@pytest.mark.parametrize(
    ("header", "model", "model_id"),
    [
        (None, None, "0"),
        (None, "", "0"),
        (None, "dummy", "0"),
        (None, "default", "0"),
        ("", None, "0"),
        (None, "1", "1"),  # an id, though also the name of the model under id 9
        (None, "demo", "0"),  # the lowest of two
        (None, "demo.gguf", "1"),
        (None, "writer", "writer"),
        (None, "big", "writer"),
        ("2", "demo.gguf", "2"),
        ("1", "nonsense", "1"),
        (None, "demo.gguf-thinking", "1"),
        (None, "big-no-thinking", "writer"),
    ],
)
def test_the_model_is_found(header: str | None, model: str | None, model_id: str) -> None:
    assert PLAIN.resolve(header, model).model_id == model_id
    assert FINDER.resolve(header, model).model_id == model_id


@pytest.mark.parametrize(
    ("model", "model_id", "is_thinking"),
    [
        ("gpt-4o", "writer", None),
        ("small", "1", None),
        ("big", "writer", None),  # a loaded model's own name goes before an alias
        ("2", "2", None),  # and so does a model_id
        ("claude-sonnet-4", "1", None),
        ("claude-opus-4", "writer", None),  # the longest beginning
        ("gpt-4o-no-thinking", "writer", False),
        ("claude-opus-4-thinking", "writer", True),
        ("claude-thinking", "1", None),  # all of it is what the alias stands for
        ("demo-thinking", "0", True),
    ],
)
def test_an_alias_leads_to_its_model(model: str, model_id: str, is_thinking: bool | None) -> None:
    assert FINDER.resolve(None, model).model_id == model_id
    assert FINDER.thinking_of(model) is is_thinking


@pytest.mark.parametrize(
    ("header", "model", "param"),
    [
        ("7", None, "X-Model-Id"),
        ("demo", "demo", "X-Model-Id"),
        ("7", "demo", "X-Model-Id"),
        (None, "gpt-4", "model"),
        (None, "Demo", "model"),
        (None, " ", "model"),
        (None, "7", "model"),
        (None, "gone", "model"),
        (None, "gpt-4-thinking", "model"),
    ],
)
def test_what_is_nobodys_is_not_found_and_what_there_is_is_listed(
    header: str | None, model: str | None, param: str
) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        FINDER.resolve(header, model)
    assert caught.value.param == param
    assert repr(header or model) in caught.value.message
    for part in ("'0' (demo)", "'1' (demo.gguf)", "'writer' (big)", "mgs load"):
        assert part in caught.value.message


def test_an_alias_without_its_model_says_where_it_leads() -> None:
    with pytest.raises(ModelNotFoundError, match="'gone' stands for 'missing'"):
        FINDER.resolve(None, "gone")


@pytest.mark.parametrize("model", [None, "", "dummy", "default", "demo", "gone"])
def test_nothing_is_found_when_nothing_is_loaded(model: str | None) -> None:
    finder = ModelFinder({}, parse_aliases(ALIASES))
    with pytest.raises(ModelNotFoundError, match=r"no model is loaded: .*mgs load") as caught:
        finder.resolve(None, model)
    assert caught.value.param == "model"


def test_the_message_is_short_however_much_is_loaded() -> None:
    loaded = desired_models(**{f"_{number}": "x" * 200 for number in range(100)})
    with pytest.raises(ModelNotFoundError, match=r"'19' \(x+…\) and 80 more") as caught:
        ModelFinder(loaded).resolve(None, "y" * 100_000)
    assert len(caught.value.message) < 3000


@pytest.mark.parametrize("model", ["gpt-4", "gone", "7", "gpt-4-thinking"])
def test_unknown_names_go_to_the_default_where_that_is_set(model: str) -> None:
    finder = ModelFinder(LOADED, parse_aliases(ALIASES), is_default_for_unknown=True)
    assert finder.resolve(None, model).model_id == "0"
    assert finder.resolve(None, "gpt-4o").model_id == "writer"
    with pytest.raises(ModelNotFoundError):
        finder.resolve("7", None)
    with pytest.raises(ModelNotFoundError, match="'0'"):
        ModelFinder(desired_models(_1="demo"), is_default_for_unknown=True).resolve(None, model)


def test_what_is_listed_addresses_the_same_model() -> None:
    listed = [FINDER.listed_name(desired) for desired in LOADED.values()]
    assert listed == ["demo", "demo.gguf", "2", "big", "9"]
    for name, desired in zip(listed, LOADED.values(), strict=True):
        assert FINDER.resolve(None, name) is desired


def test_exact_aliases_that_lead_somewhere_are_listed() -> None:
    assert [(alias, desired.model_id) for alias, desired in FINDER.listed_aliases()] == [
        ("gpt-4o", "writer"), ("small", "1"),
    ]  # fmt: skip
    assert PLAIN.listed_aliases() == []


def test_a_name_finds_all_models_that_have_it() -> None:
    assert [desired.model_id for desired in FINDER.find_all("demo")] == ["0", "2"]
    assert [desired.model_id for desired in FINDER.find_all("1")] == ["1"]
    assert FINDER.find_all("gpt-4") == []


@pytest.mark.parametrize("header", ["x" * 65, "a\x07b", "\xff"])
def test_a_header_out_of_shape_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_model_id(header)
    assert caught.value.param == "X-Model-Id"


def test_a_header_may_be_any_text() -> None:
    assert read_model_id("größe".encode().decode("latin-1")) == "größe"
