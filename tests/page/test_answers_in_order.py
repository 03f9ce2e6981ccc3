"""An answer that another one has overtaken is not shown: it is older than what is there."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from tests.integration.api_rig import Rig
from tests.page.browsing import Opener
from tests.page.test_usage import note_use


class Held:
    """Holds the next answer to a request of ``pattern``; later ones pass it."""

    def __init__(self, page: Page, pattern: str) -> None:
        self._page = page
        self._held: list[tuple[Route, APIResponse]] = []
        self._is_last = False
        page.route(pattern, self._look)

    def _look(self, route: Route) -> None:
        if not self._held:
            self._held.append((route, route.fetch()))
        elif not self._is_last:
            route.continue_()

    def wait(self) -> None:
        """Until it is there, as old as it will be."""
        while not self._held:
            self._page.wait_for_timeout(20)

    def let_go(self) -> None:
        """The page gets it, has time to show it, and gets nothing after it."""
        self._is_last = True
        [(route, answer)] = self._held
        route.fulfill(response=answer)
        self._page.wait_for_timeout(300)


def start_batch(rig: Rig) -> str:
    """Its id; nobody works on it."""
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions"}
    text = json.dumps({**line, "body": {"model": "fake", "prompt": "a"}})
    upload = {"file": ("in.jsonl", text.encode())}
    file = rig.http.post("/v1/files", files=upload, data={"purpose": "batch"}).json()["id"]
    fields = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    batch_id: str = rig.post("/v1/batches", fields).json()["id"]
    return batch_id


@pytest.fixture
def used(rig: Rig) -> Rig:
    note_use(rig, "alice", "gemma", finished=4, prompt_tokens=1200)
    note_use(rig, "alice", "qwen", finished=1, prompt_tokens=5)
    return rig


def test_usage_in_the_form_that_was_chosen_last(used: Rig, open_page: Opener) -> None:
    page = open_page(used.url, "/ui/#/usage")
    rows = page.get_by_role("region", name="Usage").locator("tbody tr")
    expect(rows).to_have_count(1)
    held = Held(page, "**/v1/usage*")
    page.get_by_role("button", name="Read again").click()
    held.wait()
    page.get_by_label("By").select_option("key and model")
    expect(rows).to_have_count(2)
    held.let_go()
    expect(rows).to_have_count(2)


def test_all_jobs_of_the_filter_that_was_chosen_last(rig: Rig, open_page: Opener) -> None:
    rig.post("/v1/completions", {"prompt": "a"}, Prefer="respond-async")
    page = open_page(rig.url, "/ui/#/queue?show=all")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    held = Held(page, "**/v1/jobs?*")
    page.get_by_role("button", name="Read again").click()
    held.wait()
    page.get_by_label("Status").select_option("failed")
    expect(page.get_by_text("No such job")).to_be_visible()
    held.let_go()
    expect(page.get_by_text("No such job")).to_be_visible()
    expect(rows).to_have_count(0)


def test_a_cancelled_job_does_not_run_again(rig: Rig, open_page: Opener) -> None:
    answer = rig.post("/v1/completions", {"prompt": "a"}, Prefer="respond-async")
    job_id = answer.headers["X-Job-Id"]
    page = open_page(rig.url, f"/ui/#/job/{job_id}")
    state = page.locator(".view-head .state")
    expect(state).to_have_text("queued")
    held = Held(page, f"**/v1/jobs/{job_id}")
    held.wait()
    page.get_by_role("button", name="Cancel job").click()
    expect(state).to_have_text("cancelled")
    held.let_go()
    expect(state).to_have_text("cancelled")


def test_a_model_that_came_after_the_question_stays_in_the_list(
    rig: Rig, open_page: Opener
) -> None:
    page = open_page(rig.url, "/ui/#/models")
    expect(page.get_by_text("tiny").first).to_be_visible()
    held = Held(page, "**/v1/models")
    again = page.get_by_role("button", name="Read again")
    again.click()
    held.wait()
    (rig.settings.models_dir / "later.gguf").write_bytes(b"GGUF")
    again.click()
    expect(page.get_by_text("later").first).to_be_visible()
    held.let_go()
    expect(page.get_by_text("later").first).to_be_visible()


def test_batches_that_were_read_before_one_was_cancelled(rig: Rig, open_page: Opener) -> None:
    batch = start_batch(rig)
    page = open_page(rig.url, "/ui/#/batches")
    state = page.get_by_role("listitem", name="Batch").locator(".state")
    expect(state).to_have_text("validating")
    held = Held(page, "**/v1/batches?*")
    held.wait()
    rig.post(f"/v1/batches/{batch}/cancel", {})
    expect(state).to_have_text(re.compile("cancel"))
    held.let_go()
    expect(state).to_have_text(re.compile("cancel"))
