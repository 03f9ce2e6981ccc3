"""What the limits and the origin of text cost on a chat of 1,000 messages, per idiom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from jobs.contract.errors import InvalidRequestError
from tests.world.catalog import IDIOMS, Idiom
from tests.world.reference import PlainTemplate
from tests.world.shapes import TOOLS, Message, calls, long_chat, result, said, user
from workers.text.templates.chat_template import ChatTemplate

NUM_MESSAGES = 1000
_ROUNDS = 9
_FACTOR, _ALLOWED_MS = 1.5, 20.0


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds of processor time, the best of some rounds."""

    name: str
    plain_ms: float
    ours_ms: float
    followed_ms: float

    @property
    def limit_ms(self) -> float:
        return _FACTOR * self.plain_ms + _ALLOWED_MS

    @property
    def is_within(self) -> bool:
        return max(self.ours_ms, self.followed_ms) <= self.limit_ms


def measure(idiom: Idiom) -> Row | None:
    """``None`` where the template refuses chats of this shape."""
    ours = ChatTemplate(idiom.source, idiom.bos, idiom.eos)
    plain = PlainTemplate(idiom.source, idiom.bos, idiom.eos)
    shapes = (_with_tools(), long_chat(NUM_MESSAGES - 1))
    return next(filter(None, (_compare(idiom.name, ours, plain, it) for it in shapes)), None)


def _compare(
    name: str, ours: ChatTemplate, plain: PlainTemplate, messages: list[Message]
) -> Row | None:
    adapted = ours.traits.adapt(messages)
    tools = ours.traits.adapt_tools(TOOLS)
    options = {"documents": [{"text": "a"}]}
    try:
        ours.render(messages, TOOLS, options=options)
    except InvalidRequestError:
        return None
    return Row(
        name,
        _best_ms(lambda: plain.render(adapted, tools, options=options)),
        _best_ms(lambda: ours.render(messages, TOOLS, options=options)),
        _best_ms(lambda: ours.render(messages, TOOLS, options=options, keeps_origin=True)),
    )


def rows() -> list[Row]:
    return [row for idiom in IDIOMS.values() if (row := measure(idiom)) is not None]


def print_table() -> bool:
    """Whether all are within the limit."""
    found = rows()
    print(
        f"Rendering {NUM_MESSAGES} messages, ms; limit {_FACTOR} x plain Jinja + {_ALLOWED_MS:.0f}"
    )
    print(f"{'idiom':22} {'plain':>7} {'limit':>7} {'ours':>7} {'followed':>9}")
    for row in found:
        mark = "" if row.is_within else "  above"
        print(
            f"{row.name:22} {row.plain_ms:7.1f} {row.limit_ms:7.1f} {row.ours_ms:7.1f} "
            f"{row.followed_ms:9.1f}{mark}"
        )
    return all(row.is_within for row in found)


def _best_ms(call: Callable[[], str]) -> float:
    times = []
    for _ in range(_ROUNDS):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return 1000 * min(times)


def _with_tools() -> list[Message]:
    """Turns of a question, a call, its result and an answer."""
    turns: list[Message] = []
    for i in range(NUM_MESSAGES // 4):
        call = calls((f"call{i}", "get_weather", {"city": "Rom", "days": [1, 2, 3]}))
        turns += [
            user(f"{i}: and there?\n" * 3),
            call,
            result(f"call{i}", "sun\n" * 20),
            said("Sun."),
        ]
    return [*turns[:-1], user("Thanks.")]
