"""The look: the main pages against committed pictures; `make shots` writes all pages."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Page

from tests.page.browsing import Opener
from tests.page.scene import PAGES, SIZES, Scene, show

_ROOT = Path(__file__).parents[2]
_BASELINES = Path(__file__).parent / "shots"
_OUT = _ROOT / "build" / "shots"
_COMPARED = ("chat", "models", "queue", "settings")
_MAX_DIFFERENT = 0.005
_MIN_STEP = 24  # of 255: text is drawn a little differently from one font version to the next
_IS_WRITING = os.environ.get("MGS_SHOTS", "")
_STILL = """
() => {
  const replace = (selector, text) => {
    for (const e of document.querySelectorAll(selector)) e.textContent = text;
  };
  replace("td.age", "4 s");
  replace(".settings dd code", "0123456789abcdef");
  for (const e of document.querySelectorAll(".job-link")) {
    if (e.textContent !== "job") e.textContent = "…a91f";
  }
  replace(".loading-line .num.dim, .what .dim:nth-child(2)", "9 s");
  replace(".budget p, .head .memory .num", "10.1 GB");
  for (const e of document.querySelectorAll(".meter[aria-label^=Memory], .stacked")) {
    e.style.visibility = "hidden";
  }
}
"""
"""What depends on the time, the machine or chance, replaced."""


def _shot(page: Page) -> Image.Image:
    page.evaluate(_STILL)
    return Image.open(io.BytesIO(page.screenshot(animations="disabled", caret="hide"))).convert(
        "RGB"
    )


@pytest.mark.skipif(not _IS_WRITING, reason="make shots")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_write_all(size: tuple[int, int], theme: str, scene: Scene, open_page: Opener) -> None:
    _OUT.mkdir(parents=True, exist_ok=True)
    page = scene.open(open_page, size, theme)
    for name in PAGES:
        show(page, scene, name)
        if name == "metrics":
            page.wait_for_timeout(4000)  # some points for the charts
        page.screenshot(path=_OUT / f"{name}-{size[0]}-{theme}.png", animations="disabled")
        if _IS_WRITING == "baselines" and name in _COMPARED and (theme == "light" or size[0] > 720):
            _BASELINES.mkdir(exist_ok=True)
            picture = _shot(page).quantize(64)
            picture.save(_BASELINES / f"{name}-{size[0]}-{theme}.png", optimize=True)


_LOOKS = sorted({path.stem.partition("-")[2] for path in _BASELINES.glob("*.png")})


@pytest.mark.parametrize("look", _LOOKS)
def test_the_main_pages_look_as_in_their_pictures(
    look: str, scene: Scene, open_page: Opener
) -> None:
    """Up to 0.5 % of the pixels may differ: docs/page.md says how to renew the pictures."""
    width, theme = look.split("-")
    size = next(one for one in SIZES if one[0] == int(width))
    page = scene.open(open_page, size, theme)
    shares = {}
    for name in _COMPARED:
        show(page, scene, name)
        wanted = Image.open(_BASELINES / f"{name}-{look}.png").convert("RGB")
        found = _shot(page).quantize(64).convert("RGB")
        assert found.size == wanted.size
        shares[name] = _different(found, wanted)
        if shares[name] > _MAX_DIFFERENT:
            _OUT.mkdir(parents=True, exist_ok=True)
            found.save(_OUT / f"{name}-{look}-found.png")
    assert {name: share for name, share in shares.items() if share > _MAX_DIFFERENT} == {}


def _different(found: Image.Image, wanted: Image.Image) -> float:
    """The share of the pixels that differ visibly."""
    grey = ImageChops.difference(found, wanted).convert("L")
    histogram = grey.histogram()
    return sum(histogram[_MIN_STEP:]) / sum(histogram)
