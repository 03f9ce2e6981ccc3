"""Usage of keys: what a manager sees, orders and saves; others see why not."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from jobs.keys.caller import caller_of_name
from jobs.keys.editing import add_key
from jobs.keys.usage import today
from jobs.storage import object_names
from tests.integration.api_rig import Rig, running_api
from tests.page.browsing import Opener, until
from tests.page.corpus import CORPUS
from tests.page.scene import SIZES
from tests.page.test_axe import violations
from tests.page.test_xss import check

_KEYS: dict[str, Any] = {"api_key": "user-key-5f1c", "management_key": "manager-key-77aa"}


@pytest.fixture
def with_keys(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    """A server with keys of which two have been used."""
    file = tmp_path / "keys.toml"
    add_key(file, "alice", {"rpm": 60, "max_jobs": 5, "models": ["qwen*"]})
    add_key(file, "bob", {"weight": 2.0})
    with running_api(tmp_path, redis_url, keys_file=file, **_KEYS) as rig:
        rig.supervise()
        rig.load()
        note_use(rig, "alice", "qwen3-8b", finished=4, prompt_tokens=1200, generated_tokens=90)
        note_use(rig, "alice", "gemma", finished=1, prompt_tokens=3, generated_tokens=2)
        note_use(rig, "bob", "gemma", finished=30, failed=1, prompt_tokens=70, generated_tokens=9)
        yield rig


def note_use(rig: Rig, name: str, model: str, **numbers: int) -> None:
    key = object_names.usage_key(today().toordinal() - datetime.date(1970, 1, 1).toordinal())
    fields = {f"{what} {caller_of_name(name)} {model}": n for what, n in numbers.items()}
    rig.redis.hset(key, mapping=fields)


def _log_in(page: Page, key: str) -> None:
    page.locator("main").get_by_label("Key", exact=True).last.fill(key)
    page.get_by_role("button", name="Continue").click()


def _open(rig: Rig, open_page: Opener, key: str, **options: Any) -> Page:
    page = open_page(rig.url, "/ui/#/usage", allowed=("401",), **options)
    _log_in(page, key)
    return page


def _names(page: Page) -> list[str]:
    return page.get_by_role("region", name="Usage").locator("tbody th").all_inner_texts()


def test_a_manager_sees_the_use_and_the_limits_of_every_key(
    with_keys: Rig, open_page: Opener
) -> None:
    page = _open(with_keys, open_page, _KEYS["management_key"])
    table = page.get_by_role("region", name="Usage")
    alice = table.get_by_role("row", name="alice")
    expect(alice).to_have_text("alice5001,203092" + "1,295")
    expect(table.get_by_role("row", name="All")).to_have_text("All36101,2730101" + "1,374")
    limits = page.get_by_role("region", name="Limits of keys")
    expect(limits.get_by_role("row", name="alice")).to_contain_text(re.compile(r"15\D60\D"))
    expect(limits.get_by_role("row", name="alice")).to_contain_text("qwen*")
    expect(limits.get_by_role("row", name="management")).to_contain_text("manager")
    page.get_by_label("By").select_option("key and model")
    expect(table.locator("tbody tr")).to_have_count(3)
    assert "by=key%2Cmodel" in page.url
    page.reload()
    expect(table.locator("tbody tr")).to_have_count(3)
    expect(table.locator("tbody tr").first).to_contain_text("qwen3-8b")


def test_a_column_orders_the_rows_with_the_keyboard_too(with_keys: Rig, open_page: Opener) -> None:
    page = _open(with_keys, open_page, _KEYS["management_key"])
    expect(page.get_by_role("row", name="alice").first).to_be_visible()
    assert _names(page) == ["alice", "bob"]
    requests = page.get_by_role("button", name="Requests", exact=True)
    requests.focus()
    page.keyboard.press("Enter")
    column = page.get_by_role("columnheader", name="Requests", exact=True)
    expect(column).to_have_attribute("aria-sort", "descending")
    assert _names(page) == ["bob", "alice"]
    page.keyboard.press("Enter")
    expect(column).to_have_attribute("aria-sort", "ascending")
    assert _names(page) == ["alice", "bob"]


def test_the_table_is_saved_for_a_spreadsheet(
    with_keys: Rig, open_page: Opener, tmp_path: Path
) -> None:
    page = _open(with_keys, open_page, _KEYS["management_key"])
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").click()
    assert saved.value.suggested_filename == "usage.csv"
    file = tmp_path / "saved.csv"
    saved.value.save_as(file)
    [head, alice, bob] = file.read_text().splitlines()
    assert head.startswith("key,num_jobs,num_failed")
    assert (alice, bob) == ("alice,5,0,0,1203,0,92,1295", "bob,31,1,0,70,0,9,79")


def test_a_key_that_may_not_manage_sees_why_and_no_numbers(
    with_keys: Rig, open_page: Opener
) -> None:
    page = _open(with_keys, open_page, _KEYS["api_key"])
    expect(page.get_by_text("This needs the management key")).to_be_visible()
    expect(page.locator("table")).to_have_count(0)
    page.goto(f"{with_keys.url}/ui/#/metrics")
    expect(page.locator(".chart canvas").first).to_be_visible()
    expect(page.get_by_role("link", name="Usage of keys")).to_have_count(0)


def test_without_keys_it_is_said_that_all_are_counted_together(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url, "/ui/#/metrics")
    page.get_by_role("link", name="Usage of keys").click()
    expect(page.get_by_text("No keys are configured")).to_be_visible()
    expect(page.get_by_text("Nothing has ended from")).to_be_visible()
    expect(page.get_by_role("region", name="Limits of keys")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_usage_with_keys_follows_the_rules(
    size: tuple[int, int], theme: str, with_keys: Rig, open_page: Opener
) -> None:
    width, height = size
    options: dict[str, Any] = {"viewport": {"width": width, "height": height}}
    page = _open(with_keys, open_page, _KEYS["management_key"], color_scheme=theme, **options)
    page.get_by_label("By").select_option("key, model and day")
    expect(page.get_by_role("region", name="Usage").locator("tbody tr")).to_have_count(3)
    assert violations(page) == []
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]


def test_hostile_names_of_models_stay_text(with_keys: Rig, open_page: Opener) -> None:
    for text in CORPUS:
        note_use(with_keys, "alice", text, finished=1, prompt_tokens=5)
    page = _open(with_keys, open_page, _KEYS["management_key"])
    page.get_by_label("By").select_option("key and model")
    until(page, "n => document.querySelectorAll('.usage tbody tr').length > n", len(CORPUS))
    check(page)
    page.evaluate("location.hash = '#/usage?days=toString&by=constructor'")
    expect(page.get_by_label("Time")).to_have_value("30")
    check(page)
