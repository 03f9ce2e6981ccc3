"""Bar charts as SVG text, made by string formatting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABEL_WIDTH, _VALUE_WIDTH = 760, 250, 90
_BAR, _BAR_GAP, _GROUP_GAP, _TITLE, _MARGIN = 14, 2, 10, 34, 16
_COLOURS = ("#2563eb", "#9ca3af", "#f59e0b", "#10b981", "#ef4444")
_STYLE = "font-family: system-ui, sans-serif; font-size: 12px"


@dataclass(frozen=True, slots=True)
class Group:
    """Adjacent bars under one label: (series, value), values not negative."""

    label: str
    bars: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart with its own scale."""

    title: str
    groups: Sequence[Group]

    @property
    def height(self) -> int:
        bars = sum(len(group.bars) for group in self.groups)
        return _TITLE + bars * (_BAR + _BAR_GAP) + len(self.groups) * _GROUP_GAP


def chart(panels: Sequence[Panel]) -> str:
    """The panels below one another, and a legend of all series."""
    series = list(dict.fromkeys(name for p in panels for g in p.groups for name, _ in g.bars))
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(series)}
    elements = list(_legend(colours))
    top = _MARGIN + _TITLE
    for panel in panels:
        elements += _panel(panel, top, colours)
        top += panel.height
    height = top + _MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
    white = f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    return "\n".join([f'{head} style="{_STYLE}">', white, *elements, "</svg>"]) + "\n"


def _legend(colours: dict[str, str]) -> list[str]:
    elements, left = [], _MARGIN
    for name, colour in colours.items():
        elements.append(_rect(left, _MARGIN, 10, 10, colour))
        elements.append(_text(left + 15, _MARGIN + 10, name))
        left += 35 + 7 * len(name)
    return elements


def _panel(panel: Panel, top: int, colours: dict[str, str]) -> list[str]:
    largest = max((value for group in panel.groups for _, value in group.bars), default=0.0)
    room = _WIDTH - _LABEL_WIDTH - _VALUE_WIDTH - _MARGIN
    elements = [_text(_MARGIN, top + 20, panel.title, "font-weight: bold")]
    top += _TITLE
    for group in panel.groups:
        elements.append(_text(_MARGIN, top + _BAR - 3, group.label))
        for name, value in group.bars:
            length = room * value / largest if largest else 0.0
            elements.append(_rect(_LABEL_WIDTH, top, length, _BAR, colours[name]))
            elements.append(_text(_LABEL_WIDTH + length + 5, top + _BAR - 3, f"{value:,.4g}"))
            top += _BAR + _BAR_GAP
        top += _GROUP_GAP
    return elements


def _rect(left: float, top: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height}" '
        f'fill="{colour}"/>'
    )


def _text(left: float, top: float, text: str, style: str = "") -> str:
    styled = f' style="{style}"' if style else ""
    return f'<text x="{left:.1f}" y="{top:.1f}"{styled}>{escape(text)}</text>'
