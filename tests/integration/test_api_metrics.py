"""GET /metrics: what Prometheus reads of queues, jobs, tokens and workers."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from jobs.contract.records import NodeStatus, RunningJob
from jobs.storage import names
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, running_api


def samples(rig: Rig) -> dict[tuple[str, ...], float]:
    """(name, values of the labels in order of their names ...) -> value."""
    answer = rig.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_queues_and_workers_are_shown_by_model_id(rig: Rig) -> None:
    rig.supervise()
    desired = rig.load()
    rig.heartbeat(desired, running=2, sequences=5, slots=8, memory_bytes=1000, cpu_percent=50.0)
    rig.load("my model", "fake-20ms")
    futures = [rig.chat_soon(), rig.chat_soon()]
    wait_until(lambda: len(rig.waiting_ids()) == 2, "both wait")
    found = samples(rig)
    assert found["mgs_supervisors",] == 1
    # backend, model, model_id, state
    assert found["mgs_model_info", "fake", "fake-20ms", "my model", "ready"] == 1
    assert found["mgs_jobs_waiting", "0", "generation"] == 2
    assert found["mgs_jobs_waiting", "0", "control"] == 0
    assert found["mgs_jobs_waiting", "my model", "generation"] == 0
    assert found["mgs_jobs_waiting", "0", "batch"] == 0
    assert found["mgs_jobs_running", "interactive", "0"] == 2
    assert found["mgs_jobs_running", "batch", "0"] == 0
    assert found["mgs_sequences_running", "0"] == 5
    assert found["mgs_slots", "0"] == 8
    assert found["mgs_worker_memory_bytes", "0"] == 1000
    assert found["mgs_worker_cpu_ratio", "0"] == 0.5
    for _ in futures:
        rig.take().answer("x")
    assert [future.result().status_code for future in futures] == [200, 200]


def test_ended_jobs_add_up(rig: Rig) -> None:
    rig.load()
    for _ in range(2):
        future = rig.chat_soon()
        rig.take().answer("x")  # 3 prompt tokens, 1 cached, 2 generated, 1.5 ms in the queue
        future.result()
    future = rig.chat_soon()
    rig.take().failed("engine_error", "no")
    future.result()
    future = rig.post_soon("/v1/internal/token-count", {"prompt": "x"})
    rig.take_control().finished(num_tokens=1, usage=None, timings=None)
    future.result()
    found = samples(rig)
    # model_id, status, task
    assert found["mgs_jobs_ended_total", "0", "finished", "generate"] == 2
    assert found["mgs_jobs_ended_total", "0", "failed", "generate"] == 1
    assert found["mgs_jobs_ended_total", "0", "finished", "token_count"] == 1
    assert found["mgs_prompt_tokens_total", "0"] == 6
    assert found["mgs_cached_tokens_total", "0"] == 2
    assert found["mgs_generated_tokens_total", "0"] == 4
    assert found["mgs_queue_seconds_count", "0"] == 2
    assert found["mgs_queue_seconds_sum", "0"] == 0.003


def test_the_class_batch_is_shown_apart(rig: Rig) -> None:
    rig.supervise()
    desired = rig.load()
    flex = rig.post("/v1/completions", {"prompt": "x", "background": True, "service_tier": "flex"})
    lines = [RunningJob("a", "decode", job_class="batch"), RunningJob("b", "prefill")]
    rig.heartbeat(desired, running=2, jobs=lines, reread_tokens=7)
    rig.post("/management/queues/0/hold", {"classes": ["batch"]})
    found = samples(rig)
    assert found["mgs_jobs_waiting", "0", "batch"] == 1
    assert found["mgs_jobs_waiting", "0", "generation"] == 0
    assert found["mgs_jobs_running", "batch", "0"] == 1
    assert found["mgs_jobs_running", "interactive", "0"] == 1
    assert found["mgs_reread_tokens_total", "0"] == 7
    assert [key for key in found if key[0] == "mgs_queue_held"] == [
        ("mgs_queue_held", "batch", "0", "hold")
    ]
    key = names.job_key(flex.json()["id"])
    rig.redis.hset(key, mapping={"yields": 3, "batch": "batch_1"})
    rig.http.delete(f"/v1/jobs/{flex.json()['id']}")
    found = samples(rig)
    assert found["mgs_batch_lines_total", "0", "cancelled"] == 1
    assert found["mgs_yields_total", "0"] == 3


def test_a_job_cancelled_in_its_queue_has_ended_too(rig: Rig) -> None:
    rig.load()
    job_id = rig.post("/v1/completions", {"prompt": "x", "background": True}).json()["id"]
    rig.http.delete(f"/v1/jobs/{job_id}")
    assert samples(rig)["mgs_jobs_ended_total", "0", "cancelled", "generate"] == 1
    rig.post("/v1/completions", {"prompt": "x", "background": True})
    rig.post("/management/process/clean-up", {"timeout": 0})
    assert samples(rig)["mgs_jobs_ended_total", "0", "cancelled", "generate"] == 2


def test_deaths_of_workers_are_told_by_their_supervisor(rig: Rig) -> None:
    rig.load("a b")
    crashes = {names.slug_of("a b"): 3, "gone": 1}
    rig.desired_models.heartbeat_node(NodeStatus("here", 1, 0, crashes=crashes))
    found = samples(rig)
    assert found["mgs_worker_crashes_total", "a b", "here"] == 3
    assert found["mgs_worker_crashes_total", "gone", "here"] == 1


def test_an_empty_server_has_metrics(rig: Rig) -> None:
    assert samples(rig)["mgs_supervisors",] == 0


def test_metrics_are_behind_the_key(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, api_key="secret") as rig:
        assert rig.http.get("/metrics").status_code == 401
        key = {"Authorization": "Bearer secret"}
        assert rig.http.get("/metrics", headers=key).status_code == 200
