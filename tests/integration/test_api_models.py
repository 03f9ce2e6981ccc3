"""Load, unload, token count, lists and facts of models, with a scripted supervisor."""

from __future__ import annotations

import time

import httpx
import pytest
from openai import NotFoundError, OpenAI
from openai.types import Model

from api.execution.services import Services
from jobs.contract.records import DesiredModel, JobStatus, WorkerState, encode_record
from jobs.contract.requests import LoadRequest
from jobs.storage import names
from jobs.storage.submitter import Submission
from tests.gguf_bytes import gguf_bytes
from tests.helpers.stores import add_files, mlx_files
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, check_error_shape

LOAD, UNLOAD = "/v1/internal/model/load", "/v1/internal/model/unload"
FAKE = {"llm_model_name": "fake"}


def test_the_list_shows_what_is_on_disk(rig: Rig) -> None:
    assert rig.http.get("/v1/internal/model/list").json() == {"model_names": ["fake", "tiny.gguf"]}
    (rig.settings.models_dir / "another.gguf").write_bytes(b"GGUF")
    assert "another.gguf" in rig.http.get("/v1/internal/model/list").json()["model_names"]


def test_a_load_wants_the_model_and_answers_when_it_is_ready(rig: Rig) -> None:
    rig.supervise()
    body = {**FAKE, "temperature": 0.5, "context_length": 128, "slots": 2}
    future = rig.post_soon(LOAD, body, X_Model_Id="0")
    job = rig.take_control()
    desired = rig.desired_models.get("0")
    assert desired is not None
    assert (desired.load, desired.load_job) == (job.request, job.job_id)
    assert (desired.load.defaults.temperature, desired.load.context_length, desired.load.slots) == (
        0.5,
        128,
        2,
    )
    job.progress("load", 0.5)
    assert not future.done()
    job.finished()
    assert future.result().json() == {"load": "success"}


def test_a_repeated_load_waits_for_the_first_and_succeeds(rig: Rig) -> None:
    rig.supervise()
    first = rig.post_soon(LOAD, FAKE)
    job = rig.take_control()
    second = rig.post_soon(LOAD, FAKE)
    job.started()
    job.finished()
    for answer in (first.result(), second.result(), rig.post(LOAD, FAKE)):
        assert answer.json() == {"load": "success"}
    assert rig.redis.llen(rig.store.queue(names.control_queue("0")).key) == 0


def test_a_repeated_load_succeeds_when_the_first_is_forgotten(rig: Rig) -> None:
    rig.supervise()
    rig.load()
    assert rig.post(LOAD, FAKE).json() == {"load": "success"}


@pytest.mark.parametrize("body", [{"llm_model_name": "tiny.gguf"}, {**FAKE, "slots": 3}])
def test_an_id_in_use_is_a_409(rig: Rig, body: dict[str, object]) -> None:
    rig.supervise()
    rig.load()
    answer = rig.post(LOAD, body)
    assert answer.status_code == 409
    check_error_shape(answer.json())
    assert answer.json()["error"]["code"] == "model_id_in_use"


@pytest.mark.parametrize("name", ["none", "../tiny.gguf", "/etc/passwd", "a\x00b", "x" * 255])
def test_an_unknown_model_is_a_404_and_nothing_is_wanted(rig: Rig, name: str) -> None:
    rig.supervise()
    answer = rig.post(LOAD, {"llm_model_name": name})
    assert answer.status_code == 404
    assert rig.desired_models.all() == {}


@pytest.mark.parametrize("field", ["adapter_name", "draft_model"])
@pytest.mark.parametrize("name", ["none", "../tiny.gguf", "/etc/passwd", "a\x00b"])
def test_unknown_names_in_the_options_are_a_404_that_names_the_field(
    rig: Rig, field: str, name: str
) -> None:
    rig.supervise()
    answer = rig.post(LOAD, {**FAKE, field: name})
    assert answer.status_code == 404
    check_error_shape(answer.json())
    assert answer.json()["error"]["param"] == field
    assert rig.desired_models.all() == {}


def test_the_options_of_a_load_are_wanted_with_it(rig: Rig) -> None:
    rig.supervise()
    rig.settings.adapters_dir.mkdir()
    (rig.settings.adapters_dir / "tuned.gguf").write_bytes(b"GGUF")
    options = {"kv_bits": 8, "num_draft_tokens": 3, "prompt_cache_bytes": 0}
    names_given = {"adapter_name": "tuned", "draft_model": "fake-1ms"}
    future = rig.post_soon(LOAD, {**FAKE, **options, **names_given})
    job = rig.take_control()
    expected = LoadRequest("fake", "fake", adapter="tuned.gguf", draft_model="fake-1ms", **options)
    assert job.request == expected
    assert rig.desired_models.get("0").load == expected
    job.started()
    job.finished()
    assert future.result().json() == {"load": "success"}
    assert rig.post(LOAD, {**FAKE, **options, **names_given}).json() == {"load": "success"}
    assert rig.post(LOAD, {**FAKE, **options}).status_code == 409


def test_a_load_that_fails_gives_the_reason(rig: Rig) -> None:
    rig.supervise()
    future = rig.post_soon(LOAD, FAKE)
    job = rig.take_control()
    job.started()
    job.failed("model_load_failed", "config.json has no architectures", "llm_model_name")
    answer = future.result()
    assert answer.status_code == 400
    assert answer.json()["detail"] == "config.json has no architectures"
    assert "x-should-retry" not in answer.headers


def test_a_load_that_fails_for_lack_of_memory_is_no_wrong_request(rig: Rig) -> None:
    rig.supervise()
    future = rig.post_soon(LOAD, FAKE)
    job = rig.take_control()
    job.started()
    job.failed("model_load_failed", "no room for the weights")
    answer = future.result()
    assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
    assert answer.json()["error"]["param"] is None
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_generation_whose_model_failed_to_load_is_not_tried_again(rig: Rig, path: str) -> None:
    rig.load()
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    future = rig.post_soon(path, body)
    rig.take().failed("model_load_failed", "the weights are broken")
    answer = future.result()
    assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")


def test_without_a_supervisor_a_load_is_a_503(rig: Rig) -> None:
    answer = rig.post(LOAD, FAKE)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_ready"
    assert rig.desired_models.all() == {}


def test_a_load_in_the_background_can_be_watched(rig: Rig) -> None:
    rig.supervise()
    answer = rig.post(LOAD, FAKE, Prefer="respond-async")
    assert answer.status_code == 202
    job = rig.take_control()
    assert answer.json() == {"id": job.job_id, "object": "job", "status": "queued"}
    job.progress("load", 0.25)
    job.finished()
    events = rig.http.get(answer.headers["Location"] + "/events").text
    assert '"fraction":0.25' in events
    assert "event: finished" in events


def test_an_unload_answers_when_the_process_is_gone(rig: Rig) -> None:
    rig.supervise()
    rig.load()
    future = rig.post_soon(UNLOAD)
    job = rig.take_control()
    assert rig.desired_models.all() == {}
    assert not future.done()
    job.finished()
    assert future.result().json() == {"unload": "success"}


def test_an_unload_is_a_job_under_the_id_that_its_models_worker_takes(rig: Rig) -> None:
    rig.supervise()
    uid = rig.load().uid
    answer = rig.post(UNLOAD, None, Prefer="respond-async")
    assert answer.json()["id"] == names.unload_job_id(uid) == rig.take_control().job_id


def test_unloads_at_once_and_later_are_answered_alike(rig: Rig) -> None:
    rig.supervise()
    rig.load()
    futures = [rig.post_soon(UNLOAD) for _ in range(4)]
    job = rig.take_control()
    futures.append(rig.post_soon(UNLOAD))
    job.started()
    assert not any(future.done() for future in futures)
    job.finished()
    for answer in [future.result() for future in futures] + [rig.post(UNLOAD, None)]:
        assert (answer.status_code, answer.json()) == (200, {"unload": "success"})
    assert rig.redis.llen(rig.store.queue(names.control_queue("0")).key) == 0


def test_an_unload_whose_api_died_before_its_job_was_there_can_be_repeated(rig: Rig) -> None:
    """Nobody desires the model, its process is there still, and has not been asked to end."""
    rig.supervise()
    desired = rig.load()
    rig.redis.set(names.unloaded_key("0"), encode_record(desired))
    rig.desired_models.remove("0")
    future = rig.post_soon(UNLOAD)
    job = rig.take_control()
    assert job.job_id == names.unload_job_id(desired.uid)
    job.finished()
    assert future.result().status_code == 200


def test_a_load_that_an_unload_ended_is_a_410(rig: Rig) -> None:
    rig.supervise()
    load = rig.post_soon(LOAD, FAKE)
    job = rig.take_control()
    unload = rig.post_soon(UNLOAD)
    ending = rig.take_control()
    job.failed("model_unloaded", "the model was unloaded")
    ending.finished()
    assert unload.result().status_code == 200
    answer = load.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "model_unloaded")


def test_a_load_right_after_an_unload_waits_for_a_job_of_its_own(rig: Rig) -> None:
    rig.supervise()
    rig.load("0", "tiny.gguf")
    unload = rig.post_soon(UNLOAD)
    ending = rig.take_control()
    load = rig.post_soon(LOAD, FAKE)
    job = rig.take_control()
    assert job.job_id == rig.desired_models.get("0").load_job
    ending.finished()
    assert unload.result().status_code == 200
    assert not load.done()
    job.finished()
    assert load.result().json() == {"load": "success"}


def test_a_load_repeated_before_the_first_ones_job_is_there_waits_for_that_job(rig: Rig) -> None:
    """The first one has written the desired model, and died or is about to queue the job."""
    rig.supervise()
    desired = DesiredModel("0", "uid-0", LoadRequest("fake", "fake"), "load-0", time.time())
    assert rig.desired_models.put("0", desired)
    future = rig.post_soon(LOAD, FAKE)
    job = rig.take_control()
    assert job.job_id == "load-0"
    assert not future.done()
    job.finished()
    assert future.result().json() == {"load": "success"}


def test_an_entry_that_cannot_be_read_holds_its_id_until_it_is_unloaded(rig: Rig) -> None:
    rig.supervise()
    rig.redis.hset(names.DESIRED_MODELS, "0", b"from the future")
    answer = rig.post(LOAD, FAKE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "model_id_in_use")
    unload = rig.post_soon(UNLOAD)
    rig.take_control().finished()
    assert unload.result().json() == {"unload": "success"}
    load = rig.post_soon(LOAD, FAKE)
    rig.take_control().finished()
    assert load.result().status_code == 200


def test_unloading_nothing_is_a_404(rig: Rig) -> None:
    rig.supervise()
    assert rig.post(UNLOAD, None, X_Model_Id="7").status_code == 404


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"prompt": "Your prompt here"}, "Your prompt here"),
        ({"text": "abc"}, "abc"),
        ({"model": "dummy", "prompt": "", "text": "abc"}, "abc"),
    ],
)
def test_tokens_are_counted_on_the_control_queue(
    rig: Rig, body: dict[str, str], shown: str
) -> None:
    rig.load()
    future = rig.post_soon("/v1/internal/token-count", body)
    job = rig.take_control()
    assert job.request.prompt.text == shown
    job.started()
    job.finished(num_tokens=3)
    assert future.result().json() == {"length": 3}


def model_id_of(model: Model) -> str:
    """Our own field beside OpenAI's."""
    return str((model.model_extra or {})["model_id"])


def test_openais_list_addresses_each_model(rig: Rig) -> None:
    for model_id, name in [("0", "fake"), ("1", "fake"), ("2", "fake-20ms")]:
        rig.load(model_id, name)
    client = OpenAI(base_url=f"{rig.url}/v1", api_key="x", _strict_response_validation=True)
    listed = [model for model in client.models.list() if model_id_of(model) != "None"]
    assert [model.id for model in listed] == ["fake", "1", "fake-20ms"]
    assert model_id_of(client.models.retrieve("fake-20ms")) == "2"
    for model in listed:
        future = rig.chat_soon(model=model.id)
        queue = names.generation_queue(names.slug_of(model_id_of(model)))
        rig.take(queue).answer("x")
        assert future.result().status_code == 200


def test_what_could_be_loaded_is_listed_behind_what_is(rig: Rig) -> None:
    path = rig.settings.models_dir / "another.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "q", "q.context_length": 4096}))
    rig.load("0", "fake")
    rig.load("1", "tiny.gguf")
    client = OpenAI(base_url=f"{rig.url}/v1", api_key="x", _strict_response_validation=True)
    listed = list(client.models.list())
    assert [model.id for model in listed] == ["fake", "tiny.gguf", "another.gguf"]
    assert listed[0].model_extra["state"] == "ready"
    shown = client.models.retrieve("another.gguf")
    assert shown == listed[2]
    assert shown.created == int(path.stat().st_mtime)
    assert shown.model_extra == {
        "model_id": None, "model_name": "another.gguf", "backend": "llama-cpp",
        "context_length": 4096, "state": "unloaded", "aliases": [], "pinned": False,
        "status": {"value": "unloaded", "progress": None, "failed": None}, "expires_at": None,
        "source": "models", "size_bytes": path.stat().st_size, "architecture": "q",
        "num_parameters": None, "quantization": None, "input_kinds": ["text"],
        "task": "generation", "has_chat_template": False, "has_tools": False,
    }  # fmt: skip
    with pytest.raises(NotFoundError):
        client.models.retrieve("none")


def test_llama_servers_path_leads_to_the_same_list(rig: Rig) -> None:
    rig.load()
    assert rig.http.get("/models").json() == rig.http.get("/v1/models").json()


def test_no_two_models_are_listed_under_one_name(rig: Rig) -> None:
    """A name in the folder that is also a model_id addresses what is loaded under that."""
    for name in ("5", "6.gguf"):
        add_files(rig.settings.models_dir / name, mlx_files())
    rig.load("5", "fake")
    listed = rig.http.get("/v1/models").json()["data"]
    assert [(model["id"], model["state"]) for model in listed] == [
        ("fake", "ready"), ("6.gguf", "unloaded"), ("tiny.gguf", "unloaded"),
    ]  # fmt: skip
    assert rig.http.get("/v1/models/5").json()["model_name"] == "fake"


def test_the_header_wins_over_the_model_field(rig: Rig) -> None:
    rig.load("0", "fake")
    rig.load("1", "fake-20ms")
    body = {"prompt": "x", "model": "fake"}
    future = rig.post_soon("/v1/completions", body, X_Model_Id="1")
    rig.take(names.generation_queue("1")).answer("y")
    assert future.result().json()["model"] == "fake-20ms"


def test_facts_about_a_model(rig: Rig) -> None:
    rig.load("5")
    info = rig.http.get("/v1/internal/model/info", headers={"X-Model-Id": "5"}).json()
    assert (info["model_name"], info["model_type"], info["context_length"]) == ("fake", "fake", 512)
    named = rig.http.get("/v1/internal/model/info/tiny.gguf").json()
    assert (named["model_type"], named["is_loaded"]) == ("llama-cpp", False)
    assert rig.http.get("/v1/internal/model/info/none").status_code == 404


class TestReadiness:
    def ready(self, rig: Rig) -> httpx.Response:
        return rig.http.get("/health/ready")

    def test_everything_is_there(self, rig: Rig) -> None:
        rig.supervise()
        rig.load()
        assert self.ready(rig).json() == {"status": "ready", "reasons": []}

    def test_no_supervisor(self, rig: Rig) -> None:
        answer = self.ready(rig)
        assert answer.status_code == 503
        assert answer.json()["reasons"] == ["no supervisor is running"]

    def test_a_model_that_is_loading_or_stands_still(self, rig: Rig) -> None:
        rig.supervise()
        desired = rig.load()
        rig.heartbeat(desired, state=WorkerState.LOADING)
        assert self.ready(rig).json()["reasons"] == ["model_id '0' is loading"]
        rig.heartbeat(desired, idle_s=31.0)
        assert "its last step was 31 s ago" in self.ready(rig).json()["reasons"][0]
        rig.desired_models.forget_status("0")
        assert self.ready(rig).json()["reasons"] == ["model_id '0' has no worker"]


def test_a_load_whose_job_cannot_be_queued_leaves_nothing_wanted(rig: Rig) -> None:
    rig.supervise()
    # A queue key of the wrong type makes the submission fail for good.
    rig.redis.set(rig.store.queue(names.control_queue("0")).key, "x")
    assert rig.post(LOAD, FAKE).status_code == 503
    assert rig.desired_models.all() == {}


def test_the_process_list_is_that_of_the_original_document(rig: Rig) -> None:
    rig.load("0", "fake")
    future = rig.chat_soon(stream=True, max_tokens=50, temperature=0)
    [job_id] = wait_until(rig.waiting_ids, "one waits")
    [process] = rig.http.get("/management/processes").json()["processes"]
    assert {
        key: process[key] for key in ("model_id", "model_name", "model_path", "model_type")
    } == {
        "model_id": "0",
        "model_name": "fake",
        "model_path": "models/fake",
        "model_type": "fake",
    }
    assert (process["process_id"], process["cpu_usage"], process["memory_usage"]) == (
        4711,
        12.5,
        1000,
    )
    queue = process["current_queue"]
    assert (queue["request_queue_size"], queue["response_queue_size"]) == (1, 0)
    entry = queue["queues"][job_id]
    assert isinstance(entry["start_time"], float)
    parameters = entry["completions_stream"]
    assert parameters["messages"] == [{"role": "user", "content": "hi"}]
    assert (parameters["max_tokens"], parameters["temperature"], parameters["prompt"]) == (
        50,
        0,
        "",
    )
    job = rig.take()
    [process] = rig.http.get("/management/processes").json()["processes"]
    assert process["current_queue"]["request_queue_size"] == 0
    assert list(process["current_queue"]["queues"]) == [job_id]
    job.answer("x")
    assert future.result().status_code == 200


def test_clean_up_ends_old_jobs_waiting_and_running(rig: Rig) -> None:
    rig.load()
    running, waiting = rig.chat_soon(stream=True), None
    job = rig.take()
    job.started()
    waiting = rig.chat_soon()
    [waiting_id] = wait_until(rig.waiting_ids, "one waits")
    young = rig.post("/management/process/clean-up", {"timeout": 3600}, X_Model_Id="0")
    assert young.json() == {"process_clean_up": "success", "num_waiting": 0, "num_running": 0}
    answer = rig.post("/management/process/clean-up", {"timeout": 0})
    assert answer.json() == {"process_clean_up": "success", "num_waiting": 1, "num_running": 1}
    assert waiting.result().status_code == 410
    assert rig.record(waiting_id).status is JobStatus.CANCELLED
    job.cancelled()
    assert "job_cancelled" in running.result().text
    assert (
        rig.post("/management/process/clean-up", {"timeout": 1}, X_Model_Id="9").status_code == 404
    )


def test_clean_up_spares_the_class_batch_unless_it_is_named(rig: Rig) -> None:
    rig.load()
    body = {"prompt": "x", "background": True, "service_tier": "flex"}
    flex = rig.post("/v1/completions", body).json()["id"]
    path = "/management/process/clean-up"
    for fields, num in (({}, 0), ({"class": "batch", "dry_run": True}, 1)):
        assert rig.post(path, {"timeout": 0, **fields}).json()["num_waiting"] == num
    assert rig.record(flex).status is JobStatus.QUEUED
    wrong = rig.post(path, {"timeout": 0, "class": "flex"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "class")
    assert rig.post(path, {"timeout": 0, "class": "all"}).json()["num_waiting"] == 1
    assert rig.record(flex).status is JobStatus.CANCELLED


async def test_a_load_that_the_supervisor_has_queued_first_is_queued_once(rig: Rig) -> None:
    services = Services.create(rig.settings)
    submission = Submission("load-1", "0", LoadRequest("fake", "fake"), {}, is_first=True)
    rig.store.submit(submission)
    await services.runner.submit(submission)
    await services.stop()
    assert rig.redis.llen(rig.store.queue(names.control_queue("0")).key) == 1
