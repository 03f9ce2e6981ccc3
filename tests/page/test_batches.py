"""Batches on the page: started from a file, followed, cancelled, repeated, downloaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.helpers.server import ROOT, Server
from tests.page.browsing import Opener


@pytest.fixture
def with_runner(server: Server) -> Iterator[Server]:
    """The server with a model that answers, and the process that does batches."""
    server.load("fake-20ms")
    runner = subprocess.Popen(
        [sys.executable, "-m", "api.batch_runner"], cwd=ROOT, env=server.env,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    yield server
    runner.terminate()
    runner.wait(20)


def lines_of(path: Path, *bodies: dict[str, Any]) -> Path:
    lines = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "fake-20ms", "prompt": "x" * 8, "max_tokens": 4, **body},
        }
        for number, body in enumerate(bodies, start=1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def start(page: Page, path: Path) -> Locator:
    """The card of a batch that is started from the file."""
    page.get_by_label("Requests, one JSON object a line").set_input_files(path)
    expect(page.get_by_label("Route")).to_have_value("/v1/completions")
    page.get_by_role("button", name="Start batch").click()
    return page.get_by_role("listitem", name="Batch").first


def test_a_batch_is_started_from_a_file_and_its_answers_are_saved(
    with_runner: Server, open_page: Opener, tmp_path: Path
) -> None:
    page = open_page(with_runner.url, "/ui/#/batches")
    expect(page.locator("h1")).to_have_text("Batches")
    expect(page.get_by_role("heading", name="No batch")).to_be_visible()
    card = start(page, lines_of(tmp_path / "in.jsonl", {}, {}, {"temperature": -7}))
    expect(card.get_by_text("completed")).to_be_visible()
    expect(card.get_by_text("3 of 3 lines")).to_be_visible()
    expect(card.get_by_text("1 failed")).to_be_visible()
    with page.expect_download() as found:
        card.get_by_role("button", name="Download the answers").click()
    lines = [json.loads(line) for line in found.value.path().read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == ["line-1", "line-2"]
    card.get_by_role("button", name="More for batch").click()
    with page.expect_download() as found:
        page.get_by_role("menuitem", name="Download errors").click()
    assert json.loads(found.value.path().read_text())["custom_id"] == "line-3"
    card.get_by_role("button", name="More for batch").click()
    page.get_by_role("menuitem", name="Repeat the lines that failed").click()
    expect(page.get_by_role("listitem", name="Batch")).to_have_count(2)
    again = page.get_by_role("listitem", name="Batch").first
    expect(again.get_by_text("1 of 1 line", exact=True)).to_be_visible()
    expect(again.get_by_text("repeats")).to_be_visible()


def test_a_batch_is_followed_and_cancelled(
    with_runner: Server, open_page: Opener, tmp_path: Path
) -> None:
    page = open_page(with_runner.url, "/ui/#/batches")
    card = start(page, lines_of(tmp_path / "in.jsonl", *[{"max_tokens": 400}] * 60))
    expect(card.get_by_text("in progress")).to_be_visible()
    expect(card.get_by_role("progressbar")).to_be_visible()
    page.get_by_role("link", name="Waiting and running").click()
    expect(page.get_by_text("Batch: when nobody waits above")).to_be_visible()
    expect(page.locator("tr.is-running .tag", has_text="batch").first).to_be_visible()
    page.get_by_role("link", name="Batches").click()
    card.get_by_role("button", name="Cancel batch").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel batch").click()
    expect(card.get_by_text("cancelled")).to_be_visible()


def test_what_is_wrong_with_a_file_is_shown_with_its_lines(
    with_runner: Server, open_page: Opener, tmp_path: Path
) -> None:
    path = lines_of(tmp_path / "in.jsonl", {})
    path.write_text(path.read_text() + "{no json\n")
    page = open_page(with_runner.url, "/ui/#/batches")
    card = start(page, path)
    expect(card.get_by_text("Line 2: ")).to_be_visible()
    expect(card.get_by_text("failed", exact=True)).to_be_visible()


def test_a_refused_file_is_told_in_the_servers_words(
    server: Server, open_page: Opener, tmp_path: Path
) -> None:
    path = lines_of(tmp_path / "in.txt", {})
    page = open_page(server.url, "/ui/#/batches", allowed=("400",))
    page.get_by_label("Requests, one JSON object a line").set_input_files(path)
    page.get_by_role("button", name="Start batch").click()
    expect(page.locator(".toast.is-error")).to_contain_text(".jsonl")
