"""Hostile texts, in pieces, wherever a text of others is shown: none becomes more than text."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from jobs.contract.events import CalledTool
from jobs.storage import names
from tests.integration.api_rig import Rig, Taken
from tests.page.browsing import Opener, until
from tests.page.corpus import CORPUS
from tests.page.test_chat import ask

_PIECE = 5
_ACTIVE = """
() => {
  const main = document.getElementById("app");
  const bad = "script, iframe, object, embed, form[action], img, video, audio, base, meta, link, "
    + "style, template, math, marquee, body, foreignObject, animate, [srcdoc], [formaction]";
  const safe = /^(#|\\/docs$|https?:\\/\\/|mailto:)/;
  const found = [...main.querySelectorAll(bad)].map((e) => e.outerHTML.slice(0, 80));
  for (const e of main.querySelectorAll("*")) {
    for (const { name, value } of e.attributes) {
      if (name.startsWith("on")) found.push(`${name} ${value}`);
      if (/href$/.test(name) && !safe.test(value)) found.push(`${name} ${value}`);
    }
  }
  return found;
}
"""


def check(page: Page) -> None:
    """No active element. Dialogs and requests fail the test at its end."""
    assert page.evaluate(_ACTIVE) == []


def test_the_corpus_is_large() -> None:
    assert len(set(CORPUS)) == len(CORPUS) >= 60


@pytest.mark.parametrize("place", ["text", "reasoning"])
def test_an_answer_that_comes_in_pieces_stays_text(place: str, rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url)
    ask(page, "hello")
    taken = _take(rig)
    taken.started()
    for text in CORPUS:
        for start in range(0, len(text) + 2, _PIECE):
            _send(taken, place, (text + "\n\n")[start : start + _PIECE])
        if place == "text":
            check(page)
    _send(taken, place, "the end")
    if place == "reasoning":
        taken.chunk("", finish_reason="stop")
        taken.finished()
        page.locator(".thoughts summary").click()
    until(page, "document.querySelector('.prose')?.textContent.endsWith('the end')")
    check(page)
    for link in page.locator(".prose a").all():
        assert str(link.get_attribute("href")).startswith(("http", "mailto"))


def test_each_text_alone_is_text_at_every_length(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url)
    folder = page.evaluate("document.scripts[0].src.split('/js/')[0]")
    page.evaluate(_RENDER, folder)
    for text in CORPUS:
        page.evaluate(
            "text => { for (let n = 1; n <= text.length; n += 2) show(text.slice(0, n)) }", text
        )
        page.evaluate("text => { show(text) }", text)
        check(page)
    shown = page.evaluate("text => show(text).textContent", CORPUS[0])
    assert shown == CORPUS[0]


_RENDER = """
async (folder) => {
  const { Markdown } = await import(folder + "/js/text/markdown.js");
  const { h, render } = await import(folder + "/vendor/ui.js");
  const box = document.createElement("div");
  document.getElementById("app").append(box);
  globalThis.show = (text) => {
    render(h(Markdown, { text }), box);
    return box;
  };
}
"""


def _take(rig: Rig) -> Taken:
    taken = rig.take()
    rig.redis.lrem(rig.store.queue(names.generation_queue("0")).key, 0, taken.job_id)
    return taken


def _send(taken: Taken, place: str, piece: str) -> None:
    if place == "text":
        taken.chunk(piece)
    else:
        taken.chunk("", reasoning=piece)


def test_tool_calls_and_errors_stay_text(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url)
    ask(page, "hello")
    taken = _take(rig)
    taken.started()
    for index, text in enumerate(CORPUS):
        taken.chunk("", tool_calls=[CalledTool(index, f"id{text}", text, "")])
        for start in range(0, len(text), 40):
            taken.chunk("", tool_calls=[CalledTool(index, arguments=text[start : start + 40])])
    whole = json.dumps({"text": "".join(CORPUS)})
    taken.chunk("", tool_calls=[CalledTool(len(CORPUS), "x", "last", whole)])
    taken.failed("<img src=x onerror=alert(1)>", " ".join(CORPUS))
    expect(page.get_by_role("alert")).to_contain_text("onerror")
    expect(page.locator(".tool-call")).to_have_count(len(CORPUS) + 1)
    check(page)
    page.goto(f"{rig.url}/ui/#/job/{taken.job_id}")
    expect(page.get_by_role("alert")).to_contain_text("onerror")
    check(page)


def test_names_of_models_chats_and_presets_stay_text(rig: Rig, open_page: Opener) -> None:
    for index, text in enumerate(CORPUS[:60], start=1):
        rig.load(text[:64].replace("\t", " ").replace("\n", " "), text)
        rig.redis.hset(names.job_key(f"job{index}"), mapping={"api": text, "caller": text})
        rig.redis.rpush(rig.store.queue(names.generation_queue("0")).key, f"job{index}")
    page = open_page(rig.url, "/ui/#/settings", allowed=("404",))
    page.evaluate(_STORE, [_chats(), page.evaluate("document.scripts[0].src.split('/js/')[0]")])
    for name in ("chat", "chat/c3", "models", "queue", "compare", "metrics", "connect", "settings"):
        page.goto(f"{rig.url}/ui/#/{name}")
        page.reload()
        until(page, "document.querySelector('main').innerText.length > 20")
        expect(page.locator(".link-state")).to_have_text("Connected")
        check(page)
    page.goto(f"{rig.url}/ui/#/{CORPUS[0]}/{CORPUS[10]}?x={CORPUS[15]}")
    until(page, "document.querySelector('main').innerText.includes('no such page')")
    check(page)


_STORE = """
async ([chats, folder]) => {
  await (await import(folder + "/js/chats/db.js")).put(chats);
  const made = ({ title }) => ({ name: title, system: title, params: {} });
  const presets = chats.conversations.map(made);
  localStorage.setItem("mgs.presets", JSON.stringify(presets));
}
"""


def _chats() -> dict[str, Any]:
    now = time.time() * 1000
    conversations = [
        {"id": f"c{i}", "title": text, "created": now, "updated": now, "leaf": f"m{i}"}
        | {"modelId": text, "modelName": text, "system": text, "params": {"other": text}}
        for i, text in enumerate(CORPUS)
    ]
    messages = [
        {"id": f"m{i}", "conversation": f"c{i}", "parent": None, "role": "assistant"}
        | {"content": text, "model": text, "status": "failed", "created": now}
        | {"error": {"message": text, "code": text}, "job": text, "reasoning": text}
        for i, text in enumerate(CORPUS)
    ]
    return {"conversations": conversations, "messages": messages}


def test_markup_from_text_is_refused_by_the_browser_itself(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url, allowed=("TrustedHTML", "Trusted Type", "TrustedScriptURL"))
    thrown = page.evaluate(
        """() => {
          try {
            document.body.appendChild(document.createElement("div")).innerHTML = "<b>x</b>";
          } catch (error) {
            return error.name;
          }
        }"""
    )
    assert thrown == "TypeError"
