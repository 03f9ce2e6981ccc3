"""Real worker processes with the fake engine: what they do for jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from rq import Worker
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer

from jobs.contract.events import EventKind
from jobs.contract.records import JobStatus
from jobs.contract.requests import LoadRequest, Prompt, TokenCountRequest, UnloadRequest
from jobs.storage.submitter import Submitter
from tests.helpers.driver import Driver, assert_whole, text, token_ids
from tests.helpers.samples import generate, submission
from tests.helpers.supervised import Supervised, supervised
from tests.helpers.waiting import wait_until

SLOW = "fake-20ms"


@pytest.fixture(scope="module")
def shared(redis_server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    """One supervisor with a fast and a slow model, for all tests that end nothing."""
    with Redis.from_url(redis_server.url, protocol=2) as client:
        client.flushall()
    with supervised(redis_server.url, tmp_path_factory.mktemp("shared")) as running:
        running.driver.load("fake", "0")
        running.driver.load(SLOW, "slow")
        for model_id in ("0", "slow"):
            running.driver.wait_ready(model_id)
        yield running


@pytest.fixture
def driver(shared: Supervised) -> Iterator[Driver]:
    yield shared.driver
    for model_id in ("0", "slow"):
        wait_until(
            lambda: shared.driver.status(model_id).running == 0,  # noqa: B023
            "nothing of the test runs on",
        )


def test_a_completion_counts_from_its_prompts_length_on(driver: Driver) -> None:
    found = driver.wait_ended(driver.generate("x" * 8, max_tokens=16))
    assert_whole(found)
    assert found[0].kind is EventKind.STARTED
    assert found[0].usage.prompt_tokens == 8
    assert text(found) == "0000001 0000002 "
    last = found[-1]
    assert last.kind is EventKind.FINISHED
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (8, 16)
    assert [event.finish_reason for event in found if event.finish_reason] == ["length"]


def test_the_same_seed_gives_the_same_text_whoever_else_runs(driver: Driver) -> None:
    sampling = {"temperature": 1.2, "seed": 7}
    alone = driver.text_of(driver.generate("seeded", 64, sampling=sampling))
    ids = [driver.generate("seeded", 64, sampling=sampling) for _ in range(3)]
    others = [driver.generate("other", 64, sampling={**sampling, "seed": 8}) for _ in range(3)]
    assert {driver.text_of(job_id) for job_id in ids} == {alone}
    assert alone not in {driver.text_of(job_id) for job_id in others}


def test_twelve_jobs_share_eight_slots_and_none_is_lost(driver: Driver) -> None:
    ids = [driver.generate("y" * 8, 40) for _ in range(12)]
    texts = {driver.text_of(job_id) for job_id in ids}
    assert texts == {"".join(f"{number:07d} " for number in range(1, 6))}
    for job_id in ids:
        assert_whole(driver.events(job_id))


def test_what_finds_no_slot_waits_in_the_queue_and_tokens_are_counted_meanwhile(
    driver: Driver,
) -> None:
    ids = [driver.submit(generate("z", 400), "slow") for _ in range(10)]
    for job_id in ids[:8]:
        driver.wait_running(job_id)
    queue = driver.store.queue("mgs-gen-slow")
    assert queue.get_job_ids() == ids[8:]
    counted = driver.wait_ended(driver.count_tokens("twelve bytes", "slow"))
    assert counted[-1].num_tokens == 12
    assert [driver.record(job_id).status for job_id in ids] == (
        [JobStatus.RUNNING] * 8 + [JobStatus.QUEUED] * 2
    )
    for job_id in ids:
        driver.store.cancel(job_id, "seen enough")
    for job_id in ids:
        assert driver.wait_ended(job_id)[-1].kind is EventKind.CANCELLED


def test_a_running_job_is_cancelled_and_its_neighbour_is_not(driver: Driver) -> None:
    doomed, neighbour = (driver.submit(generate("z" * 8, 60), "slow") for _ in range(2))
    driver.wait_running(doomed)
    driver.store.cancel(doomed, "its client left")
    found = driver.wait_ended(doomed)
    assert_whole(found)
    assert found[-1].kind is EventKind.CANCELLED
    assert (found[-1].error.code, found[-1].error.message) == ("job_cancelled", "its client left")
    assert 0 < found[-1].usage.completion_tokens < 60
    assert driver.text_of(neighbour) == "".join(f"{n:07d} " for n in range(1, 9))[:60]
    job = Job.fetch(doomed, driver.redis, JSONSerializer)
    wait_until(lambda: job.get_status() == "stopped", "RQ shows it as stopped")


def test_every_cancel_of_a_job_in_preparation_is_obeyed(driver: Driver) -> None:
    """The cancel races with the opening of the attempt and with the admission to the batch."""
    for _ in range(20):
        job_id = driver.submit(generate("p" * 4000, None, sampling={"ignore_eos": True}), "slow")
        wait_until(lambda: driver.record(job_id).status is JobStatus.RUNNING, "it is taken")  # noqa: B023
        driver.store.cancel(job_id, "at once")
        assert driver.wait_ended(job_id)[-1].kind is EventKind.CANCELLED


def test_a_queued_job_is_cancelled_without_ever_starting(driver: Driver) -> None:
    running = [driver.submit(generate("z", 400), "slow") for _ in range(8)]
    for job_id in running:
        driver.wait_running(job_id)
    queued = driver.submit(generate("z"), "slow")
    driver.store.cancel(queued, "never mind")
    assert [event.kind for event in driver.events(queued)] == [EventKind.CANCELLED]
    for job_id in running:
        driver.store.cancel(job_id, "over")
        driver.wait_ended(job_id)


def test_a_stop_string_ends_the_choice_and_is_not_shown(driver: Driver) -> None:
    found = driver.wait_ended(driver.generate("x" * 8, None, stop=["03 "]))
    assert text(found) == "0000001 0000002 00000"
    assert [event.finish_reason for event in found if event.finish_reason] == ["stop"]


def test_each_prompt_has_its_choices(driver: Driver) -> None:
    prompts = [Prompt(text="x" * 8), Prompt(text="x" * 16)]
    found = driver.wait_ended(driver.submit(generate(max_tokens=8, prompts=prompts, num_choices=2)))
    assert [text(found, choice) for choice in range(4)] == ["0000001 "] * 2 + ["0000002 "] * 2
    assert found[-1].usage.completion_tokens == 32
    assert found[-1].usage.prompt_tokens == 24


def test_a_prompt_that_is_too_long_fails_by_name_before_it_starts(driver: Driver) -> None:
    found = driver.wait_ended(driver.generate("x" * 8192))
    assert [event.kind for event in found] == [EventKind.FAILED]
    assert found[0].error.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("request_", "queue"),
    [(generate(), "mgs-ctl-0"), (TokenCountRequest(Prompt(text="x")), "mgs-gen-0")],
)
def test_a_job_on_the_wrong_queue_is_refused(driver: Driver, request_: Any, queue: str) -> None:
    new = submission(request_)
    Submitter(driver.redis, driver.settings).submit(new, driver.store.queue(queue))
    found = driver.wait_ended(new.job_id)
    assert found[-1].error.code == "bad_contract"
    assert driver.text_of(driver.generate("x" * 8, 8)) == "0000001 "
    wait_until(lambda: not _taken(driver, queue), "it is in no list any more")


def test_a_load_and_an_unload_that_nobody_wants_do_nothing_to_the_model(driver: Driver) -> None:
    """As of a desired model that is no more: no worker takes them, and the supervisor ends them."""
    pid = driver.status().pid
    load, unload = driver.submit(LoadRequest("fake", "fake")), driver.submit(UnloadRequest())
    assert driver.wait_ended(load)[-1].error.code == "model_unloaded"
    assert driver.wait_ended(unload)[-1].kind is EventKind.FINISHED
    for job_id in (load, unload):
        assert driver.record(job_id).attempt == 0, "it was never opened"
    assert driver.text_of(driver.generate("x" * 8, 8)) == "0000001 "
    assert driver.status().pid == pid


def test_forged_jobs_run_nothing_and_delay_nobody(driver: Driver, tmp_path: Path) -> None:
    canary = tmp_path / "executed"
    queue = driver.store.queue("mgs-gen-0")
    for number, name in enumerate(["os.system", "builtins.exec", "workers.__main__.main", ""]):
        job = Job.create(
            name or "x",
            args=(f"touch {canary}",),
            id=f"forged-{number}",
            connection=driver.redis,
            serializer=JSONSerializer,
        )
        queue.enqueue_job(job)
    assert driver.text_of(driver.generate("x" * 8, 8)) == "0000001 "
    assert not canary.exists()
    # RQ's books are kept on a thread of their own: the answer may come before its first entry.
    wait_until(lambda: not _taken(driver, queue.name), "nothing of them is left")
    wait_until(lambda: _executions(driver) == 0, "nobody works on them")
    for number in range(4):
        assert driver.redis.ttl(f"rq:job:forged-{number}") > 0


def _taken(driver: Driver, queue: str) -> list[bytes]:
    """Ids in the intermediate list of the queue."""
    found: list[bytes] = driver.redis.lrange(
        driver.store.queue(queue).intermediate_queue_key, 0, -1
    )
    return found


def _executions(driver: Driver) -> int:
    workers = Worker.all(driver.redis, serializer=JSONSerializer)
    return sum(len(worker.get_current_executions(refresh=True)) for worker in workers)


@pytest.mark.parametrize("damage", ["rq hash", "request", "record"])
def test_a_damaged_job_ends_with_a_reason(driver: Driver, damage: str) -> None:
    blockers = [driver.submit(generate("z", 400), "slow") for _ in range(8)]
    for job_id in blockers:
        driver.wait_running(job_id)
    damaged, healthy = (driver.submit(generate("z" * 8, 8), "slow") for _ in range(2))
    if damage == "rq hash":
        driver.redis.hset(Job.key_for(damaged), "status", "nonsense")
    elif damage == "request":
        driver.redis.set(f"mgs:req:{damaged}", "nonsense")
    else:
        driver.redis.hset(f"mgs:job:{damaged}", "attempt", "nonsense")
    for job_id in blockers:
        driver.store.cancel(job_id, "make room")
    assert driver.text_of(healthy) == "0000001 "
    if damage != "record":
        assert driver.wait_ended(damaged)[-1].error.code == "bad_contract"


def test_rq_shows_the_worker_as_it_is(driver: Driver) -> None:
    job_id = driver.submit(generate("z", 200), "slow")
    driver.wait_running(job_id)
    wait_until(
        lambda: StartedJobRegistry("mgs-gen-slow", driver.redis, serializer=JSONSerializer).count,
        "RQ notes the job",
    )
    names = {worker.name: worker for worker in Worker.all(driver.redis, serializer=JSONSerializer)}
    assert sorted(name.rsplit(".", 1)[0] for name in names) == [
        "0.batch", "0.ctl", "0.gen", "slow.batch", "slow.ctl", "slow.gen",
    ]  # fmt: skip
    (worker,) = [worker for name, worker in names.items() if name.startswith("slow.gen")]
    assert worker.get_state() == "busy"
    assert worker.queue_names() == ["mgs-gen-slow"]
    assert worker.pid == driver.status("slow").pid
    assert [run.job_id for run in worker.get_current_executions()] == [job_id]
    driver.store.cancel(job_id, "seen")
    driver.wait_ended(job_id)
    wait_until(
        lambda: driver.redis.hget(worker.key, "state") == b"idle", "the worker is idle again"
    )


def test_no_prompt_and_no_answer_is_in_the_log_or_in_rqs_keys(
    driver: Driver, shared: Supervised
) -> None:
    job_id = driver.generate("canary-prompt", 16, stop=["canary-stop"])
    answer = driver.text_of(job_id)
    assert answer
    said = shared.log.read_text()
    stored = driver.redis.hgetall(Job.key_for(job_id))
    for secret in ("canary-prompt", "canary-stop", answer):
        assert secret not in said
        assert not [key for key, value in stored.items() if secret.encode() in value]


def test_the_processes_title_names_the_model(driver: Driver) -> None:
    title = " ".join(psutil.Process(driver.status("slow").pid).cmdline())
    assert "worker of model slow" in title


def test_a_chat_prompt_and_a_token_count_see_the_same_template(driver: Driver) -> None:
    prompt = Prompt(text="hello", is_chat=True)
    counted = driver.wait_ended(driver.submit(TokenCountRequest(prompt)))[-1].num_tokens
    done = driver.wait_ended(driver.submit(generate(prompts=[prompt], max_tokens=1)))[-1]
    assert counted == done.usage.prompt_tokens > 5
    assert token_ids(driver.events(done.job))
