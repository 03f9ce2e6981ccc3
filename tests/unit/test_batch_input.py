"""The check of a batch's input file, and the reading of its lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.batches.input_file import CheckedInput, InputFile, check_input

_URL = "/v1/chat/completions"


def _line(custom_id: Any = "a", **changes: Any) -> bytes:
    value = {"custom_id": custom_id, "method": "POST", "url": _URL, "body": {"model": "m"}}
    return json.dumps(value | changes).encode()


def _checked(folder: Path, data: bytes, max_lines: int = 1000) -> CheckedInput:
    path = folder / "input.jsonl"
    path.write_bytes(data)
    return check_input(path, _URL, max_lines)


def _codes(found: CheckedInput) -> list[tuple[str, int | None]]:
    return [(error.code, error.line) for error in found.errors]


@pytest.mark.parametrize(
    "data",
    [
        _line("a") + b"\n" + _line("b") + b"\n",
        _line("a") + b"\n" + _line("b"),
        b"\xef\xbb\xbf" + _line("a") + b"\r\n" + _line("b") + b"\r\n",
        _line("a") + b"\n" + _line("b") + b"\n\n  \n",
    ],
    ids=["plain", "no final line break", "byte order mark and CRLF", "blank lines at the end"],
)
def test_files_of_all_editors_are_read(tmp_path: Path, data: bytes) -> None:
    found = _checked(tmp_path, data)
    assert (found.total, found.model, found.errors) == (2, "m", [])
    source = InputFile(tmp_path / "input.jsonl")
    assert [source.read(n).custom_id for n in (1, 2)] == ["a", "b"]
    assert len(source) == 2
    source.close()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "invalid_json_line"),
        (b"{", "invalid_json_line"),
        (b"\xff\xfe", "invalid_json_line"),
        (b"[" * 100_000, "invalid_json_line"),
        (b'["a"]', "invalid_json_line"),
        (_line(None), "invalid_custom_id"),
        (_line(""), "invalid_custom_id"),
        (_line("x" * 513), "invalid_custom_id"),
        (_line("first"), "duplicate_custom_id"),
        (_line(method="GET"), "invalid_method"),
        (_line(url="/v1/files"), "url_mismatch"),
        (_line(body=None), "invalid_body"),
        (_line(body={"model": 3}), "invalid_body"),
        (_line(body={"model": "other"}), "model_mismatch"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: bytes, code: str) -> None:
    found = _checked(tmp_path, _line("first") + b"\n" + line + b"\n" + _line("last"))
    assert _codes(found) == [(code, 2)]


def test_an_empty_file_and_one_with_too_many_lines_are_refused(tmp_path: Path) -> None:
    assert _codes(_checked(tmp_path, b"\n\n")) == [("empty_file", None)]
    lines = b"\n".join(_line(str(n)) for n in range(4))
    assert _codes(_checked(tmp_path, lines, 3)) == [("too_many_tasks", None)]
    assert _codes(_checked(tmp_path, lines, 4)) == []


def test_at_most_a_hundred_errors_are_collected(tmp_path: Path) -> None:
    found = _checked(tmp_path, b"{\n" * 500)
    assert len(found.errors) == 100
    assert found.errors[-1].line == 100
