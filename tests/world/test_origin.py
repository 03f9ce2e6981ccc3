"""A control token that a client writes anywhere changes nothing of the prompt but its own place."""

from __future__ import annotations

import msgspec
import pytest

from jobs.contract.errors import JobError
from jobs.contract.requests import Message, Prompt
from tests.world.attacks import CharacterTokenizer, is_alike, places
from tests.world.catalog import IDIOMS, Idiom
from tests.world.shapes import SHAPES, Shape
from workers.generation.prompts import PromptEncoder


def to_prompt(shape: Shape) -> Prompt:
    return Prompt(
        messages=msgspec.convert(shape.messages, list[Message]),
        tools=shape.tools,
        template_options=shape.options or None,
        is_continued=shape.is_continued,
    )


class Case:
    def __init__(self, idiom: Idiom) -> None:
        self.idiom = idiom
        self.tokenizer = CharacterTokenizer(idiom)
        self.encoder = PromptEncoder(self.tokenizer, None)

    def shown(self, shape: Shape) -> list[str] | None:
        """The prompt's tokens; ``None`` where the template refuses."""
        try:
            return self.tokenizer.show(self.encoder.encode(to_prompt(shape)))
        except JobError:
            return None


CASES = {name: Case(idiom) for name, idiom in IDIOMS.items()}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def control(shown: list[str]) -> list[str]:
    return [one for one in shown if len(one) > 1]


@every_case
def test_control_tokens_of_clients_stay_text_and_the_rest_stays_as_it_is(case: Case) -> None:
    num_compared = 0
    for token in case.tokenizer.control.values():
        for place, attacked, plain in places(token):
            found, expected = case.shown(attacked), case.shown(plain)
            where = f"{token} as {place}"
            assert (found is None) == (expected is None), where
            if found is None or expected is None:
                continue
            num_compared += 1
            assert control(found) == control(expected), where
            is_hashed = case.idiom.traits.needs_short_ids and place == "id of a call"
            assert is_hashed or is_alike(found, expected), where
    assert num_compared > 4


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@every_case
def test_a_chat_without_them_is_the_same_with_its_origin_followed(case: Case, shape: Shape) -> None:
    if (plain := case.shown(shape)) is None:
        return
    ids = case.encoder._control_tokens.encode(  # the way of a chat that has one somewhere
        case.encoder._render(to_prompt(shape), keeps_origin=True)
    )
    assert case.tokenizer.show(ids) == plain
