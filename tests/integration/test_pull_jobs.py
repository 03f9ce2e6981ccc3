"""Pulls as jobs: through the API, in a process of their own, killed, cancelled, seen by RQ."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from jobs.catalog.partial_downloads import list_partial
from jobs.contract.errors import QueueFullError
from jobs.contract.pulls import PullRequest
from jobs.contract.records import JobStatus
from jobs.storage import names
from tests.helpers.driver import assert_whole
from tests.helpers.fake_hub import FakeHub, HeldHub, HubFile, fake_hub, mlx_files
from tests.helpers.samples import submission
from tests.helpers.supervised import Supervised, supervised
from tests.helpers.taking import open_attempt
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, running_api

MB = 1_000_000
REPO = "org/tiny"
FIRST = HeldHub.FILE
PULL, DELETE = "/v1/internal/model/pull", "/v1/internal/model/delete"
TOKEN = "hf_canary"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as found:
        yield found


@pytest.fixture
def held(hub: FakeHub) -> Iterator[HeldHub]:
    found = HeldHub(hub, REPO)
    yield found
    found.release()


@pytest.fixture
def machine(hub: FakeHub, redis_url: str, tmp_path: Path) -> Iterator[Supervised]:
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DOWNLOAD_TIMEOUT": "30"}
    with supervised(redis_url, tmp_path, **env) as found:
        yield found


def start(rig: Rig, **fields: Any) -> str:
    body = {"model": REPO, "force": True, "background": True, **fields}
    answer = rig.post(PULL, body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def pull_process(machine: Supervised, other_than: int = 0) -> psutil.Process:
    def find() -> psutil.Process | None:
        pids = [pid for pid in machine.worker_pids() if pid != other_than]
        return psutil.Process(pids[0]) if pids else None

    found = wait_until(find, "the process of the pull")
    assert found is not None
    return found


def partial_size(rig: Rig) -> int:
    parts = rig.settings.models_dir.glob(f".pull/*/files/{FIRST}*")
    return sum(path.stat().st_size for path in parts)


def assert_model(rig: Rig, files: dict[str, HubFile]) -> None:
    folder = rig.settings.models_dir / "tiny"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        name: files[name].data for name in files if (folder / name).exists()
    }
    assert (folder / FIRST).exists()


def test_a_pull_is_a_job_with_progress_and_a_result(
    rig: Rig, machine: Supervised, hub: FakeHub
) -> None:
    files = mlx_files()
    hub.add(REPO, files)
    answer = rig.post(PULL, {"model": REPO, "force": True})
    assert answer.json() == {"pull": "success", "model_name": "tiny"}
    assert_model(rig, files)
    assert "tiny" in rig.http.get("/v1/internal/model/list").json()["model_names"]
    (job,) = rig.http.get("/v1/jobs").json()["data"]
    assert (job["task"], job["status"], job["model_id"]) == ("pull", "finished", "")
    whole = rig.http.get(f"/v1/jobs/{job['id']}").json()
    assert whole["result"] == {"pull": "success", "model_name": "tiny"}
    events = machine.driver.events(job["id"])
    assert_whole(events)
    total = sum(path.stat().st_size for path in (rig.settings.models_dir / "tiny").iterdir())
    assert [e.total for e in events if e.kind == "progress"][-1] == total
    replay = rig.http.get(f"/v1/jobs/{job['id']}/events").text
    assert f'"completed":{total},"total":{total}' in replay


def test_a_running_pull_is_seen_by_clients_and_by_rq(
    rig: Rig, machine: Supervised, held: HeldHub
) -> None:
    first, waiting = start(rig), start(rig, revision="other")
    held.held.wait(20)
    driver = machine.driver
    driver.wait_status(first, JobStatus.RUNNING)
    queue = Queue(names.PULL_QUEUE, connection=driver.redis, serializer=JSONSerializer)
    wait_until(lambda: queue.started_job_registry.get_job_ids() == [first], "RQ knows that it runs")
    assert queue.get_job_ids() == [waiting]
    (worker,) = Worker.all(queue=queue, serializer=JSONSerializer)
    assert worker.get_state() == "busy"
    command = [sys.executable, "-m", "rq.cli", "info", "--raw", "-u"]
    shown = subprocess.check_output([*command, rig.settings.effective_redis_url], text=True)
    assert f"queue {names.PULL_QUEUE} 1" in shown
    assert f"worker {worker.name}" in shown
    found = queue.fetch_job(waiting)
    assert found is not None
    node = driver.desired_models.nodes()[0].node
    assert found.meta == {"task": "mgs.pull", "model": REPO, "node": node}
    assert rig.http.get(f"/v1/jobs/{first}").json()["progress"]["total"] > MB
    assert start(rig) == first
    assert rig.http.delete(f"/v1/jobs/{waiting}").json()["status"] == "cancelled"
    held.release()
    driver.wait_ended(first)
    wait_until(lambda: queue.finished_job_registry.get_job_ids() == [first], "RQ knows its end")
    wait_until(lambda: not Worker.all(queue=queue), "its process is unregistered")
    assert queue.started_job_registry.get_job_ids() == queue.get_job_ids() == []
    assert driver.redis.smembers(names.claims_key(names.PULL_SLUG)) == set()
    assert names.PULL_SLUG not in driver.store.slugs()


def test_a_cancelled_pull_leaves_a_part_that_a_repeat_or_rm_uses(
    rig: Rig, machine: Supervised, held: HeldHub
) -> None:
    job = start(rig)
    wait_until(lambda: partial_size(rig) == MB, "a part is there")
    answer = rig.http.delete(f"/v1/jobs/{job}").json()
    assert (answer["status"], answer["error"]["code"]) == ("cancelled", "job_cancelled")
    wait_until(lambda: machine.worker_pids() == [], "the process ends")
    assert "tiny" not in rig.http.get("/v1/internal/model/list").json()["model_names"]
    held.num_bytes = 2 * MB
    again = start(rig)
    wait_until(lambda: partial_size(rig) == 2 * MB, "the repeat goes on")
    assert held.hub.offsets_of(FIRST) == [0, MB]
    assert rig.post(DELETE, {"partial": True}).status_code == 409
    rig.http.delete(f"/v1/jobs/{again}")
    wait_until(lambda: machine.worker_pids() == [], "the process ends")
    removed = rig.post(DELETE, {"partial": True, "model": REPO})
    assert removed.status_code == 200, removed.text
    assert removed.json()["freed_bytes"] > 2 * MB
    assert list_partial(rig.settings.models_dir) == []


def test_a_pull_outlives_its_process_and_its_supervisor(
    rig: Rig, machine: Supervised, held: HeldHub
) -> None:
    job = start(rig)
    wait_until(lambda: partial_size(rig) == MB, "a part is there")
    first = pull_process(machine)
    held.num_bytes = 2 * MB
    first.kill()
    wait_until(lambda: partial_size(rig) == 2 * MB, "the next process goes on")
    second = pull_process(machine, other_than=first.pid)
    (supervisor,) = machine.driver.desired_models.nodes()
    os.kill(supervisor.pid, signal.SIGKILL)
    second.wait(20)
    machine.start()
    held.release()
    events = machine.driver.wait_ended(job)
    assert events[-1].text == "tiny"
    assert_whole(events)
    assert held.hub.offsets_of(FIRST) == [0, MB, 2 * MB]
    assert_model(rig, held.files)


def test_errors_of_the_hub_have_a_status_and_no_token(
    rig: Rig, machine: Supervised, hub: FakeHub
) -> None:
    hub.add(REPO, mlx_files(1000))
    hub.refusals["config.json"] = (403, {})
    refused = rig.post(PULL, {"model": REPO, "force": True})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "repo_access_denied")
    hub.refusals.clear()
    assert rig.post(PULL, {"model": REPO, "force": True}).status_code == 200
    assert {one[3] for one in hub.seen} == {f"Bearer {TOKEN}", ""}
    redis = machine.driver.redis
    dumped = b"".join(redis.dump(key) or b"" for key in redis.scan_iter())
    said = machine.log.read_bytes()
    for secret in (TOKEN.encode(), b"signature="):
        assert secret not in dumped
        assert secret not in said


def test_a_name_that_is_no_repository_is_refused(rig: Rig) -> None:
    for name in ("", "a/b/c", "../x", "org/..", "org/x y", "org/x:", "-/x"):
        found = rig.post(PULL, {"model": name})
        assert (found.status_code, found.json()["error"]["param"]) == (400, "model"), name


def test_a_machine_that_is_not_there_is_refused(rig: Rig) -> None:
    rig.supervise()
    found = rig.post(PULL, {"model": REPO, "node": "elsewhere"})
    assert found.json()["error"]["param"] == "node"
    assert "here (here)" in found.json()["error"]["message"]


def test_a_server_may_be_told_to_download_nothing(redis_url: str, tmp_path: Path) -> None:
    with running_api(tmp_path, redis_url, pull=False) as rig:
        found = rig.post(PULL, {"model": REPO})
        assert (found.status_code, found.json()["error"]["code"]) == (403, "pull_disabled")


def test_pulling_and_removing_need_the_management_key(redis_url: str, tmp_path: Path) -> None:
    with running_api(tmp_path, redis_url, api_key="user", management_key="manager") as rig:
        for path in (PULL, DELETE):
            found = rig.post(path, {"model": REPO}, Authorization="Bearer user")
            assert found.status_code == 403


def test_pulls_that_no_machine_does_are_ended(rig: Rig, redis_url: str, tmp_path: Path) -> None:
    """One of a machine that may not download, and a cancelled one of a machine that is gone."""
    with supervised(redis_url, tmp_path, MGS_PULL="false") as found:
        (node,) = found.driver.desired_models.nodes()
        here, gone = (
            submission(PullRequest(REPO, uid), model_id=names.NO_MODEL)
            for uid in (node.uid, "gone")
        )
        rig.store.submit(gone)
        open_attempt(rig.redis, names.pull_worker_name("gone", "token"), gone.job_id)
        rig.store.submit(here)
        assert found.driver.wait_ended(here.job_id)[-1].error.code == "pull_failed"
        assert rig.record(gone.job_id).status is JobStatus.RUNNING
        rig.http.delete(f"/v1/jobs/{gone.job_id}")
        assert found.driver.wait_ended(gone.job_id)[-1].kind == "cancelled"
        wait_until(lambda: rig.store.claims(names.PULL_SLUG) == [], "its claim is dropped")


def test_the_queue_of_pulls_has_a_limit(rig: Rig) -> None:
    def submit() -> None:
        new = submission(PullRequest(REPO, "a node"), model_id=names.NO_MODEL)
        rig.store.submit(new)

    for _ in range(100):
        submit()
    with pytest.raises(QueueFullError, match="100 jobs wait to be downloaded"):
        submit()
