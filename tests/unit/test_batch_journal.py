"""The journal of a batch: nothing that is torn is believed, nothing that is there is doubled."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.batches.folder import BatchFolder
from jobs.batches.journal import EndedLine, Journal, LineEnd, usage_of
from jobs.batches.records import BatchUsage

_TOTAL = 10


def _ended(line: int, end: LineEnd = LineEnd.SUCCEEDED, tokens: int = 1) -> EndedLine:
    body = {"usage": {"prompt_tokens": 2, "completion_tokens": tokens}}
    data = json.dumps({"n": line, "response": {"body": body}}).encode()
    return EndedLine(line, end, data, usage_of(data))


@pytest.fixture
def folder(tmp_path: Path) -> BatchFolder:
    return BatchFolder(tmp_path)


def _numbers(answers: Any) -> list[int]:
    return [json.loads(answer)["n"] for answer in answers]


def test_answers_come_in_the_order_of_the_input(folder: BatchFolder) -> None:
    journal = Journal(folder, _TOTAL)
    journal.append([_ended(3), _ended(1), _ended(2, LineEnd.ERRORED)])
    journal.append([_ended(5, LineEnd.EXPIRED), _ended(4)])
    assert _numbers(journal.answers(succeeded=True)) == [1, 3, 4]
    assert _numbers(journal.answers(succeeded=False)) == [2, 5]
    assert _numbers(journal.all_answers()) == [1, 2, 3, 4, 5]
    assert journal.failed_lines() == [2, 5]
    counts = journal.counts
    assert (counts.completed, counts.failed, counts.expired, counts.num_left) == (3, 2, 1, 5)
    journal.close()


def test_a_reopened_journal_knows_what_is_on_disk(folder: BatchFolder) -> None:
    journal = Journal(folder, _TOTAL)
    journal.append([_ended(1), _ended(2, LineEnd.ERRORED)])
    known = journal.usage
    journal.close()
    again = Journal(folder, _TOTAL)
    assert again.usage == known == BatchUsage(4, 0, 2, 0)
    again.append([_ended(1, tokens=99), _ended(3)])
    assert again.usage.output_tokens == 3
    assert _numbers(again.all_answers()) == [1, 2, 3]
    again.close()


@pytest.mark.parametrize("torn", [b"4", b"4 S", b'4 S {"n":4', b"x S {}\n", b"4 Q {}\n"])
def test_a_torn_entry_is_cut_and_its_line_runs_again(folder: BatchFolder, torn: bytes) -> None:
    journal = Journal(folder, _TOTAL)
    journal.append([_ended(1)])
    journal.close()
    with folder.out_journal.open("ab") as file:
        file.write(torn)
    again = Journal(folder, _TOTAL)
    assert not again.has(4)
    again.append([_ended(4)])
    assert _numbers(again.all_answers()) == [1, 4]
    again.close()


def test_a_full_disk_leaves_no_half_group(
    folder: BatchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(folder, _TOTAL)
    journal.append([_ended(1)])
    real = os.pwrite

    def write_some(descriptor: int, data: Any, offset: int) -> int:
        if offset > len(real_size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, bytes(data)[:5], offset)

    real_size = folder.out_journal.read_bytes()
    monkeypatch.setattr(os, "pwrite", write_some)
    with pytest.raises(OSError, match="space"):
        journal.append([_ended(2, LineEnd.ERRORED), _ended(3)])
    monkeypatch.undo()
    assert folder.out_journal.read_bytes() == real_size
    assert not journal.has(2)
    journal.append([_ended(2, LineEnd.ERRORED), _ended(3)])
    assert _numbers(journal.all_answers()) == [1, 2, 3]
    journal.close()


def test_a_closed_journal_takes_nothing(folder: BatchFolder) -> None:
    journal = Journal(folder, _TOTAL)
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.append([_ended(1)])


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (
            {
                "response": {
                    "body": {
                        "usage": {
                            "prompt_tokens": 5,
                            "completion_tokens": 3,
                            "prompt_tokens_details": {"cached_tokens": 2},
                            "completion_tokens_details": {"reasoning_tokens": 1},
                        }
                    }
                }
            },
            BatchUsage(5, 2, 3, 1),
        ),
        (
            {"result": {"message": {"usage": {"input_tokens": 7, "output_tokens": 4}}}},
            BatchUsage(7, 0, 4, 0),
        ),
        ({"response": None, "error": {"code": "batch_expired"}}, BatchUsage()),
        ({"response": {"body": {"error": {}}}}, BatchUsage()),
    ],
)
def test_usage_is_read_in_each_dialect(answer: Any, usage: BatchUsage) -> None:
    assert usage_of(json.dumps(answer).encode()) == usage
