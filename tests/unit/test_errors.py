"""The tree of job errors: stable, unique codes that cross processes whole."""

from __future__ import annotations

import msgspec
import pytest

from jobs.contract.errors import ErrorInfo, InvalidRequestError, JobError


def all_errors() -> list[type[JobError]]:
    found, todo = [], [JobError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == "jobs.contract.errors"]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in all_errors()]
    assert len(set(codes)) == len(codes)


def test_every_code_finds_its_error() -> None:
    kinds = [kind for kind in all_errors() if kind is not JobError]
    assert {kind.code: kind for kind in kinds} == {
        code: kind for code, kind in JobError.registry.items() if kind in kinds
    }


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.code)
def test_an_error_crosses_a_process_whole(kind: type[JobError]) -> None:
    sent = kind("what is wrong", "temperature")
    data = msgspec.json.encode(sent.to_info())
    received = JobError.from_info(msgspec.json.decode(data, type=ErrorInfo))
    assert type(received) is kind
    assert (received.message, received.param, received.code) == (
        "what is wrong", "temperature", kind.code,
    )  # fmt: skip
    assert str(received) == "what is wrong"


def test_an_unknown_code_is_a_plain_job_error() -> None:
    received = JobError.from_info(ErrorInfo("from_the_future", "well"))
    assert type(received) is JobError
    assert received.message == "well"


def test_what_a_client_did_wrong_is_one_branch() -> None:
    wrong = {kind.code for kind in all_errors() if issubclass(kind, InvalidRequestError)}
    assert {"invalid_request", "unsupported_parameter", "context_length_exceeded"} <= wrong


def test_a_message_with_a_broken_character_can_be_sent() -> None:
    """As of a file name that is no UTF-8: it would end the thread that sends events."""
    sent = JobError("no model \udcff here").to_info()
    assert msgspec.json.decode(msgspec.json.encode(sent))["message"] == "no model ? here"
