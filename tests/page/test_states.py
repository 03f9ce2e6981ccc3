"""Keys, queues, lost connections, several tabs: what a person sees, and what it costs."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from jobs.contract.records import RunningJob
from jobs.storage import names
from tests.helpers.private_redis import PrivateRedis
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, running_api
from tests.page.browsing import Opener, until

_KEYS = {"api_key": "user-key-5f1c", "management_key": "manager-key-77aa"}
_AWAY = ("401", "ERR_", "503", "network error")


def _log_in(page: Page, key: str) -> None:
    page.locator("main").get_by_label("Key", exact=True).last.fill(key)
    page.get_by_role("button", name="Continue").click()


def test_a_key_is_asked_for_and_decides_what_is_allowed(
    tmp_path: Path, redis_url: str, open_page: Opener
) -> None:
    with running_api(tmp_path, redis_url, **_KEYS) as rig:
        rig.supervise()
        rig.load()
        page = open_page(rig.url, "/ui/#/models", allowed=("401",))
        _log_in(page, "wrong")
        expect(page.get_by_role("alert")).to_contain_text("does not take")
        _log_in(page, _KEYS["api_key"])
        load = page.get_by_role("button", name="Load tiny.gguf")
        expect(load).to_be_disabled()
        assert "MGS_MANAGEMENT_KEY" in str(load.get_attribute("title"))
        expect(page.get_by_role("button", name="Unload fake")).to_be_disabled()
        page.goto(f"{rig.url}/ui/#/settings")
        page.get_by_label("Key", exact=True).last.fill(_KEYS["management_key"])
        page.get_by_role("button", name="Use key").click()
        expect(page.get_by_text("The server takes the key")).to_be_visible()
        page.goto(f"{rig.url}/ui/#/models")
        expect(load).to_be_enabled()
        page.reload()
        expect(load).to_be_enabled()
        _check_secrets(page, rig)


def _check_secrets(page: Page, rig: Rig) -> None:
    """No key in an address, the history, a snippet, what is stored for good, or a cookie."""
    page.goto(f"{rig.url}/ui/#/connect")
    expect(page.locator(".code").first).to_contain_text("$MGS_API_KEY")
    stored = page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
    shown = page.content()
    for key in _KEYS.values():
        assert key not in stored
        assert key not in shown
    assert page.context.cookies() == []


def _wait(rig: Rig, num: int) -> None:
    body = {"messages": [{"role": "user", "content": "x" * 40}]}
    for _ in range(num):
        rig.post("/v1/chat/completions", body, Prefer="respond-async")


def test_jobs_are_shown_cancelled_and_purged_after_a_count(rig: Rig, open_page: Opener) -> None:
    _wait(rig, 4)
    taken = rig.take()
    rig.redis.lrem(rig.store.queue(names.generation_queue("0")).key, 0, taken.job_id)
    line = RunningJob(taken.job_id, "prefill", 100, 62, 0, 1)
    rig.heartbeat(rig.desired_models.get("0"), running=1, jobs=[line], slots=8, beat_at=1.0)
    page = open_page(rig.url, "/ui/#/queue")
    rows = page.locator("table.jobs tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.first.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "62")
    second = rig.waiting_ids()[1]
    page.get_by_role("button", name=f"Cancel job …{second[-4:]}").click()
    expect(rows).to_have_count(3)
    assert rig.record(second).status == "cancelled"
    page.get_by_role("button", name="Actions for the queue of fake").click()
    page.get_by_role("menuitem", name="Purge old jobs").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("No job is that old")
    expect(dialog.get_by_role("button", name="End jobs")).to_be_disabled()
    dialog.get_by_label("Jobs").select_option("All jobs")
    expect(dialog).to_contain_text("2 waiting, 1 running")
    assert len(rig.waiting_ids()) == 2  # counting has ended none
    dialog.get_by_role("button", name="End 3 jobs").click()
    expect(rows).to_have_count(1)
    assert rig.waiting_ids() == []
    page.get_by_role("searchbox", name="Find a job by its id").fill(second)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=second)).to_be_visible()
    expect(page.get_by_text("cancelled").first).to_be_visible()


def test_classes_priorities_and_holds_of_a_queue_are_shown_and_changed(
    rig: Rig, open_page: Opener
) -> None:
    body = {"messages": [{"role": "user", "content": "x"}]}
    for fields in ({}, {"priority": -3}, {"service_tier": "flex"}):
        rig.post("/v1/chat/completions", body | fields, Prefer="respond-async")
    page = open_page(rig.url, "/ui/#/queue")
    rows = page.locator("table.jobs tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("priority -3")
    expect(rows.nth(2)).to_contain_text("Batch")
    expect(page.get_by_text("2 waiting · 1 batch")).to_be_visible()
    page.get_by_role("button", name="Actions for the queue of fake").click()
    page.get_by_role("menuitem", name="Hold batch jobs").click()
    expect(page.get_by_text("batch on hold")).to_be_visible()
    assert rig.redis.hget(names.hold_key("0"), "batch") == b"hold"
    page.get_by_role("button", name="Resume batch jobs of fake").click()
    expect(page.get_by_text("batch on hold")).to_have_count(0)
    assert rig.redis.hget(names.hold_key("0"), "batch") is None


def test_a_loaded_model_is_pinned_and_parked(rig: Rig, open_page: Opener) -> None:
    rig.redis.set(names.owner_key("0"), "here|token")
    page = open_page(rig.url, "/ui/#/models", allowed=("409",))
    more = page.get_by_role("button", name="Pin or park fake")
    more.click()
    page.get_by_role("menuitem", name="Pin: never park it").click()
    expect(page.locator(".small-print", has_text="pinned")).to_be_visible()
    more.click()
    page.get_by_role("menuitem", name="Unpin").click()
    expect(page.locator(".small-print", has_text="pinned")).to_have_count(0)
    _wait(rig, 1)
    more.click()
    page.get_by_role("menuitem", name="Park it now").click()
    expect(page.get_by_text("jobs of the model wait or run")).to_be_visible()
    rig.store.cancel(rig.waiting_ids()[0], "enough")
    more.click()
    page.get_by_role("menuitem", name="Park it now").click()
    wait_until(lambda: _is_parked(rig), "the model is parked")


def _is_parked(rig: Rig) -> bool:
    desired = rig.desired_models.get("0")
    return desired is not None and desired.is_parked


def test_a_long_queue_shows_its_beginning_and_pages_the_rest(rig: Rig, open_page: Opener) -> None:
    _wait(rig, 130)
    page = open_page(rig.url, "/ui/#/queue")
    rows = page.locator("table.jobs tbody tr")
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="80 more").click()
    expect(rows).to_have_count(100)
    page.get_by_role("link", name="List the others").click()
    expect(page.locator("table.rows tbody tr")).to_have_count(50)
    newest = page.locator("table.rows tbody .job-link").first.get_attribute("title")
    older = page.get_by_role("button", name="Older")
    for num, rows_of in ((2, 50), (3, 30)):
        older.click()
        expect(page.get_by_text(f"Page {num}")).to_be_visible()
        expect(page.locator("table.rows tbody tr")).to_have_count(rows_of)
    expect(older).to_be_disabled()
    for num in (2, 1):
        page.get_by_role("button", name="Newer").click()
        expect(page.get_by_text(f"Page {num}")).to_be_visible()
    expect(page.locator("table.rows tbody .job-link").first).to_have_attribute("title", str(newest))
    expect(page.get_by_role("button", name="Newer")).to_be_disabled()


def test_eight_tabs_share_one_connection_and_hidden_ones_have_none(
    rig: Rig, open_page: Opener
) -> None:
    first = open_page(rig.url, "/ui/#/queue")
    pages = [first] + [
        open_page(rig.url, f"/ui/#/{name}", context=first.context)
        for name in ("chat", "models", "metrics", "connect", "settings", "compare", "queue")
    ]
    for page in pages:
        expect(page.locator(".link-state")).to_have_text("Connected")
    assert _num_followers(rig) == 1
    for page in pages:
        page.evaluate(_HIDE)
    wait_until(lambda: _num_followers(rig) == 0, "no reader")
    first.evaluate(_SHOW)
    expect(first.locator(".link-state")).to_have_text("Connected")
    wait_until(lambda: _num_followers(rig) == 1, "a reader")


_HIDE = """
() => {
  Object.defineProperty(document, "hidden", { value: true, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}
"""
_SHOW = """
() => {
  Object.defineProperty(document, "hidden", { value: false, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}
"""


def _num_followers(rig: Rig) -> int:
    return int(rig.app.state.live.num_listeners)


def test_a_lost_redis_is_said_and_a_draft_is_kept(tmp_path: Path, open_page: Opener) -> None:
    redis = PrivateRedis(tmp_path, is_kept=True)
    redis.start()
    try:
        with running_api(tmp_path, redis.url) as rig:
            rig.supervise()
            rig.load()
            page = open_page(rig.url, allowed=_AWAY)
            box = page.get_by_label("Message", exact=True)
            box.fill("a draft")
            expect(page.locator(".link-state")).to_have_text("Connected")
            redis.kill()
            expect(page.get_by_text("The server has lost its Redis", exact=False)).to_be_visible()
            expect(page.get_by_role("button", name="Send message")).to_be_disabled()
            redis.start()
            expect(page.locator(".banner")).to_have_count(0)
            expect(box).to_have_value("a draft")
    finally:
        redis.kill()


def test_a_model_that_is_unloaded_leaves_and_the_draft_stays(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url, allowed=("token-count",))  # of the draft, before the page knows
    box = page.get_by_label("Message", exact=True)
    box.fill("a draft")
    expect(page.get_by_label("Model", exact=True)).to_contain_text("fake")
    rig.desired_models.remove("0")
    expect(page.get_by_role("button", name="Send message")).to_be_disabled()
    expect(box).to_have_value("a draft")
    rig.load()
    expect(page.get_by_role("button", name="Send message")).to_be_enabled()


def test_a_newer_version_offers_a_reload(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url, "/ui/#/settings")
    expect(page.locator(".link-state")).to_have_text("Connected")
    folder = page.evaluate("document.scripts[0].src.split('/js/')[0]")
    code = """async (folder) => {
      const { live, isOutdated } = await import(folder + "/js/live/store.js");
      live.value = { ...live.value, build: "another" };
      isOutdated.value = true;
    }"""
    page.evaluate(code, folder)
    expect(page.get_by_text("newer version of this page")).to_be_visible()
    expect(page.get_by_role("button", name="Reload")).to_be_visible()


def test_under_a_name_of_the_network_everything_works(
    tmp_path: Path, redis_url: str, open_page: Opener
) -> None:
    """Plain http beyond localhost has no clipboard, randomUUID and Web Locks."""
    with running_api(tmp_path, redis_url, allowed_hosts="studio.lan") as rig:
        rig.supervise()
        rig.load()
        page = open_page(f"http://studio.lan:{rig.port}")
        assert page.evaluate("[isSecureContext, typeof navigator.clipboard]") == [
            False,
            "undefined",
        ]
        expect(page.locator(".link-state")).to_have_text("Connected")
        page.get_by_label("Message", exact=True).fill("hello")
        page.get_by_role("button", name="Send message").click()
        taken = rig.take()
        taken.answer("a word")
        expect(page.locator(".prose")).to_have_text("a word")
        page.get_by_role("button", name="Copy answer").click()
        expect(page.locator(".prose")).to_have_text("a word")


def test_two_models_are_compared_and_a_reload_keeps_both(rig: Rig, open_page: Opener) -> None:
    rig.load("1", "fake-20ms")
    page = open_page(rig.url, "/ui/#/compare")
    page.get_by_label("Prompt for both").fill("Which?")
    page.get_by_role("button", name="Ask both").click()
    seeds = []
    for model_id in ("0", "1"):
        taken = rig.take(names.generation_queue(model_id))
        seeds.append(taken.request.sampling.seed)
        taken.answer(f"from {model_id}")
    sides = page.locator(".side-body")
    expect(sides.nth(0)).to_contain_text("from 0")
    expect(sides.nth(1)).to_contain_text("from 1")
    assert seeds[0] == seeds[1] is not None
    page.reload()
    expect(sides.nth(1)).to_contain_text("from 1")
    page.get_by_role("button", name="Swap sides").click()
    expect(sides.nth(0)).to_contain_text("from 1")


def test_a_job_is_replayed_at_its_own_pace(rig: Rig, open_page: Opener) -> None:
    _wait(rig, 1)
    taken = rig.take()
    page = open_page(rig.url, f"/ui/#/job/{taken.job_id}")
    taken.started()
    taken.chunk("one ")
    expect(page.locator(".paper")).to_have_text("one")
    taken.chunk("two", finish_reason="stop")
    taken.finished()
    expect(page.get_by_text("finished").first).to_be_visible()
    page.get_by_role("button", name="10").click()
    expect(page.locator(".paper")).to_have_text("one two")
    page.locator(".events summary").click()
    expect(page.locator(".events li")).to_have_count(4)


def test_a_job_that_waits_shows_its_place_among_others_and_its_deadline(
    rig: Rig, open_page: Opener
) -> None:
    _wait(rig, 2)
    body = {"messages": [{"role": "user", "content": "x"}], "priority": 7, "deadline_s": 900}
    job_id = rig.post("/v1/chat/completions", body, Prefer="respond-async").json()["id"]
    rig.redis.hset(names.job_key(job_id), "yields", 3)
    page = open_page(rig.url, f"/ui/#/job/{job_id}")
    facts = page.locator(".facts")
    for text in ("Classinteractive", "Priority7", "Place3, 2 before it", "Gave way3"):
        expect(facts).to_contain_text(text)
    expect(facts).to_contain_text("Waits fora slot")
    expect(facts).to_contain_text(re.compile(r"Deadline.*, in 1\d min"))
    rig.store.cancel(rig.waiting_ids()[0], "enough")
    expect(facts).to_contain_text("Place2, 1 before it")
    rig.heartbeat(rig.desired_models.get("0"), starts_per_s={"interactive": 0.1}, beat_at=1.0)
    expect(facts).to_contain_text("Startsin about 10 s")
    for _ in range(2):
        taken = rig.take()
        rig.redis.lrem(rig.store.queue(names.generation_queue("0")).key, 0, taken.job_id)
        taken.started()
    expect(facts).not_to_contain_text("Place")
    expect(page.locator(".state").get_by_text("running")).to_be_visible()


def test_metrics_are_a_chart_and_a_table(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url, "/ui/#/metrics")
    charts = page.locator(".chart canvas")
    expect(charts).to_have_count(7)
    expect(charts.first).to_have_attribute("aria-label", re.compile("^Answers, .* Now fake: 0"))
    until(page, f"({_NUM_INKED})() > 200")
    expect(page.locator(".chart figcaption").first).not_to_contain_text(":")
    charts.first.hover()
    expect(page.locator(".chart figcaption").first).to_contain_text(":")  # the time there
    page.get_by_role("button", name="Table").click()
    expect(page.get_by_role("region", name="Figures of fake")).to_be_visible()
    expect(page.locator("table.rows tbody tr")).to_have_count(10)


_NUM_INKED = """
() => {
  const canvas = document.querySelector(".chart canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, index) => index % 4 === 3 && value > 0).length;
}
"""


def test_a_load_is_one_button_and_its_failure_is_shown(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url, "/ui/#/models")
    page.get_by_role("button", name="Load tiny.gguf").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Model id")).to_have_value("1")
    dialog.get_by_label("Context in tokens").fill("1024")
    dialog.get_by_role("button", name="Load", exact=True).click()
    taken = rig.take(names.control_queue("1"))
    assert (taken.request.model_name, taken.request.context_length) == ("tiny.gguf", 1024)
    expect(page.get_by_role("button", name="Cancel tiny.gguf")).to_be_visible()
    taken.failed("model_load_failed", "the file is cut off")
    expect(page.get_by_text("the file is cut off")).to_be_visible()
    page.reload()
    until(page, "document.querySelector('main').innerText.includes('tiny.gguf')")
