"""A long chat: the newest messages first, the others above them, and nothing that is read moves."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.integration.api_rig import Rig
from tests.page.browsing import Opener, until
from tests.page.long_chat import LONG_CHAT, store_long_chat

_NUM = 60
_HOLD_IDLE = """
window.held = [];
window.requestIdleCallback = (call) => held.push(call);
window.cancelIdleCallback = () => {};
"""
_TOP_OF = """
(text) => [...document.querySelectorAll(".message")]
  .find((one) => one.textContent.includes(text)).getBoundingClientRect().top
"""


def _open_long(rig: Rig, open_page: Opener) -> Page:
    """A page with the chat, whose time to be idle is the test's."""
    page = open_page(rig.url, "/ui/#/settings")
    store_long_chat(page, _NUM)
    page.context.add_init_script(_HOLD_IDLE)
    page.goto(f"{rig.url}/ui/#/chat/{LONG_CHAT}")
    page.reload()
    expect(page.locator(".message")).to_have_count(8)
    return page


def _be_idle(page: Page) -> None:
    until(page, "held.length > 0")
    page.evaluate("held.splice(0).forEach((call) => call())")


def test_the_newest_messages_are_first_and_the_others_come_when_there_is_time(
    rig: Rig, open_page: Opener
) -> None:
    page = _open_long(rig, open_page)
    expect(page.locator(".message").last).to_contain_text(f"Answer {_NUM - 1}")
    expect(page.locator(".message").last.locator(".message-foot")).to_be_in_viewport()
    for num in range(12, _NUM + 1, 4):
        _be_idle(page)
        expect(page.locator(".message")).to_have_count(num)
    expect(page.locator(".message").first).to_contain_text("Question 0:")
    expect(page.locator(".message").last.locator(".message-foot")).to_be_in_viewport()


def test_what_is_read_stays_where_it_is_when_older_messages_come(
    rig: Rig, open_page: Opener
) -> None:
    page = _open_long(rig, open_page)
    page.locator(".thread").evaluate("e => { e.scrollTop = 0 }")
    page.get_by_role("button", name="Go to the end").wait_for()
    before = page.evaluate(_TOP_OF, f"Question {_NUM - 8}:")
    for num in (12, 16, 20):
        _be_idle(page)
        expect(page.locator(".message")).to_have_count(num)
        until(page, "new Promise((found) => requestAnimationFrame(() => found(true)))")
        assert abs(page.evaluate(_TOP_OF, f"Question {_NUM - 8}:") - before) < 1


def test_the_first_message_can_be_scrolled_to_and_its_text_is_there_before(
    rig: Rig, open_page: Opener
) -> None:
    """Far above, nothing is laid out; the elements are there for a search of the page."""
    page = _open_long(rig, open_page)
    for num in range(12, _NUM + 1, 4):
        _be_idle(page)
        expect(page.locator(".message")).to_have_count(num)
    far = page.locator(".stretch").first
    assert far.evaluate("e => getComputedStyle(e).contentVisibility") == "auto"
    assert "Question 0:" in str(far.text_content())
    page.locator(".thread").evaluate("e => { e.scrollTop = 0 }")
    expect(page.locator(".message").first).to_be_in_viewport()
    page.get_by_role("button", name="Go to the end").click()
    expect(page.locator(".message").last.locator(".message-foot")).to_be_in_viewport()


@pytest.mark.parametrize("key", ["Home", "Meta+ArrowUp"])
def test_home_goes_to_the_first_message_from_wherever_one_is(
    key: str, rig: Rig, open_page: Opener
) -> None:
    """What lies between is laid out on the way, and then has another height than was thought."""
    page = _open_long(rig, open_page)
    for num in range(12, _NUM + 1, 4):
        _be_idle(page)
        expect(page.locator(".message")).to_have_count(num)
    thread = page.locator(".thread")
    thread.focus()
    for num_ups in (0, 3, 9, 25):
        thread.evaluate("e => { e.scrollTop = e.scrollHeight }")
        expect(page.locator(".message").last.locator(".message-foot")).to_be_in_viewport()
        for _ in range(num_ups):
            page.keyboard.press("PageUp")
        page.keyboard.press(key)
        page.wait_for_timeout(400)
        assert thread.evaluate("e => e.scrollTop") == 0
        expect(page.locator(".message").first).to_be_in_viewport()


def test_home_is_kept_while_older_messages_come(rig: Rig, open_page: Opener) -> None:
    page = _open_long(rig, open_page)
    page.locator(".thread").focus()
    page.keyboard.press("Home")
    for num in range(12, _NUM + 1, 4):
        _be_idle(page)
        expect(page.locator(".message")).to_have_count(num)
    page.wait_for_timeout(200)
    assert page.locator(".thread").evaluate("e => e.scrollTop") == 0
    expect(page.locator(".message").first).to_be_in_viewport()


def test_who_moves_up_a_little_is_not_taken_back_to_the_end(rig: Rig, open_page: Opener) -> None:
    page = _open_long(rig, open_page)
    thread = page.locator(".thread")
    top = thread.evaluate(
        "e => { e.scrollTop -= 10; return new Promise((found) => "
        "e.addEventListener('scroll', () => found(e.scrollTop), { once: true })) }"
    )
    thread.evaluate(_GROW)
    until(
        page, "new Promise((found) => setTimeout(() => requestAnimationFrame(() => found(true))))"
    )
    assert thread.evaluate("e => e.scrollTop") == top


_GROW = """
(thread) => {
  const more = document.createElement("div");
  more.style.height = "300px";
  thread.firstElementChild.append(more);
}
"""


def test_a_search_of_the_page_finds_what_was_never_laid_out(rig: Rig, open_page: Opener) -> None:
    page = _open_long(rig, open_page)
    for num in range(12, _NUM + 1, 4):
        _be_idle(page)
        expect(page.locator(".message")).to_have_count(num)
    page.locator(".thread").focus()
    is_found = "find('Question 0:', false, false, true)"  # any case, forwards, from the start again
    assert page.evaluate(is_found)
    assert page.evaluate("getSelection().toString()") == "Question 0:"
