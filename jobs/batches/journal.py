"""The lines of a batch that have ended, appended to two files as they end.

An entry is ``<line> <kind> <JSON>``. What counts is what is on disk: an entry is written, synced,
and then the line's job is forgotten. A torn last entry, after a crash, is cut off.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from jobs.batches.folder import BatchFolder
from jobs.batches.records import NO_USAGE, BatchUsage, LineCounts


class LineEnd(StrEnum):
    """How a line has ended."""

    SUCCEEDED = "S"
    ERRORED = "E"
    CANCELLED = "C"
    EXPIRED = "X"


_KINDS = frozenset(end.value.encode() for end in LineEnd)


@dataclass(frozen=True, slots=True)
class EndedLine:
    """A line and its answer, without a line break; ``usage`` counts once it is on disk."""

    line: int
    end: LineEnd
    answer: bytes
    usage: BatchUsage = NO_USAGE


_sync = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only


class _Part:
    """One of the two files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = 0

    def entries(self) -> Iterator[tuple[int, LineEnd, int, bytes]]:
        """Each entry's line, end, offset of its JSON, and its JSON; cuts what is torn."""
        good = 0
        with self.path.open("rb") as file:
            for raw in file:
                parts = raw.split(b" ", 2)
                is_whole = raw.endswith(b"\n") and len(parts) == 3 and parts[1] in _KINDS
                if not is_whole or not parts[0].isdigit():
                    break
                head = len(parts[0]) + 3
                yield int(parts[0]), LineEnd(parts[1].decode()), good + head, raw[head:-1]
                good += len(raw)
        os.ftruncate(self._descriptor, good)
        self.size = good

    def append(self, data: bytes) -> None:
        """Write all, or nothing: on an error, what was written is cut off again."""
        view = memoryview(data)
        at = self.size
        try:
            while view:
                num = os.pwrite(self._descriptor, view, at)
                at, view = at + num, view[num:]
            _sync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size = at

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def cut(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        self.size = size

    def close(self) -> None:
        os.close(self._descriptor)


class Journal:
    """The ended lines of one batch of ``total`` lines. For the one process that holds its lock."""

    def __init__(self, folder: BatchFolder, total: int) -> None:
        self._total = total
        self._lock = threading.Lock()  # nobody waits for the thread of a cancelled append
        self._is_closed = False
        self._parts = (_Part(folder.out_journal), _Part(folder.err_journal))
        self._ends = bytearray(total + 1)  # the end of each line, 0: none
        self._offsets = array("Q", bytes(8 * (total + 1)))
        self._lengths = array("Q", bytes(8 * (total + 1)))
        self.usage = NO_USAGE
        for part in self._parts:
            for line, end, offset, answer in part.entries():
                if 1 <= line <= total and not self._ends[line]:
                    self._note(line, end, offset, len(answer))
                    self.usage = self.usage.plus(usage_of(answer))

    def _note(self, line: int, end: LineEnd, offset: int, length: int) -> None:
        self._ends[line] = ord(end.value)
        self._offsets[line], self._lengths[line] = offset, length

    def has(self, line: int) -> bool:
        """Whether the line has ended."""
        return bool(self._ends[line])

    @property
    def counts(self) -> LineCounts:
        num = {end: self._ends.count(ord(end.value)) for end in LineEnd}
        succeeded = num.pop(LineEnd.SUCCEEDED)
        return LineCounts(
            self._total,
            succeeded,
            sum(num.values()),
            num[LineEnd.CANCELLED],
            num[LineEnd.EXPIRED],
        )

    def append(self, ended: Iterable[EndedLine]) -> None:
        """Make lines durable, those that have not ended yet. Raises ``OSError`` (a full disk),
        after which none of them has ended."""
        with self._lock:
            if self._is_closed:
                raise ValueError("the journal is closed")
            self._append({one.line: one for one in ended if not self.has(one.line)})

    def _append(self, new: dict[int, EndedLine]) -> None:
        groups: tuple[list[EndedLine], list[EndedLine]] = ([], [])
        for one in new.values():
            groups[one.end is not LineEnd.SUCCEEDED].append(one)
        sizes = [part.size for part in self._parts]
        try:
            pairs = zip(self._parts, groups, strict=True)
            placed = [self._write(part, group) for part, group in pairs]
        except OSError:
            for part, size in zip(self._parts, sizes, strict=True):
                part.cut(size)
            raise
        for one, offset in (pair for group in placed for pair in group):
            self._note(one.line, one.end, offset, len(one.answer))
            self.usage = self.usage.plus(one.usage)

    def _write(self, part: _Part, group: list[EndedLine]) -> list[tuple[EndedLine, int]]:
        placed, data, at = [], [], part.size
        for one in group:
            head = f"{one.line} {one.end.value} ".encode()
            placed.append((one, at + len(head)))
            data.append(head + one.answer + b"\n")
            at += len(data[-1])
        if data:
            part.append(b"".join(data))
        return placed

    def answers(self, *, succeeded: bool) -> Iterator[bytes]:
        """The answers of the lines with, or without, success, in the order of the input."""
        good = ord(LineEnd.SUCCEEDED.value)
        for line in range(1, self._total + 1):
            if self._ends[line] and (self._ends[line] == good) is succeeded:
                yield self.answer(line)

    def all_answers(self) -> Iterator[bytes]:
        """The answers of all lines in the order of the input."""
        return (self.answer(line) for line in range(1, self._total + 1) if self._ends[line])

    def answer(self, line: int) -> bytes:
        part = self._parts[self._ends[line] != ord(LineEnd.SUCCEEDED.value)]
        return part.read(self._offsets[line], self._lengths[line])

    def failed_lines(self) -> list[int]:
        """The numbers of the lines without success."""
        good = ord(LineEnd.SUCCEEDED.value)
        return [n for n in range(1, self._total + 1) if self._ends[n] and self._ends[n] != good]

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            for part in self._parts:
                part.close()


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    usage: _Usage | None = None


class _Response(msgspec.Struct):
    body: _Body | None = None


class _Result(msgspec.Struct):
    message: _Body | None = None


class _Answer(msgspec.Struct):
    response: _Response | None = None
    result: _Result | None = None


_answer_decoder = msgspec.json.Decoder(_Answer)


def usage_of(answer: bytes) -> BatchUsage:
    """The tokens that an answer of any dialect counts; none where it has no usage."""
    try:
        read = _answer_decoder.decode(answer)
    except msgspec.DecodeError:
        return NO_USAGE
    holder = (read.response and read.response.body) or (read.result and read.result.message)
    usage = holder.usage if holder else None
    if usage is None:
        return NO_USAGE
    taken = usage.prompt_tokens_details or usage.input_tokens_details or _Details()
    given = usage.completion_tokens_details or usage.output_tokens_details or _Details()
    return BatchUsage(
        usage.prompt_tokens or usage.input_tokens or 0,
        taken.cached_tokens or usage.cache_read_input_tokens or 0,
        usage.completion_tokens or usage.output_tokens or 0,
        given.reasoning_tokens or 0,
    )
