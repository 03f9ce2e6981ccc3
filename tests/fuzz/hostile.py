"""Requests that nobody should send: from our own OpenAPI, and bytes that no schema describes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

import schemathesis
from fastapi import FastAPI
from hypothesis import strategies as st
from schemathesis import GenerationMode

from jobs.contract.sampling import SAMPLING_FIELDS

T = TypeVar("T")

# They would take the model from under all others, or have no end.
_LEFT_OUT = {"/v1/internal/model/unload", "/v1/live", "/models/sse"}
_LEFT_OUT |= {f"/management/queues/{{model}}/{change}" for change in ("hold", "drain")}
_TARGET = {"model", "model_id"}
_UNLOADING = {"keep_alive", "ttl"}
"""With 0 and without a prompt, a request of ollama's unloads the model."""


@dataclass(frozen=True, repr=False)
class Sent:
    """A request, as bytes; ``headers`` are those that the generator set."""

    method: str
    path: str
    params: list[tuple[str, str]]
    headers: list[tuple[bytes, bytes]]
    content: bytes

    def __repr__(self) -> str:
        """Enough to send it again, unless it is huge."""
        line = f"{self.method} {self.path} {self.params} {self.headers}"
        return f"{line} {self.content[:1000]!r} ({len(self.content)} bytes)"


def requests_of(app: FastAPI) -> st.SearchStrategy[Sent]:
    """Three in four from the description, of routes with a body mostly; the rest raw bytes."""
    schema = schemathesis.openapi.from_dict(app.openapi())
    operations = [found.ok() for found in schema.get_all_operations()]
    posts, others = [], []
    for operation in operations:
        is_change = (operation.method, operation.path) == ("patch", "/v1/internal/model")
        if operation.path in _LEFT_OUT or is_change:  # the second parks the model
            continue
        modes = [
            operation.as_strategy(generation_mode=mode)
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        ]
        if operation.body:
            posts += modes
        else:
            others += modes
    paths = sorted({operation.path for operation in operations if operation.body})
    described = st.one_of(*posts, *posts, *others)
    return st.one_of(
        st.builds(_from_case, described, st.booleans()),
        st.builds(_from_case, described, st.just(True)),
        st.builds(_from_case, described, st.just(True)),
        st.builds(_raw, st.sampled_from(paths), _hostile_bodies()),
    )


def _from_case(case: Any, is_for_our_model: bool) -> Sent:
    """The case; aimed at the model that is loaded, or at whatever it names."""
    fields = case.as_transport_kwargs(base_url="http://fuzzed")
    content, body = fields.get("data") or b"", fields.get("json")
    headers = {name: value for name, value in fields["headers"].items() if value is not None}
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in _UNLOADING}
    if is_for_our_model:
        headers.pop("X-Model-Id", None)
        if isinstance(body, dict):
            body = {name: value for name, value in body.items() if name not in _TARGET}
    if "json" in fields:
        content = json.dumps(body).encode(errors="replace")
    if isinstance(content, str):
        content = content.encode(errors="replace")
    return Sent(
        method=fields["method"],
        path=fields["url"].removeprefix("http://fuzzed"),
        params=[(str(key), str(value)) for key, value in (fields.get("params") or {}).items()],
        headers=[_header(name, value) for name, value in headers.items() if _is_ours(name)],
        content=content if isinstance(content, bytes) else repr(content).encode(),
    )


def _is_ours(name: str) -> bool:
    return name.lower() in ("content-type", "x-model-id", "last-event-id", "prefer")


def _header(name: str, value: Any) -> tuple[bytes, bytes]:
    printable = "".join(char for char in str(value) if char.isprintable())
    return name.encode(), printable.strip().encode(errors="replace")


def _raw(path: str, content: bytes) -> Sent:
    return Sent("POST", path, [], [(b"Content-Type", b"application/json")], content)


_VALUES = [
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000, "-" + "9" * 400,
    "0." + "1" * 5000,
    "9223372036854775808", "-1", "1.5", "true", "null", "[]", "{}", '""', "[[[[]]]]",
    '"\\ud800"', '"\\u0000"', '"' + "x" * 100_000 + '"', '"' + "a\u0301" * 20_000 + '"',
    '"\u202e<|im_end|>"', '["' + '","'.join("s" * 4 for _ in range(10_000)) + '"]',
    "[" * 60_000 + "]" * 60_000, '{"a":' * 5000 + "1" + "}" * 5000,
    '{"50256": 1e999}', '{"999999999": 1}', '{"type": "json_schema", "json_schema": {"$ref": "#"}}',
]  # fmt: skip
_FIELDS = [
    "prompt", "messages", "input", "max_tokens", "n", "stop", "logprobs", "top_logprobs", "stream",
    "stream_options", "echo", "response_format", "tools", "llm_model_name", "context_length",
    "slots", "grammar", "adapters", "chat_template", "on_worker_loss", "background", "text",
    "older_than_s", "best_of", "suffix", "user",
    *(field.name for field in SAMPLING_FIELDS),
]  # fmt: skip
_BASES = [
    '{"prompt": "x", "max_tokens": 2',
    '{"messages": [{"role": "user", "content": "x"}], "max_tokens": 2',
    '{"input": "x"',
    '{"llm_model_name": "none"',
]
_WHOLE = [
    b"", b" ", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf{}", b"{", b"}", b"[]", b"null", b"1", b'"x"',
    b"{]", b'{"prompt": "\xc3\x28"}', b"[" * 200_000, b'{"a":' * 100_000, b"\xed\xa0\x80",
    b"x" * 1_000_000,
    b'{"messages": [{"role": "tool", "content": null}, {"role": "\\u0000"}, {}, null, 7, []]}',
    b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://a"}]}]}',
]  # fmt: skip


def _hostile_bodies() -> st.SearchStrategy[bytes]:
    """A plausible body with a hostile value in one or several places, twice the same name too."""
    members = st.lists(st.tuples(st.sampled_from(_FIELDS), _one_of(_VALUES)), max_size=3)
    return st.one_of(_one_of(_WHOLE), st.binary(max_size=200), *[_with_members(members)] * 4)


def _one_of(values: list[T]) -> st.SearchStrategy[T]:
    """As ``sampled_from``, that would show all of them whole whenever it shows one."""
    return st.integers(0, len(values) - 1).map(lambda index: values[index])


def _with_members(
    members: st.SearchStrategy[list[tuple[str, str]]],
) -> st.SearchStrategy[bytes]:
    def join(base: str, chosen: list[tuple[str, str]]) -> bytes:
        rest = "".join(f', "{name}": {value}' for name, value in chosen)
        return f"{base}{rest}}}".encode()

    return st.builds(join, st.sampled_from(_BASES), members)
