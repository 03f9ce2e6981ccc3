"""The body of a batch of messages is split as it arrives, without holding it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.anthropic.batches.splitter import RequestSplitter
from jobs.contract.errors import InvalidRequestError

MAX_CHARS = 100_000

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


def split(body: bytes, size: int = 1000) -> list[str]:
    splitter = RequestSplitter(MAX_CHARS)
    found: list[str] = []
    for at in range(0, len(body), size):
        found += splitter.feed(body[at : at + size])
    splitter.close()
    return found


@given(
    st.lists(OBJECTS, max_size=4),
    st.dictionaries(st.text(max_size=4), VALUES, max_size=3),
    st.integers(1, 30),
    st.sampled_from([None, 2]),
    st.booleans(),
    st.randoms(),
)
def test_the_requests_are_those_of_the_body(
    requests: list[dict[str, Any]],
    others: dict[str, Any],
    size: int,
    indent: int | None,
    is_ascii: bool,
    random: Any,
) -> None:
    fields = list({**others, "requests": requests}.items())
    random.shuffle(fields)
    body = json.dumps(dict(fields), indent=indent, ensure_ascii=is_ascii).encode(
        errors="surrogatepass"
    )
    try:
        body.decode()
    except UnicodeDecodeError:
        return
    found = split(body, size)
    assert [json.loads(text) for text in found] == requests
    assert not any("\n" in text for text in found)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON: it ends too early"),
        (b"[]", r"'\[' in the place of {"),
        (b"{}", "requests: Field required"),
        (b'{"requests":{}}', "requests: must be a list"),
        (b'{"requests":[1]}', "'1' in the place of"),
        (b'{"requests":[{}]', "it ends too early"),
        (b'{"requests":[{},]}', r"after requests\[0\]: '\]' in the place of {"),
        (b'{"requests":[{"a":x}]}', "not valid JSON: Expecting value"),
        (b'{"requests":[{}]} x', "goes on after its JSON object"),
        (b'{"requests":[{}],"requests":[]}', "given twice"),
        (b'{"requests":[{"a":"\xff"}]}', "UTF-8"),
        (b'{"requests":[{"a":"' + b"x" * MAX_CHARS, "longer than 100000"),
        (b'{"requests":[{"a":"' + b"x" * MAX_CHARS + b'"}]}', "longer than 100000"),
        (b'{"requests":[{"a":' + b"[" * 200_000, "value of the body"),
    ],
)
@pytest.mark.parametrize("size", [10_000, 10**7])
def test_a_wrong_body_is_refused_with_its_place(body: bytes, message: str, size: int) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        split(body, size)
