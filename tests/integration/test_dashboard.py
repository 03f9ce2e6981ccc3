"""rq-dashboard behind our wrapper: every page opens while a job runs, and none changes anything."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer

if not all(importlib.util.find_spec(name) for name in ("rq_dashboard", "six")):
    pytest.skip("the extra 'dash' is not installed", allow_module_level=True)

from flask.testing import FlaskClient

from api.cli.dashboard import make_app

_JOB_ID = "chatcmpl-1"


@pytest.fixture
def connection(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def pages(redis_url: str, connection: Redis) -> FlaskClient:
    """The dashboard while a worker executes one job and another one waits."""
    queue = Queue("mgs-gen-0", connection=connection, serializer=JSONSerializer)
    queue.enqueue("mgs.generate", _JOB_ID, job_id=_JOB_ID, description="chat demo", meta={"n": 1})
    queue.enqueue("mgs.generate", "chatcmpl-2", job_id="chatcmpl-2", description="chat demo")
    lines = Queue("mgs-batch-0", connection=connection, serializer=JSONSerializer)
    lines.enqueue("mgs.generate", "bline-1", job_id="bline-1", description="chat demo")
    worker = Worker([queue], connection=connection, serializer=JSONSerializer, name="0.gen.1")
    worker.register_birth()
    job = Job.fetch(_JOB_ID, connection=connection, serializer=JSONSerializer)
    worker.set_state("busy")
    worker.prepare_execution(job)
    worker.prepare_job_execution(job)
    return make_app(redis_url).test_client()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/0/view/queues",
        "/0/view/workers",
        "/0/view/jobs",
        "/0/view/jobs/mgs-gen-0/started/8/asc/1",
        "/0/view/jobs/mgs-batch-0/queued/8/asc/1",
        f"/0/view/job/{_JOB_ID}",
        "/0/data/queues.json",
        "/0/data/workers.json",
        "/0/data/jobs/mgs-gen-0/queued/8/asc/1.json",
        "/0/data/jobs/mgs-gen-0/started/8/asc/1.json",
        f"/0/data/job/{_JOB_ID}.json",
    ],
)
def test_a_page_opens_while_a_job_runs(pages: FlaskClient, path: str) -> None:
    assert pages.get(path, follow_redirects=True).status_code == 200


def test_the_workers_page_shows_the_running_job(pages: FlaskClient) -> None:
    (worker,) = pages.get("/0/data/workers.json").get_json()["workers"]
    assert worker["name"] == "0.gen.1"
    assert worker["current_job"]["job_id"] == _JOB_ID


def test_the_queues_page_shows_the_class_batch(pages: FlaskClient) -> None:
    found = pages.get("/0/data/queues.json").get_json()["queues"]
    counts = {queue["name"]: queue["count"] for queue in found}
    assert counts == {"mgs-gen-0": 2, "mgs-batch-0": 1}


def test_the_job_page_shows_its_meta(pages: FlaskClient) -> None:
    assert pages.get(f"/0/data/job/{_JOB_ID}.json").get_json()["metadata"] == '{"n": 1}'


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/job/{_JOB_ID}/delete"),
        ("POST", f"/job/{_JOB_ID}/requeue"),
        ("GET", "/requeue/mgs-gen-0"),
        ("POST", "/requeue/mgs-gen-0"),
        ("POST", "/queue/mgs-gen-0/queued/empty"),
        ("POST", "/queue/mgs-gen-0/compact"),
    ],
)
def test_nothing_can_be_changed(
    pages: FlaskClient, connection: Redis, method: str, path: str
) -> None:
    before = {key: connection.dump(key) for key in connection.scan_iter()}
    assert pages.open(path, method=method).status_code == 403
    assert {key: connection.dump(key) for key in connection.scan_iter()} == before


def test_a_foreign_host_name_is_refused(pages: FlaskClient) -> None:
    response = pages.get("/", headers={"Host": "rebound.example"})
    assert response.status_code == 403


def test_without_redis_it_says_so() -> None:
    client = make_app("unix:///nonexistent/redis.sock").test_client()
    assert client.get("/0/data/workers.json").status_code == 503


def test_a_password_is_not_shown(redis_url: str) -> None:
    client = make_app(redis_url.replace("?", "?password=secret&")).test_client()
    assert b"secret" not in client.get("/0/view/jobs").data
