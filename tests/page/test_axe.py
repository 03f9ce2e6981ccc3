"""Accessibility: axe's rules of WCAG 2.2 AA on every page, themes and widths; keyboard alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import Page, expect

from tests.integration.api_rig import Rig, running_api
from tests.page.browsing import Opener, until
from tests.page.scene import PAGES, SIZES, Scene, show

_AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = """
async (tags) => {
  const { violations } = await axe.run(document, { runOnly: tags, resultTypes: ["violations"] });
  const shown = (node) => [node.target.join(" "), node.failureSummary];
  return violations.map((v) => [v.id, v.nodes.slice(0, 3).map(shown)]);
}
"""


def violations(page: Page) -> list[Any]:
    """axe's findings. Its text is evaluated by the test, past the page's policy."""
    if not page.evaluate("Boolean(globalThis.axe)"):
        page.evaluate(_AXE.read_text())
    return list(page.evaluate(_RUN, _TAGS))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_follows_the_rules(
    size: tuple[int, int], theme: str, scene: Scene, open_page: Opener
) -> None:
    page = scene.open(open_page, size, theme)
    found = {}
    for name in PAGES:
        show(page, scene, name)
        if problems := violations(page):
            found[name] = problems
    assert found == {}


def test_dialogs_and_menus_follow_the_rules(scene: Scene, open_page: Opener) -> None:
    page = scene.open(open_page, SIZES[0], "light")
    show(page, scene, "models")
    page.get_by_role("button", name="Load tiny.gguf").click()
    page.get_by_text("More options").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Search pages").fill("load")
    assert violations(page) == []
    page.keyboard.press("Escape")
    show(page, scene, "queue")
    page.get_by_role("button", name="Actions for the queue of qwen3-8b").click()
    assert violations(page) == []
    page.get_by_role("menuitem", name="Purge").click()
    page.get_by_label("Jobs").select_option("All jobs")
    expect(page.get_by_role("dialog")).to_contain_text("would end")
    assert violations(page) == []


def test_a_login_follows_the_rules(tmp_path: Path, redis_url: str, open_page: Opener) -> None:
    with running_api(tmp_path, redis_url, api_key="user-key") as rig:
        page = open_page(rig.url, allowed=("401",))
        page.get_by_label("Key", exact=True).last.fill("wrong")
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("alert")).to_contain_text("does not take")
        assert violations(page) == []


def test_each_page_has_one_title_landmarks_and_buttons_with_a_subject(
    scene: Scene, open_page: Opener
) -> None:
    page = scene.open(open_page, SIZES[0], "light")
    for name in PAGES:
        show(page, scene, name)
        expect(page.locator("h1")).to_have_count(1)
        expect(page.get_by_role("main")).to_have_count(1)
        expect(page.get_by_role("navigation", name="Pages")).to_have_count(1)
        unnamed = page.evaluate(_UNNAMED)
        assert unnamed == [], name
    show(page, scene, "queue")
    job = next(iter(scene.running))
    expect(page.get_by_role("button", name=f"Cancel job …{job[-4:]}")).to_be_visible()


_UNNAMED = """
() => [...document.querySelectorAll("button, a, input, select, textarea")]
  .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
  .map((e) => e.outerHTML.slice(0, 100))
"""


def test_the_keyboard_alone_is_enough(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url)
    box = page.get_by_label("Message", exact=True)
    expect(box).to_be_focused()
    page.keyboard.type("hello")
    expect(page.get_by_role("button", name="Send message")).to_be_enabled()
    page.keyboard.press("Enter")
    stop = page.get_by_role("button", name="Stop answering")
    expect(stop).to_be_visible()
    page.keyboard.press("Tab")
    expect(stop).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.is-answer').ariaBusy === 'false'")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("g")
    page.keyboard.press("q")
    expect(page.get_by_role("heading", level=1)).to_have_text("Queue")
    page.keyboard.press("Control+k")
    expect(page.get_by_role("combobox", name="Search pages")).to_be_focused()
    page.keyboard.type("Models")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Models")
    load = page.get_by_role("button", name="Load tiny.gguf")
    load.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(load).to_be_focused()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()


def test_an_answer_is_announced_once_when_it_is_complete(rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url)
    page.get_by_label("Message", exact=True).fill("hello")
    page.get_by_role("button", name="Send message").click()
    taken = rig.take()
    taken.started()
    taken.chunk("some ")
    until(page, "document.querySelector('.prose')?.textContent.includes('some')")
    said = page.locator(".is-answer [role=status]")
    expect(said).to_have_text("")
    taken.chunk("words", finish_reason="stop")
    taken.finished()
    expect(said).to_have_text("some words")


def test_other_colours_have_enough_contrast(scene: Scene, open_page: Opener) -> None:
    """Marks that axe does not see: hues of models, states."""
    for theme in ("light", "dark"):
        page = scene.open(open_page, SIZES[0], theme)
        show(page, scene, "queue")
        low = page.evaluate(_LOW_MARKS)
        assert low == [], theme


_LOW_MARKS = """
() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const light = (color) => {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => {
      const c = v / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const panel = light(getComputedStyle(document.querySelector(".lane")).backgroundColor);
  const probe = document.createElement("span");
  document.body.append(probe);
  const names = ["--accent", "--run", "--wait", "--fail", "--edge"].map((name) => `var(${name})`);
  const hues = [255, 200, 320, 165, 290, 50, 225, 345, 185, 275];
  const marks = hues.map((hue) => `light-dark(oklch(0.55 0.15 ${hue}), oklch(0.76 0.13 ${hue}))`);
  return [...names, ...marks].filter((color) => {
    probe.style.color = color;
    const other = light(getComputedStyle(probe).color);
    return (Math.max(panel, other) + 0.05) / (Math.min(panel, other) + 0.05) < 3;
  });
}
"""
