"""Every template says what plain Jinja makes of it, or both refuse."""

from __future__ import annotations

import pytest

from jobs.contract.errors import InvalidRequestError
from tests.world.catalog import IDIOMS, Idiom
from tests.world.reference import PlainTemplate
from tests.world.shapes import SHAPES, Shape, long_chat
from workers.text.templates.chat_template import ChatTemplate

OURS = {n: ChatTemplate(i.source, i.bos, i.eos) for n, i in IDIOMS.items()}
PLAIN = {n: PlainTemplate(i.source, i.bos, i.eos) for n, i in IDIOMS.items()}
_SHAPES = {**SHAPES, "thousand": Shape(long_chat(1000))}
# Something that this message alone has, so that its place in the text is found.
_MARK = "\ufdd0"

every_idiom = pytest.mark.parametrize("idiom", IDIOMS.values(), ids=IDIOMS.keys())


@every_idiom
def test_what_a_template_wants_is_found(idiom: Idiom) -> None:
    assert OURS[idiom.name].traits == idiom.traits


def expected(name: str, shape: Shape) -> str | None:
    """What plain Jinja makes of the messages as the template wants them."""
    messages = OURS[name].traits.adapt(shape.messages)
    try:
        return PLAIN[name].render(
            messages,
            OURS[name].traits.adapt_tools(shape.tools),
            options=shape.options,
            add_generation_prompt=not shape.is_continued,
        )
    except Exception:
        return None


def found(name: str, shape: Shape, *, keeps_origin: bool) -> str | None:
    try:
        return OURS[name].render(
            shape.messages,
            shape.tools,
            options=shape.options,
            add_generation_prompt=not shape.is_continued,
            keeps_origin=keeps_origin,
        )
    except InvalidRequestError:
        return None


@pytest.mark.parametrize("shape", _SHAPES.values(), ids=_SHAPES.keys())
@every_idiom
def test_the_text_is_that_of_plain_jinja(idiom: Idiom, shape: Shape) -> None:
    text = expected(idiom.name, shape)
    assert found(idiom.name, shape, keeps_origin=False) == text
    assert found(idiom.name, shape, keeps_origin=True) == text


@every_idiom
def test_every_template_renders_a_chat_of_one_turn_and_shows_its_words(idiom: Idiom) -> None:
    options = SHAPES["documents"].options
    tools = SHAPES["tools"].tools if idiom.name == "named_tool_use" else None
    text = OURS[idiom.name].render(SHAPES["single"].messages, tools, options=options)
    assert "Hello!" in text
