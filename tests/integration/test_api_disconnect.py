"""A client that goes away takes its job along: raw sockets against a real uvicorn."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest

from jobs.contract.records import JobStatus
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, raw_post, read_until

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}]}
GONE = "the client closed the connection"


def _close(client: socket.socket) -> None:
    client.close()


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.fixture(params=[_close, _reset], ids=["fin", "rst"])
def hang_up(request: pytest.FixtureRequest) -> Callable[[socket.socket], None]:
    leave: Callable[[socket.socket], None] = request.param
    return leave


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_queued_job_never_starts_when_its_client_leaves(
    rig: Rig, hang_up: Callable[[socket.socket], None], stream: bool
) -> None:
    rig.load()
    client = rig.send_raw(CHAT, {**BODY, "stream": stream})
    [job_id] = wait_until(rig.waiting_ids, "the job is queued")
    hang_up(client)
    wait_until(lambda: rig.record(job_id).status is JobStatus.CANCELLED, "the job is cancelled")
    assert rig.record(job_id).cancel == GONE
    assert rig.waiting_ids() == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_running_job_is_told_to_stop_when_its_client_leaves(
    rig: Rig, hang_up: Callable[[socket.socket], None], stream: bool
) -> None:
    rig.load()
    client = rig.send_raw(CHAT, {**BODY, "stream": stream})
    job = rig.take()
    job.started()
    job.chunk("Hel")
    if stream:
        read_until(client, b"Hel")
    hang_up(client)
    wait_until(lambda: rig.record(job.job_id).cancel == GONE, "the reason is on record")
    assert rig.record(job.job_id).status is JobStatus.RUNNING
    job.cancelled()


def test_other_streams_do_not_notice(rig: Rig) -> None:
    rig.load()
    stays = rig.chat_soon(stream=True)
    staying = rig.take()
    staying.started()
    leaves = rig.send_raw(CHAT, {**BODY, "stream": True})
    leaving = rig.take()
    leaving.started()
    leaves.close()
    wait_until(lambda: rig.record(leaving.job_id).cancel, "the other is cancelled")
    leaving.cancelled()
    staying.chunk("all of it", finish_reason="stop")
    staying.finished()
    assert "all of it" in stays.result().text


def test_leaving_ends_all_subscriptions(rig: Rig) -> None:
    rig.load()
    clients = [rig.send_raw(CHAT, {**BODY, "stream": True}) for _ in range(5)]
    jobs = [rig.take() for _ in clients]
    for client in clients:
        client.close()
    wait_until(lambda: all(rig.record(job.job_id).cancel for job in jobs), "all are cancelled")
    for job in jobs:
        job.cancelled()
    wait_until(lambda: not rig.redis.pubsub_channels("mgs:evt:*"), "no subscription is left")


def test_a_finished_job_is_not_cancelled_by_the_close_that_follows(rig: Rig) -> None:
    rig.load()
    client = rig.send_raw(CHAT, {**BODY, "stream": True})
    job = rig.take()
    job.answer("done")
    read_until(client, b"[DONE]")
    client.close()
    follow_up = rig.chat_soon()
    rig.take().answer("next")
    assert follow_up.result().status_code == 200
    assert rig.record(job.job_id).cancel == ""


def test_two_requests_on_one_connection(rig: Rig) -> None:
    rig.load()
    client = rig.connect()
    for text in ("one", "two"):
        client.sendall(raw_post(CHAT, {**BODY, "stream": True}))
        rig.take().answer(text)
        data = read_until(client, b"[DONE]\n\n\r\n0\r\n\r\n")
        assert text.encode() in data
    client.close()


def test_a_job_read_by_nobody_goes_on_when_it_is_in_the_background(rig: Rig) -> None:
    rig.load()
    client = rig.send_raw(CHAT, {**BODY, "background": True})
    assert b"202 Accepted" in read_until(client, b'"queued"')
    client.close()
    job = rig.take()
    job.answer("kept")
    record = rig.record(job.job_id)
    assert (record.status, record.is_background, record.cancel) == (JobStatus.FINISHED, True, "")


def test_leaving_during_a_load_does_not_cancel_it(rig: Rig) -> None:
    rig.supervise()
    client = rig.send_raw("/v1/internal/model/load", {"llm_model_name": "fake"})
    job = rig.take_control()
    client.close()
    follow_up = rig.post_soon("/v1/internal/model/load", {"llm_model_name": "fake"})
    job.started()
    job.finished()
    assert follow_up.result().json() == {"load": "success"}
    assert rig.record(job.job_id).cancel == ""
