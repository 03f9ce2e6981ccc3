"""A pull from a hub on loopback into a models folder: which files, faults on the way, places."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.catalog.catalog import list_models
from jobs.catalog.partial_downloads import list_partial, locked, remove_partial
from jobs.contract.errors import (
    DiskFullError,
    FileCorruptError,
    HubChangedError,
    HubRateLimitedError,
    HubUnreachableError,
    InsufficientMemoryError,
    JobError,
    ModelConflictError,
    PullError,
    RepoAccessError,
    RepoNotFoundError,
)
from jobs.contract.pulls import PullRequest
from tests.helpers.fake_hub import FakeHub, Handler, HubFile, fake_hub, gguf_files, mlx_files, small
from tests.helpers.samples import settings_for
from workers.pull import download
from workers.pull.hub import HubAccess
from workers.pull.patience import Patience
from workers.pull.pulling import Pull

MB = 1_000_000
REPO = "org/tiny"
FIRST = "model-00001-of-00002.safetensors"


@pytest.fixture(scope="module")
def running_hub() -> Iterator[FakeHub]:
    with fake_hub() as found:
        yield found


@pytest.fixture
def hub(running_hub: FakeHub) -> FakeHub:
    """The hub, empty and without faults."""
    running_hub.reset()
    return running_hub


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def pull(hub: FakeHub, models: Path, model: str = REPO, **fields: Any) -> str:
    """Pull, without waiting between tries."""
    repo, _, quant = model.partition(":")
    token, access = fields.pop("token", None), fields.pop("access", {})
    report = fields.pop("report", lambda *figures: None)
    free = fields.pop("free", lambda folder: 1 << 50)
    budget = fields.pop("budget", lambda: None)
    request = PullRequest(repo, "here", quant, **fields)
    reach = HubAccess(**{"endpoint": hub.url, "token": token, "timeout_s": 0.5, **access})
    patience = Patience(first_s=0, sleep=lambda seconds: None)
    return Pull(request, models, reach, report, patience, free, budget).run()


def names_of(models: Path) -> list[str]:
    """What the catalog lists."""
    settings = settings_for("redis://none", models.parent, fake_engine=False)
    return [entry.name for entry in list_models(settings)]


def content(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def cut_at(*offsets: int, name: str = FIRST) -> Any:
    """Hang up once at each of these offsets."""
    left = sorted(offsets)

    def fault(handler: Handler, path: str, offset: int) -> bool:
        if path != name or not left:
            return False
        until = left.pop(0)
        repo, commit = REPO, handler.hub.heads[REPO]
        handler.send_file(handler.hub.repos[repo][commit][path], offset, until=until)
        return True

    return fault


# Which files.


def test_an_mlx_model_becomes_a_folder_of_its_files_without_code(
    hub: FakeHub, models: Path
) -> None:
    files = mlx_files()
    hub.add(REPO, files)
    assert pull(hub, models) == "tiny"
    unneeded = {".gitattributes", "README.md", "modeling.py", "pytorch_model.bin"}
    assert content(models / "tiny") == {
        name: file.data for name, file in files.items() if name not in unneeded
    }
    assert names_of(models) == ["tiny"]
    assert list_partial(models) == []


def test_a_gguf_repository_gives_q4_k_m(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, gguf_files("tiny-Q8_0.gguf", "tiny-Q4_K_M.gguf", "mmproj-tiny-f16.gguf"))
    assert pull(hub, models) == "tiny-Q4_K_M.gguf"
    assert names_of(models) == ["tiny-Q4_K_M.gguf"]


def test_a_quantization_is_chosen_without_regard_to_case(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, gguf_files("tiny-q8_0.gguf", "tiny.Q4_K_M.gguf", "tiny-fp16.gguf"))
    assert pull(hub, models, f"{REPO}:Q8_0") == "tiny-q8_0.gguf"
    assert pull(hub, models, f"{REPO}:f16") == "tiny-fp16.gguf"


def test_without_the_usual_quantization_the_error_names_the_choices(
    hub: FakeHub, models: Path
) -> None:
    hub.add(REPO, gguf_files("tiny-Q8_0.gguf", "tiny-IQ3_XS.gguf", "UD/tiny-UD-Q2_K_XL.gguf"))
    with pytest.raises(RepoNotFoundError, match=r"no Q4_K_M.*IQ3_XS, Q8_0, UD-Q2_K_XL"):
        pull(hub, models)
    with pytest.raises(RepoNotFoundError, match="no Q5_K_M: choose"):
        pull(hub, models, f"{REPO}:Q5_K_M")


def test_the_only_gguf_file_needs_no_choice(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, gguf_files("tiny.gguf"))
    assert pull(hub, models) == "tiny.gguf"


def test_all_parts_of_a_split_model_come(hub: FakeHub, models: Path) -> None:
    parts = [f"Q8_0/tiny-Q8_0-{part:05}-of-00003.gguf" for part in (1, 2, 3)]
    hub.add(REPO, gguf_files(*parts, "tiny-Q2_K.gguf"))
    assert pull(hub, models, f"{REPO}:Q8_0") == "tiny-Q8_0-00001-of-00003.gguf"
    assert len(list(models.glob("*.gguf"))) == 3
    assert names_of(models) == ["tiny-Q8_0-00001-of-00003.gguf"]


def test_a_split_model_without_a_part_is_refused(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, gguf_files("tiny-Q8_0-00001-of-00003.gguf", "tiny-Q8_0-00003-of-00003.gguf"))
    with pytest.raises(PullError, match="not all parts"):
        pull(hub, models, f"{REPO}:Q8_0")


def test_an_index_that_names_missing_weights_ends_the_pull_early(
    hub: FakeHub, models: Path
) -> None:
    files = mlx_files()
    del files["model-00002-of-00002.safetensors"]
    hub.add(REPO, files)
    with pytest.raises(PullError, match=r"is not whole: it has no model-00002"):
        pull(hub, models)
    assert hub.offsets_of(FIRST) == []
    assert names_of(models) == []


def test_a_repository_without_a_model_is_refused(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, {"config.json": small("{}"), "pytorch_model.bin": HubFile(b"old")})
    with pytest.raises(PullError, match="neither GGUF files nor"):
        pull(hub, models)


def test_no_path_of_the_hub_leads_outside(hub: FakeHub, models: Path) -> None:
    bad = ["../up.json", "a/../../b.json", "/etc/x.json", "a\\b.json", ".hidden.json"]
    hub.add(REPO, {**mlx_files(1000), **{path: HubFile(b"{}") for path in bad}})
    assert pull(hub, models) == "tiny"
    assert len(content(models)) == 5


# Faults on the way.


def test_a_connection_that_breaks_goes_on_at_the_same_byte(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, mlx_files())
    hub.fault = cut_at(MB, 2 * MB)
    assert pull(hub, models) == "tiny"
    assert hub.offsets_of(FIRST) == [0, MB, 2 * MB]


def test_a_later_pull_goes_on_where_an_earlier_one_ended(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, mlx_files())
    hub.fault = cut_at(MB)
    with pytest.raises(HubUnreachableError):
        _impatient(hub, models)
    assert names_of(models) == []
    assert pull(hub, models) == "tiny"
    assert hub.offsets_of(FIRST) == [0, MB]


def _impatient(hub: FakeHub, models: Path) -> None:
    reach = HubAccess(hub.url, timeout_s=0.5)
    request = PullRequest(REPO, "here")
    patience = Patience(max_tries=1)
    Pull(request, models, reach, lambda *f: None, patience, lambda folder: 1 << 50).run()


def test_a_hub_without_ranges_begins_a_file_anew_only_once(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, mlx_files())
    cut = cut_at(MB)

    def fault(handler: Handler, path: str, offset: int) -> bool:
        if cut(handler, path, offset):
            return True
        if offset:
            handler.send_file(HubFile(b"x" * 100), 0, status=200)
        return bool(offset)

    hub.fault = fault
    assert pull(hub, models) == "tiny"
    assert hub.offsets_of(FIRST) == [0, MB, 0]


def test_a_wrong_file_is_fetched_once_more_and_then_given_up(hub: FakeHub, models: Path) -> None:
    files = mlx_files()
    hub.add(REPO, files)
    size = files[FIRST].size

    def fault(handler: Handler, path: str, offset: int) -> bool:
        if path == FIRST:
            handler.send_file(HubFile(b"x" * size), offset)
        return path == FIRST

    hub.fault = fault
    with pytest.raises(FileCorruptError, match="its content is not what"):
        pull(hub, models)
    assert hub.offsets_of(FIRST) == [0, 0]
    assert names_of(models) == []
    hub.fault = None
    assert pull(hub, models) == "tiny"


def test_a_spoiled_beginning_is_noticed(hub: FakeHub, models: Path) -> None:
    files = mlx_files()
    hub.add(REPO, files)
    hub.fault = cut_at(MB)
    with pytest.raises(HubUnreachableError):
        _impatient(hub, models)
    (part,) = models.rglob(f"*{download.SUFFIX}")
    part.write_bytes(b"x" * MB)
    assert pull(hub, models) == "tiny"
    assert content(models / "tiny")[FIRST] == files[FIRST].data


def test_a_hub_that_stalls_is_asked_again(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, mlx_files())
    over = threading.Event()
    stalled: list[int] = []

    def fault(handler: Handler, path: str, offset: int) -> bool:
        if path != FIRST or stalled:
            return False
        stalled.append(offset)
        commit = handler.hub.heads[REPO]
        file = handler.hub.repos[REPO][commit][path]
        handler.send_response(200)
        handler.send_header("Content-Length", str(file.size))
        handler.end_headers()
        handler.wfile.write(file.data[:MB])
        handler.wfile.flush()
        over.wait(20)
        return True

    hub.fault = fault
    assert pull(hub, models) == "tiny"
    over.set()
    assert hub.offsets_of(FIRST) == [0, MB]


def test_a_file_with_another_length_is_a_changed_repository(hub: FakeHub, models: Path) -> None:
    files = mlx_files()
    hub.add(REPO, files)
    cut = cut_at(MB)

    def fault(handler: Handler, path: str, offset: int) -> bool:
        if not cut(handler, path, offset) and offset:
            handler.send_file(HubFile(files[FIRST].data + b"more"), offset)
            return True
        return path == FIRST

    hub.fault = fault
    with pytest.raises(HubChangedError, match="another length"):
        pull(hub, models)


def test_another_commit_in_the_answer_is_a_changed_repository(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, mlx_files())
    hub.refusals[f"/resolve/{hub.heads[REPO]}/config.json"] = (200, {"X_Repo_Commit": "2" * 40})
    with pytest.raises(HubChangedError, match="another commit"):
        pull(hub, models)


def test_a_new_commit_takes_over_what_has_not_changed(hub: FakeHub, models: Path) -> None:
    files = mlx_files()
    hub.add(REPO, files)
    hub.fault = cut_at(2 * MB)
    with pytest.raises(HubUnreachableError):
        _impatient(hub, models)
    changed = {**files, "config.json": small('{"model_type": "llama", "new": true}')}
    hub.add(REPO, changed)
    assert pull(hub, models) == "tiny"
    assert hub.offsets_of(FIRST) == [0, 2 * MB]
    assert content(models / "tiny")["config.json"] == changed["config.json"].data
    assert list_partial(models) == []


REFUSALS: list[tuple[str, int, Any, Any, str]] = [
    ("/resolve/", 401, {"X_Error_Code": "GatedRepo"}, RepoAccessError, "is gated: accept"),
    ("/resolve/", 403, {"X_Error_Code": "GatedRepo"}, RepoAccessError, "is gated: accept"),
    ("/revision/", 401, {"X_Error_Code": "RepoNotFound"}, RepoNotFoundError, "or it is private"),
    ("/revision/", 404, {"X_Error_Code": "RevisionNotFound"}, RepoNotFoundError, "no such revi"),
    ("/revision/", 404, {}, RepoNotFoundError, "the hub has no org/tiny"),
    ("/revision/", 403, {}, RepoAccessError, "denies access"),
    (
        "/revision/",
        401,
        {"X_Error_Message": "Invalid credentials in Authorization header"},
        RepoAccessError,
        "refuses the token",
    ),
    ("config.json", 404, {"X_Error_Code": "EntryNotFound"}, HubChangedError, "was changed"),
    ("/revision/", 429, {"Retry_After": "3"}, HubRateLimitedError, r"for 3 s\)"),
    ("/revision/", 429, {"RateLimit": '"api";r=0;t=55'}, HubRateLimitedError, r"for 55 s\)"),
    ("/revision/", 429, {"Retry_After": "9000"}, HubRateLimitedError, "repeat the pull later"),
    ("/revision/", 503, {}, HubUnreachableError, "HTTP 503"),
    ("/revision/", 418, {}, PullError, "HTTP 418"),
]


def test_each_refusal_of_the_hub_is_one_sentence(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, mlx_files(1000))
    for where, status, headers, kind, says in REFUSALS:
        hub.refusals = {where: (status, headers)}
        with pytest.raises(kind, match=says) as failure:
            pull(hub, models, token="hf_secret")
        assert type(failure.value) is kind
        assert "\n" not in failure.value.message
        assert "secret" not in failure.value.message
        assert names_of(models) == []
    hub.refusals = {}
    assert pull(hub, models) == "tiny"


def test_a_hub_that_limits_requests_is_asked_again_after_the_given_time(
    hub: FakeHub, models: Path
) -> None:
    hub.add(REPO, mlx_files(1000))
    waits: list[float] = []

    def api_fault(handler: Handler) -> bool:
        is_first = not waits
        if is_first:
            handler.answer(429, b"", Retry_After="7")
        return is_first

    hub.api_fault = api_fault
    patience = Patience(first_s=0, sleep=waits.append)
    request, reach = PullRequest(REPO, "here"), HubAccess(hub.url)
    name = Pull(request, models, reach, lambda *f: None, patience, lambda f: 1 << 50).run()
    assert (name, waits) == ("tiny", [7.0])


def test_without_a_network_nothing_is_tried(hub: FakeHub, models: Path) -> None:
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE"):
        pull(hub, models, access={"is_offline": True})
    assert hub.seen == []


def test_a_hub_that_is_not_there_is_one_sentence(hub: FakeHub, models: Path) -> None:
    with pytest.raises(HubUnreachableError, match=r"failed \(ConnectError\)"):
        pull(hub, models, access={"endpoint": "http://127.0.0.1:9"})


def test_the_token_goes_to_the_hub_only(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, mlx_files(1000))
    pull(hub, models, token="hf_secret")
    sent = {port: {one[3] for one in hub.seen if one[4] == port} for port in hub.ports}
    assert sent == {hub.ports[0]: {"Bearer hf_secret"}, hub.ports[1]: {""}}


def test_a_page_of_another_origin_is_asked_of_the_hub(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, mlx_files(1000))
    page = f"/api/models/{REPO}/tree/{hub.heads[REPO]}?cursor=0"
    stranger = f"http://127.0.0.1:{hub.ports[1]}{page}"

    def api_fault(handler: Handler) -> bool:
        is_first = "/tree/" in handler.path and "cursor" not in handler.path
        if is_first:
            handler.answer(200, b"[]", Link=f'<{stranger}>; rel="next"')
        return is_first

    hub.api_fault = api_fault
    assert pull(hub, models, token="hf_secret") == "tiny"
    assert (f"GET {page}", hub.ports[0]) in [(f"{one[0]} {one[1]}", one[4]) for one in hub.seen]


# The disk.


def test_a_model_that_cannot_fit_is_refused_before_the_download(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, mlx_files())
    with pytest.raises(DiskFullError, match=r"needs 0\.0 GB more on disk, and 5\.4 GB are kept"):
        pull(hub, models, free=lambda folder: 5 << 30)
    assert hub.offsets_of(FIRST) == []
    assert pull(hub, models, free=lambda folder: 5 << 30, is_forced=True) == "tiny"


def test_a_model_that_no_memory_holds_is_refused_before_the_download(
    hub: FakeHub, models: Path
) -> None:
    hub.add(REPO, mlx_files())
    with pytest.raises(InsufficientMemoryError, match=r"has 0\.0 GB of weights"):
        pull(hub, models, budget=lambda: 4 * MB)
    assert hub.offsets_of(FIRST) == []
    assert pull(hub, models, budget=lambda: 5 * MB) == "tiny"


def test_a_full_disk_leaves_what_can_go_on_or_be_removed(
    hub: FakeHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, mlx_files())
    hub.add("org/other", gguf_files("other.gguf"))
    assert pull(hub, models, "org/other") == "other.gguf"
    before = content(models)

    def no_room(*figures: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("workers.pull.download.os.fsync", no_room)
        with pytest.raises(DiskFullError, match="the disk is full"):
            pull(hub, models)
    assert names_of(models) == ["other.gguf"]
    assert {name: data for name, data in content(models).items() if ".pull" not in name} == before
    (left,) = list_partial(models)
    assert remove_partial(models, REPO) == left.size_bytes
    assert pull(hub, models) == "tiny"


def test_what_is_being_downloaded_is_not_removed(
    hub: FakeHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pull.workspace._END_S", 0.1)
    monkeypatch.setattr("jobs.catalog.partial_downloads._END_S", 0.1)
    hub.add(REPO, mlx_files())
    hub.fault = cut_at(MB)
    with pytest.raises(HubUnreachableError):
        _impatient(hub, models)
    (left,) = list_partial(models)
    with locked(left.path) as is_ours:
        assert is_ours
        with pytest.raises(ModelConflictError, match="is being downloaded"):
            remove_partial(models, None)
        with pytest.raises(ModelConflictError, match="by another process"):
            pull(hub, models)
    assert remove_partial(models, None) >= MB


# The place.


def test_a_repeated_pull_of_a_whole_model_fetches_nothing(hub: FakeHub, models: Path) -> None:
    hub.add(REPO, mlx_files())
    hub.add("org/gguf", gguf_files("one.gguf"))
    for repo, name in ((REPO, "tiny"), ("org/gguf", "one.gguf")):
        assert pull(hub, models, repo) == name
        num_seen = len([one for one in hub.seen if "/resolve/" in one[1]])
        assert pull(hub, models, repo) == name
        assert len([one for one in hub.seen if "/resolve/" in one[1]]) == num_seen


def test_a_second_model_of_a_name_goes_into_its_publishers_folder(
    hub: FakeHub, models: Path
) -> None:
    for publisher in ("first", "second"):
        hub.add(f"{publisher}/tiny", mlx_files(1000))
        hub.add(f"{publisher}/gguf", gguf_files("one.gguf"))
    assert pull(hub, models, "first/tiny") == "tiny"
    assert pull(hub, models, "second/tiny") == "second/tiny"
    assert (models / "second" / "tiny" / "config.json").is_file()
    assert pull(hub, models, "first/gguf") == "one.gguf"
    assert pull(hub, models, "second/gguf") == "second/one.gguf"
    hub.add("second/tiny", mlx_files(1000))
    with pytest.raises(ModelConflictError, match="another tiny and second/tiny already"):
        pull(hub, models, "second/tiny")


def test_a_split_model_that_was_half_moved_is_completed(hub: FakeHub, models: Path) -> None:
    parts = [f"tiny-{part:05}-of-00003.gguf" for part in (1, 2, 3)]
    files = gguf_files(*parts)
    hub.add(REPO, files)
    models.mkdir()
    (models / parts[2]).write_bytes(files[parts[2]].data)
    assert pull(hub, models) == parts[0]
    assert hub.offsets_of(parts[2]) == []
    assert names_of(models) == [parts[0]]


def test_the_figures_grow_up_to_the_whole(hub: FakeHub, models: Path) -> None:
    files = mlx_files()
    hub.add(REPO, files)
    figures: list[tuple[int, int, str]] = []
    pull(hub, models, report=lambda *one: figures.append(one))
    total = sum(len(data) for data in content(models / "tiny").values())
    assert figures[0] == (0, total, "")
    assert figures[-1][:2] == (total, total)


def test_errors_of_pulls_are_job_errors() -> None:
    assert issubclass(PullError, JobError)
