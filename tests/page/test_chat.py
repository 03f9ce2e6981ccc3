"""Chat: from a fresh start to an answer; answers that survive what happens to page and server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.helpers.server import Server, make_server
from tests.integration.api_rig import Rig
from tests.page.browsing import Opener, until

_AWAY = (
    "ERR_CONNECTION_REFUSED",
    "ERR_INCOMPLETE_CHUNKED",
    "ERR_CONNECTION_RESET",
    "network error",
)


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send message").click()


def set_fields(page: Page, **fields: Any) -> None:
    """Sets any fields of the request in the panel of parameters."""
    page.get_by_role("button", name="Parameters", exact=True).click()
    box = page.get_by_label("Other fields")
    box.fill(json.dumps(fields))
    box.blur()
    page.get_by_role("button", name="Close parameters").click()


def prose(page: Page) -> Any:
    return page.locator(".message.is-answer .prose").last


def wait_done(page: Page) -> None:
    expect(page.locator(".message.is-answer").last).to_have_attribute(
        "aria-busy", "false", timeout=30_000
    )


def counted(num_prompt: int, num: int) -> str:
    """The fake engine's text: each character depends on its place."""
    places = range(num_prompt, num_prompt + num)
    return "".join(f"{place // 8:07d} "[place % 8] for place in places)


def whole_text(server_url: str, page: Page) -> str:
    """What the job of the last answer wrote, from its result."""
    href = page.locator(".message.is-answer .job-link").last.get_attribute("href")
    job = page.request.get(f"{server_url}/v1/jobs/{href.split('/')[-1]}").json()
    return str(job["result"]["choices"][0]["message"]["content"])


def test_a_first_answer_takes_two_clicks_and_the_question(
    server: Server, open_page: Opener
) -> None:
    page = open_page(server.url, "/")
    page.get_by_role("button", name="Load demo", exact=False).first.click()
    box = page.get_by_label("Message", exact=True)
    expect(box).to_have_attribute("placeholder", "Message", timeout=30_000)
    box.fill("Who are you?")
    page.get_by_role("button", name="Send message").click()
    expect(prose(page)).not_to_be_empty(timeout=30_000)
    wait_done(page)
    expect(page.locator(".stats").last).to_contain_text("tok/s")
    assert "Chat" in page.title()


def test_a_reload_in_mid_answer_loses_and_repeats_nothing(
    server: Server, open_page: Opener
) -> None:
    server.load("fake-20ms")
    page = open_page(server.url)
    set_fields(page, temperature=0, max_tokens=150, ignore_eos=True)
    ask(page, "Count")
    until(page, "document.querySelector('.is-answer .prose')?.textContent.length > 50")
    page.reload()
    expect(page.locator(".message.is-answer")).to_have_count(1)
    wait_done(page)
    found = prose(page).inner_text()
    assert found == whole_text(server.url, page).strip()
    assert len(found) >= 140


def test_two_tabs_show_the_same_answer_once(server: Server, open_page: Opener) -> None:
    server.load("fake-20ms")
    first = open_page(server.url)
    set_fields(first, temperature=0, max_tokens=120, ignore_eos=True)
    ask(first, "Count")
    until(first, "location.hash.length > 12")
    expect(prose(first)).not_to_be_empty()
    second = open_page(server.url, f"/ui/{first.url.split('/ui/')[1]}", context=first.context)
    wait_done(second)
    wait_done(first)
    assert prose(first).inner_text() == prose(second).inner_text()
    assert prose(first).inner_text() == whole_text(server.url, first).strip()
    expect(second.locator(".message")).to_have_count(2)


def test_an_answer_goes_on_when_the_api_is_killed_and_started_again(open_page: Opener) -> None:
    server = make_server()
    try:
        server.start_all()
        server.load("fake-20ms")
        page = open_page(server.url, allowed=_AWAY)
        set_fields(page, temperature=0, max_tokens=300, ignore_eos=True)
        ask(page, "Count")
        until(page, "document.querySelector('.prose')?.textContent.length > 40")
        page.get_by_label("Message", exact=True).fill("a draft")
        server.processes["web"].kill()
        server.processes["web"].wait()
        expect(page.get_by_text("The server cannot be reached.", exact=False).first).to_be_visible()
        expect(page.get_by_role("button", name="Stop answering")).to_be_visible()
        server.start("web", "api")
        wait_done(page)
        assert prose(page).inner_text() == whole_text(server.url, page).strip()
        expect(page.get_by_label("Message", exact=True)).to_have_value("a draft")
        expect(page.locator(".banner")).to_have_count(0)
    finally:
        server.stop()


def test_stop_ends_the_job_and_continue_goes_on(server: Server, open_page: Opener) -> None:
    server.load("fake-20ms")
    page = open_page(server.url)
    set_fields(page, temperature=0, max_tokens=2000, ignore_eos=True)
    ask(page, "Count")
    until(page, "document.querySelector('.prose')?.textContent.length > 20")
    page.get_by_role("button", name="Stop answering").click()
    wait_done(page)
    expect(page.get_by_text("Stopped.")).to_be_visible()
    before = prose(page).inner_text()
    set_fields(page, temperature=0, max_tokens=30, ignore_eos=True)
    page.get_by_role("button", name="Continue").click()
    until(page, "n => document.querySelector('.prose').textContent.length > n", len(before) + 5)
    wait_done(page)
    assert prose(page).inner_text().startswith(before[:-1])


def test_edit_and_answer_again_make_branches(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url)
    ask(page, "first")
    rig_answer(rig, "one")
    wait_done(page)
    page.get_by_role("button", name="Answer again").click()
    rig_answer(rig, "two")
    wait_done(page)
    expect(prose(page)).to_have_text("two")
    page.get_by_role("button", name="Previous version").click()
    expect(prose(page)).to_have_text("one")
    page.get_by_role("button", name="Edit and send again").click()
    page.locator(".editor textarea").fill("other")
    page.locator(".editor").get_by_role("button", name="Send").click()
    taken = rig_answer(rig, "three")
    assert taken.request.prompts[0].messages[-1].content == "other"
    wait_done(page)
    expect(page.locator(".bubble")).to_have_text("other")
    page.get_by_role("button", name="Previous version").click()
    expect(page.locator(".bubble")).to_have_text("first")
    expect(prose(page)).to_have_text("two")  # the newest of that branch
    page.get_by_role("button", name="Branch into a new chat").click()
    expect(page.locator(".chat-list li")).to_have_count(2)
    expect(prose(page)).to_have_text("two")


def rig_answer(rig: Rig, *texts: str) -> Any:
    """Answers the next job; it leaves the queue, as with a worker."""
    taken = rig.take()
    rig.redis.lrem(rig.store.queue("mgs-gen-0").key, 0, taken.job_id)
    taken.answer(*texts)
    return taken


def test_thoughts_are_folded_and_a_tool_gets_a_result(rig: Rig, open_page: Opener) -> None:
    from jobs.contract.events import CalledTool

    page = open_page(rig.url)
    set_fields(page, tools=[{"type": "function", "function": {"name": "weather"}}])
    ask(page, "weather?")
    taken = rig.take()
    rig.redis.lpop(rig.store.queue("mgs-gen-0").key)
    taken.started()
    taken.chunk("", reasoning="let me look")
    call = CalledTool(0, "call-1", "weather", '{"city": "Rome"}')
    taken.chunk("", tool_calls=[call], finish_reason="tool_calls")
    taken.finished()
    expect(page.get_by_text("Thought", exact=False).first).to_be_visible()
    expect(page.get_by_text("let me look")).to_have_count(0)
    page.locator(".thoughts summary").click()
    expect(page.get_by_text("let me look")).to_be_visible()
    expect(page.get_by_label("Call of weather")).to_contain_text("Rome")
    page.get_by_label("Result").fill("sunny")
    page.get_by_role("button", name="Send result").click()
    taken = rig_answer(rig, "It is sunny.")
    messages = taken.request.prompts[0].messages
    assert [message.role for message in messages] == ["user", "assistant", "tool"]
    assert (messages[2].content, messages[2].tool_call_id) == ("sunny", "call-1")
    expect(prose(page)).to_have_text("It is sunny.")


def test_an_error_is_shown_in_the_servers_words_with_its_job(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url, allowed=("400",))
    ask(page, "one")
    taken = rig.take()
    rig.redis.lpop(rig.store.queue("mgs-gen-0").key)
    taken.started()
    taken.chunk("half an ")
    taken.failed("grammar_failed", "the grammar took too long")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("the grammar took too long")
    expect(alert).to_contain_text("grammar_failed")
    expect(alert.get_by_role("link", name="Job")).to_have_attribute("href", f"#/job/{taken.job_id}")
    expect(prose(page)).to_have_text("half an")
    set_fields(page, temperature=9)
    ask(page, "two")
    expect(page.get_by_role("alert").last).to_contain_text("temperature")


def test_chats_are_searched_exported_and_imported(
    rig: Rig, open_page: Opener, tmp_path: Path
) -> None:
    page = open_page(rig.url)
    for text in ("apples", "pears"):
        ask(page, f"about {text}")
        rig_answer(rig, f"these are {text}")
        wait_done(page)
        page.get_by_role("button", name="New chat", exact=True).first.click()
    page.get_by_label("Search chats").fill("are pears")
    expect(page.locator(".chat-list li")).to_have_count(1)
    expect(page.locator(".chat-list li")).to_contain_text("about pears")
    page.get_by_label("Search chats").fill("")
    page.get_by_role("button", name="Import and export").click()
    with page.expect_download() as saved:
        page.get_by_role("menuitem", name="Export all chats").click()
    file = tmp_path / "chats.json"
    saved.value.save_as(file)
    page.goto(f"{rig.url}/ui/#/settings")
    page.get_by_role("button", name="Delete all chats").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete all", exact=True).click()
    page.goto(f"{rig.url}/ui/#/chat")
    expect(page.locator(".chat-list li")).to_have_count(0)
    page.get_by_label("File to import").set_input_files(file)
    expect(page.locator(".chat-list li")).to_have_count(2)
    page.get_by_role("link", name="about apples").click()
    expect(prose(page)).to_have_text("these are apples")
    (tmp_path / "bad.json").write_text('{"format": "other"}')
    page.get_by_label("File to import").set_input_files(tmp_path / "bad.json")
    expect(page.get_by_text("not an export of chats")).to_be_visible()


def test_scrolling_up_stays_where_it_is_while_text_comes(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url)
    ask(page, "long")
    taken = rig.take()
    taken.started()
    for i in range(60):
        taken.chunk(f"line {i}\n\n")
    until(page, "document.querySelector('.prose')?.textContent.includes('line 59')")
    thread = page.locator(".thread")
    at_end = "e => e.scrollHeight - e.scrollTop - e.clientHeight < 60"
    until(page, f"({at_end})(document.querySelector('.thread'))")
    thread.evaluate("e => { e.scrollTop = 100 }")
    page.get_by_role("button", name="Go to the end").wait_for()
    for i in range(60, 80):
        taken.chunk(f"line {i}\n\n")
    until(page, "document.querySelector('.prose')?.textContent.includes('line 79')")
    assert thread.evaluate("e => e.scrollTop") == 100
    page.get_by_role("button", name="Go to the end").click()
    until(page, f"({at_end})(document.querySelector('.thread'))")
    taken.finished()


def test_a_phone_has_room_for_everything(rig: Rig, open_page: Opener) -> None:
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page = open_page(rig.url, **options)
    ask(page, "hello")
    rig_answer(rig, "a `word` and\n\n```\n" + "x" * 300 + "\n```\n")
    wait_done(page)
    for name in ("chat", "compare", "models", "queue", "metrics", "connect", "settings"):
        page.goto(f"{rig.url}/ui/#/{name}")
        page.locator("main h2, main p, main form").filter(visible=True).first.wait_for()
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], name
        small = page.evaluate(_SMALL_TARGETS)
        assert small == [], name


_SMALL_TARGETS = """
() => [...document.querySelectorAll("button, select, input:not([type=checkbox]), nav.rail a")]
  .filter((e) => e.offsetParent !== null && !e.closest(".offscreen") && !e.matches(".offscreen"))
  .filter((e) => !e.closest("li[role]") && e.getBoundingClientRect().height < 43.5)
  .map((e) => e.outerHTML.slice(0, 120))
"""


def test_a_request_can_be_copied_without_the_key(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url, permissions=["clipboard-read", "clipboard-write"])
    ask(page, "it's")
    rig_answer(rig, "yes")
    wait_done(page)
    for name, part in (("Copy as curl", "curl http"), ("Copy as Python", "OpenAI(")):
        page.get_by_role("button", name="Conversation actions").click()
        page.get_by_role("menuitem", name=name).click()
        expect(page.get_by_text("Copied").last).to_be_visible()
        # The word may be that of the copy before.
        until(page, "async (part) => (await navigator.clipboard.readText()).includes(part)", part)
        text = page.evaluate("navigator.clipboard.readText()")
        assert re.search("it('..'|')s", text)
