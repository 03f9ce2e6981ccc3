"""The input file of a batch: one request per line. Its check, and where each line lies."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from jobs.batches.records import MAX_ERRORS, LineError

_BOM = b"\xef\xbb\xbf"
_MAX_ID_CHARS = 512


class InputLine(msgspec.Struct, frozen=True):
    """One request: its id for the client, and its body, undecoded."""

    custom_id: str
    body: msgspec.Raw


_line_decoder = msgspec.json.Decoder(InputLine)


class InputFile:
    """The lines of a checked file, read one by one. Lines count from 1."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._offsets = array("Q", (offset for offset, _ in _lines(self._file)))

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, line: int) -> InputLine:
        """Raises ``msgspec.DecodeError`` for a line that is no request."""
        return _line_decoder.decode(self.raw(line))

    def raw(self, line: int) -> bytes:
        """The line as it is, without its line break."""
        self._file.seek(self._offsets[line - 1])
        return self._file.readline().strip(b"\r\n")

    def close(self) -> None:
        self._file.close()


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each line. Blank lines at the end of the file do not count."""
    offset = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
    file.seek(offset)
    blanks: list[tuple[int, bytes]] = []
    for raw in file:
        if raw.isspace():
            blanks.append((offset, b""))
        else:
            yield from blanks
            blanks.clear()
            yield offset, raw.strip(b"\r\n")
        offset += len(raw)


@dataclass(slots=True)
class CheckedInput:
    """What the check has found: the number of lines, their model, and at most 100 errors."""

    total: int = 0
    model: str | None = None
    errors: list[LineError] = field(default_factory=list)


class _Check:
    def __init__(self, endpoint: str, max_lines: int, *, is_one_model: bool) -> None:
        self._endpoint = endpoint
        self._max_lines = max_lines
        self._is_one_model = is_one_model
        self._has_model = False
        self._seen: set[bytes] = set()
        self.found = CheckedInput()

    def take(self, raw: bytes) -> bool:
        """Check the next line. False when enough is known."""
        self.found.total += 1
        if self.found.total > self._max_lines:
            message = f"the file has more than {self._max_lines} lines"
            self.found.errors = [LineError("too_many_tasks", message)]
            return False
        problem = self._problem_of(raw)
        if problem is not None:
            code, message, param = problem
            self.found.errors.append(LineError(code, message, self.found.total, param))
        return len(self.found.errors) < MAX_ERRORS

    def _problem_of(self, raw: bytes) -> tuple[str, str, str | None] | None:
        if not raw:
            return "invalid_json_line", "the line is blank", None
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            return "invalid_json_line", f"the line is not valid JSON: {error}", None
        if not isinstance(value, dict):
            return "invalid_json_line", "the line is not a JSON object", None
        return self._id_problem(value) or self._request_problem(value)

    def _id_problem(self, value: dict[str, Any]) -> tuple[str, str, str] | None:
        custom_id = value.get("custom_id")
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= _MAX_ID_CHARS:
            message = f"custom_id: a text of 1 to {_MAX_ID_CHARS} characters is required"
            return "invalid_custom_id", message, "custom_id"
        digest = blake2b(custom_id.encode(), digest_size=16).digest()  # less memory than the text
        if digest in self._seen:
            message = f"custom_id: {custom_id[:80]!r} is that of an earlier line, too"
            return "duplicate_custom_id", message, "custom_id"
        self._seen.add(digest)
        return None

    def _request_problem(self, value: dict[str, Any]) -> tuple[str, str, str] | None:
        if value.get("method") != "POST":
            return "invalid_method", "method: must be 'POST'", "method"
        if value.get("url") != self._endpoint:
            message = f"url: must be the batch's endpoint, {self._endpoint!r}"
            return "url_mismatch", message, "url"
        body = value.get("body")
        if not isinstance(body, dict):
            return "invalid_body", "body: a JSON object is required", "body"
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            return "invalid_body", "body.model: must be a text", "body.model"
        if not self._has_model:
            self.found.model, self._has_model = model, True
        if self._is_one_model and model != self.found.model:
            message = f"body.model: must be that of the lines before, {self.found.model!r}"
            return "model_mismatch", message, "body.model"
        return None


def check_input(
    path: Path, endpoint: str, max_lines: int, *, is_one_model: bool = True
) -> CheckedInput:
    """Read the whole file once. A file that cannot be read raises ``OSError``."""
    check = _Check(endpoint, max_lines, is_one_model=is_one_model)
    with path.open("rb") as file:
        for _, raw in _lines(file):
            if not check.take(raw):
                break
    if check.found.total == 0:
        check.found.errors.append(LineError("empty_file", "the file has no lines"))
    return check.found
